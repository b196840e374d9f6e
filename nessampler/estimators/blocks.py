"""The variance of any statistic of correlated works, by resampling blocks of draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from nessampler.estimators.free_energy import Flag
from nessampler.estimators.works import Rows, WorkSample

__all__ = ["block_bootstrap", "block_resamples"]

FEWEST_BLOCKS = 8
CHUNK = 2**20  # numbers held at once while resampling


def block_bootstrap(
    statistic: Callable[..., np.ndarray], samples: Sequence[WorkSample], g: Sequence[float], resamples: int, seed: int
) -> tuple[float, list[Flag]]:
    """The variance of the statistic over resampled blocks; flags for too few blocks or resamples without a value."""
    values, inflation, flags = block_resamples(statistic, samples, g, resamples, seed)
    failed = int((~np.isfinite(values)).sum())
    with np.errstate(over="ignore", invalid="ignore"):  # works further apart than numbers reach
        variance = float(values.var(ddof=1)) * inflation
    if failed or not np.isfinite(variance):
        return 0.0, [*flags, _unstable(failed, resamples)]
    return variance, flags


def block_resamples(
    statistic: Callable[..., np.ndarray], samples: Sequence[WorkSample], g: Sequence[float], resamples: int, seed: int
) -> tuple[np.ndarray, float, list[Flag]]:
    """The statistic of every resample, what its (co)variances are to be multiplied by, and a flag for too few blocks.

    Resamples of B blocks scatter like B - 1, which the factor B / (B - 1) makes good.
    """
    rng = np.random.default_rng(seed)
    lengths = [_block_length(works, g_i) for works, g_i in zip(samples, g, strict=True)]
    fewest, longest = min((works.values.size // length, length) for works, length in zip(samples, lengths, strict=True))
    rows = max(1, CHUNK // max(works.values.size for works in samples))
    values = []
    for first in range(0, resamples, rows):
        n_rows = min(rows, resamples - first)
        drawn = [_resampled(works.values, length, n_rows, rng) for works, length in zip(samples, lengths, strict=True)]
        values.append(statistic(*drawn))
    flags = [_few_blocks(fewest, longest)] if fewest < FEWEST_BLOCKS else []
    return np.concatenate(values), fewest / max(1, fewest - 1), flags


def _block_length(works: WorkSample, g: float) -> int:
    """Twice the length of least error in a bootstrap variance, `(3/2 τ² n)^(1/3)` for an exponential memory `τ = g/2`.

    Twice, since a variance that is too small is worse than one that is noisy; but not so long that fewer than eight
    blocks remain, unless g itself asks for it. References: Automatic block-length selection for the dependent
    bootstrap, 2004, doi:10.1081/ETC-120028836.
    """
    if not works.correlated:
        return 1
    draws, n = works.values.shape[1], works.values.size
    best = 2 * (0.375 * g**2 * n) ** (1 / 3)
    return min(draws, max(math.ceil(g), min(math.ceil(best), n // FEWEST_BLOCKS), 1))


def _resampled(values: Rows, length: int, rows: int, rng: np.random.Generator) -> Rows:
    """Moving blocks of draws, none across the end of a chain."""
    chains, draws = values.shape
    shape = (rows, max(1, round(values.size / length)), 1)
    start = rng.integers(chains, size=shape) * draws + rng.integers(draws - length + 1, size=shape)
    return values.ravel()[start + np.arange(length)].reshape(rows, -1)


def _few_blocks(blocks: int, length: int) -> Flag:
    return Flag(
        "few_blocks",
        f"only {blocks} independent blocks of {length} draws (at least {FEWEST_BLOCKS} wanted): the error itself is "
        "uncertain and probably too small; run longer, or more replicas.",
    )


def _unstable(failed: int, resamples: int) -> Flag:
    return Flag(
        "unstable_error",
        f"{failed} of {resamples} resamples held no finite work in a direction; the error is the analytic one and may "
        "be too small; take more works.",
    )
