"""Nested sampling by dynesty."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtri

from nessampler.bench.peers.whitened import Evidence, Whitened
from nessampler.estimators import Flag
from nessampler.targets import Counted

__all__ = ["dynesty_nested", "live_points", "unfinished"]

FEWEST, LIVE, MOST = 50, 500, 5000  # live points: of the first run, without a budget, and of any
AIM = 0.8  # of what is left, that a run may be expected to take
FEWEST_DONE = 0.5  # of Z, when the budget ends
TOLERANCE = 0.01  # in log Z of what the live points may still add


def dynesty_nested(problem: Whitened, counted: Counted, left: int | None, seed: int) -> Evidence:
    """Static nested sampling, in runs that are merged: fifty live points first, then as many as the budget allows.

    A run takes evaluations in proportion to its live points, and dynesty merges runs to what one with the sum of their
    live points would be, so that none is lost: see `live_points`. In many dimensions the first has the more than 2 d
    live points that dynesty asks for. Without a budget there is one run of 500.

    References: Speagle, dynesty, 2020, arXiv:1904.02180.
    """
    from dynesty import utils  # an optional peer

    fewest = max(FEWEST, 2 * problem.dimension + 1)
    live, spent, runs, flags = fewest if left is not None else max(LIVE, fewest), 0, [], ()
    over = False
    while live >= fewest and not over:
        before = counted.tally().energy
        runs.append(
            _run(problem, live, None if left is None else left - spent, np.random.default_rng([seed, len(runs)]))
        )
        taken = counted.tally().energy - before
        spent += taken
        over = left is not None and spent >= left
        if over:
            flags = unfinished(runs[-1].logz, live)
        live = 0 if left is None else live_points(left - spent, taken / live)
    results = utils.merge_runs(runs, print_progress=False) if len(runs) > 1 else runs[0]
    notes = [f"{len(runs)} runs"] if len(runs) > 1 else []
    notes += ["stopped by the budget, its remainder estimated from live points"] if over else []
    draws = results.samples_equal(np.random.default_rng(seed + 1))
    return Evidence(float(results.logz[-1]), float(results.logzerr[-1]), "; ".join(notes), draws[None], flags)


def live_points(left: float, each: float) -> int:
    """That a run may have for four fifths of what is left, by what each took in the run before; at most 5,000.

    >>> live_points(10_000, each=80), live_points(10**9, each=80)
    (100, 5000)
    """
    return min(MOST, int(AIM * left / each))


def _run(problem: Whitened, live: int, left: int | None, rstate: np.random.Generator) -> Any:
    import dynesty

    sampler = dynesty.NestedSampler(
        lambda z: float(problem.log_likelihood(z)[0]), ndtri, problem.dimension, nlive=live, rstate=rstate
    )
    sampler.run_nested(dlogz=TOLERANCE, maxcall=left, print_progress=False)
    return sampler.results


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
