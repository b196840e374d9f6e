"""Adaptive sequential Monte Carlo, the baseline that resamples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.kernels import Kernel, Walkers
from nessampler.methods.density.ais import pilot_walkers
from nessampler.methods.density.budget import COARSE, FINE
from nessampler.methods.density.tuning import Hamiltonian, Mover, Pilot, Precondition, energies_at, pilot
from nessampler.paths import AnnealingPath, PathPoint
from nessampler.simulate import FEWEST_ISLANDS, Ensemble, simulate
from nessampler.targets import Tally, Target
from nessampler.weights import LogWeights, log_mean_exp, systematic

__all__ = ["Particles", "smc"]

# Of estimates of Z, relative. About lognormal, eight of them that scatter by s have a mean of skewness about s, which
# moves Student's t by about s/2; and where particles hardly mix it is more, while those islands look best that met no
# heavy particle (docs/benchmarks/calibration.md).
WIDEST_ISLANDS = 0.25
FEWEST_PARTICLES = 32  # of an island, whatever the budget


@dataclass(frozen=True)
class Particles:
    """Weighted particles of a target and its log Z.

    Attributes:
        ensemble: of all islands; `expect` has errors from their spread. Its ESS is that of the last weights and says
            nothing of modes lost on the way.
        base_log_z: of the density that particles started from.
        acceptance, step_size: at each time after the first.
        evaluations: of the path, at `pilot` and `sampling`; a gradient comes with its energy.
    """

    ensemble: Ensemble
    base_log_z: float
    acceptance: tuple[float, ...]
    step_size: tuple[float, ...]
    evaluations: Mapping[str, Tally]

    @property
    def x(self) -> Float[Tensor, " n *event"]:
        """Positions, island by island."""
        return self.ensemble.x

    @property
    def log_weight(self) -> Float[Tensor, " n"]:
        """Their exponentials average to Z over that of the base; float64."""
        return self.ensemble.log_weight

    @property
    def times(self) -> tuple[float, ...]:
        """Gone through by every island."""
        return self.ensemble.times

    @property
    def log_z(self) -> float:
        """log of the mean over islands of unbiased estimates of Z."""
        return self.base_log_z + self.ensemble.log_z_ratio

    @property
    def std_error(self) -> float:
        """Of `log_z`, from the spread over islands."""
        return self.ensemble.log_z_error

    @property
    def island_spread(self) -> float:
        r"""Relative standard deviation of one island's estimate of Z: $\sqrt J$ times the standard error."""
        return math.sqrt(len(self.ensemble.islands)) * self.std_error

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Islands so small that the mean of their estimates is skewed: it is low more often than its error admits.

        References: Bérard, Del Moral & Doucet, A lognormal central limit theorem for particle approximations of
            normalizing constants, 2014, arXiv:1307.0181.
        """
        if not self.island_spread > WIDEST_ISLANDS:
            return ()
        message = (
            f"{len(self.ensemble.islands)} islands' estimates of Z scatter by {self.island_spread:.0%} of their mean "
            f"(at most {WIDEST_ISLANDS:.0%} wanted): few large ones rule it, and the interval is too narrow; take more "
            "walkers, or more steps"
        )
        return (Flag("islands_disagree", message),)


def smc(
    path: AnnealingPath,
    *,
    generator: torch.Generator,
    particles: int = 1000,
    islands: int = FEWEST_ISLANDS,
    mover: Mover | None = None,
    precondition: Precondition | None = None,
    steps: int | None = None,
    conditional_ess: float = FINE,
    resample: float = 0.5,
    waste_free: int | None = None,
    pilots: int | None = None,
    budget: int | None = None,
    fewest: int = FEWEST_PARTICLES,
    tuned: Pilot | None = None,
    dtype: torch.dtype = torch.float64,
) -> Particles:
    r"""Reweight, resample, move: adapted on a pilot island, then frozen for independent islands.

    $$\hat Z_{t_k} / \hat Z_{t_{k-1}} = \sum_i \bar w_i\, e^{U_{t_{k-1}}(x_i) - U_{t_k}(x_i)}$$

    Temperatures, step sizes and masses are all taken from the pilot island, so that the estimate of Z from every other
    island is unbiased, which an island that adapts as it goes does not give.

    | argument | |
    |---|---|
    | `particles` | per island |
    | `islands` | independent, at least eight |
    | `mover` | `Hamiltonian` (default; `repeats` moves per temperature), `mala()` or `Walk` |
    | `precondition` | `diagonal`, `dense`, `spectral`: mass of the pilot's particles; the mover's own where None |
    | `steps` | this many temperatures, spaced on the pilot; None for as many as the conditional ESS asks for |
    | `conditional_ess` | between temperatures |
    | `resample` | fraction of effective particles below which an island is resampled |
    | `waste_free` | length P of chains, see below; None for one move per particle |
    | `pilots` | particles of the pilot; as many as on an island where None |
    | `budget` | evaluations in all: as many particles as it holds, instead of `particles`, after a cheaper pilot |
    | `fewest` | particles of an island that a budget leaves at least |
    | `tuned` | what a pilot of this path and mover found before, instead of another |
    | `generator` | the source of randomness; particles live on its device |

    Waste-free, `particles`/P particles are resampled at every temperature, whatever `resample` says, and make P - 1
    moves each; all P states on the way are particles.

    Raises:
        InputError: as `simulate`; chains that do not divide the particles; a start that cannot be sampled.

    References:
        Del Moral, Doucet & Jasra, Sequential Monte Carlo samplers, 2006, J. R. Stat. Soc. B 68, 411; Dau & Chopin,
        Waste-free sequential Monte Carlo, 2020, arXiv:2011.02328.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)))
        >>> result = smc(path, particles=200, generator=torch.Generator().manual_seed(0))
        >>> abs(result.log_z - path.end.log_z) < 4 * result.std_error < 0.2
        True
    """
    _checked(particles if budget is None else 2 * (waste_free or 1), islands, waste_free)
    tallies = {"pilot": Tally(), "sampling": Tally()}
    counted, family = _Counting(path, tallies["pilot"]), mover or Hamiltonian()
    coarse = conditional_ess if budget is None else min(conditional_ess, COARSE)
    found = tuned or pilot(
        counted,
        pilot_walkers(path, pilots or particles, dtype, generator),
        family,
        generator=generator,
        conditional_ess=coarse,
        precondition=precondition,
    )
    if steps is None and coarse < conditional_ess:
        steps = math.ceil(found.lengths[-1] / math.sqrt(1 / conditional_ess - 1))
    times = found.times if steps is None else found.spaced(steps)
    if budget is not None:
        left = budget - tallies["pilot"].energy - tallies["pilot"].gradient
        moved = 1.0 if waste_free is None else (waste_free - 1) / waste_free  # of a chain, all states but the first
        particles = max(fewest, int(left / islands / (1 + (len(times) - 1) * moved * family.evaluations)))
        particles = particles if waste_free is None else waste_free * max(2, particles // waste_free)
    counted = _Counting(path, tallies["sampling"])
    kernel = family.kernel(counted, found.step_sizes, found.masses)
    x = pilot_walkers(path, particles * islands, dtype, generator)
    if waste_free is None:
        ensemble = simulate(kernel, counted, times, x, resample=resample, islands=islands, generator=generator)
        history = ensemble.history
        acceptance = () if history is None else tuple(history.acceptance.tolist())
    else:
        ensemble, acceptance = _waste_free(kernel, counted, times, x, islands, waste_free, generator)
    base = float(path.start.log_z)  # pyright: ignore[reportAttributeAccessIssue]
    return Particles(ensemble, base, acceptance, tuple(found.step_sizes(t) for t in times[1:]), tallies)


@torch.no_grad()
def _waste_free(
    kernel: Kernel,
    path: AnnealingPath,
    times: Sequence[float],
    x: Tensor,
    islands: int,
    length: int,
    generator: torch.Generator,
) -> tuple[Ensemble, tuple[float, ...]]:
    """All islands at once, which meet nowhere; all states of all chains are particles. Also the mean acceptances."""
    n = len(x) // islands
    walkers, log_z, rates = kernel.start(times[0], x), torch.zeros(islands, dtype=torch.float64, device=x.device), []
    # States come chain step by chain step; islands are to be contiguous.
    order = torch.arange(len(x), device=x.device).view(length, islands, n // length).transpose(0, 1).flatten()
    for t0, t1 in pairwise(times):
        increments = (energies_at(path, walkers, t0) - energies_at(path, walkers, t1)).view(islands, n)
        log_z = log_z + torch.stack([log_mean_exp(island) for island in increments])
        chosen = [k * n + _ancestors(island, length, generator) for k, island in enumerate(increments)]
        walkers = walkers[torch.cat(chosen)]
        states, accepted = [walkers], []
        for _ in range(length - 1):
            walkers, _ = kernel.step(t1, t1, walkers, generator=generator)
            accepted.append(math.nan if walkers.acceptance is None else float(walkers.acceptance.double().mean()))
            states.append(walkers)
        # The first state of a chain was evaluated at t0: only its parts serve t1, so no energy is passed on.
        walkers = Walkers(_joined([s.x for s in states]), t1, _joined([s.cached for s in states]))[order]
        rates.append(sum(accepted) / len(accepted))
    log_weight = log_z.repeat_interleave(n)
    return Ensemble(walkers.x, log_weight, tuple(times), None, True, (n,) * islands), tuple(rates)


def _ancestors(log_weight: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """One in `length` of systematic ancestors, from a random one on: again systematic."""
    alive = log_weight if bool((log_weight > -torch.inf).any()) else torch.zeros_like(log_weight)
    offset = int(torch.randint(length, (), generator=generator, device=generator.device))
    return systematic(LogWeights(alive).normalized, generator=generator)[offset::length]


def _joined(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(values)
    if isinstance(first, tuple) and all(isinstance(v, tuple) for v in values):
        joined = [_joined(list(v)) for v in zip(*values, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    return None


class _Counting:
    """A path that counts walkers evaluated; what it computes from parts already known is free."""

    def __init__(self, path: AnnealingPath, tally: Tally) -> None:
        self._path, self._tally = path, tally
        self.start: Target = path.start
        self.end: Target = path.end

    def energy(self, t: Tensor, x: Tensor) -> Tensor:
        self._tally.energy += len(x)
        return self._path.energy(t, x)

    def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        self._tally.gradient += len(x)
        return self._path.energy_and_score(t, x)

    def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
        if known is None or not known.parts:
            self._tally.gradient += len(x)
        return self._path.evaluate(t, x, known)


def _checked(particles: int, islands: int, waste_free: int | None) -> None:
    if islands < FEWEST_ISLANDS:
        raise InputError(f"an error bar needs at least {FEWEST_ISLANDS} islands: got {islands}")
    if waste_free is not None and (waste_free < 2 or particles % waste_free or particles // waste_free < 2):
        raise InputError(
            f"waste-free chains have at least two states and divide an island's particles into at least two chains: "
            f"got chains of {waste_free} for {particles} particles"
        )
