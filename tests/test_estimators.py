"""Free energies from works: exact asymmetric cases, pymbar, correlated series, hard supports, huge works, bad input."""

import logging
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import lfilter
from scipy.stats import gamma, norm

from nessampler.errors import InputError
from nessampler.estimators import (
    FreeEnergy,
    bar,
    bounds,
    jarzynski,
    overlap,
    pareto_k,
    statistical_inefficiency,
)
from nessampler.estimators.blocks import block_bootstrap
from nessampler.estimators.exponential_average import second_moment
from nessampler.estimators.works import WorkSample

INF = math.inf
# Forward works C + Gamma(K, THETA). Crooks' relation P_R(-W) = P_F(W) exp(ΔF - W) tilts them to C + Gamma(K, TILTED).
C, K, THETA = -2.5, 4.0, 0.5
TILTED = THETA / (1 + THETA)
EXACT = C + K * math.log1p(THETA)


def gamma_works(seed, n_forward, n_reverse):
    rng = np.random.default_rng(seed)
    return C + rng.gamma(K, THETA, n_forward), -C - rng.gamma(K, TILTED, n_reverse)


def correlated(rng, shape, memory, scale):
    """Gamma works whose normal quantiles are a stationary AR(1) series along each row."""
    noise = rng.normal(size=(shape[0], shape[1] + 100))
    series = lfilter([math.sqrt(1 - memory**2)], [1, -memory], noise, axis=1)[:, 100:]
    return C + gamma.ppf(norm.cdf(series), K, scale=scale)


def correlated_works(seed, shape=(4, 250), memory=0.8):
    rng = np.random.default_rng(seed)
    return correlated(rng, shape, memory, THETA), -correlated(rng, shape, memory, TILTED)


def gaussian_works(seed, delta_f, spread, n_forward, n_reverse):
    rng = np.random.default_rng(seed)
    forward = delta_f + spread**2 / 2 + spread * rng.normal(size=n_forward)
    return forward, -delta_f + spread**2 / 2 + spread * rng.normal(size=n_reverse)


def pymbar_estimators():
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    return pytest.importorskip("pymbar.other_estimators")


def codes(result):
    return [flag.code for flag in result.flags]


def within_four_errors(result: FreeEnergy, exact: float, cap: float) -> bool:
    assert result.delta_f is not None
    assert result.std_error is not None
    assert 0 < result.std_error < cap
    return abs(result.delta_f - exact) <= 4 * result.std_error


# --- exact cases


@pytest.mark.parametrize("counts", [(4000, 4000), (6000, 500), (500, 6000)])
def test_bar_is_right_for_asymmetric_works_and_wrong_with_the_reverse_sign_flipped(counts):
    forward, reverse = gamma_works(1, *counts)
    result = bar(forward, reverse)
    assert within_four_errors(result, EXACT, 0.06)
    assert result.trusted
    assert result.n == counts
    assert result.ci95 == pytest.approx(
        (result.delta_f - 1.96 * result.std_error, result.delta_f + 1.96 * result.std_error)
    )
    assert not within_four_errors(bar(forward, -reverse), EXACT, 0.2)


def test_jarzynski_is_right_in_both_directions_and_wrong_with_the_sign_flipped():
    forward, reverse = gamma_works(2, 5000, 5000)
    ahead, back = jarzynski(forward), jarzynski(reverse, reverse=True)
    assert within_four_errors(ahead, EXACT, 0.03)
    assert within_four_errors(back, EXACT, 0.03)
    assert ahead.trusted
    assert back.trusted
    assert not within_four_errors(jarzynski(reverse), EXACT, 0.03)
    assert not within_four_errors(jarzynski(-forward), EXACT, 0.2)


