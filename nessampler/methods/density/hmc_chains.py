"""Long Hamiltonian chains, the baseline for averages: no path, no weights, and no log Z."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from nessampler.errors import InputError
from nessampler.estimators import r_hat
from nessampler.kernels import HMC
from nessampler.methods.density.ais import pilot_walkers
from nessampler.methods.density.chains import effective_part, slow_observables
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.paths import AnnealingPath
from nessampler.simulate import Ensemble
from nessampler.targets import Tally

__all__ = ["HamiltonianChains", "hamiltonian_chains"]

WARM_UP = 0.25  # of all trajectories, which tune the step and are forgotten
FEWEST_TRAJECTORIES = 40
SHORT = 0.1  # times the step, every other time of the warm-up
VARIED = (0.6, 1.2)  # times the step tuned to: so that no trajectory is of a period for long


@dataclass(frozen=True)
class HamiltonianChains:
    """Draws of chains that started at draws of the base.

    Attributes:
        ensemble: draws kept, chain by chain, all of weight one; `expect` has errors from the spread over chains.
        trajectories: of each chain, after those forgotten.
        step_size, acceptance: tuned to, and on average afterwards.
        ess: fraction of trajectories that counts as independent, by the slowest of energy, mean coordinate and its
            square.
        rhat: over chains, of the same.
        evaluations: of the target, warm-up included.
    """

    ensemble: Ensemble
    trajectories: int
    step_size: float
    acceptance: float
    ess: float
    rhat: float
    evaluations: Tally

    @property
    def effective_draws(self) -> float:
        """Independent draws that the average over all trajectories is worth."""
        return self.ess * self.trajectories * len(self.ensemble.islands)


@torch.no_grad()
def hamiltonian_chains(
    path: AnnealingPath,
    *,
    generator: torch.Generator,
    chains: int = 64,
    trajectories: int = 400,
    keep: int = 64,
    mover: Hamiltonian | None = None,
    dtype: torch.dtype = torch.float64,
) -> HamiltonianChains:
    r"""Chains of the density at the end of a path, from draws of that at its start.

    The step is tuned to the mover's acceptance during the first eighth of the trajectories and frozen; a quarter is
    forgotten. Until then every other trajectory has a tenth of the step, which brings in chains that start where the
    density is so steep that longer ones are all refused. From then on trajectories have steps between 0.6 and 1.2 times
    that, so that none is as long as a period of the target for long. Chains do not know of modes that none of them
    started near.

    | argument | |
    |---|---|
    | `path` | of which only the ends are used |
    | `chains` | at least two |
    | `trajectories` | of each, warm-up included |
    | `keep` | draws of each chain that are kept, at equal distances |
    | `mover` | length, mass, acceptance aimed at, first step |

    Raises:
        InputError: fewer than two chains or forty trajectories, or nothing to keep; a start that cannot be sampled.

    References:
        Neal, MCMC using Hamiltonian dynamics, 2011, arXiv:1206.1901, section 3.2 (varying steps); Vehtari et al.,
        Rank-normalization, folding, and localization: an improved R-hat, 2021, arXiv:1903.08008.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)))
        >>> found = hamiltonian_chains(path, trajectories=100, generator=torch.Generator().manual_seed(0))
        >>> mean, error = found.ensemble.expect(lambda x: x)
        >>> bool(((mean - 1).abs() < 4 * error).all()), found.rhat < 1.05
        (True, True)
    """
    if chains < 2 or trajectories < FEWEST_TRAJECTORIES or keep < 1:
        raise InputError(
            f"chains are compared, tuned and kept: at least 2 chains of {FEWEST_TRAJECTORIES} trajectories, 1 draw "
            f"kept: got {chains} of {trajectories}, {keep} kept"
        )
    counted, family = CountedPath(path), mover or Hamiltonian()
    x = pilot_walkers(path, chains, dtype, generator)
    kernel = HMC(counted, family.step_size, family.leapfrog_steps, family.mass, family.repeats)
    walkers, size = kernel.start(1.0, x), family.step_size
    forgotten = math.ceil(WARM_UP * trajectories)
    stride = math.ceil((trajectories - forgotten) / keep)
    draws, slow, rates = [], [], []
    for n in range(trajectories):
        tuning, short = 2 * n < forgotten, n < forgotten and n % 2 == 0
        factor = SHORT if short else 1.0 if tuning else _between(*VARIED, generator)
        walkers, _ = replace(kernel, step_size=factor * size).step(1.0, 1.0, walkers, generator=generator)
        assert walkers.acceptance is not None  # Metropolis
        assert walkers.energy is not None
        rate = float(walkers.acceptance.mean())
        if tuning and not short:
            size *= math.exp(max(-0.7, min(0.4, 1.5 * (rate - family.acceptance))))
        if n >= forgotten:
            rates.append(rate)
            slow.append(slow_observables(walkers.energy, walkers.x))
            if (n - forgotten) % stride == 0:
                draws.append(walkers.x)
    kept, series = torch.stack(draws, 1), torch.stack(slow, -1).cpu().numpy()
    weight = torch.zeros(chains * len(draws), dtype=torch.float64, device=x.device)
    ensemble = Ensemble(kept.flatten(0, 1), weight, (1.0,), None, True, (len(draws),) * chains)
    worst = max(r_hat(values) for values in series)
    acceptance = sum(rates) / len(rates)
    return HamiltonianChains(
        ensemble, trajectories - forgotten, size, acceptance, effective_part(series), worst, counted.tally
    )


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device))
