"""Annealed importance sampling, the baseline without anything learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import PathScore
from nessampler.kernels import DiagonalMass, Inertial, Langevin, Mass, UnitMass
from nessampler.methods.density.again import moves_state
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.tuning import Hamiltonian, Mover, Pilot, Precondition, StepSizes, Walk, mala, pilot
from nessampler.methods.density.walks import walk_state
from nessampler.paths import AnnealingPath

__all__ = ["IntervalDiffusion", "Unadjusted", "Underdamped", "ais", "factors_for", "moves_in_words"]

FACTORS = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.4)  # of MALA's step, squared: steps without acceptance are shorter
FORGETTING = 2.0  # squared steps of MALA in all: walkers that hardly move look even where they are, and see no more


@dataclass(frozen=True)
class Unadjusted:
    """Langevin steps without acceptance, weighted exactly; diffusion as a multiple of what MALA would take.

    Attributes:
        variance: of the coordinates, shape `event`, which the noise is scaled by; one where None.
        factors: tried on pilot walkers over the whole path; the one with the least variance of work is kept, which for
            Gaussian works has the largest ESS and tells better from worse even where that is one walker.
    """

    variance: Tensor | None = None
    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Underdamped:
    """Walkers with inertia, weighted exactly, see `Inertial`; one gradient per step.

    Attributes:
        mass: in which steps are natural.
        factors: of the step that MALA would take; tried on pilot walkers over the whole path at the middle one of the
            persistences, and judged as by `Unadjusted`.
        persistences: tried in turn at that step.
        pilots: walkers of each trial.
    """

    mass: Mass = field(default_factory=UnitMass)
    factors: tuple[float, ...] = (0.2, 0.35, 0.5, 0.7, 1.0)
    persistences: tuple[float, ...] = (0.0, 0.6, 0.8, 0.9, 0.95)
    pilots: int = 128


@dataclass(frozen=True)
class IntervalDiffusion:
    r"""$\varepsilon = c\,\sigma^2 h^2 / (2 \Delta t)$ on an interval of length $\Delta t$, for a step $h$ of MALA.

    Args:
        times: of the run; an interval is found by its midpoint, so forwards and backwards agree.
        step_sizes: $h$ at the later end.
        factor: $c$.
        variance: $\sigma^2$.
    """

    times: tuple[float, ...]
    step_sizes: StepSizes
    factor: float
    variance: Tensor

    def __call__(self, middle: float) -> Tensor:
        k = int(torch.searchsorted(torch.tensor(self.times, dtype=torch.float64), middle))
        h = self.step_sizes(self.times[k])
        return self.factor * self.variance * h**2 / (2 * (self.times[k] - self.times[k - 1]))


def ais(
    path: AnnealingPath,
    *,
    generator: torch.Generator,
    steps: int | None = None,
    times: Sequence[float] | None = None,
    mover: Mover | Unadjusted | Underdamped | None = None,
    precondition: Precondition | None = None,
    pilots: int = 500,
    conditional_ess: float = 0.8,
    tuned: Pilot | None = None,
    dtype: torch.dtype = torch.float64,
) -> Annealing:
    r"""Anneal along a path with moves tuned on pilot walkers and then frozen.

    $$\log w = \sum_k U_{t_{k-1}}(x_{k-1}) - U_{t_k}(x_{k-1})$$

    for moves that leave $U_{t_k}$ invariant, and the exact Gaussian pair for unadjusted ones.

    | argument | |
    |---|---|
    | `path` | its start has `sample` and `log_z` |
    | `steps` | intervals, spaced to equal conditional ESS on the pilot |
    | `times` | instead of `steps`; with neither, as many steps as the conditional ESS asks for |
    | `mover` | `Hamiltonian` (default), `mala()`, `Walk`, `Unadjusted` or `Underdamped` |
    | `precondition` | `diagonal` or `dense`: a mass from the pilot walkers at each time |
    | `pilots` | pilot walkers, which never enter the estimate |
    | `conditional_ess` | of the pilot's own steps |
    | `tuned` | what a pilot of this path and mover found before, instead of another |

    Raises:
        InputError: both `steps` and `times`; a start that cannot be sampled; unadjusted steps none of which is stable.

    References:
        Neal, Annealed importance sampling, 2001, Stat. Comput. 11, 125.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)))
        >>> generator = torch.Generator().manual_seed(0)
        >>> annealing = ais(path, steps=10, generator=generator)
        >>> abs(annealing.draw(1000, generator=generator).log_z_ratio) < 0.1
        True
    """
    if steps is not None and times is not None:
        raise InputError("give `steps`, to be spaced on pilot walkers, or `times`: got both")
    chosen = mover or Hamiltonian()
    if isinstance(chosen, Unadjusted):
        mass = UnitMass() if chosen.variance is None else DiagonalMass(chosen.variance)
        family: Mover = mala(mass=mass)
    elif isinstance(chosen, Underdamped):
        family = mala(mass=chosen.mass)
    else:
        family = chosen
    found = tuned or pilot(
        path,
        pilot_walkers(path, pilots, dtype, generator),
        family,
        generator=generator,
        conditional_ess=conditional_ess,
        times=times,
        precondition=precondition,
    )
    grid = found.times if steps is None else found.spaced(steps)
    if isinstance(chosen, Underdamped):
        return _underdamped(path, chosen, found, grid, dtype, generator)
    if not isinstance(chosen, Unadjusted):
        kernel = family.kernel(path, found.step_sizes, found.masses)
        description = f"annealing, {moves_in_words(chosen)}, {len(grid) - 1} steps"
        state = {}
        if isinstance(chosen, Hamiltonian) and chosen.repeats == 1 and precondition is None:
            state = moves_state(grid, found.step_sizes, chosen.leapfrog_steps)
        elif isinstance(chosen, Walk):
            state = walk_state(grid, found.step_sizes, found.masses, chosen.repeats)
        return Annealing("ais", description, kernel, path, grid, dtype=dtype, state=state)
    variance = torch.ones(path.start.event_shape, dtype=dtype) if chosen.variance is None else chosen.variance
    unit = Annealing("ais", "", Langevin(PathScore(path), 1.0), path, grid, dtype=dtype)
    tries = [IntervalDiffusion(grid, found.step_sizes, factor, variance) for factor in chosen.factors]
    tried = [replace(unit, kernel=Langevin(PathScore(path), diffusion)) for diffusion in tries]
    best, factor = _least_variance(tried, chosen.factors, pilots, generator)
    frozen = {"variance": variance, "diffusion": torch.tensor(factor, dtype=torch.float64)}
    return replace(
        best,
        description=f"annealing, unadjusted Langevin, {len(grid) - 1} steps",
        state={**moves_state(grid, found.step_sizes, 1), **frozen},
    )


def _underdamped(
    path: AnnealingPath,
    mover: Underdamped,
    found: Pilot,
    grid: tuple[float, ...],
    dtype: torch.dtype,
    generator: torch.Generator,
) -> Annealing:
    def with_(factor: float, persistence: float) -> Annealing:
        sizes = StepSizes(found.step_sizes.times, tuple(factor * h for h in found.step_sizes.values))
        kernel = Inertial(PathScore(path), sizes, persistence, mover.mass)
        state = {**moves_state(grid, sizes, 1), "persistence": torch.tensor(persistence, dtype=torch.float64)}
        words = f"annealing, underdamped Langevin that keeps {persistence:g} of its momentum, {len(grid) - 1} steps"
        return Annealing("ais", words, kernel, path, grid, dtype=dtype, state=state)

    middle = mover.persistences[len(mover.persistences) // 2]
    tried = [with_(factor, middle) for factor in mover.factors]
    _, factor = _least_variance(tried, mover.factors, mover.pilots, generator)
    tried = [with_(factor, persistence) for persistence in mover.persistences]
    return _least_variance(tried, mover.persistences, mover.pilots, generator)[0]


def factors_for(steps: int) -> tuple[float, ...]:
    """Multiples of MALA's squared step to try over so many steps: with the smallest of them walkers still forget.

    Example:
        >>> factors_for(20), factors_for(200) == FACTORS
        ((0.1, 0.2, 0.4, 0.7, 1.0, 1.4), True)
    """
    return tuple(f for f in FACTORS if f * steps >= FORGETTING) or FACTORS[-1:]


def _least_variance(
    tried: Sequence[Annealing], values: Sequence[float], pilots: int, generator: torch.Generator
) -> tuple[Annealing, float]:
    """The annealing whose pilot works vary least, and the value that it was tried with."""
    variances = [_variance_of_work(annealing, pilots, generator) for annealing in tried]
    if min(variances) == torch.inf:
        raise InputError(
            f"unadjusted Langevin needs a stable step: pilot walkers ran away with every factor of {tuple(values)}; "
            "give smaller factors or more steps, or use moves with acceptance"
        )
    best = variances.index(min(variances))
    return tried[best], values[best]


def pilot_walkers(path: AnnealingPath, n: int, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Draws of the start, on the device of the generator."""
    if not hasattr(path.start, "sample"):
        raise InputError(
            f"annealing starts from a density with `sample`: got {path.start!r}; choose a base that has it"
        )
    return path.start.sample(n, generator=generator).to(generator.device, dtype)  # pyright: ignore[reportAttributeAccessIssue]


def _variance_of_work(annealing: Annealing, pilots: int, generator: torch.Generator) -> float:
    try:
        variance = float(annealing.draw(pilots, generator=generator).work.var())
    except InputError:  # steps so large that walkers ran away: no candidate, and no mistake of the caller's
        return torch.inf
    return torch.inf if math.isnan(variance) else variance


def moves_in_words(mover: Mover) -> str:
    """For a description.

    >>> moves_in_words(Hamiltonian(5)), moves_in_words(Walk(10))
    ('HMC of 5 leapfrogs', 'random walks of 10 proposals')
    """
    if isinstance(mover, Hamiltonian):
        return "MALA" if mover.leapfrog_steps == 1 else f"HMC of {mover.leapfrog_steps} leapfrogs"
    return f"random walks of {mover.repeats} proposals" if isinstance(mover, Walk) else type(mover).__name__
