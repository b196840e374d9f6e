"""Decided on pilot walkers, then frozen: times of constant conditional ESS, step sizes of constant acceptance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from nessampler.closed_form._covariance import with_correlations_times
from nessampler.errors import InputError
from nessampler.kernels import HMC, DenseMass, DiagonalMass, Kernel, Mass, RandomWalk, SpectralMass, UnitMass, Walkers
from nessampler.paths import AnnealingPath, Path, PathPoint
from nessampler.targets.phi4 import lattice_momenta
from nessampler.weights import LogWeights, systematic

__all__ = [
    "Hamiltonian",
    "Masses",
    "Mover",
    "Pilot",
    "Precondition",
    "StepSizes",
    "Walk",
    "adaptive_times",
    "conditional_effective_sample_size",
    "dense",
    "diagonal",
    "energies_at",
    "mala",
    "next_time",
    "pilot",
    "spectral",
]

Precondition = Callable[[Tensor, Tensor], Mass]
"""Walkers `(n, *event)` and their normalised weights `(n,)` to the mass they suggest."""


@dataclass(frozen=True)
class StepSizes:
    """Step size as a function of time: log-linear between the pilot's times, constant outside.

    >>> round(StepSizes((0.0, 1.0), (1.0, 0.01))(0.5), 6)
    0.1
    """

    times: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, t: float) -> float:
        return math.exp(np.interp(t, self.times, np.log(self.values)))


@dataclass(frozen=True)
class Masses:
    """The mass found at the nearest of the pilot's times."""

    times: tuple[float, ...]
    values: tuple[Mass, ...]

    def __call__(self, t: float) -> Mass:
        return self.values[int(np.abs(np.array(self.times) - t).argmin())]


class Mover(Protocol):
    """A family of kernels that leave U_t invariant, and how it wants to be tuned."""

    @property
    def step_size(self) -> float:
        """Where tuning starts."""
        ...

    @property
    def mass(self) -> Mass:
        """Used where no preconditioner says otherwise."""
        ...

    @property
    def acceptance(self) -> float:
        """The target of tuning."""
        ...

    @property
    def periodic(self) -> bool:
        """Whether a larger step may move walkers less although it is accepted as often."""
        ...

    @property
    def evaluations(self) -> int:
        """Of the path, by one walker at one time."""
        ...

    def kernel(
        self, path: AnnealingPath, step_size: float | Callable[[float], float], mass: Mass | Callable[[float], Mass]
    ) -> Kernel:
        """A member of the family."""
        ...


@dataclass(frozen=True)
class Hamiltonian:
    """Leapfrog trajectories, see `HMC`."""

    leapfrog_steps: int = 5
    repeats: int = 1
    mass: Mass = field(default_factory=UnitMass)
    step_size: float = 0.3
    acceptance: float = 0.8

    @property
    def periodic(self) -> bool:
        """Trajectories of several steps may turn back."""
        return self.leapfrog_steps > 1

    @property
    def evaluations(self) -> int:
        """Gradients of all trajectories; the last one's end is known to the next."""
        return self.leapfrog_steps * self.repeats

    def kernel(
        self, path: AnnealingPath, step_size: float | Callable[[float], float], mass: Mass | Callable[[float], Mass]
    ) -> Kernel:
        """HMC."""
        return HMC(path, step_size, self.leapfrog_steps, mass, self.repeats)


def mala(*, repeats: int = 1, mass: Mass | None = None, step_size: float = 0.3) -> Hamiltonian:
    """One leapfrog step per proposal: Metropolis-adjusted Langevin, tuned to its optimal acceptance.

    References: Roberts & Rosenthal, Optimal scaling of discrete approximations to Langevin diffusions, 1998, J. R.
    Stat. Soc. B 60, 255.
    """
    return Hamiltonian(1, repeats, mass or UnitMass(), step_size, acceptance=0.574)


