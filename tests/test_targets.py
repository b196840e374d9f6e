"""Densities: exact normalisers, exact samples, gradients, transforms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.targets import AnharmonicWell, Counted, Gaussian, Tally, TransformedTarget, energy_and_score


def written_again(well: AnharmonicWell, *x: np.ndarray | float) -> np.ndarray:
    """The energy of the docstring, independently, on broadcastable coordinates."""
    y = [xi - float(c) for xi, c in zip(x, well.center, strict=True)]
    k, q, s = well.stiffness.tolist(), well.quartic.tolist(), well.skew.tolist()
    own = sum(k[i] / 2 * y[i] ** 2 + q[i] * y[i] ** 4 + s[i] * np.sin(2 * y[i] + 0.5) for i in range(len(y)))
    return own + sum(well.coupling * np.cos(y[i] - y[i + 1] + 1) for i in range(len(y) - 1))


def cube(well: AnharmonicWell, points: int = 90) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Gauss–Legendre nodes, their weights, and the density on the product grid of a well in three dimensions."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    reach = 8.0 / np.sqrt(well.stiffness.numpy())
    x = [c + r * nodes for c, r in zip(well.center.tolist(), reach, strict=True)]
    density = np.exp(-written_again(well, *np.meshgrid(*x, indexing="ij", sparse=True)))
    return x, [r * weights for r in reach], density


@pytest.mark.parametrize(
    "target",
    [
        Gaussian(torch.zeros(2), torch.ones(2)),
        AnharmonicWell([0.0, 1.0], stiffness=[1.0, 2.0], quartic=[0.1, 0.0], skew=[0.1, 0.0], coupling=0.2),
    ],
)
def test_draws_are_made_on_the_device_of_the_generator(target, monkeypatch):
    asked, randn, rand = [], torch.randn, torch.rand
    for name, real in (("randn", randn), ("rand", rand)):
        monkeypatch.setattr(torch, name, lambda *a, real=real, **k: asked.append(k.get("device")) or real(*a, **k))
    target.sample(3, generator=torch.Generator().manual_seed(0))
    assert asked
    assert all(device == torch.device("cpu") for device in asked)  # named, so that another generator's would be too


def test_log_z_of_the_well_matches_gauss_legendre_in_three_dimensions(wells):
    for well in wells:
        _, weights, density = cube(well)
        expected = math.log(np.einsum("ijk,i,j,k", density, *weights))
        assert abs(well.log_z - expected) < 1e-8


def test_log_z_of_the_well_matches_adaptive_quadrature_in_two_dimensions():
    well = AnharmonicWell([0.5, -1.0], stiffness=[1.0, 2.0], quartic=[0.2, 0.0], skew=[0.9, -0.7], coupling=0.8)
    options = {"epsabs": 1e-11, "epsrel": 1e-11}
    ranges = [(c - 9, c + 9) for c in well.center.tolist()]
    expected, _ = integrate.nquad(lambda a, b: np.exp(-written_again(well, a, b)), ranges, opts=[options, options])
    assert abs(well.log_z - math.log(expected)) < 1e-8


@pytest.mark.parametrize(("stiffness", "quartic"), [(0.01, 0.0), (1.0, 30.0), (400.0, 1.0)])
def test_log_z_of_the_well_holds_for_soft_and_stiff_wells(stiffness, quartic):
    well = AnharmonicWell([0.0], stiffness=[stiffness], quartic=[quartic], skew=[1.5], coupling=0.0)
    reach = 9 / math.sqrt(stiffness)
    expected, _ = integrate.quad(
        lambda a: np.exp(-written_again(well, a)), -reach, reach, epsabs=0, epsrel=1e-12, limit=2000, points=[0.0]
    )
    assert abs(well.log_z - math.log(expected)) < 1e-8


def test_log_z_of_a_long_uncoupled_chain_is_the_sum_over_its_links():
    link = AnharmonicWell([0.0], stiffness=[1.3], quartic=[0.1], skew=[0.4], coupling=0.0)
    chain = AnharmonicWell([0.0] * 20, stiffness=[1.3] * 20, quartic=[0.1] * 20, skew=[0.4] * 20, coupling=0.0)
    assert abs(chain.log_z - 20 * link.log_z) < 1e-9


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_marginal_of_the_well_matches_direct_quadrature(wells, axis):
    x, weights, density = cube(wells[0])
    others = [w if i != axis else np.ones_like(w) for i, w in enumerate(weights)]
    profile = np.einsum("ijk,i,j,k->" + "ijk"[axis], density, *others)
    grid = np.linspace(-7, 7, 4001)
    ours = np.interp(x[axis], grid, wells[0].marginal(axis, grid))
    inside = np.abs(x[axis]) < 6
    assert np.abs(ours - profile / (profile @ weights[axis]))[inside].max() < 1e-5  # linear interpolation, h = 0.0035


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_samples_of_the_well_follow_its_marginals(wells, axis):
    well = wells[1]
    x, weights, density = cube(well)
    others = [w if i != axis else np.ones_like(w) for i, w in enumerate(weights)]
    profile = np.einsum("ijk,i,j,k->" + "ijk"[axis], density, *others) * weights[axis]
    # The cumulative sum of a Gauss rule is the distribution function half a weight beyond its node.
    cdf_at_nodes = (profile.cumsum() - 0.5 * profile) / profile.sum()
    sample = well.sample(20_000, generator=torch.Generator().manual_seed(3))[:, axis].numpy()

    def p_value(values: np.ndarray) -> float:
        return stats.kstest(values, lambda v: np.interp(v, x[axis], cdf_at_nodes)).pvalue

    assert p_value(sample) > 1e-3
    assert p_value(2 * float(well.center[axis]) - sample) < 1e-6  # negative control: the mirror image


def test_coordinates_of_sampled_wells_have_the_covariance_of_quadrature(wells):
    well = wells[0]
    x, weights, density = cube(well)
    pair = np.einsum("ijk,i,j,k->ij", density, *weights)
    pair /= pair.sum()
    a, b = x[0] - x[0] @ pair.sum(1), x[1] - x[1] @ pair.sum(0)
    sample = well.sample(100_000, generator=torch.Generator().manual_seed(4)).numpy()
    product = (sample[:, 0] - x[0] @ pair.sum(1)) * (sample[:, 1] - x[1] @ pair.sum(0))
    error = product.std() / math.sqrt(len(product))
    assert error < 0.005
    assert abs(product.mean() - a @ pair @ b) < 4 * error
    assert abs(product.mean()) > 8 * error  # negative control: uncoupled coordinates would give 0


@pytest.mark.parametrize("target", ["well", "gaussian"])
def test_score_is_minus_the_gradient_of_the_energy(wells, target):
    density = (
        wells[0]
        if target == "well"
        else Gaussian(torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.5, 1.0, 2.0]).double())
    )
    x = density.sample(20, generator=torch.Generator().manual_seed(5))
    energy, score = energy_and_score(density, x)
    torch.testing.assert_close(energy, density.energy(x))
    h = 1e-5
    for i, shift in enumerate(h * torch.eye(3, dtype=torch.float64)):
        slope = (density.energy(x + shift) - density.energy(x - shift)) / (2 * h)
        torch.testing.assert_close(score[:, i], -slope, rtol=1e-7, atol=1e-8)


def test_log_z_of_a_gaussian_is_its_integral():
    gaussian = Gaussian(torch.tensor([0.3, -1.0]).double(), torch.tensor([0.5, 2.0]).double())
    x, y = np.linspace(-6, 6, 801), np.linspace(-21, 21, 801)
    points = torch.tensor(np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2))
    total = float(torch.exp(-gaussian.energy(points)).sum()) * (x[1] - x[0]) * (y[1] - y[0])
    assert abs(gaussian.log_z - math.log(total)) < 1e-10


def test_samples_of_a_gaussian_have_its_moments():
    gaussian = Gaussian(torch.tensor([0.3, -1.0]).double(), torch.tensor([0.5, 2.0]).double())
    z = (gaussian.sample(40_000, generator=torch.Generator().manual_seed(6)) - gaussian.mean) / gaussian.scale
    assert float(z.mean(0).abs().max()) < 4 / math.sqrt(40_000)
    assert float((z.square().mean(0) - 1).abs().max()) < 4 * math.sqrt(2 / 40_000)


def test_sampling_repeats_with_its_seed_and_not_with_another(wells):
    one, same, other = (wells[0].sample(50, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "arguments",
    [
        {"center": [0.0, 1.0], "stiffness": [1.0], "quartic": [0.0], "skew": [0.0], "coupling": 0.0},
        {"center": [0.0], "stiffness": [0.0], "quartic": [0.0], "skew": [0.0], "coupling": 0.0},
        {"center": [0.0], "stiffness": [1.0], "quartic": [-0.1], "skew": [0.0], "coupling": 0.0},
    ],
)
def test_an_unusable_well_is_refused(arguments):
    with pytest.raises(InputError, match="got"):
        AnharmonicWell(**arguments)


@pytest.mark.parametrize("scale", [[1.0, 0.0], [1.0, -1.0], [1.0, math.nan]])
def test_an_unusable_gaussian_is_refused(scale):
    with pytest.raises(InputError, match="positive scales"):
        Gaussian(torch.zeros(2), torch.tensor(scale))


class HalfLine:
    """A standard normal cut at zero."""

    event_shape = torch.Size([1])

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, 0.5 * x[:, 0].square(), torch.inf)


class Broken:
    """A density whose energy is NaN below zero."""

    event_shape = torch.Size([1])

    def energy(self, x: Tensor) -> Tensor:
        return x[:, 0].sqrt()


def test_the_score_outside_a_hard_support_is_zero_and_a_nan_is_not_hidden():
    x = torch.tensor([[-1.0], [2.0]])
    energy, score = energy_and_score(HalfLine(), x)
    assert energy.tolist() == [math.inf, 2.0]
    assert score.tolist() == [[0.0], [-2.0]]
    energy, score = energy_and_score(Broken(), x)
    assert energy.isnan().tolist() == [True, False]
    assert score.isnan().flatten().tolist() == [True, False]


def test_counted_evaluations_are_filed_by_kind_and_stage(wells):
    target = Counted(wells[0])
    x = torch.zeros(7, 3, dtype=torch.float64)
    target.energy(x)
    with target.stage("training"):
        target.energy(x[:2].requires_grad_())
        before = target.tally().copy()
        target.energy_and_score(x.detach()[:3])
        with torch.no_grad():
            target.energy(x[:4].requires_grad_())
    assert target.tallies == {"sampling": Tally(7, 0), "training": Tally(4, 5)}
    assert target.tally("training") - before == Tally(4, 3)
    torch.testing.assert_close(target.energy(x), wells[0].energy(x))


class Exponential(Transform):
    """y = exp(x), coordinate by coordinate; covers y > 0."""

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.independent(constraints.positive, 1)

    def _call(self, x: Tensor) -> Tensor:
        return x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sum(-1)

    def in_chart(self, y: Tensor) -> Tensor:
        return (y > 0).all(-1)


def test_a_transform_leaves_the_normaliser_unchanged(wells_1d):
    well = wells_1d[0]
    image = TransformedTarget(well, Exponential())

    def density(y: float) -> float:
        return math.exp(-float(image.energy(torch.tensor([[y]], dtype=torch.float64))[0]))

    edges = [0.0, 0.3, 1.0, 3.0, 10.0, 100.0, 1e4]
    total = sum(integrate.quad(density, a, b, epsabs=1e-12)[0] for a, b in pairwise(edges))
    assert abs(total / math.exp(well.log_z) - 1) < 1e-8


def test_the_score_of_a_transformed_target_is_the_gradient_of_its_energy(wells):
    image = TransformedTarget(wells[0], Exponential())
    y = wells[0].sample(30, generator=torch.Generator().manual_seed(7)).exp()
    energy, score = image.energy_and_score(y)
    point = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(image.energy(point).sum(), point)
    torch.testing.assert_close(energy, image.energy(y))
    torch.testing.assert_close(score, -gradient)


def test_a_transformed_score_costs_one_gradient_of_the_base(wells):
    counted = Counted(wells[0])
    TransformedTarget(counted, Exponential()).energy_and_score(torch.ones(9, 3, dtype=torch.float64))
    assert counted.tallies == {"sampling": Tally(energy=0, gradient=9)}


def test_beyond_the_chart_the_density_is_zero_and_the_score_finite(wells):
    image = TransformedTarget(wells[0], Exponential())
    y = torch.tensor([[1.0, 2.0, 0.5], [1.0, -2.0, 0.5], [0.0, 1.0, 1.0]], dtype=torch.float64)
    energy, score = image.energy_and_score(y)
    assert torch.isfinite(energy).tolist() == [True, False, False]
    assert image.energy(y)[1:].tolist() == [math.inf, math.inf]
    assert torch.equal(score[1:], torch.zeros(2, 3, dtype=torch.float64))
    assert bool((score[0] != 0).all())