def test_bounds_enclose_the_exact_value_and_tighten_with_groups():
    forward, reverse = gamma_works(3, 4000, 4000)
    found = bounds(forward, reverse)
    assert found.upper == pytest.approx(forward.mean())
    assert found.lower == pytest.approx(-reverse.mean())
    assert found.lower_limit < found.lower < EXACT < found.upper < found.upper_limit
    assert found.upper_limit - found.upper == pytest.approx(3.0902 * forward.std() / math.sqrt(4000), rel=0.03)
    assert found.importance_weighted_lower < EXACT + 0.02
    assert found.importance_weighted_upper > EXACT - 0.02
    low, high = found.tightest_limits
    assert low < EXACT < high
    assert high - low < 0.25 * (found.upper_limit - found.lower_limit)
    assert found.group_size == (125, 125)
    flipped = bounds(forward, -reverse)
    assert flipped.lower_limit > EXACT


def test_grouped_bounds_are_means_of_group_averages():
    works = np.arange(64.0).reshape(2, 32) / 10
    found = bounds(works, works)
    pairs = works.reshape(-1, 2)
    assert found.group_size == (2, 2)
    expected = -np.log(np.exp(-pairs).mean(1)).mean()
    assert found.importance_weighted_upper == pytest.approx(expected)
    assert found.importance_weighted_lower == pytest.approx(-expected)


def test_limits_hold_at_their_level():
    outside = inside = 0
    for seed in range(2000):
        forward, reverse = gamma_works(seed, 40, 40)
        found = bounds(forward, reverse)
        inside += (found.upper < C + K * THETA) + (found.lower > C + K * TILTED)
        outside += (found.upper_limit < C + K * THETA) + (found.lower_limit > C + K * TILTED)
    # 4000 limits, one in a thousand may fail: 4, with four standard deviations.
    assert outside <= 12
    assert inside > 1000


# --- pymbar


@pytest.mark.parametrize(
    ("spread", "counts"), [(0.5, (300, 300)), (1.5, (1000, 1000)), (2.0, (2000, 300)), (1.0, (10, 4000))]
)
def test_bar_equals_pymbar_in_value_error_and_overlap(spread, counts):
    forward, reverse = gaussian_works(4, -7.1, spread, *counts)
    reference = pymbar_estimators().bar(forward, reverse)
    result = bar(forward, reverse)
    assert result.delta_f == pytest.approx(reference["Delta_f"], abs=1e-8)
    assert result.std_error == pytest.approx(reference["dDelta_f"], abs=1e-8)
    scalar = pymbar_estimators().bar_overlap(forward, reverse)
    assert result.overlap == pytest.approx(scalar, abs=1e-5)
    assert overlap(forward, reverse, result.delta_f) == pytest.approx(result.overlap, abs=1e-12)


def test_jarzynski_equals_pymbar():
    forward, _ = gamma_works(5, 500, 2)
    reference = pymbar_estimators().exp(forward)
    result = jarzynski(forward)
    assert result.delta_f == pytest.approx(reference["Delta_f"], abs=1e-10)
    assert result.std_error == pytest.approx(reference["dDelta_f"] * math.sqrt(500 / 499), abs=1e-10)


# --- correlated works


def test_errors_of_correlated_works_match_the_spread_over_repetitions():
    honest, naive, values = [], [], []
    for seed in range(60):
        forward, reverse = correlated_works(seed)
        result = bar(forward, reverse, seed=seed)
        assert result.trusted
        values.append(result.delta_f)
        honest.append(result.std_error)
        naive.append(bar(forward.ravel(), reverse.ravel()).std_error)
    # 60 values know their own standard deviation to 9 %: three of these, 27 %.
    spread = np.std(values, ddof=1)
    assert np.mean(honest) == pytest.approx(spread, rel=0.27)
    assert np.mean(naive) < 0.5 * spread
    assert abs(np.mean(values) - EXACT) < 4 * spread / math.sqrt(60)


