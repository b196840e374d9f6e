"""Diagnostics notice what is wrong and stay silent where nothing is."""

import logging
import math
import re

import numpy as np
import pytest
from scipy.signal import lfilter

from nessampler.diagnostics import convergence, crooks_check, disagreement, overlap, pareto_k, statistical_inefficiency
from nessampler.errors import InputError
from nessampler.estimators import bar

INF = math.inf
C, K, THETA = 0.7, 3.0, 0.8
TILTED = THETA / (1 + THETA)
EXACT = C + K * math.log1p(THETA)


def gamma_works(seed, n_forward=2000, n_reverse=2000):
    """Asymmetric works that satisfy Crooks' relation exactly."""
    rng = np.random.default_rng(seed)
    return C + rng.gamma(K, THETA, n_forward), -C - rng.gamma(K, TILTED, n_reverse)


def codes(flags):
    return [flag.code for flag in flags]


@pytest.mark.parametrize("counts", [(2000, 2000), (4000, 500)])
def test_overlap_equals_pymbars_scalar(counts):
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    pymbar = pytest.importorskip("pymbar.other_estimators")
    forward, reverse = gamma_works(0, *counts)
    delta_f = bar(forward, reverse).delta_f
    assert overlap(forward, reverse, delta_f) == pytest.approx(pymbar.bar_overlap(forward, reverse), abs=1e-5)


def test_overlap_is_one_for_identical_ends_and_zero_for_distant_ones():
    assert overlap(np.zeros(10), np.zeros(30), 0.0) == pytest.approx(1.0)
    assert overlap(np.full(10, 1e6), np.full(10, 1e6), 0.0) == 0.0


def test_the_estimators_diagnostics_are_found_here_too():
    assert pareto_k(np.zeros(100)) is None
    assert statistical_inefficiency(np.zeros((2, 10))) == 1.0


@pytest.mark.parametrize("counts", [(2000, 2000), (5000, 600)])
def test_crooks_slope_is_one_for_exact_works(counts):
    found = crooks_check(*gamma_works(1, *counts), delta_f=EXACT)
    assert found.std_error < 0.1
    assert abs(found.z) <= 4
    assert found.z == pytest.approx((found.slope - 1) / found.std_error)


def test_crooks_slope_notices_a_wrong_temperature_and_a_wrong_sign():
    forward, reverse = gamma_works(2)
    hot = crooks_check(1.4 * forward, 1.4 * reverse, delta_f=1.4 * EXACT)
    assert hot.slope == pytest.approx(1 / 1.4, abs=0.1)
    assert hot.z < -4
    rng = np.random.default_rng(2)
    forward, reverse = 0.3 + rng.normal(size=1000), 0.7 + rng.normal(size=1000)
    assert abs(crooks_check(forward, reverse, delta_f=-0.2).z) < 4
    assert crooks_check(forward, -reverse, delta_f=-0.2).slope < 0


def test_crooks_slope_does_not_depend_on_the_centre_or_on_infinite_works():
    forward, reverse = gamma_works(3)
    plain = crooks_check(forward, reverse, delta_f=EXACT)
    moved = crooks_check(np.append(forward, INF), np.append(reverse, INF), delta_f=EXACT + 1)
    assert moved.slope == pytest.approx(plain.slope, abs=1e-8)
    assert moved.std_error == pytest.approx(plain.std_error, rel=1e-2)


def test_crooks_z_scores_are_standard_normal():
    z = np.array([crooks_check(*gamma_works(seed, 400, 600), delta_f=EXACT).z for seed in range(200)])
    assert abs(z.mean()) < 4 / math.sqrt(200)
    assert 0.8 < z.std() < 1.2


def test_crooks_error_grows_with_correlation():
    forward, reverse = gamma_works(4, 500, 500)
    repeated = forward.repeat(5).reshape(1, -1), reverse.repeat(5).reshape(1, -1)
    once, five = crooks_check(forward, reverse, EXACT), crooks_check(*repeated, EXACT)
    assert five.slope == pytest.approx(once.slope, abs=1e-8)
    assert five.std_error == pytest.approx(once.std_error, rel=0.25)
    assert crooks_check(repeated[0].ravel(), repeated[1].ravel(), EXACT).std_error < 0.5 * once.std_error


@pytest.mark.parametrize(
    "works",
    [([5.0, 6.0], [5.0, 6.0]), ([1.0, 1.0], [-1.0, -1.0]), ([INF, INF], [0.0, 1.0]), ([-5.0, -6.0], [-5.0, -6.0])],
)
def test_crooks_slope_is_none_for_separated_or_constant_works(works):
    found = crooks_check(*works, delta_f=0.0)
    assert (found.slope, found.std_error, found.z) == (None, None, None)


def test_crooks_check_needs_a_finite_centre():
    with pytest.raises(InputError, match="must be finite"):
        crooks_check([0.0, 1.0], [0.0, 1.0], delta_f=math.nan)