@dataclass(frozen=True)
class Walk:
    """Random-walk Metropolis, see `RandomWalk`: `repeats` proposals, shaped as the mass says."""

    repeats: int = 10
    mass: Mass = field(default_factory=UnitMass)
    step_size: float = 0.5
    acceptance: float = 0.3

    @property
    def periodic(self) -> bool:
        """Random walks never turn back."""
        return False

    @property
    def evaluations(self) -> int:
        """An energy for each proposal, and one where the walker is when the time changes."""
        return self.repeats + 1

    def kernel(
        self, path: Path, step_size: float | Callable[[float], float], mass: Mass | Callable[[float], Mass]
    ) -> Kernel:
        """Proposals of `step_size` standard deviations."""
        return RandomWalk(path, step_size, self.repeats, mass)


def diagonal(x: Float[Tensor, " n *event"], weight: Float[Tensor, " n"]) -> DiagonalMass:
    """The precision of every coordinate."""
    return DiagonalMass(_moments(x, weight)[1].square().mul(weight.view(-1, *[1] * (x.ndim - 1))).sum(0))


def dense(x: Float[Tensor, "n d"], weight: Float[Tensor, " n"]) -> DenseMass:
    """The precision of vectors; correlations shrink by n/(n + d) for n effective walkers in d dimensions."""
    effective, centred = _moments(x, weight)
    covariance = (weight[:, None] * centred).mT @ centred
    return DenseMass(torch.linalg.cholesky(with_correlations_times(effective / (effective + x.shape[1]), covariance)))


def spectral(x: Float[Tensor, " n *event"], weight: Float[Tensor, " n"]) -> SpectralMass:
    r"""The precision of every mode of a periodic lattice, one for all modes of the same $\hat k^2$."""
    sides = x.shape[1:]
    power = torch.fft.rfftn(x.double(), dim=tuple(range(1, x.ndim))).abs().square()
    power = (weight.view(-1, *[1] * len(sides)) * power).sum(0).cpu() / math.prod(sides)
    # Rounded, because reflected modes differ in the last digits.
    momenta = (1e6 * lattice_momenta(sides[0], len(sides))).round().flatten()
    _, shell, members = momenta.unique(return_inverse=True, return_counts=True)
    mean = torch.zeros(len(members), dtype=torch.float64).index_add_(0, shell, power.flatten()) / members
    return SpectralMass((1 / mean)[shell].reshape(power.shape))


def _moments(x: Tensor, weight: Tensor) -> tuple[float, Tensor]:
    w = weight.view(-1, *[1] * (x.ndim - 1))
    return float(1 / weight.square().sum()), x.double() - (w * x).sum(0)


def conditional_effective_sample_size(log_weight: Float[Tensor, " n"], log_increment: Float[Tensor, " n"]) -> float:
    r"""Effective fraction of walkers of weights $w$ after an increment $g$: $(\sum wg)^2 / (\sum w \sum wg^2)$.

    References: Zhou, Johansen & Aston, Toward automatic model comparison: an adaptive sequential Monte Carlo approach,
    2016, arXiv:1303.3123.

    >>> conditional_effective_sample_size(torch.zeros(2), torch.tensor([0.0, -torch.inf]))
    0.5
    """
    first, second = (torch.logsumexp(log_weight + k * log_increment, 0) for k in (1, 2))
    fraction = torch.exp(2 * first - second - torch.logsumexp(log_weight, 0))
    return float(fraction.nan_to_num(nan=0.0).clamp(max=1.0))


def energies_at(path: Path, walkers: Walkers, t: float) -> Float[Tensor, " n"]:
    """U_t of walkers at another time than theirs, from what their last step evaluated where the path can use it."""
    if t == walkers.time and walkers.energy is not None:
        return walkers.energy.to(torch.float64)
    time = torch.full((len(walkers),), t, dtype=walkers.x.dtype, device=walkers.x.device)
    if isinstance(walkers.cached, PathPoint):
        return path.evaluate(time, walkers.x, walkers.cached).energy.to(torch.float64)  # pyright: ignore[reportAttributeAccessIssue]
    return path.energy(time, walkers.x).to(torch.float64)


def _increment(path: Path, walkers: Walkers, here: Tensor, t: float) -> Float[Tensor, " n"]:
    """Of the log-weights; a walker that left the support, where both energies are +inf, stays without weight."""
    return torch.where(here == torch.inf, -torch.inf, here - energies_at(path, walkers, t))


