"""log Z from log-weights: value, error, interval, flags, and the second law from both sides."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from nessampler.errors import InputError
from nessampler.estimators.log_z import log_z, log_z_bounds


def gaussian_weights(n: int, spread: float, seed: int) -> np.ndarray:
    """Log-weights of mean weight one: log w ~ N(-s²/2, s)."""
    return np.random.default_rng(seed).normal(-0.5 * spread**2, spread, size=n)


def test_the_value_is_the_base_plus_the_log_of_the_mean_weight() -> None:
    weights = gaussian_weights(500, 0.7, 0)
    found = log_z(weights, base=3.0)
    assert found.value == pytest.approx(3.0 + math.log(np.exp(weights).mean()), abs=1e-12)
    assert found.ess == pytest.approx(np.exp(weights).sum() ** 2 / np.square(np.exp(weights)).sum() / 500)
    assert found.std_error == pytest.approx(math.sqrt((1 / found.ess - 1) / 499))
    assert found.n == 500
    shifted = log_z(weights + 1000, base=-997.0)
    assert shifted.value == pytest.approx(found.value, abs=1e-9)
    assert shifted.std_error == pytest.approx(found.std_error)


def test_values_spread_over_seeds_as_their_error_says() -> None:
    z = np.array(
        [
            (r.value or 0.0) / (r.std_error or 1.0)
            for r in (log_z(gaussian_weights(400, 0.8, s), base=0.0) for s in range(60))
        ]
    )
    assert abs(z.mean()) < 4 / math.sqrt(60) + 0.1  # the logarithm's bias is a tenth of the error here at most
    assert abs(z.std(ddof=1) - 1) < 4 / math.sqrt(120)


def test_a_systematic_error_widens_the_interval_and_moves_nothing() -> None:
    weights = gaussian_weights(1000, 0.5, 1)
    plain, wide = log_z(weights, base=0.0), log_z(weights, base=0.0, systematic=0.1)
    assert wide.value == plain.value
    assert wide.std_error == pytest.approx(math.hypot(plain.std_error or 0.0, 0.1))
    assert wide.systematic == 0.1
    assert wide.ci95 is not None
    assert wide.value is not None
    assert wide.ci95[1] - wide.value == pytest.approx(1.96 * (wide.std_error or 0.0), rel=1e-4)
    assert wide.ci95[1] - wide.value == pytest.approx(wide.value - wide.ci95[0])


def test_the_error_of_the_ess_is_its_spread_over_fresh_walkers() -> None:
    stated = log_z(gaussian_weights(1000, 0.6, 2), base=0.0).ess_error
    fresh = [log_z(gaussian_weights(1000, 0.6, s), base=0.0).ess for s in range(100, 140)]
    assert stated == pytest.approx(np.std(fresh, ddof=1), rel=0.5)
    assert log_z(np.zeros(50), base=0.0).ess_error == pytest.approx(0.0, abs=1e-12)


def test_the_same_seed_gives_the_same_error_of_the_ess() -> None:
    weights = gaussian_weights(300, 0.6, 3)
    assert log_z(weights, base=0.0, seed=5) == log_z(weights, base=0.0, seed=5)
    assert log_z(weights, base=0.0, seed=5).ess_error != log_z(weights, base=0.0, seed=6).ess_error


def test_weights_that_collapse_are_flagged() -> None:
    heavy = log_z(gaussian_weights(2000, 6.0, 4), base=0.0)
    assert {flag.code for flag in heavy.flags} >= {"heavy_tail"}
    assert not heavy.trusted
    few = log_z(gaussian_weights(60, 1.0, 5), base=0.0)
    assert "few_effective_samples" in {flag.code for flag in few.flags}
    assert log_z(gaussian_weights(2000, 0.5, 4), base=0.0).trusted


@pytest.mark.parametrize("alive", [0, 1, 2])
def test_few_or_no_walkers_of_weight_are_flagged_without_a_warning(alive: int) -> None:
    weights = np.full(100, -np.inf)
    weights[:alive] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = log_z(weights, base=0.0)
    assert not found.trusted
    assert math.isfinite(found.ess_error)
    assert (found.value is None) == (alive == 0)
    assert "none" in str(found) if alive == 0 else "log Z = " in str(found)
    assert "\n" in str(found)  # the flags are said with the number


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_weights_are_refused(bad: float) -> None:
    with pytest.raises(InputError):
        log_z(np.array([0.0, bad, 0.0]), base=0.0)
    with pytest.raises(InputError):
        log_z(np.array([0.0]), base=0.0)


def test_the_text_has_two_digits_of_the_error() -> None:
    assert str(log_z(np.log(np.array([0.9, 1.1] * 5000)), base=10.0)).startswith("log Z = 10.0000 ± 0.0010 (95 %")


def test_bounds_enclose_log_z_from_both_sides() -> None:
    # Gaussian works: log w is N(-s²/2, s) forwards and, over walkers carried back, again, by Crooks' relation.
    forward, reverse = gaussian_weights(4000, 1.2, 6), gaussian_weights(4000, 1.2, 7)
    found = log_z_bounds(forward, reverse, base=2.0)
    assert found.lower == pytest.approx(2.0 + forward.mean())
    assert found.upper == pytest.approx(2.0 - reverse.mean())
    limits = (
        found.lower_limit,
        found.lower,
        found.importance_weighted_lower,
        found.importance_weighted_upper,
        found.upper,
        found.upper_limit,
    )
    assert None not in limits
    lowest, low, tight_low, tight_high, high, highest = (x or 0.0 for x in limits)
    assert lowest < low < tight_low < tight_high + 0.02
    assert tight_high < high < highest
    assert abs(low - (2 - 0.72)) < 4 * 1.2 / math.sqrt(4000)
    assert abs(high - (2 + 0.72)) < 4 * 1.2 / math.sqrt(4000)
    assert (found.importance_weighted_lower_limit or 9) < 2.0 < (found.importance_weighted_upper_limit or 0)


def test_limits_of_bounds_move_outwards_by_what_all_weights_may_be_off() -> None:
    forward, reverse = gaussian_weights(400, 1.2, 6), gaussian_weights(400, 1.2, 7)
    exact, widened = (log_z_bounds(forward, reverse, base=2.0, systematic=s) for s in (0.0, 0.25))
    assert (widened.lower, widened.upper) == (exact.lower, exact.upper)
    for side, shift in (("lower", -0.25), ("upper", 0.25)):
        for limit in (f"{side}_limit", f"importance_weighted_{side}_limit"):
            assert getattr(widened, limit) == pytest.approx(getattr(exact, limit) + shift)


def test_bounds_fail_where_an_end_is_sampled_wrongly() -> None:
    forward, reverse = gaussian_weights(4000, 1.2, 6), gaussian_weights(4000, 1.2, 7)
    wrong = log_z_bounds(forward, reverse + 1.5, base=2.0)  # as from walkers of too small a region
    assert (wrong.importance_weighted_upper_limit or 9) < 2.0


def test_a_walker_outside_the_support_leaves_no_mean_bound() -> None:
    forward = gaussian_weights(500, 0.5, 8)
    forward[3] = -np.inf
    found = log_z_bounds(forward, gaussian_weights(500, 0.5, 9), base=0.0)
    assert found.lower is None
    assert found.lower_limit is None
    assert found.upper is not None
    assert found.importance_weighted_lower is not None
