"""Hamiltonian Monte Carlo and its one-step case, MALA: moves that leave U_t invariant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels.mass import Mass, UnitMass
from nessampler.kernels.nested import chosen, joined, mapped
from nessampler.kernels.protocol import Walkers
from nessampler.paths import AnnealingPath, PathPoint

__all__ = ["HMC", "trajectory"]

# Numbers per block of walkers, few enough for a trajectory to stay in a core's cache; it changes no random number.
BLOCK = 2**17
REFUSED = 100.0  # kT


@dataclass(frozen=True)
class HMC:
    r"""Leapfrog trajectories accepted by Metropolis, at the later of an interval's two times.

    With $s = \max(t_0, t_1)$, the kernel leaves $e^{-U_s}$ invariant and is reversible, so that it is its own backward
    partner up to the ratio of densities:

    $$\log B(x|x') - \log F(x'|x) = U_s(x') - U_s(x).$$

    Forwards in time the target changes first and walkers relax at the new time; backwards they relax first. That is
    annealed importance sampling, and its exact time reversal.

    | symbol | argument | |
    |---|---|---|
    | $U_t$ | `path` | |
    | step | `step_size` | of the leapfrog, a number or a function of $s$; in units of the mass |
    | | `leapfrog_steps` | 1 is MALA; one gradient each |
    | $M$ | `mass` | momenta are drawn from $N(0, M)$ |
    | | `repeats` | trajectories per step |

    References:
        Neal, Annealed importance sampling, 2001, Stat. Comput. 11, 125; Neal, MCMC using Hamiltonian dynamics, 2011,
        arXiv:1206.1901, section 2.3; Roberts & Tweedie, Exponential convergence of Langevin distributions, 1996 (MALA).

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)))
        >>> kernel = HMC(path, step_size=0.5, leapfrog_steps=3)
        >>> walkers = kernel.start(0.0, torch.zeros(4, 2))
        >>> moved, log_ratio = kernel.step(0.0, 0.5, walkers, generator=torch.Generator().manual_seed(0))
        >>> moved.x.shape, log_ratio.dtype
        (torch.Size([4, 2]), torch.float64)
    """

    path: AnnealingPath
    step_size: float | Callable[[float], float]
    leapfrog_steps: int = 5
    mass: Mass | Callable[[float], Mass] = field(default_factory=UnitMass)
    repeats: int = 1

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """Evaluate the path where the walkers start."""
        return _walkers(x, t, self.path.evaluate(_full(t, x), x))

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Trajectories at the later time; `leapfrog_steps` gradients each."""
        time = max(t0, t1)
        point = self._point(time, walkers)
        before, x, acceptance = point.energy.to(torch.float64), walkers.x, torch.zeros_like(point.energy)
        for _ in range(self.repeats):
            x, point, accepted = self._trajectory(time, x, point, generator)
            acceptance = acceptance + accepted / self.repeats
        # Outside the support of U_s the density is zero, and so is the weight from here on, wherever the walker goes.
        log_ratio = torch.where(before == torch.inf, -torch.inf, point.energy.to(torch.float64) - before)
        if t1 != time:
            point = self.path.evaluate(_full(t1, x), x, point)
        return _walkers(x, t1, point, acceptance), log_ratio

    def _point(self, time: float, walkers: Walkers) -> PathPoint:
        known = walkers.cached if isinstance(walkers.cached, PathPoint) else None
        if known is not None and walkers.time == time:
            return known
        return self.path.evaluate(_full(time, walkers.x), walkers.x, known)

    def _trajectory(
        self, time: float, x: Tensor, point: PathPoint, generator: torch.Generator
    ) -> tuple[Tensor, PathPoint, Tensor]:
        mass = self.mass(time) if callable(self.mass) else self.mass
        h = self.step_size(time) if callable(self.step_size) else self.step_size
        if not h > 0:
            raise InputError(f"the leapfrog step must be positive: got {h} at t = {time}")
        return trajectory(self.path, _full(time, x), x, point, h, self.leapfrog_steps, mass, generator=generator)


