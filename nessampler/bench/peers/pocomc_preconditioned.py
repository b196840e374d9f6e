"""Preconditioned Monte Carlo by pocomc: SMC through normalising flows."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm

from nessampler.bench.peers.whitened import Evidence, Whitened
from nessampler.targets import Counted

__all__ = ["active_particles", "pocomc_preconditioned"]

FEWEST, ACTIVE, MOST = 64, 256, 512  # active particles: of the first run, by default, and of any
CLIMB = 0.4  # of what is left, for reaching the target
SPARE = 0.2  # of the budget at least, for the evidence by importance sampling
TOTAL = 4096  # effective draws, the default
LARGEST = 20_000_000  # coordinates of importance samples, which are held at once


def pocomc_preconditioned(problem: Whitened, counted: Counted, left: int | None, seed: int) -> Evidence:
    """Its defaults but for the particles, which the budget chooses; the evidence by importance sampling.

    A run of 64 active particles finds what each takes on the way to the target, see `active_particles`. If no more
    than twice as many can be paid for it is gone on with, else another is begun. At the target particles are moved
    until there are 4,096 effective draws, or four fifths of the budget are spent; what is left then is for the
    evidence. A budget that ends before the target is reached gives no answer.

    References: Karamanis et al., Accelerating astronomical and cosmological inference with preconditioned Monte
    Carlo, 2022, arXiv:2207.05652.
    """
    if left is None:
        sampler = _sampler(problem, problem.log_likelihood, ACTIVE, seed)
        sampler.run(n_total=TOTAL, n_evidence=TOTAL, progress=False)
        return _evidence(sampler, f"{ACTIVE} active particles")
    start = counted.tally().energy

    def spent() -> int:
        return counted.tally().energy - start

    def likelihood(z: np.ndarray) -> np.ndarray:
        if spent() + len(z) > left:
            raise _SpentError
        return problem.log_likelihood(z)

    active = FEWEST
    try:
        sampler = _sampler(problem, likelihood, active, seed)
        sampler.run(n_total=0, n_evidence=0, progress=False)
        affordable = active_particles(left - spent(), spent() / active)
        if affordable > 2 * active:
            active = affordable
            sampler = _sampler(problem, likelihood, active, seed + 1)
            sampler.run(n_total=0, n_evidence=0, progress=False)
    except _SpentError:
        return Evidence(None, None, f"the budget ended before {active} active particles reached the target")
    for total in range(2 * active, TOTAL + 1, 2 * active):
        if spent() > (1 - SPARE) * left:
            break
        try:
            sampler.run(n_total=total, n_evidence=0, progress=False)
        except _SpentError:
            break
    draws = min(left - spent(), LARGEST // problem.dimension)
    sampler.run(n_total=0, n_evidence=draws, progress=False)
    return _evidence(sampler, f"{active} active particles, {draws} importance samples")


def active_particles(left: float, each: float) -> int:
    """For two fifths of what is left, by what each took before; at most 512, an even number.

    >>> active_particles(50_000, each=100), active_particles(10**8, each=100)
    (200, 512)
    """
    return min(MOST, int(CLIMB * left / each) // 2 * 2)


class _SpentError(Exception):
    """The next evaluations are beyond the budget."""


def _sampler(problem: Whitened, likelihood: Any, active: int, seed: int) -> Any:
    import pocomc  # an optional peer

    prior = pocomc.Prior([norm(0, 1)] * problem.dimension)
    return pocomc.Sampler(prior, likelihood, n_effective=2 * active, n_active=active, vectorize=True, random_state=seed)


def _evidence(sampler: Any, note: str) -> Evidence:
    log_z, error = sampler.evidence()
    draws, *_ = sampler.posterior(resample=True)
    std_error = None if error is None else float(np.asarray(error))
    return Evidence(float(log_z), std_error, note, np.asarray(draws)[None])
