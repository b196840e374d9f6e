"""Preconditioned Monte Carlo by pocomc: SMC through normalising flows."""

# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
from scipy.stats import norm

from nessampler.bench.peers.whitened import Evidence, Whitened
from nessampler.targets import Counted

__all__ = ["pocomc_preconditioned"]

SPARE = 0.2  # of the budget, for the evidence by importance sampling


def pocomc_preconditioned(problem: Whitened, counted: Counted, left: int | None, seed: int) -> Evidence:
    """Its defaults; the evidence by importance sampling with what is left of the budget, else by SMC.

    References: Karamanis et al., Accelerating astronomical and cosmological inference with preconditioned Monte
    Carlo, 2022, arXiv:2207.05652.
    """
    import pocomc  # an optional peer

    prior = pocomc.Prior([norm(0, 1)] * problem.dimension)
    sampler = pocomc.Sampler(prior, problem.log_likelihood, vectorize=True, random_state=seed)
    sampler.run(n_total=4096, n_evidence=0 if left is None else int(SPARE * left), progress=False)
    log_z, error = sampler.evidence()
    over = left is not None and counted.tally().energy > left
    draws, *_ = sampler.posterior(resample=True)
    std_error = None if error is None else float(np.asarray(error))
    return Evidence(float(log_z), std_error, "beyond the budget" if over else "", np.asarray(draws)[None])
