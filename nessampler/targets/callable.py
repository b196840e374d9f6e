"""What users have becomes a target: a log-density, a torch distribution. And it is looked at before any work starts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from nessampler.errors import InputError
from nessampler.targets.protocol import Target

__all__ = ["DistributionTarget", "LogDensity", "as_target", "check_energies", "check_target", "shape_of_event"]


def as_target(
    density: object, *, event_shape: int | tuple[int, ...] | torch.Size | None = None, batched: bool = True
) -> Target:
    r"""A target from a log-density, a `torch.distributions.Distribution`, or a target, which is returned as it is.

    A callable gives the **log density** $\log \rho(x) = -U(x)$, not the energy: larger where walkers should be. It may
    be unnormalised, is −inf outside its support, and is written in torch so that its gradient is known; for numpy there
    is `NumpyDensity`.

    A distribution is taken as one density of all its coordinates: batch dimensions count as coordinates, a scalar one
    has walkers of shape `(1,)`. It must live on all of $R^d$; for others there is `Constrained`.

    Args:
        density: `(n, *event) -> (n,)`, or `(*event) -> ()` with `batched=False`; a distribution; a target.
        event_shape: shape of one point, needed for a callable: `3` is `(3,)`.
        batched: whether a callable takes many points at once. If not, it is mapped over them by `torch.func.vmap`.

    Raises:
        InputError: none of these, a callable without `event_shape`, an `event_shape` that contradicts the target, a
            distribution that is discrete or has a bounded support.

    Example:
        >>> target = as_target(lambda x: -0.5 * x.square().sum(-1), event_shape=2)
        >>> target.energy(torch.ones(3, 2))
        tensor([1., 1., 1.])
        >>> one = as_target(lambda x: -0.5 * x @ x, event_shape=2, batched=False)
        >>> one.energy(torch.ones(3, 2))
        tensor([1., 1., 1.])
    """
    shape = None if event_shape is None else shape_of_event(event_shape)
    if isinstance(density, Distribution):
        return _same_shape(_unconstrained(density), shape)
    if isinstance(density, Target):
        return _same_shape(density, shape)
    if not callable(density):
        raise InputError(
            "a density is a callable log-density, a torch distribution, or a target with `event_shape` and `energy`: "
            f"got {type(density).__name__}; wrap it in a function of x"
        )
    if shape is None:
        raise InputError(
            "a log-density needs the shape of one point: got a callable without event_shape; pass event_shape=3 for "
            "points in three dimensions, or a tuple"
        )
    log_density = cast(Callable[[Tensor], Tensor], density)
    return LogDensity(log_density if batched else torch.func.vmap(log_density), shape, batched)


@dataclass(frozen=True)
class LogDensity:
    """The target of a batched log-density in torch; its shape is checked at every call."""

    log_density: Callable[[Tensor], Tensor]
    event_shape: torch.Size
    batched: bool = True

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """Minus the log density."""
        value = self.log_density(x)
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            raise InputError(
                f"a log-density gives one number per walker, shape ({len(x)},) for walkers {tuple(x.shape)}: got "
                f"{_described(value)}; {self._remedy(value)}"
            )
        if not value.is_floating_point():
            raise InputError(
                f"a log-density is a real number: got dtype {value.dtype}, which has no gradient; "
                "keep its arithmetic in floating point"
            )
        return -value

    def _remedy(self, value: object) -> str:
        if not isinstance(value, Tensor):
            return "return a torch tensor, or use NumpyDensity for numpy"
        if not self.batched:
            return "a function of one point returns a single number: sum over its coordinates"
        if value.ndim == 0:
            return "it seems not batched: sum over the coordinates only (dim=-1), or pass batched=False"
        return "sum over the coordinates of each walker and keep the first dimension"


class DistributionTarget:
    """The target of a torch distribution: normalised, so `log_z` is 0, with independent draws.

    Args:
        distribution: any; batch dimensions count as coordinates of one point.

    Raises:
        InputError: a discrete distribution.

    Example:
        >>> DistributionTarget(torch.distributions.Normal(torch.zeros(3), 1.0)).event_shape
        torch.Size([3])
    """

    log_z = 0.0

    def __init__(self, distribution: Distribution) -> None:
        self.support = _support(distribution)
        if self.support is not None and self.support.is_discrete:
            raise InputError(
                f"walkers move in continuous coordinates: got {type(distribution).__name__}, which is discrete and has "
                "no gradient; sum the discrete variable out of the density"
            )
        joint = _without_validation(distribution)
        if not joint.batch_shape + joint.event_shape:
            joint = joint.expand(torch.Size([1]))
        if joint.batch_shape:
            joint = Independent(joint, len(joint.batch_shape), validate_args=False)
        self.distribution, self.event_shape = joint, joint.event_shape

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """Minus the log density."""
        return -self.distribution.log_prob(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, " n *event"]:
        """Independent draws."""
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        # Torch's distributions draw from the global state only; it is put back as it was.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.distribution.sample(torch.Size([n]))


def check_target(target: Target, x: Tensor, *, gradient: bool = True) -> None:
    """Evaluate a target at a few starting points, and say by name what could not work.

    One call of the energy and, where it is another one, of the gradient: call it before any work.

    Args:
        target: what is to be sampled.
        x: a few points where walkers would start, `(n, *event)`.
        gradient: whether the kernels will ask for one; random-walk kernels do not.

    Raises:
        InputError: points of another shape or of an integer dtype; an energy of the wrong shape or dtype, NaN, or −inf;
            a gradient that is missing, NaN or infinite where the energy is finite, or zero everywhere although the
            energy changes; no point inside the support; a target that fails on these points.

    Example:
        >>> check_target(as_target(lambda x: x.sqrt().sum(-1), event_shape=2), torch.tensor([[1.0, -1.0]]))
        Traceback (most recent call last):
        nessampler.errors.InputError: an energy must be a number: walker 0 has NaN at x = [1.0, -1.0]; ...
    """
    _check_points(target, x)
    position = x.detach().clone().requires_grad_(gradient)
    with torch.enable_grad():
        energy = _tried(target.energy, position)
    _check_values(energy, x)
    _check_support(energy, x)
    if gradient:
        score = _tried(lambda p: _score(target, p, energy), position)
        _check_scores(score.detach(), energy.detach(), x)


def check_energies(target: Target, x: Tensor) -> None:
    """Evaluate the energy of a few points, and say by name what could not be one; +inf, zero density, can.

    Raises:
        InputError: an energy of the wrong shape or dtype, NaN, or −inf; a target that fails on these points.
    """
    with torch.no_grad():
        _check_values(_tried(target.energy, x), x)


def shape_of_event(shape: int | tuple[int, ...] | torch.Size) -> torch.Size:
    """The shape of one point; a number d stands for `(d,)`.

    Raises:
        InputError: a dimension that is not a positive whole number.

    Example:
        >>> shape_of_event(3)
        torch.Size([3])
    """
    dimensions = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in dimensions):
        raise InputError(
            f"an event shape has positive whole dimensions: got {shape}; the batch dimension is not part of it"
        )
    return torch.Size(dimensions)


def _check_points(target: Target, x: Tensor) -> None:
    if not x.is_floating_point():
        raise InputError(
            f"walkers move in continuous coordinates: got starting points of dtype {x.dtype}, without a gradient; "
            "convert them with .double(), or sum discrete variables out of the density"
        )
    if len(x) == 0 or x.shape[1:] != target.event_shape:
        raise InputError(
            f"starting points have shape (n, *event) = (n, {', '.join(map(str, target.event_shape))}): got "
            f"{tuple(x.shape)}; check the event_shape of the target and of the base"
        )
    if not bool(torch.isfinite(x).all()):
        raise InputError(f"starting points must be finite: got {_where(~torch.isfinite(x), x)}; check the base")


def _check_values(energy: object, x: Tensor) -> None:
    if not isinstance(energy, Tensor) or energy.shape != (len(x),):
        raise InputError(
            f"an energy has one number per walker, shape ({len(x)},) for walkers {tuple(x.shape)}: got "
            f"{_described(energy)}; sum over coordinates only, or, if the function is not batched, pass it to "
            "as_target with batched=False"
        )
    if not energy.is_floating_point():
        raise InputError(f"an energy is a real number: got dtype {energy.dtype}; keep its arithmetic in floating point")
    for bad, rule, remedy in (
        (energy.isnan(), "an energy must be a number", "return -inf log density (+inf energy) outside the support"),
        (
            energy == -torch.inf,
            "an energy must be bounded from below",
            "look for a logarithm or a division of zero there",
        ),
    ):
        if bool(bad.any()):
            walker = int(bad.nonzero()[0])
            raise InputError(
                f"{rule}: walker {walker} has {_value(energy[walker])} at x = {_point(x[walker])}; {remedy}"
            )


def _check_support(energy: Tensor, x: Tensor) -> None:
    if bool((energy == torch.inf).all()):
        raise InputError(
            f"some starting points must lie inside the support: all {len(x)} have energy +inf, such as {_point(x[0])}; "
            "move or widen the base, or map the support to R^d with Constrained"
        )


def _score(target: Target, position: Tensor, energy: Tensor) -> Tensor:
    if hasattr(target, "energy_and_score"):
        return target.energy_and_score(position.detach())[1]  # pyright: ignore[reportAttributeAccessIssue]
    inside = energy.isfinite()
    gradient = None
    if energy.requires_grad:
        total = torch.where(inside, energy, 0.0).sum()
        (gradient,) = torch.autograd.grad(total, position, allow_unused=True)
    if gradient is None:
        raise InputError(
            "the energy must depend on x through torch operations: got one without a gradient; avoid numpy, .item(), "
            ".detach() and new tensors made from numbers, or wrap a numpy function in NumpyDensity"
        )
    return -gradient


def _check_scores(score: Tensor, energy: Tensor, x: Tensor) -> None:
    if score.shape != x.shape:
        raise InputError(f"a score has the shape of the walkers, {tuple(x.shape)}: got {tuple(score.shape)}")
    inside = torch.isfinite(energy)
    bad = ~torch.isfinite(score) & inside.view(-1, *[1] * (x.ndim - 1))
    if bool(bad.any()):
        raise InputError(
            f"a gradient must be finite where the energy is: got {_where(bad, score)}, "
            f"where U = {float(energy[int(bad.nonzero()[0, 0])]):.6g}; rewrite the term that gives it, and mind that "
            "torch.where also differentiates the branch not taken"
        )
    if bool((score[inside] == 0).all()) and len(energy[inside].unique()) > 1:
        raise InputError(
            f"the gradient must follow the energy: got zero at all {int(inside.sum())} points while energies differ; "
            'avoid rounding, comparisons and .detach(), or take random walks, DensityEffort(kernel="walk"), from a base'
        )


def _tried(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    try:
        return function(x)
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"a target must take walkers of shape {tuple(x.shape)} and dtype {x.dtype}: it failed with "
            f"{type(error).__name__}: {error}; if it takes one point at a time, pass it to as_target with batched=False"
        ) from error


def _unconstrained(distribution: Distribution) -> DistributionTarget:
    target = DistributionTarget(distribution)
    if not _is_real(target.support):
        raise InputError(
            f"a distribution must live on all of R^d: got {type(distribution).__name__} with support {target.support}; "
            "use Constrained(distribution)"
        )
    return target


def _support(distribution: Distribution) -> constraints.Constraint | None:
    try:
        return distribution.support
    except NotImplementedError:
        return None


def _is_real(support: constraints.Constraint | None) -> bool:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    return isinstance(support, type(constraints.real))


def _without_validation(distribution: Distribution) -> Distribution:
    """A copy that does not refuse points which rounding put a bit outside their support."""
    relaxed = copy.copy(distribution)
    relaxed._validate_args = False
    for part in ("base_dist", "_component_distribution"):
        if hasattr(relaxed, part):
            setattr(relaxed, part, _without_validation(getattr(relaxed, part)))
    return relaxed


def _same_shape(target: Target, shape: torch.Size | None) -> Target:
    if shape is not None and shape != target.event_shape:
        raise InputError(
            f"event_shape must be that of the target: got {tuple(shape)} for a target of shape "
            f"{tuple(target.event_shape)}; leave event_shape out"
        )
    return target


def _described(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _where(bad: Tensor, values: Tensor) -> str:
    walker, *coordinate = bad.nonzero()[0].tolist()
    return f"{_value(values[walker, *coordinate])} in coordinate {coordinate} of walker {walker}"


def _value(number: Tensor) -> str:
    return "NaN" if bool(number.isnan()) else f"{float(number.detach()):.6g}"


def _point(x: Tensor) -> str:
    flat = [round(v, 6) for v in x.detach().flatten()[:4].tolist()]
    return str(flat) if x.numel() <= 4 else f"[{', '.join(map(str, flat))}, …]"
