"""Several transports, one answer: weights, errors that know of common samples, and bounds against group size."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from nessampler.errors import InputError
from nessampler.estimators import bar, bound_curve, bounds, combine

INF = math.inf
EXACT = 0.7
STEP = np.array([1.6, 1.2, 1.0])
Pair = tuple[np.ndarray, np.ndarray]
Fractions = tuple[tuple[float, ...], ...]
UNLIKE = ((0.55, 1, 1), (1, 0.4, 1), (1, 1, 0.3))
ALIKE = ((0.5, 0.5, 0.5), (0.55, 0.5, 0.45), (0.45, 0.5, 0.55), (0.5, 0.55, 0.5))


def shifts(seed: int, n: int = 250, fractions: Fractions = UNLIKE) -> list[Pair]:
    """Works of one set of samples through several shifts, each short of the step between two Gaussians."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 3)), STEP + rng.normal(size=(n, 3))

    def energy_a(x: np.ndarray) -> np.ndarray:
        return 0.5 * (x**2).sum(-1)

    def energy_b(x: np.ndarray) -> np.ndarray:
        return 0.5 * ((x - STEP) ** 2).sum(-1) + EXACT

    moves = [STEP * np.array(f) for f in fractions]
    return [(energy_b(a + s) - energy_a(a), energy_a(b - s) - energy_b(b)) for s in moves]


def scores(fractions: Fractions, same_samples: bool, seeds: int = 60) -> np.ndarray:
    found = [combine(shifts(s, fractions=fractions), same_samples=same_samples, resamples=100) for s in range(seeds)]
    return np.array([(c.delta_f.delta_f - EXACT) / c.delta_f.std_error for c in found])


def test_errors_of_transports_of_common_samples_are_honest() -> None:
    z = scores(ALIKE, same_samples=True)
    assert abs(z.mean()) < 4 / math.sqrt(len(z))
    assert 0.75 < z.std() < 1.3


def test_taking_common_samples_for_independent_ones_is_noticed() -> None:
    assert scores(ALIKE, same_samples=False).std() > 1.5


def test_the_combination_is_no_worse_than_the_best_and_better_where_errors_differ() -> None:
    gains, values = [], []
    for seed in range(40):
        found = combine(shifts(seed), same_samples=True, resamples=100)
        best = min(one.std_error for one in found.each)
        assert found.delta_f.std_error <= best * (1 + 1e-12)
        assert sum(found.weights) == pytest.approx(1)
        assert min(found.weights) >= 0
        gains.append(found.delta_f.std_error / best)
        values.append([one.delta_f for one in found.each] + [found.delta_f.delta_f])
    assert np.mean(gains) < 0.9
    spread = np.std(values, axis=0)
    assert spread[-1] < 1.05 * spread[:-1].min()  # and not only in its own opinion


def test_independent_transports_are_weighted_by_their_inverse_variance() -> None:
    works = [shifts(seed, fractions=(f,))[0] for seed, f in enumerate([(1, 1, 0.2), (0.2, 1, 1)])]
    found = combine(works, same_samples=False)
    precision = np.array([bar(*pair).std_error ** -2 for pair in works])
    assert found.weights == pytest.approx(tuple(precision / precision.sum()))
    assert found.delta_f.std_error == pytest.approx(precision.sum() ** -0.5)


def test_correlated_works_keep_their_error() -> None:
    works = shifts(0)
    thrice = [tuple(w.repeat(3).reshape(1, -1) for w in pair) for pair in works]
    once, repeated = (combine(w, same_samples=True) for w in (works, thrice))
    assert repeated.delta_f.std_error == pytest.approx(once.delta_f.std_error, rel=0.25)
    assert repeated.delta_f.delta_f == pytest.approx(once.delta_f.delta_f, abs=once.delta_f.std_error)


def test_a_transport_that_finds_nothing_is_left_out() -> None:
    good = shifts(0)[0]
    nothing = np.full_like(good[0], INF), np.full_like(good[1], INF)
    found = combine([nothing, good], same_samples=True)
    assert found.weights == (0.0, 1.0)
    assert found.delta_f.std_error == pytest.approx(bar(*good).std_error)
    alone = combine([nothing], same_samples=True)
    assert alone.delta_f.delta_f is None
    assert "no_overlap" in [flag.code for flag in alone.delta_f.flags]


def test_a_transport_without_any_error_takes_all_weight() -> None:
    perfect = shifts(0, fractions=((1, 1, 1),))[0]
    found = combine([shifts(0)[0], perfect], same_samples=True)
    assert found.weights == pytest.approx((0.0, 1.0), abs=1e-6)
    assert found.delta_f.delta_f == pytest.approx(EXACT)


def test_combinations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="got none"):
        combine([], same_samples=True)
    with pytest.raises(InputError, match="works of one shape"):
        combine([shifts(0)[0], shifts(0, n=100)[0]], same_samples=True)


# --- bounds against group size -----------------------------------------------------------------------------------


def gamma_works(seed: int, n: int = 6400) -> tuple[np.ndarray, np.ndarray, float]:
    """Asymmetric works that satisfy Crooks' relation exactly, and their ΔF."""
    shape, theta, rng = 3.0, 1.2, np.random.default_rng(seed)
    return rng.gamma(shape, theta, n), -rng.gamma(shape, theta / (1 + theta), n), shape * math.log1p(theta)


def test_bounds_hold_and_close_as_groups_grow() -> None:
    forward, reverse, exact = gamma_works(0)
    curve = bound_curve(forward, reverse)
    assert curve.sizes == (1, 2, 4, 8, 16, 32, 64, 128)
    assert max(curve.lower_limit) < exact < min(curve.upper_limit)
    for values, sign in ((curve.lower, 1), (curve.upper, -1)):
        assert all(sign * (b - a) > 0 for a, b in pairwise(values[:6]))
    assert curve.upper[-1] - curve.lower[-1] < 0.1 * (curve.upper[0] - curve.lower[0])


def test_single_works_give_the_second_law() -> None:
    forward, reverse, _ = gamma_works(1)
    curve, plain = bound_curve(forward, reverse, sizes=[1]), bounds(forward, reverse)
    assert curve.upper[0] == pytest.approx(plain.upper)
    assert curve.lower[0] == pytest.approx(plain.lower)
    assert curve.upper_limit[0] == pytest.approx(plain.upper_limit)


def test_the_gap_falls_like_the_variance_of_the_weights_over_twice_the_size() -> None:
    forward, reverse, exact = gamma_works(2, n=1_000_000)
    size, weight = 50, np.exp(-(forward - exact))
    gap = bound_curve(forward, reverse, sizes=[size]).upper[0] - exact
    assert gap == pytest.approx(weight.var() / (2 * size), rel=0.2)


def test_an_infinite_work_leaves_no_bound_until_groups_hide_it() -> None:
    forward, reverse, exact = gamma_works(3, n=640)
    forward[5] = INF
    curve = bound_curve(forward, reverse, sizes=[1, 4])
    assert curve.upper[0] is None
    assert curve.upper[1] > exact
    assert curve.lower[0] < exact


def test_groups_follow_chains() -> None:
    forward, reverse, _ = gamma_works(4)
    rows = [w.reshape(4, -1) for w in (forward, reverse)]
    assert bound_curve(*rows).upper[3] == pytest.approx(bound_curve(forward, reverse).upper[3])


@pytest.mark.parametrize("size", [0, 3201])
def test_group_sizes_that_make_no_sense_are_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"groups of {size}"):
        bound_curve(*gamma_works(0)[:2], sizes=[size])
