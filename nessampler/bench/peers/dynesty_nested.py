"""Nested sampling by dynesty."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri

from nessampler.bench.peers.whitened import Evidence, Whitened
from nessampler.estimators import Flag
from nessampler.targets import Counted

__all__ = ["dynesty_nested", "unfinished"]

LIVE = 500
FEWEST_DONE = 0.5  # of Z, when the budget ends
TOLERANCE = 0.01  # in log Z of what the live points may still add


def dynesty_nested(problem: Whitened, counted: Counted, left: int | None, seed: int) -> Evidence:
    """Static nested sampling, stopped by its own criterion or where the budget ends.

    References: Speagle, dynesty, 2020, arXiv:1904.02180.
    """
    import dynesty  # an optional peer

    live = max(LIVE, 2 * problem.dimension)
    sampler = dynesty.NestedSampler(
        lambda z: float(problem.log_likelihood(z)[0]),
        ndtri,
        problem.dimension,
        nlive=live,
        rstate=np.random.default_rng(seed),
    )
    sampler.run_nested(dlogz=TOLERANCE, maxcall=left, print_progress=False)
    results = sampler.results
    over = left is not None and counted.tally().energy >= left
    note = "stopped by the budget, its remainder estimated from live points" if over else ""
    draws = results.samples_equal(np.random.default_rng(seed + 1))
    flags = unfinished(results.logz, live) if over else ()
    return Evidence(float(results.logz[-1]), float(results.logzerr[-1]), note, draws[None], flags)


def unfinished(log_z: np.ndarray, live: int) -> tuple[Flag, ...]:
    """Where more than half of Z is that of the live points, which came last: the peak may not have been reached.

    >>> unfinished(np.log([0.1, 0.2, 0.3, 1.0]), 2), unfinished(np.log([0.1, 0.7, 0.9, 1.0]), 2)
    ((Flag(code='unreached', ...),), ())
    """
    before = math.exp(log_z[-live - 1] - log_z[-1]) if len(log_z) > live else 0.0
    if before >= FEWEST_DONE:
        return ()
    text = f"the budget ended with {1 - before:.0%} of Z in the live points; give a larger one"
    return (Flag("unreached", text),)