def next_time(path: Path, walkers: Walkers, log_weight: Float[Tensor, " n"], target: float) -> float:
    """The latest time up to 1 at which the conditional ESS of walkers is still `target`, by bisection to 1 %."""
    here = energies_at(path, walkers, walkers.time)

    def reached(t: float) -> bool:
        return conditional_effective_sample_size(log_weight, _increment(path, walkers, here, t)) >= target

    early, late = walkers.time, 1.0
    if reached(late):
        return late
    for _ in range(40):  # where a hard support makes every step cost as much, the last one is tiny
        if late - early <= 0.01 * (late - walkers.time):
            break
        middle = 0.5 * (early + late)
        early, late = (middle, late) if reached(middle) else (early, middle)
    return early if early > walkers.time else late


@dataclass(frozen=True)
class Pilot:
    r"""What pilot walkers found out.

    Attributes:
        times: gone through, from 0 to 1.
        lengths: cumulated $\sqrt{1/\mathrm{CESS} - 1}$ up to each time.
        step_sizes, masses, acceptance: at these times.
        log_z_ratio: the pilot's own estimate, for a sanity check only.
        x: the walkers where they ended, at the target and of equal weight.
    """

    times: tuple[float, ...]
    lengths: tuple[float, ...]
    step_sizes: StepSizes
    masses: Masses
    acceptance: tuple[float, ...]
    log_z_ratio: float
    x: Tensor

    def spaced(self, steps: int) -> tuple[float, ...]:
        """Times of equal length: `steps` intervals, each about as hard as any other."""
        if steps < 1:
            raise InputError(f"a path needs at least one step: got {steps}")
        if len(self.times) == 2 or self.lengths[-1] == 0:
            return tuple(np.linspace(0.0, 1.0, steps + 1).tolist())
        # A piece of length zero has nothing to say about where its times should lie.
        keep = np.concatenate([[True], np.diff(self.lengths) > 1e-9 * self.lengths[-1]])
        lengths, times = np.array(self.lengths)[keep], np.array(self.times)[keep]
        times[-1] = 1.0
        inner = PchipInterpolator(lengths, times)(np.linspace(0.0, lengths[-1], steps + 1))[1:-1]
        return (0.0, *inner.tolist(), 1.0)


@torch.no_grad()
def pilot(
    path: AnnealingPath,
    x: Float[Tensor, " n *event"],
    mover: Mover,
    *,
    generator: torch.Generator,
    conditional_ess: float = 0.8,
    times: Sequence[float] | None = None,
    precondition: Precondition | None = None,
    sweeps: int = 3,
) -> Pilot:
    """Carry walkers along the path once, by resampling and moves, and note what suits each time.

    | argument | |
    |---|---|
    | `x` | walkers from `path.start` |
    | `conditional_ess` | of each step; times are found by bisection |
    | `times` | from 0 to 1, instead of finding them |
    | `precondition` | mass from the walkers at each time; the mover's own where None |
    | `sweeps` | moves at each time, after each of which the step size is corrected |

    Trajectories that turn back are shortened: of a few step sizes up to that of the target acceptance, the one is used
    after which the path's time derivative is least correlated with what it was.

    Raises:
        InputError: a conditional ESS outside (0, 1); given times that do not run from 0 to 1.
    """
    if not 0 < conditional_ess < 1:
        raise InputError(f"the conditional ESS of a step is a fraction in (0, 1): got {conditional_ess}; try 0.8")
    given = None if times is None else list(times)
    if given is not None and (given[0] != 0 or given[-1] != 1):
        raise InputError(f"a pilot goes from t = 0 to t = 1: got times from {given[0]} to {given[-1]}")
    walkers, weights, log_z = mover.kernel(path, mover.step_size, mover.mass).start(0.0, x), LogWeights(_zeros(x)), 0.0
    walkers, limit, first = _tuned(
        path, mover, walkers, 0.0, weights, mover.step_size, precondition, 4 * sweeps, generator
    )
    found, lengths = [first], [0.0]
    while walkers.time < 1:
        t = next_time(path, walkers, weights.log_weight, conditional_ess) if given is None else given[len(found)]
        increment = _increment(path, walkers, energies_at(path, walkers, walkers.time), t)
        fraction = max(conditional_effective_sample_size(weights.log_weight, increment), 1e-6)
        lengths.append(lengths[-1] + math.sqrt(1 / fraction - 1))
        after = weights.add(increment)
        log_z, weights = log_z + after.log_mean - weights.log_mean, after
        if weights.ess < 0.5:
            walkers = walkers[systematic(weights.normalized, generator=generator)]
            weights = LogWeights(_zeros(x))
        walkers, limit, here = _tuned(path, mover, walkers, t, weights, limit, precondition, sweeps, generator)
        found.append(here)
    grid, sizes, masses, acceptance = zip(*found, strict=True)
    last = walkers.x[systematic(weights.normalized, generator=generator)]
    return Pilot(grid, tuple(lengths), StepSizes(grid, sizes), Masses(grid, masses), acceptance, log_z, last)