def test_jarzynski_errors_of_correlated_works_match_the_spread_over_repetitions():
    results = [jarzynski(correlated_works(seed)[0], seed=seed) for seed in range(60)]
    naive = [jarzynski(correlated_works(seed)[0].ravel()).std_error for seed in range(60)]
    spread = np.std([result.delta_f for result in results], ddof=1)
    assert np.mean([result.std_error for result in results]) == pytest.approx(spread, rel=0.27)
    assert np.mean(naive) < 0.6 * spread


def test_uncorrelated_draws_have_the_error_of_independent_works():
    forward, reverse = correlated_works(8, shape=(8, 500), memory=0.0)
    independent = bar(forward.ravel(), reverse.ravel()).std_error
    assert bar(forward, reverse).std_error == pytest.approx(independent, rel=0.25)


def test_resampled_blocks_know_the_spread_of_a_correlated_mean():
    honest, single, means = [], [], []
    for seed in range(100):
        series = lfilter([0.6], [1, -0.8], np.random.default_rng(seed).normal(size=(4, 350)), axis=1)[:, 100:]
        means.append(series.mean())
        sample = [WorkSample(series, correlated=True)]
        honest.append(block_bootstrap(lambda rows: rows.mean(-1), sample, [9.0], 100, seed)[0])
        single.append(block_bootstrap(lambda rows: rows.mean(-1), sample, [0.01], 100, seed)[0])
    # 100 values know their variance to 14 %: three of these, 42 %.
    assert np.mean(honest) == pytest.approx(np.var(means, ddof=1), rel=0.42)
    assert np.mean(single) < 0.3 * np.var(means, ddof=1)


def test_a_series_and_its_repetition_have_the_same_error():
    forward, reverse = correlated_works(9, shape=(4, 400), memory=0.5)
    once = bar(forward, reverse)
    thrice = bar(forward.repeat(3, axis=1), reverse.repeat(3, axis=1))
    assert thrice.delta_f == pytest.approx(once.delta_f, abs=1e-9)
    assert thrice.std_error == pytest.approx(once.std_error, rel=0.15)


def test_limits_of_correlated_works_are_wider():
    forward, reverse = correlated_works(10)
    apart, flat = bounds(forward, reverse), bounds(forward.ravel(), reverse.ravel())
    assert apart.upper == pytest.approx(flat.upper)
    assert apart.upper_limit - apart.upper > 2 * (flat.upper_limit - flat.upper)
    assert apart.lower - apart.lower_limit > 2 * (flat.lower - flat.lower_limit)


def test_too_few_blocks_are_flagged():
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(size=(2, 2, 100)), axis=-1) / 10
    result = bar(0.5 + drift[0], 0.5 + drift[1])
    assert "few_blocks" in codes(result)
    assert "few_blocks" in codes(jarzynski(0.5 + drift[0]))


def test_one_direction_may_be_independent_and_the_other_correlated():
    forward, reverse = correlated_works(11)
    flat = bar(forward.ravel(), reverse.ravel())
    half = bar(forward, reverse.ravel())
    assert half.delta_f == pytest.approx(flat.delta_f, abs=1e-9)
    assert flat.std_error < half.std_error < bar(forward, reverse).std_error


def test_the_bootstrap_follows_its_seed():
    forward, reverse = correlated_works(12, shape=(2, 60))
    errors = {bar(forward, reverse, seed=seed, resamples=20).std_error for seed in (0, 0, 1, 2, 3, 4)}
    assert 2 <= len(errors) <= 5


def test_statistical_inefficiency_equals_pymbar():
    timeseries = pytest.importorskip("pymbar.timeseries")
    for shape, memory in [((4, 250), 0.8), ((1, 500), 0.95), ((30, 40), 0.0), ((2, 13), 0.5)]:
        series = correlated_works(13, shape, memory)[0]
        expected = timeseries.statistical_inefficiency_multiple(series)
        assert statistical_inefficiency(series) == pytest.approx(expected, rel=1e-9)


