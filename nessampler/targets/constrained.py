"""A density on part of space, seen from all of it: positive scales, probabilities, intervals, Cholesky factors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, biject_to, constraints
from torch.distributions.transforms import IndependentTransform, Transform

from nessampler.errors import InputError
from nessampler.targets.callable import DistributionTarget
from nessampler.targets.protocol import Target
from nessampler.targets.transformed import TransformedTarget, carry

__all__ = ["Constrained"]


class Constrained:
    r"""The density of $y = g^{-1}(x)$ on all of $R^d$, for $x = g(y)$ in a support:

    $$U'(y) = U(g(y)) - \log\left|\det \frac{\partial g}{\partial y}\right|$$

    with $g$ = `torch.distributions.biject_to(support)`. $Z$ is unchanged. A support of one coordinate, such as
    `positive`, holds for every coordinate of a point. The shape of $y$ may differ from that of $x$: a simplex of k
    probabilities has k − 1 coordinates, a lower Cholesky factor $(k, k)$ has $k(k+1)/2$ (rows of its triangle in
    order, logarithms on the diagonal).

    Args:
        density: a target on the constrained space, such as `as_target(f, event_shape=...)`, or a torch distribution.
        support: from `torch.distributions.constraints`; a distribution knows its own.

    `sample` and `log_z` are there where the density has them; `constrain(y)` brings walkers back, `unconstrain(x)` is
    its inverse.

    Raises:
        InputError: a discrete support, one that has no bijection with a known log-determinant, one of more dimensions
            than the points of the target, a target without a support.

    Example:
        >>> rate = Constrained(torch.distributions.Exponential(torch.ones(2)))
        >>> y = torch.zeros(1, 2)
        >>> rate.energy(y), rate.constrain(y)
        (tensor([2.]), tensor([[1., 1.]]))
    """

    def __init__(self, density: Target | Distribution, support: constraints.Constraint | None = None) -> None:
        target = DistributionTarget(density) if isinstance(density, Distribution) else density
        support = support if support is not None else getattr(target, "support", None)
        if support is None:
            raise InputError(
                "a constrained target needs its support: got none; pass one of torch.distributions.constraints, such "
                "as constraints.positive"
            )
        self.to_support = _bijection(support, target.event_shape)
        self.view = TransformedTarget(target, self.to_support.inv)
        self.event_shape = self.view.event_shape
        if hasattr(target, "log_z"):
            self.log_z: float = target.log_z  # pyright: ignore[reportAttributeAccessIssue]
        if hasattr(target, "sample"):
            self.sample = self._sample

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U' in kT of unconstrained walkers."""
        return self.view.energy(x)

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        """U' and -∇U', by one call of the density."""
        return self.view.energy_and_score(x)

    def constrain(self, y: Float[Tensor, " n *event"]) -> Tensor:
        """Points of the support from unconstrained walkers, `(n, *constrained event)`."""
        return carry(self.to_support, y)

    def unconstrain(self, x: Tensor) -> Float[Tensor, " n *event"]:
        """Unconstrained walkers from points of the support."""
        return carry(self.to_support.inv, x)

    def _sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, " n *event"]:
        """Independent draws, unconstrained."""
        return self.unconstrain(self.view.target.sample(n, generator=generator))  # pyright: ignore[reportAttributeAccessIssue]


class _LowerCholesky(Transform):
    r"""The $k(k+1)/2$ entries of a triangle, row by row, to a lower Cholesky factor: the diagonal is exponentiated.

    Torch's own transform takes a full matrix and ignores what is above the diagonal, so it is no bijection.
    """

    domain = constraints.real_vector
    codomain = constraints.lower_cholesky
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        k = _order(x.shape[-1])
        row, column = torch.tril_indices(k, k, device=x.device)
        entries = torch.where(row == column, x.exp(), x)
        factor = x.new_zeros(*x.shape[:-1], k * k).index_copy(-1, row * k + column, entries)
        return factor.unflatten(-1, (k, k))

    def _inverse(self, y: Tensor) -> Tensor:
        row, column = torch.tril_indices(y.shape[-1], y.shape[-1], device=y.device)
        entries = y[..., row, column]
        # The logarithm is kept away from entries that are not positive, whose gradient would be NaN.
        return torch.where(row == column, torch.where(row == column, entries, 1.0).log(), entries)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        row, column = torch.tril_indices(y.shape[-1], y.shape[-1], device=y.device)
        return x[..., row == column].sum(-1)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        k = _order(shape[-1])
        return torch.Size([*shape[:-1], k, k])

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        k = shape[-1]
        return torch.Size([*shape[:-2], k * (k + 1) // 2])


def _order(entries: int) -> int:
    return (math.isqrt(8 * entries + 1) - 1) // 2


def _bijection(support: constraints.Constraint, event_shape: torch.Size) -> Transform:
    if constraints.is_dependent(support):
        raise InputError(
            f"a support needs a bijection from R^d: got {support}, which depends on parameters; pass the support of a "
            "distribution that has them, or an explicit one such as constraints.interval(a, b)"
        )
    if support.is_discrete:
        raise InputError(
            f"walkers move in continuous coordinates: got the discrete support {support}; "
            "sum the discrete variable out of the density"
        )
    if support.event_dim > len(event_shape):
        raise InputError(
            f"a support has no more dimensions than the points in it: got {support}, which has {support.event_dim}, "
            f"for points of shape {tuple(event_shape)}; check the event_shape of the density"
        )
    try:
        transform = _LowerCholesky() if support is constraints.lower_cholesky else biject_to(support)
    except NotImplementedError as error:
        raise InputError(
            f"a support needs a bijection from R^d: torch has none for {support}; give the density in unconstrained "
            "coordinates, with its log-determinant"
        ) from error
    rest = len(event_shape) - transform.codomain.event_dim
    whole = IndependentTransform(transform, rest) if rest else transform
    _check_log_det(whole, support, event_shape)
    return whole


def _check_log_det(transform: Transform, support: constraints.Constraint, event_shape: torch.Size) -> None:
    y = torch.zeros(2, *transform.inverse_shape(event_shape))
    try:
        log_det = transform.log_abs_det_jacobian(y, carry(transform, y))
    except NotImplementedError as error:
        raise InputError(
            f"a support needs a bijection with a known log-determinant: torch has none for {support}; use "
            "constraints.lower_cholesky and build the matrix from its factor inside the density"
        ) from error
    if log_det.shape != (2,):
        raise InputError(
            f"the log-determinant is one number per walker: {support} gives shape {tuple(log_det.shape)} for two; "
            "apply simpler supports to parts of the point"
        )