class _Found(NamedTuple):
    time: float
    step_size: float
    mass: Mass
    acceptance: float


SHORTER = (1.0, 0.75, 0.5, 0.35)
"""Tried as multiples of the step size that the acceptance allows."""


def _tuned(
    path: AnnealingPath,
    mover: Mover,
    walkers: Walkers,
    t: float,
    weights: LogWeights,
    limit: float,
    precondition: Precondition | None,
    sweeps: int,
    generator: torch.Generator,
) -> tuple[Walkers, float, _Found]:
    """Walkers after moves at time t, the step size that the acceptance allows, and what to use."""
    weight = weights.normalized
    mass = precondition(walkers.x, weight) if precondition else mover.mass

    def move(walkers: Walkers, size: float) -> tuple[Walkers, float]:
        moved, _ = mover.kernel(path, size, mass).step(t, t, walkers, generator=generator)
        rate = mover.acceptance if moved.acceptance is None else float(weight @ moved.acceptance.double())
        return moved, rate

    rate = mover.acceptance
    for _ in range(sweeps):
        walkers, rate = move(walkers, limit)
        limit *= _correction(rate, mover.acceptance)
    if not isinstance(walkers.cached, PathPoint) or not mover.periodic:
        return walkers, limit, _Found(t, limit, mass, rate)
    # Trajectories of nearly a period come back to where they started, whatever their acceptance, and those of half a
    # period to its mirror image. Along a path the weights' increments must forget: their correlation decides.
    trials = []
    for factor in SHORTER:
        before = walkers.cached.time_derivative
        walkers, rate = move(walkers, factor * limit)
        after = walkers.cached.time_derivative  # pyright: ignore[reportOptionalMemberAccess]
        trials.append((abs(_correlation(before, after, weight)), factor * limit, rate))
    _, best, rate = min(trials)
    return walkers, limit, _Found(t, best, mass, rate)


def _correction(rate: float, target: float) -> float:
    if not 0.5 * target < rate < 0.5 * (1 + target):
        return 2.0 if rate > target else 0.5  # far away acceptance is flat
    # About Newton's step for MALA, whose acceptance falls by 1.2 per unit of log h where it is best; HMC's by 0.4.
    return math.exp(rate - target)


def _correlation(one: Tensor, other: Tensor, weight: Tensor) -> float:
    keep = weight > 0
    one, other, weight = one[keep].double(), other[keep].double(), weight[keep]
    covariance = torch.cov(torch.stack([one, other]), aweights=weight, correction=0)
    return float((covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt()).nan_to_num(nan=1.0))


def adaptive_times(
    path: AnnealingPath,
    x: Float[Tensor, " n *event"],
    *,
    steps: int | None = None,
    mover: Mover | None = None,
    conditional_ess: float = 0.8,
    generator: torch.Generator,
) -> tuple[float, ...]:
    """Times at which pilot walkers `x` have constant conditional ESS: as many as it takes, or `steps` intervals.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.full((2,), 0.1)))
        >>> generator = torch.Generator().manual_seed(0)
        >>> times = adaptive_times(path, path.start.sample(200, generator=generator), steps=10, generator=generator)
        >>> len(times), times[1] < 0.05  # the narrow end takes over early
        (11, True)
    """
    found = pilot(path, x, mover or Hamiltonian(), generator=generator, conditional_ess=conditional_ess)
    return found.times if steps is None else found.spaced(steps)


def _zeros(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.float64, device=x.device)
