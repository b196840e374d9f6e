"""Any works, to 1e300 kT: the estimators answer with finite numbers, None or an InputError, and keep symmetries."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nessampler.errors import InputError
from nessampler.estimators import bar, bound_curve, bounds, jarzynski, overlap, pareto_k

QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
shapes = st.one_of(st.tuples(st.integers(2, 60)), st.tuples(st.integers(1, 4), st.integers(2, 30)))


def works(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, shapes, elements=elements, fill=st.nothing())


moderate = works(st.floats(-50, 50))
ties = works(st.sampled_from([-1.0, 0.0, 2.5, math.inf]))
huge = works(st.one_of(st.floats(-1e300, 1e300), st.just(math.inf), st.floats(-1, 1)))
anything = st.one_of(moderate, ties, huge, works(st.floats(width=16)))


def numbers(found: Any) -> list[Any]:
    """All numbers of a result, nested ones too."""
    if dataclasses.is_dataclass(found):
        return [x for field in dataclasses.fields(found) for x in numbers(getattr(found, field.name))]
    if isinstance(found, tuple | list):
        return [x for part in found for x in numbers(part)]
    return [found] if isinstance(found, float) else []


def answers(function: Any, *arguments: Any) -> Any:
    """What the estimator gives: nothing but finite numbers and None; None where the works are refused."""
    try:
        found = function(*arguments)
    except InputError:
        assert any(np.isnan(x).any() or np.isneginf(x).any() or x.size < 2 for x in arguments)
        return None
    assert all(math.isfinite(x) for x in numbers(found)), found
    return found


@QUIET
@given(anything, anything)
@example(np.full(3, math.inf), np.zeros(3))
@example(np.array([1e300, -1e300]), np.array([1e300, 1e300]))
@example(np.array([1e200, 1e200, 0.0]), np.array([-1e200, 0.0]))
def test_any_works_give_finite_numbers_or_none_or_are_refused(forward: np.ndarray, reverse: np.ndarray) -> None:
    found = answers(bar, forward, reverse)
    one = answers(jarzynski, forward)
    answers(bounds, forward, reverse)
    for result in (found, one):
        if result is not None:
            assert (result.delta_f is None) == (result.std_error is None)
            assert result.delta_f is not None or result.flags
            assert result.std_error is None or result.std_error >= 0
            assert all(0 <= fraction <= 1 for fraction in result.ess)


@QUIET
@given(anything)
def test_a_tail_is_a_number_or_none(forward: np.ndarray) -> None:
    if not (np.isnan(forward).any() or np.isneginf(forward).any()):
        k = pareto_k(forward)
        assert k is None or math.isfinite(k)


@QUIET
@given(moderate, moderate, st.floats(-1000, 1000))
def test_a_shift_of_the_energy_shifts_every_estimate(forward: np.ndarray, reverse: np.ndarray, shift: float) -> None:
    before, after = bar(forward, reverse), bar(forward + shift, reverse - shift)
    if before.delta_f is not None and before.overlap is not None and before.overlap > 1e-3:
        assert after.delta_f == pytest.approx(before.delta_f + shift, abs=1e-7 * (1 + abs(shift)))
        assert after.std_error == pytest.approx(before.std_error, rel=1e-4, abs=1e-6)
    one, moved = jarzynski(forward), jarzynski(forward + shift)
    assert moved.delta_f == pytest.approx(one.delta_f + shift, abs=1e-8 * (1 + abs(shift)))
    low, moved_low = bounds(forward, reverse), bounds(forward + shift, reverse - shift)
    assert moved_low.upper == pytest.approx(low.upper + shift, abs=1e-8 * (1 + abs(shift)))
    assert moved_low.lower == pytest.approx(low.lower + shift, abs=1e-8 * (1 + abs(shift)))


@QUIET
@given(moderate, moderate)
def test_exchanging_the_directions_changes_the_sign(forward: np.ndarray, reverse: np.ndarray) -> None:
    here, there = bar(forward, reverse), bar(reverse, forward)
    if here.delta_f is None or there.delta_f is None:
        assert here.delta_f is there.delta_f
        return
    assert there.delta_f == pytest.approx(-here.delta_f, abs=1e-7)
    assert there.overlap == pytest.approx(here.overlap, abs=1e-9)
    one, other = jarzynski(forward), jarzynski(forward, reverse=True)
    assert other.delta_f == pytest.approx(-one.delta_f, abs=1e-12)
    assert overlap(forward, reverse, here.delta_f) == pytest.approx(overlap(reverse, forward, -here.delta_f), abs=1e-9)


@QUIET
@given(moderate, moderate)
def test_bounds_of_one_side_are_in_order(forward: np.ndarray, reverse: np.ndarray) -> None:
    """A mean lies above the exponential average over all of its works, and groups lie between."""
    found = bounds(forward, reverse)
    up, down = jarzynski(forward).delta_f, jarzynski(reverse, reverse=True).delta_f
    slack = 1e-9 * (1 + np.abs(forward).max() + np.abs(reverse).max())
    assert found.upper >= up - slack
    assert found.lower <= down + slack
    assert found.upper_limit is None or found.upper_limit >= found.upper - slack
    assert found.lower_limit is None or found.lower_limit <= found.lower + slack
    if forward.size % found.group_size[0] == 0 and forward.shape[-1] % found.group_size[0] == 0:
        assert up - slack <= found.importance_weighted_upper <= found.upper + slack


@QUIET
@given(moderate, moderate)
def test_bounds_tighten_with_the_size_of_the_groups(forward: np.ndarray, reverse: np.ndarray) -> None:
    whole = [x.reshape(-1)[: 2 ** int(math.log2(x.size))] for x in (forward, reverse)]
    smallest = min(x.size for x in whole)
    sizes = [2**k for k in range(int(math.log2(smallest)) + 1)]
    try:
        curve = bound_curve(*whole, sizes=sizes)
    except InputError:
        return
    assert np.all(np.diff(np.asarray(curve.upper, dtype=float)) <= 1e-9)
    assert np.all(np.diff(np.asarray(curve.lower, dtype=float)) >= -1e-9)


@QUIET
@given(moderate, moderate, st.randoms())
def test_the_order_of_independent_works_means_nothing(forward: np.ndarray, reverse: np.ndarray, pick: Any) -> None:
    forward, reverse = forward.ravel(), reverse.ravel()
    order = list(range(forward.size))
    pick.shuffle(order)
    here, there = bar(forward, reverse), bar(forward[order], reverse)
    assert (here.delta_f is None) == (there.delta_f is None)
    if here.delta_f is not None:
        assert there.delta_f == pytest.approx(here.delta_f, abs=1e-7)


@pytest.mark.parametrize(
    "bad", [np.array([]), np.array([1.0]), np.zeros((2, 2, 2)), np.array([0.0, np.nan]), 3.0, [[]]]
)
def test_works_that_are_none_are_refused_in_one_line(bad: Any) -> None:
    for call in (
        lambda: bar(bad, [0.0, 1.0]),
        lambda: bar([0.0, 1.0], bad),
        lambda: jarzynski(bad),
        lambda: bounds(bad, [0.0, 1.0]),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