def test_statistical_inefficiency_of_an_autoregressive_series_is_exact():
    rng = np.random.default_rng(14)
    series = lfilter([1.0], [1, -0.8], rng.normal(size=(20, 5000)), axis=1)[:, 100:]
    assert statistical_inefficiency(series) == pytest.approx(9.0, rel=0.1)
    assert statistical_inefficiency(np.full((3, 50), 0.1)) == 1.0


def test_chains_that_disagree_have_a_large_statistical_inefficiency():
    rng = np.random.default_rng(15)
    apart = rng.normal(size=(2, 300)) + np.array([[-5.0], [5.0]])
    assert statistical_inefficiency(apart) > 100


@pytest.mark.slow
def test_confidence_intervals_cover_at_their_level():
    covered = []
    for seed in range(400):
        result = bar(*correlated_works(seed), seed=seed)
        covered.append(result.ci95[0] < EXACT < result.ci95[1])
    assert 0.90 < np.mean(covered) < 0.98


# --- hard supports


def hard_support_works(seed, n, lost_forward, lost_reverse):
    """Exact works where a share of either direction leaves the support; ΔF shifts by log((1 - r) / (1 - f))."""
    forward, reverse = gamma_works(seed, n, n)
    rng = np.random.default_rng(seed + 1000)
    forward[rng.random(n) < lost_forward] = INF
    reverse[rng.random(n) < lost_reverse] = INF
    return forward, reverse, EXACT + math.log((1 - lost_reverse) / (1 - lost_forward))


@pytest.mark.parametrize(("lost_forward", "lost_reverse"), [(0.4, 0.0), (0.0, 0.3), (0.5, 0.2)])
def test_bar_stays_right_where_paths_leave_the_support(lost_forward, lost_reverse):
    forward, reverse, exact = hard_support_works(20, 6000, lost_forward, lost_reverse)
    assert within_four_errors(bar(forward, reverse), exact, 0.04)
    rows = bar(forward.reshape(4, -1), reverse.reshape(4, -1))
    assert within_four_errors(rows, exact, 0.06)
    dropped = bar(forward[forward < INF], reverse[reverse < INF])
    assert not within_four_errors(dropped, exact, 0.04)


def test_jarzynski_keeps_its_own_infinite_works_and_refuses_where_the_opposite_paths_leave():
    forward, reverse, exact = hard_support_works(21, 6000, 0.4, 0.0)
    assert within_four_errors(jarzynski(forward, opposite=reverse), exact, 0.04)
    refused = jarzynski(reverse, reverse=True, opposite=forward)
    assert (refused.delta_f, refused.std_error, refused.ci95) == (None, None, None)
    assert codes(refused) == ["leaves_support"]
    assert "0.388 of the opposite works" in refused.flags[0].message
    # The reason: without the other direction the value looks trustworthy and is off by -log P(return).
    blind = jarzynski(reverse, reverse=True)
    assert blind.trusted
    assert within_four_errors(blind, exact + math.log(0.6), 0.04)
    assert not within_four_errors(blind, exact, 0.04)


def test_bounds_are_none_only_where_infinite_works_leave_none():
    forward, reverse, exact = hard_support_works(22, 4000, 0.4, 0.0)
    found = bounds(forward, reverse)
    assert found.upper is None
    assert found.upper_limit is None
    assert found.lower < exact
    assert found.importance_weighted_upper > exact - 0.02
    assert bounds([INF, INF], [0.0, 1.0]).tightest_limits[1] is None


def test_works_that_are_all_infinite_give_no_number():
    assert codes(jarzynski([INF, INF])) == ["no_finite_work"]
    for works in ([INF, INF], [0.0, 1.0]), ([0.0, 1.0], [INF, INF]):
        result = bar(*works)
        assert codes(result) == ["no_overlap"]
        assert result.delta_f is None
        assert result.overlap == 0.0


def test_resamples_without_a_finite_work_are_flagged():
    forward, reverse = gamma_works(23, 60, 60)
    forward[1:] = INF
    result = bar(forward.reshape(2, -1), reverse.reshape(2, -1))
    assert "unstable_error" in codes(result)
    assert result.std_error is None or math.isfinite(result.std_error)


# --- huge works, no overlap


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_bar_survives_huge_works(size):
    forward, reverse = gamma_works(24, 800, 800)
    plain = bar(forward, reverse)
    shifted = bar(forward + size, reverse - size)
    assert shifted.delta_f - size == pytest.approx(plain.delta_f, abs=1e-8)
    assert shifted.std_error == pytest.approx(plain.std_error, abs=1e-8)
    outliers = bar(np.append(forward, [size, 10 * size]), np.append(reverse, [size, INF]))
    assert outliers.delta_f == pytest.approx(plain.delta_f, abs=0.01)
    assert outliers.std_error == pytest.approx(plain.std_error, rel=0.01)


@pytest.mark.parametrize("size", [30.0, 1e3, 1e6])
@pytest.mark.parametrize("shape", [(400,), (4, 100)])
def test_works_without_overlap_give_no_number(size, shape):
    forward, reverse = gamma_works(25, 400, 400)
    result = bar(forward.reshape(shape) + size, reverse.reshape(shape) + size)
    assert codes(result) == ["no_overlap"]
    assert (result.delta_f, result.std_error, result.ci95) == (None, None, None)
    assert 0 <= result.overlap < 1e-6
    assert "no_overlap" in str(result)


def test_works_in_the_forbidden_order_are_survived():
    result = bar(np.linspace(-50, -40, 50), np.linspace(-50, -40, 60))
    assert result.delta_f is None or math.isfinite(result.delta_f)


def test_poor_overlap_is_flagged_and_its_error_is_the_greater():
    forward, reverse = gaussian_works(2, 2.0, 5.0, 100, 100)
    result = bar(forward, reverse)
    assert codes(result) == ["poor_overlap"]
    assert result.overlap < 0.06
    bennett, mbar = (
        pymbar_estimators().bar(forward, reverse, uncertainty_method=method)["dDelta_f"] for method in ("BAR", "MBAR")
    )
    assert mbar > 1.2 * bennett
    assert result.std_error == pytest.approx(max(bennett, mbar), abs=1e-7)
    assert within_four_errors(result, 2.0, 1.0)


def test_heavy_tails_and_few_effective_samples_are_flagged():
    heavy = jarzynski(4 * np.random.default_rng(27).normal(size=3000))
    assert heavy.pareto_k > 0.7
    assert codes(heavy) == ["heavy_tail", "few_effective_samples"]
    assert "few_effective_samples" in codes(jarzynski(np.zeros(99)))
    assert jarzynski(np.zeros(100)).trusted


