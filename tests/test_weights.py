"""Log-weights: stable means, Kish's fraction, and resampling that is unbiased."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nessampler.errors import InputError
from nessampler.weights import (
    LogWeights,
    effective_sample_size,
    log_mean_exp,
    multinomial,
    stratified,
    systematic,
)

INF = math.inf
WEIGHTS = torch.tensor([0.05, 0.0, 0.31, 0.14, 0.5], dtype=torch.float64)


def vector(*entries: float) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("offset", [0.0, 1e5, -1e5])
def test_log_mean_exp_is_exact_at_any_offset(offset):
    log_weight = vector(math.log(1.0), math.log(5.0), -INF) + offset
    assert log_mean_exp(log_weight).item() == pytest.approx(math.log(2.0) + offset, abs=1e-10)


def test_weights_that_all_vanish_have_log_mean_minus_infinity_and_no_effective_sample():
    log_weight = vector(-INF, -INF)
    assert log_mean_exp(log_weight).item() == -INF
    assert effective_sample_size(log_weight) == 0.0
    with pytest.raises(InputError, match="all 2 log-weights are -inf"):
        _ = LogWeights(log_weight).normalized


def test_float32_weights_are_summed_in_float64():
    log_weight = torch.full((3,), 0.1, dtype=torch.float32)
    assert log_mean_exp(log_weight).dtype == torch.float64
    assert LogWeights(log_weight).log_weight.dtype == torch.float64


def test_effective_sample_size_matches_the_formula():
    w = vector(1.0, 2.0, 3.0, 0.0)
    assert effective_sample_size(w.log() + 700) == pytest.approx(36 / (4 * 14), rel=1e-12)


@given(st.lists(st.floats(-700, 700) | st.just(-INF), min_size=1, max_size=30))
@settings(deadline=None)
def test_effective_sample_size_lies_between_one_walker_and_all(entries):
    ess = effective_sample_size(vector(*entries))
    if all(e == -INF for e in entries):
        assert ess == 0.0
    else:
        assert (1 - 1e-12) / len(entries) <= ess <= 1.0


@pytest.mark.parametrize("bad", [math.nan, INF])
def test_the_walker_with_a_bad_log_weight_is_named(bad):
    log_weight = vector(0.0, -INF, bad, bad)
    for use in (LogWeights, log_mean_exp, effective_sample_size, LogWeights(torch.zeros(4)).add):
        with pytest.raises(InputError, match="walker 2"):
            use(log_weight)


@pytest.mark.parametrize("shape", [(0,), (2, 2), ()])
def test_log_weights_form_one_vector_where_shapes_are_not_checked_for_the_user(shape, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="non-empty vector"):
        LogWeights(torch.zeros(shape))


def test_add_returns_new_weights_and_leaves_the_old():
    entries = vector(0.0, 1.0)
    before = LogWeights(entries)
    after = before.add(vector(1.0, -INF))
    entries += 5.0
    assert before.log_weight.tolist() == [0.0, 1.0]
    assert after.log_weight.tolist() == [1.0, -INF]
    assert after.log_mean == pytest.approx(1 - math.log(2))
    assert after.ess == 0.5
    assert after.normalized.tolist() == [1.0, 0.0]


def test_a_ratio_of_another_shape_is_refused_instead_of_broadcast():
    with pytest.raises(InputError, match="one entry per walker"):
        LogWeights(torch.zeros(3)).add(torch.zeros(1))


@pytest.mark.parametrize("scheme", [systematic, multinomial, stratified])
def test_offspring_counts_are_unbiased(scheme):
    generator, repeats, n = seeded(3), 4000, len(WEIGHTS)
    counts = torch.stack([torch.bincount(scheme(WEIGHTS, generator=generator), minlength=n) for _ in range(repeats)])
    mean, error = counts.double().mean(0), counts.double().std(0) / math.sqrt(repeats)
    assert error.max() < 0.02
    assert torch.all((mean - n * WEIGHTS).abs() <= 4 * error + 1e-12)
    rolled = n * WEIGHTS.roll(1)
    assert torch.any((mean - rolled).abs() > 4 * error + 1e-12)


@pytest.mark.parametrize("scheme", [systematic, multinomial, stratified])
def test_walkers_of_weight_zero_have_no_offspring_and_scale_does_not_matter(scheme):
    weights = torch.zeros(200, dtype=torch.float64)
    weights[[1, 7, 120]] = vector(1.0, 2.0, 3.0)
    index = scheme(weights, generator=seeded(0))
    assert index.shape == (200,)
    assert index.dtype == torch.int64
    assert set(index.tolist()) <= {1, 7, 120}
    assert torch.equal(index, scheme(7.5 * weights, generator=seeded(0)))


def test_systematic_counts_are_the_neighbouring_integers():
    generator = seeded(5)
    for _ in range(200):
        weights = torch.rand(37, generator=generator, dtype=torch.float64) ** 4
        expected = 37 * weights / weights.sum()
        counts = torch.bincount(systematic(weights, generator=generator), minlength=37)
        assert torch.all((counts == expected.floor()) | (counts == expected.ceil()))


def test_multinomial_is_noisier_than_stratified_and_that_than_systematic():
    generator, weights = seeded(11), torch.linspace(0.1, 1.0, 20, dtype=torch.float64)
    spread = [
        torch.stack([torch.bincount(scheme(weights, generator=generator), minlength=20) for _ in range(800)])
        .double()
        .var(0)
        .mean()
        for scheme in (multinomial, stratified, systematic)
    ]
    assert spread[0] > 2 * spread[1] > 2 * spread[2]


@pytest.mark.parametrize("weights", [[-0.1, 1.0], [0.0, 0.0], [math.nan, 1.0], [INF, 1.0], []])
@pytest.mark.parametrize("scheme", [systematic, multinomial, stratified])
def test_weights_that_are_no_distribution_are_refused(scheme, weights):
    with pytest.raises(InputError, match="finite, not negative and not all zero"):
        scheme(vector(*weights), generator=seeded(0))