def test_convergence_ends_at_the_full_estimate_and_starts_from_either_end():
    forward, reverse = (works.reshape(4, -1) for works in gamma_works(5))
    found = convergence(forward, reverse, fractions=5, resamples=40)
    assert found.fractions == pytest.approx((0.2, 0.4, 0.6, 0.8, 1.0))
    assert found.forward[-1] == found.backward[-1] == bar(forward, reverse, resamples=40)
    assert found.forward[0] == bar(forward[:, :100], reverse[:, :100], resamples=40)
    assert found.backward[0] == bar(forward[:, -100:], reverse[:, -100:], resamples=40)
    for part in (*found.forward, *found.backward):
        assert abs(part.delta_f - EXACT) <= 4 * part.std_error
        assert part.std_error < 0.25


def test_convergence_shows_a_drift():
    forward, reverse = gamma_works(6)
    ramp = np.linspace(1, 0, len(forward))
    found = convergence(forward + ramp, reverse - ramp, fractions=4)
    first, last = found.forward[0], found.backward[0]
    assert abs(first.delta_f - last.delta_f) > 4 * math.hypot(first.std_error, last.std_error)


@pytest.mark.parametrize("fractions", [0, -1, 6])
def test_convergence_needs_two_draws_in_every_part(fractions):
    with pytest.raises(InputError, match="two draws in the smallest part"):
        convergence(np.zeros(10), np.zeros(500), fractions=fractions)


def test_exact_works_do_not_disagree():
    for seed in range(20):
        assert disagreement(*gamma_works(seed, 500, 700)) == ()


def test_dissipation_alone_is_no_disagreement():
    rng = np.random.default_rng(7)
    assert disagreement(8 + 4 * rng.normal(size=1000), 8 + 4 * rng.normal(size=1000)) == ()


def test_a_flipped_reverse_sign_crosses_the_bounds():
    rng = np.random.default_rng(8)
    forward, reverse = -4.5 + rng.normal(size=1000), 5.5 + rng.normal(size=1000)
    assert disagreement(forward, reverse) == ()
    assert codes(disagreement(-forward, -reverse)) == ["crossed_bounds", "directions_disagree"]


def test_directions_may_differ_by_what_works_may_be_off():
    forward, reverse = gamma_works(0)
    off = (forward - 0.3, reverse - 0.3)  # both limits lie 0.3 further in than works allow
    assert set(codes(disagreement(*off, exact=False))) == {"crossed_bounds", "directions_disagree"}
    assert disagreement(*off, exact=False, systematic=0.3) == ()


def test_messages_about_a_density_speak_of_its_log_z():
    rng = np.random.default_rng(0)
    flags = disagreement(-3 + rng.normal(size=2000), 1 + rng.normal(size=2000), base_log_z=2.0)
    assert [flag.code for flag in flags] == ["crossed_bounds", "directions_disagree"]
    assert all("log Z" in flag.message and "ΔF" not in flag.message for flag in flags)
    # ΔF is -3.5 forwards and -0.5 backwards: log Z = 2 - ΔF
    assert "log Z = 5.5" in flags[1].message
    assert "samples of the target 2.5" in flags[1].message
    low, high = (float(word.strip(",")) for word in re.findall(r"-?\d+\.\d+", flags[0].message))
    assert low > high


def test_a_basin_missing_from_one_end_makes_the_directions_disagree():
    forward, reverse = gamma_works(9)
    # Half of state B never visited: works from there see ΔF higher by log 2, those from A do not.
    assert "directions_disagree" in codes(disagreement(forward, reverse - math.log(2)))


def test_slow_correlation_widens_the_limits_before_anything_is_flagged():
    rng = np.random.default_rng(10)
    slow = lfilter([1.0], [1, -0.98], rng.normal(size=(2, 2, 300)), axis=-1) * math.sqrt(1 - 0.98**2)
    forward, reverse = 0.3 + slow[0], 0.3 + slow[1] - (slow[1].mean() + slow[0].mean() + 0.9)
    assert "crossed_bounds" in codes(disagreement(forward.ravel(), reverse.ravel()))
    assert disagreement(forward, reverse) == ()


def test_a_mode_that_one_end_lacks_violates_crooks_though_nothing_else_disagrees():
    """A wide normal to two modes of unequal width; of one of them the samples of B know nothing."""
    rng = np.random.default_rng(4)
    means, scales = np.array([-2.0, 2.0]), np.array([0.5, 0.9])

    def excess(x):  # U_B - U_A, both normalised
        modes = np.exp(-0.5 * ((x[:, None] - means) / scales) ** 2) / scales
        return -np.log(0.5 * modes.sum(1)) - (0.5 * (x / 2) ** 2 + np.log(2))

    a, mode = 2 * rng.normal(size=2000), rng.integers(2, size=2000)
    whole = means[mode] + scales[mode] * rng.normal(size=2000)
    assert disagreement(excess(a), -excess(whole)) == ()
    lacking = means[0] + scales[0] * rng.normal(size=2000)
    assert codes(disagreement(excess(a), -excess(lacking))) in (["crooks_violated"], ["directions_disagree"])
    assert abs(crooks_check(excess(a), -excess(lacking), 0.0).z) > 5
    assert disagreement(excess(a), -excess(lacking), exact=False) in ((), disagreement(excess(a), -excess(lacking)))
