"""Nested sampling by dynesty."""

# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from nessampler.bench.peers.whitened import Evidence, Whitened
from nessampler.targets import Counted

__all__ = ["dynesty_nested"]

LIVE = 500
TOLERANCE = 0.01  # in log Z of what the live points may still add


def dynesty_nested(problem: Whitened, counted: Counted, left: int | None, seed: int) -> Evidence:
    """Static nested sampling, stopped by its own criterion or where the budget ends.

    References: Speagle, dynesty, 2020, arXiv:1904.02180.
    """
    import dynesty  # an optional peer

    sampler = dynesty.NestedSampler(
        lambda z: float(problem.log_likelihood(z)[0]),
        ndtri,
        problem.dimension,
        nlive=max(LIVE, 2 * problem.dimension),
        rstate=np.random.default_rng(seed),
    )
    sampler.run_nested(dlogz=TOLERANCE, maxcall=left, print_progress=False)
    results = sampler.results
    over = left is not None and counted.tally().energy >= left
    note = "stopped by the budget, its remainder estimated from live points" if over else ""
    draws = results.samples_equal(np.random.default_rng(seed + 1))
    return Evidence(float(results.logz[-1]), float(results.logzerr[-1]), note, draws[None])
