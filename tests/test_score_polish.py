"""Scores take the noise of the samples out of a mixture's moments, and leave no bias behind."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.fit_mixture import fit_gaussian_mixture
from nessampler.closed_form.score_polish import polished
from nessampler.errors import InputError
from nessampler.targets import AnharmonicWell, energy_and_score
from nessampler.targets.covariance_mixture import CovarianceMixture
from nessampler.targets.mixture import GaussianMixture, random_mixture


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _overlapping(kind: str) -> GaussianMixture | CovarianceMixture:
    """Three components that overlap, of unequal weights."""
    g = _generator(1)
    means = 2.5 * torch.randn(3, 3, generator=g, dtype=torch.float64)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    if kind == "full":
        factor = 0.7 * torch.randn(3, 3, 3, generator=g, dtype=torch.float64)
        return CovarianceMixture(means, factor @ factor.mT + 0.2 * torch.eye(3), weights)
    shape = (3,) if kind == "isotropic" else (3, 3)
    return GaussianMixture(means, 0.5 + torch.rand(*shape, generator=g, dtype=torch.float64), weights)


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "full"])
def test_a_mixture_of_gaussians_is_found_exactly_from_few_samples(kind):
    truth = _overlapping(kind)
    x, fresh = truth.sample(150, generator=_generator(2)), truth.sample(500, generator=_generator(3))
    energy, score = truth.energy_and_score(x)
    rough = fit_gaussian_mixture(x, components=3, kinds=(kind,), generator=_generator(4))
    found = polished(rough, x, score, energy + 5.0, kind=kind, sweeps=200)  # the normalisation is not known
    assert float((found.energy(fresh) - truth.energy(fresh)).abs().max()) < 1e-6
    assert float((rough.energy(fresh) - truth.energy(fresh)).abs().max()) > 0.1


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "full"])
def test_components_that_are_right_stay_so_whatever_the_samples(kind):
    truth = _overlapping(kind)
    x = truth.sample(60, generator=_generator(14)) + 0.5  # not even draws of the density
    energy, score = truth.energy_and_score(x)
    found = polished(truth, x, score, energy, kind=kind, sweeps=1)
    torch.testing.assert_close(found.means, truth.means, rtol=1e-9, atol=1e-9)
    moments = [m.covariances if kind == "full" else m.scales for m in (found, truth)]
    torch.testing.assert_close(*moments, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_where_no_force_acts_moments_are_those_of_the_samples(kind):
    x = 3 * torch.rand(200, 2, generator=_generator(15), dtype=torch.float64)
    energy, score = 0.1 * x[:, 1], torch.tensor([0.0, -0.1]).double().expand_as(x)  # between hard walls
    start = GaussianMixture(torch.tensor([[1.0, 1.0]]).double(), torch.tensor([[1.0, 1.0]]))
    found = polished(start, x, score, energy, kind=kind)
    variance = found.covariances[0].diagonal() if kind == "full" else found.scales[0].square()
    torch.testing.assert_close(found.means[0], x.mean(0))
    torch.testing.assert_close(variance[0], x[:, 0].var(correction=0))


def test_every_mode_of_many_is_found_exactly_in_many_dimensions():
    truth = random_mixture(16, 40, scale=0.05, spread=2.0, seed=0)
    x, fresh = truth.sample(400, generator=_generator(5)), truth.sample(200, generator=_generator(6))
    energy, score = truth.energy_and_score(x)
    rough = fit_gaussian_mixture(x, kinds=("isotropic",), generator=_generator(7))
    found = polished(rough, x, score, energy, kind="isotropic", sweeps=3)
    assert float(torch.cdist(truth.means, found.means).min(1).values.max()) < 1e-9
    assert float((found.energy(fresh) - truth.energy(fresh)).abs().max()) < 1e-7
    assert float((rough.energy(fresh) - truth.energy(fresh)).std()) > 0.5


def _moments_of_a_well(n: int, sets: int, sign: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Means and variances, by samples alone and polished, over many sets; and the truth, from many samples."""
    well = AnharmonicWell([0.3, -0.5], stiffness=[1.0, 2.0], quartic=[0.1, 0.05], skew=[0.4, -0.3], coupling=0.3)
    many = well.sample(400_000, generator=_generator(8))
    start = GaussianMixture(many.mean(0, keepdim=True), many.std(0)[None])
    plain, better = [], []
    for x in well.sample(n * sets, generator=_generator(9)).split(n):
        energy, score = energy_and_score(well, x)
        found = polished(start, x, sign * score, energy, kind="diagonal", sweeps=2)
        plain.append(torch.cat([x.mean(0), x.var(0)]))
        better.append(torch.cat([found.means[0], found.scales[0].square()]))
    return torch.stack(plain), torch.stack(better), torch.cat([many.mean(0), many.var(0)])


def test_moments_of_what_is_not_gaussian_have_less_noise_and_no_bias():
    plain, better, truth = _moments_of_a_well(200, 100)
    assert bool((better.std(0) < 0.7 * plain.std(0)).all())
    error = better.std(0) / math.sqrt(len(better))
    error = (error.square() + plain.var(0) * 200 / 400_000).sqrt()  # the truth has an error too
    assert float(error.max()) < 0.005
    # Slopes fitted to 200 samples leave a bias of the order of 1/200.
    assert bool(((better.mean(0) - truth).abs() < 4 * error + 0.005).all())
    _, wrong, _ = _moments_of_a_well(200, 20, sign=-1.0)
    assert float((wrong.mean(0) - truth).abs().max()) > 0.05


def test_weights_come_from_counts_where_energies_are_noise():
    truth = GaussianMixture(torch.tensor([[-6.0], [6.0]]).double(), torch.ones(2), torch.tensor([0.3, 0.7]))
    x = truth.sample(2000, generator=_generator(10))
    energy, score = truth.energy_and_score(x)
    noise = 20 * torch.randn(len(x), generator=_generator(11), dtype=torch.float64)
    rough = fit_gaussian_mixture(x, components=2, kinds=("isotropic",), generator=_generator(12))
    share = float((x > 0).double().mean())
    found = polished(rough, x, score, energy + noise, kind="isotropic")
    assert abs(float(found.weights[found.means[:, 0] > 0]) - share) < 0.02
    exact = polished(rough, x, score, energy, kind="isotropic")
    assert abs(float(exact.weights[exact.means[:, 0] > 0]) - 0.7) < 1e-3 * abs(share - 0.7) + 1e-9


def test_what_is_missing_is_named():
    truth = _overlapping("full")
    x = truth.sample(9, generator=_generator(13))
    energy, score = truth.energy_and_score(x)
    with pytest.raises(InputError, match="at least 6 samples"):
        polished(truth, x, score, energy, kind="full")
    with pytest.raises(InputError, match="score and an energy"):
        polished(truth, x, score[1:], energy, kind="diagonal")
    with pytest.raises(InputError, match="finite"):
        polished(truth, x, score, energy * torch.nan, kind="diagonal")
