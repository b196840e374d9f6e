"""A density seen through a bijection: internal coordinates, whitening, or a map towards another state."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.errors import InputError
from nessampler.targets.protocol import Target, energy_and_score

__all__ = ["TransformedTarget", "carry", "in_chart"]

HALF_LINES_AND_INTERVALS = (
    constraints.greater_than,
    constraints.greater_than_eq,
    constraints.less_than,
    constraints.interval,
    constraints.half_open_interval,
)


class TransformedTarget:
    r"""The density of $y = f(x)$ for $x \sim e^{-U}$:

    $$U'(y) = U(x) + \log\left|\det \frac{\partial y}{\partial x}\right|, \qquad x = f^{-1}(y)$$

    $Z$ is unchanged, but for what a transform to fewer coordinates says that it leaves out. Beyond what the transform
    covers (`in_chart`) the density is zero: $U' = +\infty$ and the score 0.

    Args:
        target: the density of x.
        transform: a bijection from x to y with exact log-determinant, on points of the target's event shape.

    `sample` is there where the target has one, and `log_z` where it is known and x and y have equally many numbers.

    Raises:
        InputError: a transform that is no bijection.

    Example:
        >>> from torch.distributions.transforms import AffineTransform
        >>> from nessampler.targets import Gaussian
        >>> base = Gaussian(torch.zeros(1), torch.ones(1))
        >>> wide = TransformedTarget(base, AffineTransform(0.0, 2.0, event_dim=1))
        >>> wide.energy(torch.tensor([[2.0]])) - torch.tensor(2.0).log()
        tensor([0.5000])
    """

    def __init__(self, target: Target, transform: Transform) -> None:
        if not transform.bijective:
            raise InputError(
                f"a density is seen through a bijection: got {type(transform).__name__}, which is none; take another"
            )
        self.target, self.transform = target, transform
        self.event_shape = torch.Size(transform.forward_shape(target.event_shape))
        if hasattr(target, "log_z") and self.event_shape.numel() == target.event_shape.numel():
            self.log_z: float = target.log_z  # pyright: ignore[reportAttributeAccessIssue]
        if hasattr(target, "sample"):
            self.sample = self._sample

    def energy(self, y: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U' in kT, differentiable as often as the target's."""
        inside = in_chart(self.transform, y)
        if not bool(inside.any()):
            return torch.where(inside, y.flatten(1).sum(-1), torch.inf)  # +inf, with a gradient of zero
        point = _replaced(y, inside)
        x: Tensor = self.transform.inv(point)  # pyright: ignore[reportAssignmentType]
        energy = self.target.energy(x) + self._log_det(x, point)
        return torch.where(inside, energy, torch.inf)

    def energy_and_score(self, y: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U'$ and $-\nabla_y U' = (\partial x/\partial y)^T s(x) - \nabla_y \log|\det|$, by one call of the base."""
        inside = in_chart(self.transform, y)
        if not bool(inside.any()):
            return torch.full_like(y.detach().flatten(1)[:, 0], torch.inf), torch.zeros_like(y)
        with torch.enable_grad():
            point = _replaced(y.detach(), inside).requires_grad_()
            x: Tensor = self.transform.inv(point)  # pyright: ignore[reportAssignmentType]
            log_det = self._log_det(x, point)
            energy, score = energy_and_score(self.target, x.detach())
            pulled = (score * x).flatten(1).sum(-1) - log_det
            (gradient,) = torch.autograd.grad(pulled.sum(), point)
        energy = torch.where(inside, (energy + log_det).detach(), torch.inf)
        outside = (energy == torch.inf).view(-1, *[1] * (y.ndim - 1))
        return energy, torch.where(outside, 0.0, gradient)

    def _log_det(self, x: Tensor, y: Tensor) -> Float[Tensor, " n"]:
        """One number per walker, also of a transform that acts on each coordinate by itself."""
        log_det = self.transform.log_abs_det_jacobian(x, y)
        return log_det.flatten(1).sum(-1) if log_det.ndim > 1 else log_det

    def _sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, " n *event"]:
        """Independent draws of the target, seen through the transform."""
        return carry(self.transform, self.target.sample(n, generator=generator))  # pyright: ignore[reportAttributeAccessIssue]


def in_chart(transform: Transform, y: Float[Tensor, " n *event"]) -> Bool[Tensor, " n"]:
    """Which y a transform covers.

    A transform may say it by a method `in_chart(y)`; of any other it is the codomain, where that is a half-line or an
    interval, and NaN counts as covered, since it must not pass unnoticed. Of several in a row each is asked.

    Example:
        >>> from torch.distributions.transforms import ExpTransform
        >>> in_chart(ExpTransform(), torch.tensor([[1.0], [-1.0]]))
        tensor([ True, False])
    """
    if hasattr(transform, "in_chart"):
        return transform.in_chart(y)  # pyright: ignore[reportAttributeAccessIssue]
    inside = torch.ones(len(y), dtype=torch.bool, device=y.device)
    if isinstance(transform, ComposeTransform):
        for i, part in reversed(list(enumerate(transform.parts))):
            inside = inside & in_chart(part, y)
            if not bool(inside.any()) or not any(_has_edges(earlier) for earlier in transform.parts[:i]):
                break
            y = part.inv(_replaced(y, inside))  # pyright: ignore[reportAssignmentType]
    elif _has_edges(transform):
        inside = (_innermost(transform.codomain).check(y) | y.isnan()).flatten(1).all(-1)
    return inside


def carry(transform: Transform, x: Tensor) -> Tensor:
    """`transform(x)`, which torch's annotations allow to be None.

    Example:
        >>> from torch.distributions.transforms import ExpTransform
        >>> carry(ExpTransform(), torch.zeros(2))
        tensor([1., 1.])
    """
    y = transform(x)
    assert y is not None  # no transform returns None
    return y


def _replaced(y: Tensor, inside: Bool[Tensor, " n"]) -> Tensor:
    """y with an inside walker where it is outside, so that nothing after it meets a singular point."""
    some = y[int(inside.to(torch.uint8).argmax())].detach()
    return torch.where(inside.view(-1, *[1] * (y.ndim - 1)), y, some)


def _has_edges(transform: Transform) -> bool:
    if isinstance(transform, ComposeTransform):
        return any(_has_edges(part) for part in transform.parts)
    return hasattr(transform, "in_chart") or isinstance(_innermost(transform.codomain), HALF_LINES_AND_INTERVALS)


def _innermost(constraint: Constraint) -> Constraint:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint
