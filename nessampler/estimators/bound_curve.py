"""How the importance-weighted bounds of ΔF close as more works share a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nessampler.errors import InputError
from nessampler.estimators.second_law import FEWEST_GROUPS, group_bound
from nessampler.estimators.works import Work, WorkSample, checked_work

__all__ = ["BoundCurve", "bound_curve"]

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class BoundCurve:
    """Bounds of ΔF in kT against the size m of groups; None where works of +inf, or too few groups, leave none.

    Attributes:
        sizes: m, works per group.
        lower, upper: the bounds at each m; the gap between them shrinks with m.
        lower_limit, upper_limit: their one-sided 99.9 % confidence limits, outside them.

    >>> curve = bound_curve([1.0] * 64, [-1.0] * 64)  # works that do not vary leave no gap
    >>> curve.sizes, curve.lower, curve.upper
    ((1, 2), (1.0, 1.0), (1.0, 1.0))
    """

    sizes: tuple[int, ...]
    lower: Values
    upper: Values
    lower_limit: Values
    upper_limit: Values


def bound_curve(work_forward: Work, work_reverse: Work, sizes: Sequence[int] | None = None) -> BoundCurve:
    """Importance-weighted bounds of ΔF for groups of m works, as a function of m.

        E[log mean_m exp(-W_R)] ≤ ΔF ≤ -E[log mean_m exp(-W_F)]

    At m = 1 these are the second-law bounds, and they tighten as m grows (Burda et al., theorem 1): the remaining gap
    says what the Jarzynski average of m works misses, its bias. To first order it is `var(exp(-W)) / (2 m <exp(-W)>²)`
    on each side, so a curve that does not fall like 1/m has not seen the works that matter.

    Args:
        work_forward, work_reverse: works of either direction in kT, `(n,)` or `(chains, draws)`.
        sizes: works per group; by default powers of two that leave 32 groups in both directions.

    Raises:
        InputError: works that `bounds` refuses; a size below one, or of which a direction has not two groups.

    References: Importance Weighted Autoencoders, 2015, arXiv:1509.00519, theorem 1; Importance Weighting and
        Variational Inference, 2018, arXiv:1808.09034, theorem 3 (the 1/m law).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> curve = bound_curve(3 + 2 * rng.normal(size=2048), 1 + 2 * rng.normal(size=2048), sizes=[1, 8, 64])
    >>> [round(x, 1) for x in curve.lower], [round(x, 1) for x in curve.upper]
    ([-1.0, 0.3, 0.7], [2.9, 1.5, 1.0])
    """
    forward, reverse = checked_work(work_forward, "forward"), checked_work(work_reverse, "reverse")
    chosen = _doubling(forward, reverse) if sizes is None else tuple(int(m) for m in sizes)
    for m in chosen:
        _check(m, forward, "forward")
        _check(m, reverse, "reverse")
    upper, upper_limit = zip(*(group_bound(forward, m) for m in chosen), strict=True)
    lower, lower_limit = zip(*(group_bound(reverse, m) for m in chosen), strict=True)
    return BoundCurve(chosen, _negated(lower), upper, _negated(lower_limit), upper_limit)


def _doubling(*directions: WorkSample) -> tuple[int, ...]:
    sizes = [1]
    while min(_groups(works, 2 * sizes[-1]) for works in directions) >= FEWEST_GROUPS:
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


def _groups(works: WorkSample, m: int) -> int:
    chains, draws = works.values.shape
    return chains * (draws // m)


def _check(m: int, works: WorkSample, direction: str) -> None:
    if m < 1 or _groups(works, m) < 2:
        raise InputError(
            f"a group holds one work or more, and every direction has two groups: got groups of {m} for {direction} "
            f"works of shape {works.values.shape}; ask for smaller groups"
        )


def _negated(values: Values) -> Values:
    return tuple(None if x is None else -x for x in values)
