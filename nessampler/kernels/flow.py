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

__all__ = ["Flow", "Identity", "Map", "VelocityField"]


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


@dataclass(frozen=True)
class Flow:
    r"""The flow $\dot x = b(t, x)$ over an interval, with $\log|\det \partial x'/\partial x| = \int \nabla\cdot b\,dt$.

    Both are integrated by one Runge–Kutta rule. The log-determinant of a discrete step differs from the integral by
    $O(h^{p+1})$ per step for a rule of order $p$, so results are *approximate* by that much: measure it
    (`nessampler.methods.density.flow_error`) and report it. Backwards in time a step is the inverse of the forward one:
    the rule run backwards, then corrected by fixed-point iteration until the round trip closes. A walker for which it
    does not close has no preimage that was found: its log ratio is −inf, a path of density zero.

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

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """The walkers as they are."""
        return Walkers(x, t)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Follow the flow; the log ratio is the integrated divergence."""
        cuts = torch.linspace(t0, t1, self.substeps + 1, dtype=torch.float64).tolist()
        x, log_det = walkers.x, torch.zeros(len(walkers), dtype=torch.float64, device=walkers.x.device)
        move = self.advance if t1 > t0 else self._retreat
        for start, end in pairwise(cuts):
            x, change = move(start, end, x)
            log_det = log_det + change
        return Walkers(x, t1), log_det

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

    def _retreat(self, t0: float, t1: float, x: Tensor) -> tuple[Tensor, Tensor]:
        """The walkers that a step from t1 to t0 would bring to x, and minus its log-determinant."""
        y, _ = self.advance(t0, t1, x)
        log_det = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        close = max(self.tolerance, 8 * torch.finfo(x.dtype).eps * float(x.abs().max()))
        open_ = torch.arange(len(x), device=x.device)
        for correction in range(CORRECTIONS):
            back, change = self.advance(t1, t0, y[open_])
            gap = x[open_] - back
            done = gap.abs().flatten(1).amax(1) <= close
            log_det[open_[done]] = change[done]
            open_, gap = open_[~done], gap[~done]
            if not len(open_):
                break
            # A step that stretches more than twofold makes plain iteration overshoot; shorter corrections converge.
            y = y.index_add(0, open_, gap, alpha=1.0 if correction < CORRECTIONS // 3 else 0.4)
        return y, -log_det


CORRECTIONS = 45

# Per order: nodes c, matrix A (rows below the diagonal), weights b.
_RULES = {
    2: ((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    3: ((0.0, 0.5, 1.0), ((), (0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6)),
    4: ((0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
