"""Deterministic moves: nothing at all (FEP), a bijection (targeted FEP), or the flow of a velocity field."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.kernels.protocol import Walkers

__all__ = ["Flow", "Identity", "Map", "VelocityField", "affine_part"]


@dataclass(frozen=True)
class Identity:
    """No step: works are plain energy differences, as in free-energy perturbation (Zwanzig 1954).

    Example:
        >>> kernel = Identity()
        >>> moved, log_ratio = kernel.step(0.0, 1.0, kernel.start(0.0, torch.ones(1, 2)), generator=torch.Generator())
        >>> moved.x, log_ratio
        (tensor([[1., 1.]]), tensor([0.], dtype=torch.float64))
    """

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """The walkers as they are."""
        return Walkers(x, t)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Stay; log ratio 0."""
        return Walkers(walkers.x, t1), torch.zeros(len(walkers), dtype=torch.float64, device=walkers.x.device)


@dataclass(frozen=True)
class Map:
    r"""A bijection $f$ from state A to state B as one step over [0, 1]; backwards in time its exact inverse.

    $$x' = f(x), \qquad \log B(x|x') - \log F(x'|x) = \log\left|\det \frac{\partial x'}{\partial x}\right|$$

    References:
        Jarzynski, Targeted free energy perturbation, 2002, Phys. Rev. E 65, 046122, eq. 8.

    Args:
        transform: $f$, with exact log-determinant, one number per walker.

    Raises:
        InputError: a step over anything but [0, 1] or [1, 0].

    Example:
        >>> from torch.distributions.transforms import AffineTransform
        >>> kernel = Map(AffineTransform(1.0, 2.0, event_dim=1))
        >>> walkers = kernel.start(0.0, torch.tensor([[3.0]]))
        >>> moved, log_det = kernel.step(0.0, 1.0, walkers, generator=torch.Generator())
        >>> moved.x.item(), round(log_det.exp().item(), 6)
        (7.0, 2.0)
    """

    transform: Transform

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """The walkers as they are."""
        return Walkers(x, t)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Apply the map, or its inverse."""
        if (t0, t1) not in ((0.0, 1.0), (1.0, 0.0)):
            raise InputError(f"a map is one step between t = 0 and t = 1: got {t0} to {t1}; use times [0, 1]")
        if t1 > t0:
            x = self.transform(walkers.x)
            log_det = self.transform.log_abs_det_jacobian(walkers.x, x)
        else:
            x = self.transform.inv(walkers.x)
            log_det = -self.transform.log_abs_det_jacobian(x, walkers.x)
        return Walkers(x, t1), log_det.to(torch.float64)  # pyright: ignore[reportArgumentType]


@runtime_checkable
class VelocityField(Protocol):
    """A velocity with its exact divergence.

    Example:
        >>> def shrinking(t, x):  # b = -x in d dimensions
        ...     return -x, torch.full((len(x),), -float(x.shape[1])).double()
        >>> isinstance(shrinking, VelocityField), shrinking(0.0, torch.ones(1, 3))[1]
        (True, tensor([-3.], dtype=torch.float64))
    """

    def __call__(
        self, t: float, x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        r"""$b(t, x)$ and $\nabla\cdot b(t, x)$, the latter in float64."""
        ...


def affine_part(field: VelocityField, t: float) -> Float[Tensor, "*slope"] | None:
    r"""$A(t)$ of a field $b(t, x) = A(t)\, x + c(t)$ that says so by a method `affine(t)`; None for any other.

    `(d, d)`, or the `(d,)` eigenvalues where all A(t) are diagonal in one basis; float64.

    Example:
        >>> affine_part(lambda t, x: (-x, torch.full((len(x),), -1.0)), 0.0) is None
        True
    """
    known = getattr(field, "affine", None)
    return None if known is None else known(t)


@dataclass(frozen=True)
class Flow:
    r"""The flow $\dot x = b(t, x)$ over an interval, with $\log|\det \partial x'/\partial x| = \int \nabla\cdot b\,dt$.

    Both are integrated by one Runge–Kutta rule. The log-determinant of a discrete step differs from the integral by
    $O(h^{p+1})$ per step for a rule of order $p$, so results are *approximate* by that much: measure it
    (`nessampler.methods.density.flow_error`) and report it. Backwards in time a step is the inverse of the forward one:
    the rule run backwards, then corrected by fixed-point iteration until the round trip closes. A walker for which it
    does not close has no preimage that was found: its log ratio is −inf, a path of density zero. So is that of a walker
    that a step too coarse for a steep field throws out of all proportion, a million times further than any walker was;
    it stays where it is. `Walkers.lost` marks both.

    A field that is affine in x, and says so (`affine_part`), makes steps that are affine themselves, $x' = M x + v$:
    the rule applied to $\dot M = A(t) M$, $M = 1$ at first, gives their matrix. Then the log ratio is
    $\log|\det M|$ of the discrete step itself, the same for all walkers, and weights are exact at any step size
    (`exact`).

    | argument | |
    |---|---|
    | `field` | the velocity and its divergence |
    | `order` | 2 (midpoint), 3 (Kutta) or 4 (classical Runge–Kutta): as many evaluations per substep |
    | `substeps` | of equal length, within a step |
    | `tolerance` | of the round trip backwards in time, in units of x |

    Raises:
        InputError: an order without a rule.

    References:
        Chen et al., Neural Ordinary Differential Equations, 2018, arXiv:1806.07366, eq. 8 (instantaneous change of
        variables); Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, 1993, section II.1.

    Example:
        >>> kernel = Flow(lambda t, x: (-x, torch.full((len(x),), -1.0, dtype=torch.float64)))
        >>> walkers = kernel.start(0.0, torch.ones(1, 1, dtype=torch.float64))
        >>> moved, log_det = kernel.step(0.0, 0.1, walkers, generator=torch.Generator())
        >>> moved.x.item(), log_det.item()
        (0.90483..., -0.1)
    """

    field: VelocityField
    order: int = 4
    substeps: int = 1
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.order not in _RULES:
            raise InputError(f"a flow step has order {', '.join(map(str, _RULES))}: got {self.order}")

    @property
    def exact(self) -> bool:
        """Whether log ratios are those of the discrete steps: the field is affine."""
        return affine_part(self.field, 0.0) is not None

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """The walkers as they are."""
        return Walkers(x, t)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Follow the flow; the log ratio is the integrated divergence, or that of the step where it is affine."""
        cuts = torch.linspace(t0, t1, self.substeps + 1, dtype=torch.float64).tolist()
        x, log_det = walkers.x, torch.zeros(len(walkers), dtype=torch.float64, device=walkers.x.device)
        move = self.advance if t1 > t0 else self._retreat
        for start, end in pairwise(cuts):
            x, change = move(start, end, x)
            own = self._affine_log_det(min(start, end), abs(end - start))
            if own is not None:
                change = torch.where(change.isfinite(), own.to(x.device) if t1 > t0 else -own.to(x.device), change)
            log_det = log_det + change
        reach = RUNAWAY * (1 + walkers.x.abs().max()) if len(walkers) else 0.0
        stays = x.abs().flatten(1).amax(1) <= reach if len(walkers) else log_det == 0  # not where it is NaN
        x = torch.where(stays.view(-1, *[1] * (x.ndim - 1)), x, walkers.x)
        log_det = torch.where(stays, log_det, -torch.inf)
        return Walkers(x, t1, lost=log_det == -torch.inf), log_det

    def advance(self, t0: float, t1: float, x: Float[Tensor, " n *event"]) -> tuple[Tensor, Float[Tensor, " n"]]:
        """One application of the rule, in either direction, and its log-determinant; differentiable as the field is."""
        nodes, matrix, weights = _RULES[self.order]
        h, velocities = t1 - t0, []
        moved, log_det = x, torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for node, row, weight in zip(nodes, matrix, weights, strict=True):
            y = x
            for coefficient, velocity in zip(row, velocities, strict=True):
                if coefficient:
                    y = torch.add(y, velocity, alpha=h * coefficient)
            velocity, divergence = self.field(t0 + node * h, y)
            velocities.append(velocity)
            moved = torch.add(moved, velocity, alpha=h * weight)
            log_det = log_det + h * weight * divergence.to(torch.float64)
        return moved, log_det

    def _affine_log_det(self, t0: float, h: float) -> Float[Tensor, ""] | None:
        """Of one application of the rule to an affine field."""
        nodes, matrix, weights = _RULES[self.order]
        slopes = [affine_part(self.field, t0 + node * h) for node in nodes]
        first = slopes[0]
        if first is None:
            return None
        one = torch.ones_like(first) if first.ndim == 1 else torch.eye(len(first)).to(first)
        stages: list[Tensor] = []
        for slope, row in zip(slopes, matrix, strict=True):
            assert slope is not None  # affine at one time, affine at all
            before = one + sum((h * c * stage for c, stage in zip(row, stages, strict=True)), torch.zeros_like(one))
            stages.append(slope * before if first.ndim == 1 else slope @ before)
        step = one + sum((h * w * stage for w, stage in zip(weights, stages, strict=True)), torch.zeros_like(one))
        return step.abs().log().sum() if first.ndim == 1 else torch.linalg.slogdet(step)[1]

    def _retreat(self, t0: float, t1: float, x: Tensor) -> tuple[Tensor, Tensor]:
        """The walkers that a step from t1 to t0 would bring to x, and minus its log-determinant."""
        y, _ = self.advance(t0, t1, x)
        log_det = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        close = max(self.tolerance, 8 * torch.finfo(x.dtype).eps * float(x.abs().max()))
        open_ = torch.arange(len(x), device=x.device)
        for share in CORRECTIONS:
            back, change = self.advance(t1, t0, y[open_])
            gap = x[open_] - back
            done = gap.abs().flatten(1).amax(1) <= close
            log_det[open_[done]] = change[done]
            open_, gap = open_[~done], gap[~done]
            if not len(open_):
                break
            y = y.index_add(0, open_, gap, alpha=share)
        return y, -log_det


# Of the gap that is left, share by share. A step that stretches more than twofold makes plain iteration overshoot, one
# that stretches more than fivefold the shorter corrections as well; hardly a walker is still open by then.
CORRECTIONS = (1.0,) * 15 + (0.4,) * 30 + (0.1,) * 120
RUNAWAY = 1e6

# Per order: nodes c, matrix A (rows below the diagonal), weights b.
_RULES = {
    2: ((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    3: ((0.0, 0.5, 1.0), ((), (0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6)),
    4: ((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
