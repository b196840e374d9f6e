"""The weighted underdamped Langevin step: walkers that keep a part of their momentum, exact at any step size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.kernels.mass import Mass, UnitMass
from nessampler.kernels.protocol import Walkers

__all__ = ["Inertial", "Momentum"]


class Momentum(NamedTuple):
    """What walkers keep of their motion: the momentum, and by how much the time-reversed walker's differs from it."""

    p: Float[Tensor, " n *event"]
    shift: Float[Tensor, " n *event"] | None = None


@dataclass(frozen=True)
class Inertial:
    r"""Positions and momenta under $dX = b\,dt + M^{-1}P\,d\tau$ and $dP = s\,d\tau$ with friction, weighted exactly.

    Over an interval of length $h = t_1 - t_0$ of either sign, a momentum $p$ is refreshed, and then kicked before and
    after the move, by steps $\tau > 0$ of the integrator:

    $$p_1 = \eta\, p + \sqrt{1 - \eta^2}\, \xi, \qquad
      x' = x + h\, b + \tau M^{-1}\big(p_1 + \tfrac\tau2 s\big), \qquad
      p' = p_1 + k, \quad k = \tfrac\tau2 (s + s'),$$

    with $\xi \sim N(0, M)$, fields at $(t_0, x)$ and primed ones at $(t_1, x')$. Backwards in time momenta are reversed
    and the same is done. The walker that goes back over this interval needs other momenta, $p_1 + d'$ for $p_1$ and
    $p' + d'$ for $p'$ with $d' = h\,(b - b')/\tau$ where $M = 1$; with $d$ the shift of the interval before, the ratio
    of both transition densities, momenta at the two ends of a path being normal, is

    $$\log\frac BF = -k\cdot(p_1 + d') - \tfrac12 |k|^2 - \xi\cdot e - \tfrac12 |e|^2, \qquad
      e = \frac{d' - \eta\, d}{\sqrt{1 - \eta^2}}.$$

    Without velocity it is minus the gain of kinetic energy over the two kicks. No difference of positions appears.
    A first momentum is drawn as at $\eta = 0$, as are momenta that another kernel lost; both are exact. At
    $\eta = 0$ this is `Langevin` with $\varepsilon = \tau^2/2|h|$, and with friction $\gamma$ per unit of $\tau$,
    $\eta = e^{-\gamma\tau}$.

    | symbol | argument | |
    |---|---|---|
    | $b, s$ | `fields` | one call per step: the fields at $(t_1, x')$ serve the next step too |
    | $\tau$ | `step_size` | a number, one per coordinate where $M = 1$, or a function of the interval's later time |
    | $\eta$ | `persistence` | in [0, 1): a number, or a function of $t_0$ |
    | $M$ | `mass` | any where there is no velocity, else the unit mass |
    | | `relax` | make the step at the later time, without velocity: for what follows a flow step in `Compose` |

    Raises:
        InputError: a step that is not positive, a persistence outside [0, 1), a velocity with a mass other than one.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711 (the inertial
        variant, in continuous time); Bussi & Parrinello, Accurate sampling using Langevin dynamics, 2007, Phys. Rev. E
        75, 056707 (the splitting); Sivak, Chodera & Crooks, Using nonequilibrium fluctuation theorems to understand
        and correct errors in equilibrium and nonequilibrium simulations of discrete Langevin dynamics, 2013, Phys. Rev.
        X 3, 011007 (its weight without velocity).

    Example:
        >>> rolling = Inertial(lambda t, x: Evaluated(None, -x), step_size=0.3, persistence=0.9)
        >>> walkers = rolling.start(0.0, torch.zeros(2, 1))
        >>> moved, log_ratio = rolling.step(0.0, 0.1, walkers, generator=torch.Generator().manual_seed(0))
        >>> moved.momentum.p.shape, log_ratio.dtype
        (torch.Size([2, 1]), torch.float64)
    """

    fields: Fields
    step_size: float | Tensor | Callable[[float], float | Tensor]
    persistence: float | Callable[[float], float] = 0.8
    mass: Mass = field(default_factory=UnitMass)
    relax: bool = False

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """Evaluate the fields where the walkers start; momenta are drawn by the first step."""
        return self._at(t, x)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """One step and its log ratio; one evaluation of the fields."""
        later = max(t0, t1)
        start, end = (later, later) if self.relax else (t0, t1)
        known = walkers.cached if walkers.time == start else None
        here = known if isinstance(known, Evaluated) else self._at(start, walkers.x).cached
        tau, noise = self._step_size(later, walkers.x), self._noise(walkers.x, generator)
        old, kept = walkers.momentum, self._persistence(t0) if isinstance(walkers.momentum, Momentum) else 0.0
        fresh = (1 - kept**2) ** 0.5
        p = noise if kept == 0 else torch.add(fresh * noise, old.p, alpha=kept)
        moved = self._at(end, walkers.x + self._displacement(here, p, end - start, tau))
        kick = 0.5 * tau * (here.score + moved.cached.score)
        shift = self._shift(here, moved.cached, end - start, tau)
        log_ratio = -_dot(kick, self.mass.velocity(torch.add(p, kick, alpha=0.5)))
        gap = _difference(shift, None if kept == 0 else old.shift, kept)
        if gap is not None:
            log_ratio = log_ratio - _dot(gap, torch.add(noise, gap, alpha=0.5 / fresh)) / fresh
        if shift is not None:
            log_ratio = log_ratio - _dot(kick, shift)
        if end != t1:  # what was evaluated at the later time means nothing at the earlier one
            moved = Walkers(moved.x, t1)
        return replace(moved, momentum=Momentum(p + kick, shift)), log_ratio

    def _at(self, t: float, x: Tensor) -> Walkers:
        evaluated = self.fields(torch.full((len(x),), t, dtype=x.dtype, device=x.device), x)
        return Walkers(x, t, evaluated, evaluated.energy)

    def _noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.mass.momentum(torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device))

    def _step_size(self, later: float, x: Tensor) -> Tensor:
        tau = self.step_size(later) if callable(self.step_size) else self.step_size
        tau = torch.as_tensor(tau, dtype=x.dtype, device=x.device)
        if not bool((tau > 0).all()) or not bool(torch.isfinite(tau).all()):
            raise InputError(f"an inertial step must be positive and finite: got {float(tau.min())} at t = {later}")
        if tau.ndim and not isinstance(self.mass, UnitMass):
            raise InputError(
                f"steps per coordinate take the place of a mass: got both, with {type(self.mass).__name__}; give one "
                "number as `step_size`, or leave the mass out"
            )
        return tau

    def _persistence(self, t0: float) -> float:
        kept = self.persistence(t0) if callable(self.persistence) else self.persistence
        if not 0 <= kept < 1:
            raise InputError(
                f"a step keeps a share of the momentum in [0, 1): got a persistence of {kept} at t = {t0}; "
                "0 is Langevin, 0.9 forgets over ten steps"
            )
        return kept

    def _displacement(self, here: Evaluated, p: Tensor, h: float, tau: Tensor) -> Tensor:
        moved = tau * self.mass.velocity(p + 0.5 * tau * here.score)
        return moved if here.velocity is None else torch.add(moved, here.velocity, alpha=h)

    def _shift(self, here: Evaluated, there: Evaluated, h: float, tau: Tensor) -> Tensor | None:
        if h == 0 or (here.velocity is None and there.velocity is None):
            return None
        if not isinstance(self.mass, UnitMass):
            raise InputError(
                f"a velocity needs the unit mass: got {type(self.mass).__name__}; give steps per coordinate as "
                "`step_size`, or let a flow step carry the velocity and this kernel relax after it"
            )
        gap = _difference(here.velocity, there.velocity, 1.0)
        return None if gap is None else h * gap / tau


def _difference(one: Tensor | None, other: Tensor | None, share: float) -> Tensor | None:
    if other is None:
        return one
    return -share * other if one is None else torch.add(one, other, alpha=-share)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1, dtype=torch.float64)