def trajectory(
    path: AnnealingPath,
    t: Float[Tensor, " n"],
    x: Float[Tensor, " n *event"],
    point: PathPoint,
    step_size: float | Float[Tensor, " n"],
    leapfrog_steps: int,
    mass: Mass,
    *,
    generator: torch.Generator,
) -> tuple[Float[Tensor, " n *event"], PathPoint, Float[Tensor, " n"]]:
    r"""One trajectory of each walker and its Metropolis test, at times, and with step sizes, of their own.

    Args:
        point: the path at (t, x).

    Returns:
        Where walkers are, the path there, and the probabilities with which proposals were accepted.
    """
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
    uniform = torch.rand(len(x), generator=generator, dtype=torch.float64, device=generator.device).to(x.device)
    h = step_size if isinstance(step_size, float | int) else step_size.to(x).view(-1, *[1] * (x.ndim - 1))
    given = (t, x, point, noise, uniform, h)
    few = max(1, BLOCK // x[0].numel()) if len(x) and x.device.type == "cpu" else max(1, len(x))
    moved = [
        _moved(path, mass, leapfrog_steps, *mapped(lambda v, rows=slice(k, k + few): v[rows], given))
        for k in range(0, max(1, len(x)), few)
    ]
    return joined(*moved) if len(moved) > 1 else moved[0]


def _moved(
    path: AnnealingPath,
    mass: Mass,
    leapfrog_steps: int,
    t: Tensor,
    x: Tensor,
    point: PathPoint,
    noise: Tensor,
    uniform: Tensor,
    h: float | Tensor,
) -> tuple[Tensor, PathPoint, Tensor]:
    """The trajectory, once all that is random about it has been drawn."""
    p = mass.momentum(noise)
    start = point.energy.to(torch.float64) + _kinetic(noise, noise)
    y, p = x, p + 0.5 * h * point.score
    for _ in range(leapfrog_steps - 1):
        y = y + h * mass.velocity(p)
        p = p + h * path.energy_and_score(t, y)[1]
    y = y + h * mass.velocity(p)
    proposed = path.evaluate(t, y)
    p = p + 0.5 * h * proposed.score
    gain = start - proposed.energy.to(torch.float64) - _kinetic(p, mass.velocity(p))
    # A proposal without density, or one that diverged, is refused; NaN at the walker itself stays an error.
    lost = gain.isnan() & ~start.isnan()
    if bool(lost.any()):
        rows = lost.nonzero()[:, 0]
        step = h[rows] if isinstance(h, Tensor) else h
        _no_hole(path, mass, leapfrog_steps, t[rows], x[rows], point.score[rows], noise[rows], step, start[rows])
    gain = torch.where(lost, -torch.inf, gain)
    accept = uniform.log() < gain
    y, point = chosen(accept, (y, proposed), (x, point))
    return y, point, gain.clamp(max=0.0).exp().to(point.energy)


def _no_hole(
    path: AnnealingPath,
    mass: Mass,
    leapfrog_steps: int,
    t: Tensor,
    x: Tensor,
    score: Tensor,
    noise: Tensor,
    h: Any,
    start: Tensor,
) -> None:
    """Trajectories that ended in NaN once more: they diverged, or passed where a finite energy has no gradient.

    A place that is REFUSED kT above where a trajectory started is part of a divergence: it would be refused anyway.
    """
    p = mass.momentum(noise) + 0.5 * h * score
    for _ in range(leapfrog_steps):
        x = x + h * mass.velocity(p)
        energy, score = path.energy_and_score(t, x)
        fine = torch.isfinite(x).flatten(1).all(1) & (energy < start + REFUSED)
        hole = (fine & score.isnan().flatten(1).any(1)).nonzero()
        if len(hole):
            k = int(hole[0])
            place = ", ".join(f"{v:.4g}" for v in x[k].flatten()[:4].tolist()) + (", …" if x[k].numel() > 4 else "")
            raise InputError(
                f"a density must have a gradient wherever its energy is finite: at ({place}) and t = {float(t[k]):.3g} "
                f"the energy is {float(energy[k]):.4g} and the gradient NaN; a root, norm or logarithm at its edge is "
                "the usual reason: keep its argument positive, also in the branch that torch.where drops"
            )
        p = p + h * score


def _walkers(x: Tensor, t: float, point: PathPoint, acceptance: Tensor | None = None) -> Walkers:
    return Walkers(x, t, point, point.energy, acceptance)


def _kinetic(p: Tensor, velocity: Tensor) -> Tensor:
    return 0.5 * (p * velocity).flatten(1).sum(1, dtype=torch.float64)


def _full(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)