def skewed_works(shape: float, scale: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """ΔF = 0; reverse works are minus gamma distributed, so that their weights have a Pareto tail of index `scale`."""
    rng, shift = np.random.default_rng(seed), -shape * math.log(1 - scale)
    return rng.gamma(shape, scale / (1 - scale), n) - shift, shift - rng.gamma(shape, scale, n)


def test_weights_that_only_the_other_direction_meets_are_flagged_and_unflagged_averages_cover():
    z: dict[str, list[float]] = {"all": [], "unflagged": []}
    for seed in range(300):
        forward, reverse = skewed_works(1.5, 0.45, 300, seed)  # the weights of reverse works hardly have a variance
        found = jarzynski(reverse, reverse=True, opposite=forward)
        assert (found.delta_f, found.std_error) == (jarzynski(reverse, reverse=True).delta_f, found.std_error)
        score = found.delta_f / found.std_error
        z["all"].append(score)
        if "unreached" not in codes(found):
            z["unflagged"].append(score)
    n = len(z["unflagged"])
    assert 50 < n < 200
    assert abs(np.mean(z["unflagged"])) < 4 / math.sqrt(n)
    assert np.mean(np.abs(z["unflagged"]) < 1.96) > 0.95 - 4 * math.sqrt(0.95 * 0.05 / n)
    assert np.mean(z["all"]) < -4 / math.sqrt(300)  # the negative control: without the flag, averages lean


def test_directions_that_meet_the_same_weights_are_left_in_peace():
    for seed in range(50):
        forward, reverse = skewed_works(1.5, 0.2, 1000, seed)
        assert codes(jarzynski(forward, opposite=reverse)) == []
        assert codes(jarzynski(reverse, reverse=True, opposite=forward)) == []
    assert codes(jarzynski(np.ones(200), opposite=-np.ones(300))) == []


def test_the_second_moment_of_both_directions_is_exact():
    # The gamma law's moment generating function.
    shape, scale = 2.0, 0.3
    forward, reverse = skewed_works(shape, scale, 200_000, 1)
    exact = (1 - scale) ** (2 * shape) * (1 - 2 * scale) ** -shape
    assert second_moment(reverse[None], forward[None]) == pytest.approx(exact, rel=0.02)
    assert second_moment(reverse[None, :500], forward[None]) == pytest.approx(exact, rel=0.05)


def test_pareto_k_recovers_the_tail_of_exponential_works():
    # -work ~ k Exp(1), so the weights are Pareto with tail index k.
    rng = np.random.default_rng(28)
    for k in (0.3, 0.9):
        assert pareto_k(-k * rng.exponential(size=20000)) == pytest.approx(k, abs=0.12)


@pytest.mark.parametrize("works", [np.zeros(100), np.full(100, INF), np.arange(10.0)])
def test_pareto_k_is_none_where_no_tail_can_be_fitted(works):
    assert pareto_k(works) is None


def test_identical_works_are_exact():
    result = bar(np.full(60, 1.25), np.full(70, -1.25))
    assert result.delta_f == pytest.approx(1.25, abs=1e-12)
    assert result.std_error == pytest.approx(0, abs=1e-7)
    assert result.overlap == pytest.approx(1)
    assert "ΔF = 1.25" in str(result)


# --- symmetries and units


def work_arrays(width=8.0):
    return arrays(np.float64, st.integers(2, 25), elements=st.floats(-width, width))


@given(forward=work_arrays(), reverse=work_arrays())
@settings(max_examples=60, deadline=None)
def test_bar_is_antisymmetric_under_exchange_of_directions(forward, reverse):
    ahead, back = bar(forward, reverse), bar(reverse, forward)
    assert codes(ahead) == codes(back)
    if ahead.delta_f is not None:
        assert back.delta_f == pytest.approx(-ahead.delta_f, abs=1e-7)
        assert back.std_error == pytest.approx(ahead.std_error, abs=1e-6)


@given(forward=work_arrays(), reverse=work_arrays(), shift=st.floats(-1e4, 1e4))
@settings(max_examples=60, deadline=None)
def test_bar_shifts_with_the_works(forward, reverse, shift):
    plain, shifted = bar(forward, reverse), bar(forward + shift, reverse - shift)
    assert (plain.delta_f is None) == (shifted.delta_f is None)
    if plain.delta_f is not None:
        assert shifted.delta_f - shift == pytest.approx(plain.delta_f, abs=1e-6)


@given(forward=work_arrays(), reverse=work_arrays())
@settings(max_examples=60, deadline=None)
def test_bar_solves_bennetts_equation(forward, reverse):
    result = bar(forward, reverse)
    if result.delta_f is not None:
        m = math.log(len(forward) / len(reverse))
        left = (1 / (1 + np.exp(m + forward - result.delta_f))).sum()
        right = (1 / (1 + np.exp(-m + reverse + result.delta_f))).sum()
        assert left == pytest.approx(right, rel=1e-9)


@given(value=st.floats(-100, 100), temperature=st.floats(1, 1000))
def test_units_convert_by_the_gas_constant(value, temperature):
    result = FreeEnergy(value, 0.1, (value - 0.2, value + 0.2), (50,), (1.0,), (), "BAR")
    kj, kcal = result.to("kJ/mol", temperature), result.to("kcal/mol", temperature=temperature)
    assert kj.delta_f == pytest.approx(value * 0.00831446261815324 * temperature)
    assert kj.delta_f == pytest.approx(4.184 * kcal.delta_f)
    assert kcal.std_error == pytest.approx(0.1 * 0.0019872042586 * temperature)
    assert kcal.ci95[1] - kcal.ci95[0] == pytest.approx(4 * kcal.std_error)
    assert (kcal.unit, kcal.n) == ("kcal/mol", (50,))


@pytest.mark.parametrize("temperature", [None, 0.0, -300.0, math.nan, INF])
def test_a_conversion_without_a_positive_temperature_is_refused(temperature):
    result = bar([0.0, 0.1], [0.0, 0.1])
    with pytest.raises(InputError, match="positive temperature in kelvin"):
        result.to("kcal/mol", temperature)


def test_unknown_units_and_second_conversions_are_refused():
    result = bar([0.0, 0.1], [0.0, 0.1])
    with pytest.raises(InputError, match="'eV'"):
        result.to("eV", 300)
    with pytest.raises(InputError, match="starts from kT"):
        result.to("kJ/mol", 300).to("kcal/mol", 300)


def test_a_missing_value_stays_missing_in_other_units():
    assert jarzynski([INF, INF]).to("kJ/mol", 300).delta_f is None


# --- input


def test_lists_tensors_and_arrays_give_the_same_result():
    forward, reverse = gamma_works(30, 50, 50)
    expected = bar(forward, reverse)
    assert bar(forward.tolist(), reverse.tolist()) == expected
    assert bar(torch.tensor(forward, requires_grad=True), torch.tensor(reverse)) == expected


def test_an_ensemble_gives_its_works_and_its_refusal():
    class Walkers:
        log_weight = torch.tensor([-1.0, -2.0])

        @property
        def work(self):
            return -self.log_weight

    class Resampled(Walkers):
        @property
        def work(self):
            raise InputError("works of a resampled ensemble are not independent")

    assert jarzynski(Walkers()) == jarzynski([1.0, 2.0])
    with pytest.raises(InputError, match="not independent"):
        bar(Resampled(), [1.0, 2.0])


@pytest.mark.parametrize("bad", [math.nan, -INF])
def test_the_first_bad_work_is_named(bad):
    flat, rows = np.zeros(5), np.zeros((3, 4))
    flat[2], rows[1, 3], rows[2, 0] = bad, bad, bad
    good = np.zeros(5)
    with pytest.raises(InputError, match="forward work at index 2 is"):
        bar(flat, good)
    with pytest.raises(InputError, match="reverse work at chain 1, draw 3 is"):
        bounds(good, rows)
    with pytest.raises(InputError, match="reverse work at index 2"):
        jarzynski(flat, reverse=True)


@pytest.mark.parametrize("works", [[], [1.0], 1.0, np.zeros((2, 2, 2)), np.zeros((0, 5)), np.zeros((1, 1))])
def test_fewer_than_two_works_or_a_strange_shape_are_refused(works):
    for estimate in (jarzynski, lambda w: bar(w, [0.0, 1.0]), lambda w: bounds([0.0, 1.0], w)):
        with pytest.raises(InputError, match="two or more"):
            estimate(works)


def test_a_result_prints_value_error_interval_and_flags():
    forward, reverse = gamma_works(31, 1000, 1000)
    text = str(bar(forward, reverse))
    assert text.startswith("ΔF = -0.")
    assert "kT (95 % interval" in text
    assert text.endswith("BAR)")
    assert "few_effective_samples" in str(jarzynski([0.0, 0.1]))


def test_block_bootstrap_of_a_thousand_works_takes_less_than_half_a_second():
    forward, reverse = correlated_works(32)
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        bar(forward, reverse, resamples=200)
        best = min(best, time.process_time() - start)
    assert best < 0.5
