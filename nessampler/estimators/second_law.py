"""Bounds of ΔF by the second law, with confidence limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logsumexp
from scipy.stats import t as student_t

from nessampler.estimators.works import Work, WorkSample, checked_work

__all__ = ["ONE_SIDED", "Bounds", "bounds", "group_bound"]

ONE_SIDED = 0.999
FEWEST_GROUPS = 32
LARGEST = 1e100  # kT


@dataclass(frozen=True)
class Bounds:
    """Second-law bounds of ΔF in kT; a value is None where works of +inf, or too few works, leave none.

    Attributes:
        lower, upper: `-E_R[W_R]` and `E_F[W_F]`.
        lower_limit, upper_limit: their one-sided 99.9 % confidence limits, outside them.
        importance_weighted_lower, importance_weighted_upper: the tighter bounds from groups of works, see `bounds`.
        importance_weighted_lower_limit, importance_weighted_upper_limit: their one-sided 99.9 % limits.
        group_size: works per group, forward before reverse.

    >>> found = bounds([2.0, 4.0] * 50, [0.0, 2.0] * 50)
    >>> found.lower, found.upper, found.group_size
    (-1.0, 3.0, (3, 3))
    """

    lower: float | None
    upper: float | None
    lower_limit: float | None
    upper_limit: float | None
    importance_weighted_lower: float | None
    importance_weighted_upper: float | None
    importance_weighted_lower_limit: float | None
    importance_weighted_upper_limit: float | None
    group_size: tuple[int, int]

    @property
    def tightest_limits(self) -> tuple[float | None, float | None]:
        """The greatest of the lower and the least of the upper limits."""
        lower = [x for x in (self.lower_limit, self.importance_weighted_lower_limit) if x is not None]
        upper = [x for x in (self.upper_limit, self.importance_weighted_upper_limit) if x is not None]
        return max(lower, default=None), min(upper, default=None)

    def widened(self, error: float) -> Bounds:
        """The same with limits that lie further out by `error`: by how much works may be off, all alike.

        >>> found = bounds([2.0, 4.0] * 50, [0.0, 2.0] * 50)
        >>> [round(y - x, 6) for x, y in zip(found.tightest_limits, found.widened(0.5).tightest_limits)]
        [-0.5, 0.5]
        """

        def moved(limit: float | None, by: float) -> float | None:
            return None if limit is None else limit + by

        return replace(
            self,
            lower_limit=moved(self.lower_limit, -error),
            upper_limit=moved(self.upper_limit, error),
            importance_weighted_lower_limit=moved(self.importance_weighted_lower_limit, -error),
            importance_weighted_upper_limit=moved(self.importance_weighted_upper_limit, error),
        )


def bounds(work_forward: Work, work_reverse: Work) -> Bounds:
    """Bounds of ΔF that hold however bad the sampling of the works is.

        -E_R[W_R] ≤ ΔF ≤ E_F[W_F]
        E[log mean_m exp(-W_R)] ≤ ΔF ≤ -E[log mean_m exp(-W_F)]     mean over a group of m works

    Both follow from Jensen's inequality; the second holds for every m and tightens with m, chosen here as large as
    leaves 32 contiguous groups. The limits are Student's, corrected for positive skew, with the statistical
    inefficiency of `(chains, draws)`.

    Raises:
        InputError: fewer than two works in a direction, a NaN, or a −inf; the work is named.

    References: Nonequilibrium equality for free energy differences, 1997, arXiv:cond-mat/9610209;
        Importance Weighted Autoencoders, 2015, arXiv:1509.00519, theorem 1; Modified t tests and confidence intervals
        for asymmetrical populations, 1978, doi:10.1080/01621459.1978.10480051.

    >>> rng = np.random.default_rng(0)
    >>> found = bounds(3 + 2 * rng.normal(size=2000), 1 + 2 * rng.normal(size=2000))  # exact: -1 ≤ 1 ≤ 3
    >>> low, high = found.tightest_limits
    >>> found.lower_limit < low < 1 < high < found.upper_limit
    True
    """
    forward, reverse = checked_work(work_forward, "forward"), checked_work(work_reverse, "reverse")
    upper, upper_limit = _mean_and_limit(forward)
    lower, lower_limit = _mean_and_limit(reverse)
    tight_upper, tight_upper_limit, forward_group = _grouped(forward)
    tight_lower, tight_lower_limit, reverse_group = _grouped(reverse)
    return Bounds(
        lower=_negated(lower),
        upper=upper,
        lower_limit=_negated(lower_limit),
        upper_limit=upper_limit,
        importance_weighted_lower=_negated(tight_lower),
        importance_weighted_upper=tight_upper,
        importance_weighted_lower_limit=_negated(tight_lower_limit),
        importance_weighted_upper_limit=tight_upper_limit,
        group_size=(forward_group, reverse_group),
    )


def _mean_and_limit(works: WorkSample) -> tuple[float | None, float | None]:
    """The mean of a series and its upper one-sided confidence limit."""
    values = works.values
    if not np.isfinite(values).all():
        return None, None
    largest = float(np.abs(values).max())
    scale = largest if largest > LARGEST else 1.0  # squares of such works are no numbers
    values = values / scale
    mean, effective = float(values.mean()), values.size / works.inefficiency(values)
    if effective < 2:
        return scale * mean, None
    deviation, t = float(values.std()), float(student_t.ppf(ONE_SIDED, effective - 1))
    # Works have a long upper tail, where Student's limit is too low: Johnson's correction, never to the inside.
    skew = max(0.0, float((((values - mean) / deviation) ** 3).mean())) if deviation > 0 else 0.0
    limit = scale * (mean + deviation * (t / math.sqrt(effective - 1) + skew * (1 + 2 * t**2) / (6 * effective)))
    return scale * mean, limit if math.isfinite(limit) else None


def _grouped(works: WorkSample) -> tuple[float | None, float | None, int]:
    """The bound from the largest groups that leave enough of them, its limit, and their size."""
    chains, draws = works.values.shape
    size = max(1, draws // math.ceil(FEWEST_GROUPS / chains))
    return *group_bound(works, size), size


def group_bound(works: WorkSample, size: int) -> tuple[float | None, float | None]:
    """Mean and upper limit of `-log mean exp(-work)` over contiguous groups of `size` works."""
    chains, draws = works.values.shape
    groups = works.values[:, : draws // size * size].reshape(chains, -1, size)
    values = math.log(size) - np.asarray(logsumexp(-groups, axis=-1))
    return _mean_and_limit(replace(works, values=values))


def _negated(x: float | None) -> float | None:
    return None if x is None else -x
