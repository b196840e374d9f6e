"""How large a cell of a difference must be to cost its budget: a few trials, and a line through two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nessampler.errors import InputError

__all__ = ["FIRST", "SMALLEST", "rounded", "scale_of", "smallest_accepted", "trials"]

FIRST = 0.25  # of the preset's samples, in the first trial
SMALLEST, LARGEST = 0.05, 1.0  # of any, and of the second
OFF = 0.25  # of the budget: a trial this far from it asks for a third
AFFORDABLE = 2.0  # budgets, for three trials


def trials(cost: Callable[[float], float], budget: float, smallest: float = SMALLEST) -> dict[str, Any]:
    """What some sizes cost, as multiples of the preset's: `{"smallest": s, "scales": [...], "costs": [...]}`.

    A quarter, then as much as that lets expect, at most the preset itself. Where the second is off by more than a
    quarter of the budget, the size that both predict is tried as well, as long as the three cost no more than two
    budgets. A size that is refused is tried at its double, which is the smallest from there on.

    Args:
        cost: of a scale.

    Raises:
        InputError: the preset itself is refused.

    Example:
        >>> found = trials(lambda scale: 50 + 100 * scale**2, 250)  # met at 1.41
        >>> found["scales"], round(scale_of(found, 250), 2)
        ([0.25, 1.0, 1.8], 1.36)
    """
    tried: list[tuple[float, float]] = []

    def run(scale: float) -> None:
        nonlocal smallest
        try:
            tried.append((scale, cost(scale)))
        except InputError:
            if scale >= LARGEST:
                raise
            smallest = min(LARGEST, 2 * scale)
            run(rounded(smallest))

    run(rounded(max(FIRST, smallest)))
    first, spent = tried[0]
    second = rounded(min(LARGEST, max(smallest, first * budget / spent)))
    if second != first:
        run(second)
    third = _met(tried, budget, smallest)
    spent = sum(c for _, c in tried)
    if abs(tried[-1][1] / budget - 1) > OFF and third != tried[-1][0] and spent + budget <= AFFORDABLE * budget:
        run(third)
    return {"smallest": smallest, "scales": [s for s, _ in tried], "costs": [c for _, c in tried]}


def scale_of(found: Mapping[str, Any], budget: float) -> float:
    """At which a line through the last two trials meets the budget.

    >>> scale_of({"smallest": 0.1, "scales": [0.25, 1.0], "costs": [30.0, 60.0]}, 100)  # 20 once, 40 by size
    2.0
    """
    return _met(list(zip(found["scales"], found["costs"], strict=True)), budget, found["smallest"])


def _met(tried: Sequence[tuple[float, float]], budget: float, smallest: float) -> float:
    last, cost = tried[-1]
    before, less = tried[-2] if len(tried) > 1 else tried[-1]
    each = (cost - less) / (last - before) if last != before else 0.0
    # Another rung was taken, or there is one size only: all is by size.
    met = last + (budget - cost) / each if each > 0 else last * budget / cost
    return rounded(max(smallest, met))


def smallest_accepted(accepted: Callable[[float], bool]) -> float:
    """The first of growing scales, a quarter more each, up to the preset itself.

    >>> smallest_accepted(lambda scale: scale * 100 > 8)
    0.09766
    """
    scale = SMALLEST
    while scale < LARGEST and not accepted(scale):
        scale *= 1.25
    return rounded(min(LARGEST, scale))


def rounded(scale: float) -> float:
    """As in the name of a folder.

    >>> rounded(1 / 3)
    0.3333
    """
    return float(f"{scale:.4g}")
