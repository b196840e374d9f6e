"""Bayesian posteriors, clusters, and what users bring: values, normalisers, gradients, and every refusal."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import (
    Beta,
    Categorical,
    Dirichlet,
    Exponential,
    Gamma,
    Independent,
    LKJCholesky,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
    constraints,
)
from torch.distributions.transforms import AffineTransform

from nessampler.errors import InputError
from nessampler.targets import Gaussian, TransformedTarget, energy_and_score
from nessampler.targets.callable import DistributionTarget, as_target, check_target
from nessampler.targets.constrained import Constrained
from nessampler.targets.cox import GaussianField, LogGaussianCox, bin_counts, load_points
from nessampler.targets.lennard_jones import LennardJonesCluster
from nessampler.targets.logistic import LogisticRegression, standardised
from nessampler.targets.numpy_density import NumpyDensity
from nessampler.targets.protocol import Target

SYSTEMS = Path(__file__).parent.parent / "systems"


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def assert_score_is_autograd(target: Target, x: Tensor, tolerance: float = 1e-9) -> None:
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(point).sum(), point)
    energy, score = energy_and_score(target, x)
    torch.testing.assert_close(energy, target.energy(x), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(score, -gradient, rtol=tolerance, atol=tolerance)


def mode(target: LogGaussianCox | LogisticRegression, x: Tensor) -> Tensor:
    for _ in range(50):
        x = x + torch.linalg.solve(target.hessian(x), target.energy_and_score(x[None])[1][0])
    return x


def importance(energy: Tensor, log_proposal: Tensor) -> tuple[float, float]:
    """log Z and its standard error from draws of a normalised proposal."""
    log_weight = -energy - log_proposal
    weight = torch.exp(log_weight - log_weight.max())
    error = float(weight.std() / weight.mean()) / math.sqrt(len(weight))
    return float(log_weight.max() + weight.mean().log()), error


# Logistic regression


@pytest.fixture(scope="module")
def regression() -> LogisticRegression:
    x = normal(30, 2, seed=0)
    y = torch.where(x @ torch.tensor([1.5, -0.7]).double() + normal(30, seed=1) > 0, 1.0, -1.0)
    return LogisticRegression(x, y, torch.tensor([1.0, 2.5]))


def evidence(features: np.ndarray, labels: np.ndarray, scale: np.ndarray) -> float:
    """Log evidence of two coefficients: probabilities multiplied and integrated, without any of our code."""

    def density(b: float, a: float) -> float:
        probability = 1 / (1 + np.exp(-labels * (features @ [a, b])))
        prior = np.exp(-0.5 * ((a / scale[0]) ** 2 + (b / scale[1]) ** 2)) / (2 * math.pi * scale.prod())
        return probability.prod() * prior * 1e8

    return math.log(integrate.dblquad(density, -3, 6, -7, 4, epsabs=1e-9, epsrel=1e-9)[0]) - math.log(1e8)


def test_log_z_of_a_logistic_regression_is_the_log_evidence(regression):
    labels = np.where(regression.signed.abs().sum(1) > 0, 1.0, 0.0)  # y is folded into the features
    expected = evidence(regression.signed.numpy(), labels, regression.prior.scale.numpy())
    a, b = torch.linspace(-3, 6, 301, dtype=torch.float64), torch.linspace(-7, 4, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(a, b)
    ours = float(torch.logsumexp(-regression.energy(grid), 0) + ((a[1] - a[0]) * (b[1] - b[0])).log())
    assert abs(ours - expected) < 1e-7
    half = LogisticRegression(regression.signed, torch.ones(30), regression.prior.scale / 2)
    assert abs(float(torch.logsumexp(-half.energy(grid), 0) + ((a[1] - a[0]) * (b[1] - b[0])).log()) - expected) > 0.05


def test_logistic_score_and_hessian_are_derivatives_of_the_energy(regression):
    x = 3 * normal(20, 2, seed=2)
    assert_score_is_autograd(regression, x)
    hessian = torch.autograd.functional.hessian(lambda b: regression.energy(b[None])[0], x[0])
    torch.testing.assert_close(regression.hessian(x[0]), hessian, rtol=1e-9, atol=1e-9)


def test_logistic_energy_is_finite_and_its_score_right_for_huge_coefficients(regression):
    x = torch.tensor([[1e4, -1e4], [-3e5, 2e5]])
    energy, score = regression.energy_and_score(x)
    assert torch.isfinite(energy).all()
    assert torch.isfinite(score).all()
    assert energy.dtype == score.dtype == torch.float32


def test_labels_may_be_signs_or_bits():
    x, y = normal(10, 2, seed=3), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1, 1])
    bits, signs, flipped = (LogisticRegression(x, label) for label in (y, 2 * y - 1, 1 - y))
    b = normal(5, 2, seed=4)
    torch.testing.assert_close(bits.energy(b), signs.energy(b))
    assert float((bits.energy(b) - flipped.energy(b)).abs().min()) > 1e-3


@pytest.mark.parametrize(
    ("features", "labels", "scale", "message"),
    [
        (torch.ones(3, 2), torch.ones(2), 1.0, r"\(3, 2\) and \(2,\)"),
        (torch.ones(3, 2), torch.tensor([0.0, 1.0, 2.0]), 1.0, "-1 and \\+1, or 0 and 1"),
        (torch.ones(3, 2), torch.tensor([-1.0, 0.0, 1.0]), 1.0, "labels"),
        (torch.tensor([[1.0, math.nan]]), torch.ones(1), 1.0, r"features\[0, 1\] = nan"),
        (torch.ones(3, 2), torch.ones(3), 0.0, "positive"),
    ],
)
def test_an_unusable_regression_is_refused(features, labels, scale, message):
    with pytest.raises(InputError, match=message):
        LogisticRegression(features, labels, scale)


def test_standardised_columns_have_an_intercept_and_no_constant_column(tmp_path):
    file = tmp_path / "data.csv"
    file.write_text("0.1,3,5,m\n0.1,4,7,r\n0.1,8,6,m\n")
    features, labels = standardised(file)
    assert features.shape == (3, 3)
    torch.testing.assert_close(features.mean(0), torch.tensor([1.0, 0.0, 0.0]).double())
    torch.testing.assert_close(features.square().mean(0), torch.ones(3).double())
    assert labels.tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [("1,2,a\n1,b\n", "line 2"), ("1,?,a\n2,3,b\n", "'\\?'"), ("1,a\n2,a\n", "two classes"), ("nan,a\n2,b\n", "'nan'")],
)
def test_an_unusable_data_file_is_refused(tmp_path, text, message):
    file = tmp_path / "data.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        standardised(file)


def test_the_ionosphere_has_its_published_rows_classes_and_moments():
    rows = [line.split(",") for line in (SYSTEMS / "logistic" / "ionosphere.csv").read_text().splitlines()]
    values = np.array([row[:-1] for row in rows], dtype=float)
    assert values.shape == (351, 34)
    assert [sum(row[-1] == name for row in rows) for name in "gb"] == [225, 126]
    mean = [
        0.891738,
        0,
        0.641342,
        0.044372,
        0.601068,
        0.115889,
        0.378445,
        -0.027907,
        0.352514,
        -0.003794,
        0.349364,
        0.014480,
    ]
    std = [
        0.311155,
        0,
        0.497708,
        0.441435,
        0.519862,
        0.460810,
        0.575886,
        0.507974,
        0.571483,
        0.513574,
        0.522663,
        0.468337,
    ]
    columns = values[:, [0, 1, 2, 3, 4, 5, 28, 29, 30, 31, 32, 33]]
    np.testing.assert_allclose(columns.mean(0), mean, atol=6e-7)
    np.testing.assert_allclose(columns.std(0, ddof=1), std, atol=6e-7)
    features, labels = standardised(SYSTEMS / "logistic" / "ionosphere.csv")
    assert features.shape == (351, 34)  # an intercept, and one constant column less
    assert int((labels > 0).sum()) == 225


# Log-Gaussian Cox process


@pytest.fixture(scope="module")
def cox() -> LogGaussianCox:
    return LogGaussianCox(torch.tensor([[3, 0, 1], [2, 5, 0], [0, 1, 4]]), variance=1.3, length=0.4)


def test_cox_energy_is_that_of_its_formula(cox):
    sites = [(i, j) for i in range(3) for j in range(3)]
    covariance = np.array([[1.3 * math.exp(-math.dist(p, q) / (3 * 0.4)) for q in sites] for p in sites])
    mean = math.log(16) - 1.3 / 2
    x = mean + normal(6, 9, seed=5)
    prior = stats.multivariate_normal(np.full(9, mean), covariance).logpdf(x.numpy())
    counts = np.array([3, 0, 1, 2, 5, 0, 0, 1, 4])
    expected = -prior - (x.numpy() * counts - np.exp(x.numpy()) / 9).sum(1)
    np.testing.assert_allclose(cox.energy(x).numpy(), expected, rtol=1e-11)
    poisson = stats.poisson(np.exp(x.numpy()) / 9).logpmf(counts).sum(1)
    np.testing.assert_allclose(-cox.energy(x).numpy() + cox.evidence_offset, prior + poisson, rtol=1e-11)


def test_cox_score_and_hessian_are_derivatives_of_the_energy(cox):
    x = cox.prior.sample(10, generator=seeded(6))
    assert_score_is_autograd(cox, x)
    assert_score_is_autograd(cox.prior, x)
    hessian = torch.autograd.functional.hessian(lambda f: cox.energy(f[None])[0], x[0])
    torch.testing.assert_close(cox.hessian(x[0]), hessian, rtol=1e-9, atol=1e-9)


def test_log_z_of_one_cell_matches_quadrature():
    cell = LogGaussianCox(torch.tensor([[4]]), mean=0.5, variance=0.8)

    def density(x: float) -> float:
        return stats.norm.pdf(x, 0.5, math.sqrt(0.8)) * math.exp(4 * x - math.exp(x))

    expected = math.log(integrate.quad(density, -8, 8, epsabs=0, epsrel=1e-11)[0])
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    ours = float(torch.logsumexp(-cell.energy(x[:, None]), 0) + (x[1] - x[0]).log())
    assert abs(ours - expected) < 1e-8


def test_log_z_of_a_small_grid_matches_importance_sampling_from_its_laplace_approximation():
    target = LogGaussianCox(torch.tensor([[3, 0], [1, 6]]), variance=1.5, length=0.5)
    top = mode(target, torch.full((4,), target.mean, dtype=torch.float64))
    factor = torch.linalg.cholesky(torch.linalg.inv(target.hessian(top)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    z = torch.cartesian_prod(*[torch.tensor(nodes)] * 4)
    log_w = sum(torch.cartesian_prod(*[torch.tensor(weights).log()] * 4).unbind(-1))
    log_det = float(factor.diagonal().log().sum())
    exact = float(torch.logsumexp(log_w + 0.5 * z.square().sum(-1) - target.energy(top + z @ factor.T), 0)) + log_det
    proposal = MultivariateNormal(top, scale_tril=1.3 * factor)  # wider than the target, for bounded weights
    x = top + 1.3 * normal(40_000, 4, seed=7) @ factor.T
    log_z, error = importance(target.energy(x), proposal.log_prob(x))
    assert error < 0.01
    assert abs(log_z - exact) < 4 * error
    wrong, _ = importance(target.energy(x) - 0.1 * (x[:, 0] - x[:, 3]), proposal.log_prob(x))
    assert abs(wrong - exact) > 8 * error  # negative control: a likelihood a little off


def test_samples_of_the_prior_have_its_covariance(cox):
    n = 40_000
    x = cox.prior.sample(n, generator=seeded(8)) - cox.mean
    covariance = torch.linalg.inv(cox.prior.precision)
    spread = covariance.diagonal().outer(covariance.diagonal())
    error = ((spread + covariance.square()) / n).sqrt()
    assert float(error.max()) < 0.02
    assert float(((x.T @ x / n - covariance) / error).abs().max()) < 4
    assert cox.prior.log_z == 0.0


def test_the_prior_is_normalised_and_the_energy_in_float32_keeps_its_digits(cox):
    x = cox.prior.sample(50, generator=seeded(9))
    expected = MultivariateNormal(torch.full((9,), cox.mean).double(), torch.linalg.inv(cox.prior.precision))
    torch.testing.assert_close(cox.prior.energy(x), -expected.log_prob(x))
    energy, score = cox.energy_and_score(x.float())
    assert energy.dtype == score.dtype == torch.float32
    torch.testing.assert_close(energy.double(), cox.energy(x), rtol=0, atol=2e-4)


def test_the_pines_are_126_points_in_111_cells():
    points = load_points(SYSTEMS / "lgcp-1600" / "fpines.csv")
    counts = bin_counts(points, 40)
    assert points.shape == (126, 2)
    assert counts.sum() == 126
    assert counts.long().flatten().bincount().tolist() == [1489, 99, 9, 3]
    expected, _, _ = np.histogram2d(*points.numpy().T, bins=40, range=[[0, 1], [0, 1]])
    np.testing.assert_array_equal(counts.numpy(), expected)


def test_laplace_evidence_of_the_pines_is_near_the_long_run_of_the_literature():
    target = LogGaussianCox(bin_counts(load_points(SYSTEMS / "lgcp-1600" / "fpines.csv"), 40))
    assert abs(target.mean - (math.log(126) - 1.91 / 2)) < 1e-12
    x = torch.full((1600,), target.mean, dtype=torch.float64)
    for _ in range(9):
        x = x + torch.linalg.solve(target.hessian(x), target.energy_and_score(x[None])[1][0])
    assert float(target.energy_and_score(x[None])[1].abs().max()) < 1e-8
    _, log_det = torch.linalg.slogdet(target.hessian(x))
    laplace = -float(target.energy(x[None])) + 800 * math.log(2 * math.pi) - 0.5 * float(log_det)
    assert abs(laplace - 512.6) < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": torch.ones(2, 3)}, r"\(2, 3\)"),
        ({"counts": torch.tensor([[0.5]])}, "whole"),
        ({"counts": torch.tensor([[-1]])}, "zero or more"),
        ({"counts": torch.tensor([[0]])}, "mean="),
        ({"counts": torch.tensor([[1]]), "variance": 0.0}, "positive"),
        ({"counts": torch.tensor([[1]]), "length": -1.0}, "positive"),
    ],
)
def test_an_unusable_cox_process_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        LogGaussianCox(**arguments)


def test_points_and_covariances_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputError, match="unit square"):
        bin_counts(torch.tensor([[0.5, 1.5]]), 4)
    with pytest.raises(InputError, match="positive definite"):
        GaussianField(0.0, torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    for text, message in (("1,2,3\n", "has 3"), ("a,b\n", "two numbers")):
        (tmp_path / "points.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            load_points(tmp_path / "points.csv")


# Lennard-Jones clusters


def double_loop(x: np.ndarray, strength: float, trap: float, free_center: bool) -> float:
    center = x.mean(0) if free_center else np.zeros(3)
    energy = 0.5 * trap * ((x - center) ** 2).sum()
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                ratio = strength / math.dist(x[i], x[j])
                energy += 4 * strength * (ratio**12 - ratio**6)
    return energy


@pytest.mark.parametrize("free_center", [False, True])
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_cluster_energy_is_the_double_loop_over_ordered_pairs(strength, free_center):
    cluster = LennardJonesCluster(7, strength, 1.7, free_center=free_center)
    x = 2 * normal(5, 7, 3, seed=10)
    expected = [double_loop(walker, strength, 1.7, free_center) for walker in x.numpy()]
    np.testing.assert_allclose(cluster.energy(x).numpy(), expected, rtol=1e-11)
    assert_score_is_autograd(cluster, x)


def test_cluster_score_in_float32_is_that_of_float64_at_touching_atoms():
    cluster = LennardJonesCluster(5)
    x = normal(200, 5, 3, seed=11).float()
    energy, score = cluster.energy_and_score(x)
    exact, exact_score = cluster.energy_and_score(x.double())
    torch.testing.assert_close(energy, exact.float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(score, exact_score.float(), rtol=1e-6, atol=0)


def test_coincident_atoms_have_infinite_energy_and_no_nan_anywhere():
    cluster = LennardJonesCluster(3)
    x = torch.tensor(
        [
            [[0.0, 0, 0], [0, 0, 0], [1, 0, 0]],
            [[0.0, 0, 0], [1e-3, 0, 0], [1, 0, 0]],
            [[0.0, 0, 0], [1, 0, 0], [2, 0, 0]],
        ]
    )
    for dtype in (torch.float32, torch.float64):
        energy, score = cluster.energy_and_score(x.to(dtype))
        assert torch.isinf(energy).tolist() == [True, True, False]
        assert torch.isfinite(score).all()
        assert torch.equal(score[:2], torch.zeros(2, 3, 3, dtype=dtype))
        by_autograd, autograd_score = energy_and_score(
            as_target(lambda y: -cluster.energy(y), event_shape=(3, 3)), x.to(dtype)
        )
        torch.testing.assert_close(by_autograd, energy)
        torch.testing.assert_close(autograd_score, score)
    check_target(cluster, x)


@pytest.mark.parametrize("trap", [1.0, 0.4])
def test_log_z_of_two_atoms_matches_radial_quadrature(trap):
    def radial(counted: int) -> float:
        def density(r: float) -> float:
            pair = 4 * (r**-12 - r**-6)
            return 4 * math.pi * r**2 * math.exp(-0.25 * trap * r**2 - counted * pair)

        # x1 and x2 in terms of their sum and difference over √2: the sum is free in the trap.
        integral, _ = integrate.quad(density, 0.3, 30, points=[1.0, 1.5], epsabs=0, epsrel=1e-10, limit=500)
        return 1.5 * math.log(2 * math.pi / trap) + math.log(integral) - 1.5 * math.log(2)

    x = normal(200_000, 2, 3, seed=12) / math.sqrt(trap)
    log_proposal = (-0.5 * trap * x.square() - 0.5 * math.log(2 * math.pi / trap)).sum((-1, -2))
    log_z, error = importance(LennardJonesCluster(2, trap=trap).energy(x), log_proposal)
    assert error < 0.005
    assert abs(log_z - radial(2)) < 4 * error
    assert abs(log_z - radial(1)) > 8 * error  # negative control: each pair once


def test_holding_the_center_adds_its_gaussian_alone():
    x = 3 * normal(4, 6, 3, seed=13)
    held, free = LennardJonesCluster(6, trap=1.4), LennardJonesCluster(6, trap=1.4, free_center=True)
    difference = held.energy(x) - free.energy(x)
    torch.testing.assert_close(difference, 0.5 * 1.4 * 6 * x.mean(1).square().sum(-1), rtol=0, atol=1e-8)
    torch.testing.assert_close(free.energy(x + 5.0), free.energy(x))


@pytest.mark.parametrize(
    ("atoms", "strength", "trap"), [(1, 1.0, 1.0), (3, -0.1, 1.0), (3, 1.0, 0.0), (3, math.nan, 1.0)]
)
def test_an_unusable_cluster_is_refused(atoms, strength, trap):
    with pytest.raises(InputError, match="cluster"):
        LennardJonesCluster(atoms, strength, trap)


# Anything a user has


def log_banana(x: Tensor) -> Tensor:
    return -0.5 * x[..., 0].square() - 2 * (x[..., 1] - x[..., 0].square()).square()


def test_a_batched_log_density_becomes_its_energy_with_the_sign_turned():
    target = as_target(log_banana, event_shape=2)
    x = normal(6, 2, seed=14)
    torch.testing.assert_close(target.energy(x), -log_banana(x))
    assert target.event_shape == (2,)
    assert_score_is_autograd(target, x)
    check_target(target, x)


def test_a_log_density_of_one_point_is_mapped_over_walkers():
    one = as_target(lambda x: -(x[0, 0] - 1).square() - (x**2).sum(), event_shape=(2, 2), batched=False)
    x = normal(6, 2, 2, seed=15)
    torch.testing.assert_close(one.energy(x), (x[:, 0, 0] - 1).square() + x.square().sum((1, 2)))
    assert_score_is_autograd(one, x)
    check_target(one, x)


def test_a_target_is_returned_as_it_is():
    target = Gaussian(torch.zeros(2), torch.ones(2))
    assert as_target(target) is target
    with pytest.raises(InputError, match=r"got \(3,\) for a target of shape \(2,\)"):
        as_target(target, event_shape=3)


@pytest.mark.parametrize(
    ("distribution", "shape"),
    [
        (Normal(0.0, 2.0), (1,)),
        (Normal(torch.zeros(3), 2.0), (3,)),
        (Independent(Normal(torch.zeros(2, 3), 1.0), 2), (2, 3)),
        (MultivariateNormal(torch.zeros(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]])), (2,)),
        (MixtureSameFamily(Categorical(torch.tensor([0.3, 0.7])), Normal(torch.tensor([-2.0, 1.0]), 1.0)), (1,)),
    ],
)
def test_a_distribution_on_all_of_space_becomes_a_target(distribution, shape):
    target = as_target(distribution)
    assert isinstance(target, DistributionTarget)
    assert target.event_shape == shape
    assert target.log_z == 0.0
    x = target.sample(5, generator=seeded(16))
    assert x.shape == (5, *shape)
    expected = distribution.log_prob(x[:, 0] if distribution.batch_shape + distribution.event_shape == () else x)
    torch.testing.assert_close(target.energy(x), -expected.flatten(1).sum(-1) if expected.ndim > 1 else -expected)
    check_target(target, x)


def test_draws_of_a_distribution_repeat_with_the_generator_and_leave_the_global_state_alone():
    target = DistributionTarget(Normal(torch.zeros(2), 1.0))
    before = torch.random.get_rng_state()
    one, same, other = (target.sample(4, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    generator = seeded(1)
    assert not torch.equal(target.sample(4, generator=generator), target.sample(4, generator=generator))


@pytest.mark.parametrize(
    ("density", "arguments", "message"),
    [
        (log_banana, {}, "event_shape=3"),
        (log_banana, {"event_shape": 0}, "positive whole"),
        (log_banana, {"event_shape": (2, -1)}, "positive whole"),
        (log_banana, {"event_shape": True}, "positive whole"),
        (3.0, {"event_shape": 2}, "got float"),
        (Gamma(2.0, 1.0), {}, "Constrained"),
        (Dirichlet(torch.ones(3)), {}, "Constrained"),
        (LogNormal(torch.zeros(2), 1.0), {}, "Constrained"),
        (MixtureSameFamily(Categorical(torch.ones(2)), Gamma(torch.ones(2), 1.0)), {}, "Constrained"),
        (Poisson(torch.tensor([3.0])), {}, "discrete"),
        (Normal(torch.zeros(3), 1.0), {"event_shape": 2}, r"got \(2,\)"),
    ],
)
def test_what_cannot_become_a_target_is_refused(density, arguments, message):
    with pytest.raises(InputError, match=message):
        as_target(density, **arguments)


class WrongScore:
    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return x.square().sum(-1)

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.energy(x), torch.zeros(len(x), 3)


def quadratic(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(-1)


def only_numbers(x: Tensor) -> float:
    return -x.square().sum().item()


def branching(x: Tensor) -> Tensor:
    return -x.sum() if bool(x[0] > 0) else x.sum()


GOOD = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -0.7]])


@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (lambda x: quadratic(x).sum(), r"shape \(3,\) for walkers \(3, 2\): got shape \(\).*batched=False"),
        (lambda x: -x.square(), r"got shape \(3, 2\)"),
        (lambda x: quadratic(x)[:, None], r"got shape \(3, 1\)"),
        (only_numbers, "got float.*NumpyDensity"),
        (lambda x: -x.square().sum(-1).long(), "int64"),
        (lambda x: quadratic(x) + x[:, 0].sqrt(), r"walker 1 has NaN at x = \[-1.0, 0.5\]"),
        (lambda x: quadratic(x) - (x[:, 1] - 0.5).abs().log(), "bounded from below: walker 1 has -inf"),
        (lambda x: torch.full((len(x),), -torch.inf), r"support: all 3 have energy \+inf.*Constrained"),
        (lambda x: quadratic(x) + torch.where(x[:, 0] > 0, x[:, 0].sqrt(), 0.0), "NaN in coordinate .0. of walker 1"),
        (lambda x: quadratic(x) - (x[:, 1] - 0.5).abs().sqrt(), "in coordinate .1. of walker 1"),
        (lambda x: quadratic(x.detach()), "depend on x through torch"),
        (lambda x: torch.zeros(len(x)), "depend on x through torch"),
        (lambda x: torch.tensor([only_numbers(v) for v in x]), "depend on x through torch"),
        (lambda x: quadratic(x.round()), "zero at all 3 points while energies differ"),
        (lambda x: x @ torch.ones(3), "failed with RuntimeError.*batched=False"),
        (lambda x: -x.no_such_thing(), "failed with AttributeError"),
    ],
)
def test_a_bad_log_density_is_named_before_any_work(log_density, message):
    with pytest.raises(InputError, match=re.compile(message, re.DOTALL)):
        check_target(as_target(log_density, event_shape=2), GOOD)


@pytest.mark.parametrize(
    ("log_density", "message"),
    [
        (branching, "failed with RuntimeError"),
        (lambda x: -x.square(), r"got shape \(3, 2\); a function of one point returns a single number"),
        (only_numbers, "failed with RuntimeError"),
    ],
)
def test_a_bad_log_density_of_one_point_is_named_before_any_work(log_density, message):
    with pytest.raises(InputError, match=message):
        check_target(as_target(log_density, event_shape=2, batched=False), GOOD)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[1, 2]]), "int64"),
        (torch.tensor([[True, False]]), "bool"),
        (torch.zeros(3), r"\(n, 2\): got \(3,\)"),
        (torch.zeros(3, 4), r"\(n, 2\): got \(3, 4\)"),
        (torch.zeros(0, 2), r"got \(0, 2\)"),
        (torch.tensor([[0.0, 0.0], [0.0, math.nan]]), r"finite: got NaN in coordinate \[1\] of walker 1"),
    ],
)
def test_bad_starting_points_are_named(x, message):
    with pytest.raises(InputError, match=message):
        check_target(as_target(quadratic, event_shape=2), x)


def test_a_score_of_the_wrong_shape_is_named():
    with pytest.raises(InputError, match=r"walkers, \(3, 2\): got \(3, 3\)"):
        check_target(WrongScore(), GOOD)


def test_good_targets_pass_the_check_even_where_some_points_are_outside():
    box = as_target(lambda x: torch.where((x.abs() < 1.5).all(-1), 0.0 * x.sum(-1), -torch.inf), event_shape=2)
    check_target(box, GOOD)
    half = as_target(lambda x: torch.where(x[:, 0] > 0, quadratic(x), -torch.inf), event_shape=2)
    check_target(half, GOOD)
    check_target(as_target(quadratic, event_shape=2), GOOD[:1])
    without_gradient = as_target(lambda x: quadratic(x.round()), event_shape=2)
    check_target(without_gradient, GOOD, gradient=False)


def test_the_check_leaves_its_points_alone():
    x = GOOD.clone()
    check_target(as_target(quadratic, event_shape=2), x)
    assert torch.equal(x, GOOD)
    assert not x.requires_grad


# Constrained supports


def jacobian_log_det(target: Constrained, y: Tensor, coordinates) -> Tensor:
    """log |det| of the map from y to independent coordinates of the support, by autograd, walker by walker."""

    def one(v: Tensor) -> Tensor:
        return coordinates(target.constrain(v.view(1, *target.event_shape))[0]).flatten()

    matrices = [torch.autograd.functional.jacobian(one, v.flatten()) for v in y]
    return torch.stack([torch.linalg.slogdet(m)[1] for m in matrices])


def triangle(x: Tensor) -> Tensor:
    return x[..., *torch.tril_indices(x.shape[-1], x.shape[-1])]


def flat(event: tuple[int, ...]) -> Target:
    return as_target(lambda x: 0.0 * x.flatten(1).sum(-1), event_shape=event)


@pytest.mark.parametrize(
    ("support", "constrained", "unconstrained", "coordinates"),
    [
        (constraints.positive, (3,), (3,), lambda x: x),
        (constraints.positive, (2, 3), (2, 3), lambda x: x),
        (constraints.greater_than(2.0), (2,), (2,), lambda x: x),
        (constraints.interval(-1.0, 3.0), (3,), (3,), lambda x: x),
        (constraints.independent(constraints.unit_interval, 1), (3,), (3,), lambda x: x),
        (constraints.simplex, (4,), (3,), lambda x: x[..., :-1]),
        (constraints.simplex, (2, 3), (2, 2), lambda x: x[..., :-1]),
        (constraints.lower_cholesky, (3, 3), (6,), triangle),
        (constraints.lower_cholesky, (2, 2, 2), (2, 3), triangle),
        (constraints.cat([constraints.positive, constraints.real], -1, [1, 2]), (3,), (3,), lambda x: x),
    ],
)
def test_the_log_determinant_of_a_support_is_that_of_autograd(support, constrained, unconstrained, coordinates):
    target = Constrained(flat(constrained), support)
    assert target.event_shape == unconstrained
    y = normal(5, *unconstrained, seed=17)
    torch.testing.assert_close(target.energy(y), -jacobian_log_det(target, y, coordinates), rtol=1e-9, atol=1e-9)
    assert float(target.energy(y).abs().min()) > 1e-3  # the log-determinant is not trivially zero
    x = target.constrain(y)
    assert x.shape == (5, *constrained)
    assert bool(support.check(x).all())
    torch.testing.assert_close(target.unconstrain(x), y)
    assert_score_is_autograd(target, y)
    check_target(target, y.float())


@pytest.mark.parametrize(
    "distribution", [Gamma(2.5, 1.5), Exponential(0.7), Beta(2.0, 3.0), Uniform(-1.0, 2.0), LogNormal(0.3, 0.5)]
)
def test_the_unconstrained_density_of_a_distribution_integrates_to_one(distribution):
    target = Constrained(distribution)
    y = torch.linspace(-40, 40, 16001, dtype=torch.float64)
    assert abs(float(torch.exp(-target.energy(y[:, None])).sum() * (y[1] - y[0])) - 1) < 1e-6
    assert target.log_z == 0.0


def test_the_unconstrained_dirichlet_integrates_to_one():
    target = Constrained(Dirichlet(torch.tensor([1.5, 2.0, 3.0], dtype=torch.float64)))
    axis = torch.linspace(-25, 25, 501, dtype=torch.float64)
    total = torch.exp(-target.energy(torch.cartesian_prod(axis, axis))).sum() * (axis[1] - axis[0]) ** 2
    assert abs(float(total) - 1) < 1e-6


def test_draws_of_a_constrained_distribution_follow_its_unconstrained_density():
    target = Constrained(Gamma(torch.tensor([2.5], dtype=torch.float64), 1.5))
    y = target.sample(5_000, generator=seeded(18))[:, 0]
    assert stats.kstest(y.exp().numpy(), stats.gamma(2.5, scale=1 / 1.5).cdf).pvalue > 1e-3
    assert stats.kstest(y.exp().numpy(), stats.gamma(2.0, scale=1 / 1.5).cdf).pvalue < 1e-6  # negative control
    score = target.energy_and_score(y[:, None])[1][:, 0]
    assert abs(float(score.mean())) < 4 * float(score.std()) / math.sqrt(5_000)  # E ∇log p = 0


def test_a_user_log_density_on_a_support_keeps_its_integral():
    rate = Constrained(as_target(lambda x: (2 * x.log() - 3 * x).sum(-1), event_shape=1), constraints.positive)
    y = torch.linspace(-40, 10, 10001, dtype=torch.float64)
    total = torch.exp(-rate.energy(y[:, None])).sum() * (y[1] - y[0])
    assert abs(float(total) - 2 / 27) < 1e-8  # Γ(3) / 3³
    assert not hasattr(rate, "sample")
    assert not hasattr(rate, "log_z")


def test_rounding_onto_the_edge_of_a_support_is_no_error():
    # Given, because torch.compile turns the default off for the whole process.
    given = Dirichlet(torch.ones(60), validate_args=True)
    energy, score = Constrained(given).energy_and_score(2 * normal(200, 59, seed=19).float())
    assert torch.isfinite(energy).all()
    assert torch.isfinite(score).all()
    assert given._validate_args  # the user's own stays strict


def test_correlation_factors_of_a_distribution_are_a_vector():
    target = Constrained(LKJCholesky(3, 2.0))
    assert target.event_shape == (3,)
    y = target.sample(4, generator=seeded(20))
    check_target(target, y)
    factor = target.constrain(y)
    torch.testing.assert_close((factor @ factor.mT).diagonal(dim1=-2, dim2=-1), torch.ones(4, 3))


@pytest.mark.parametrize(
    ("density", "support", "message"),
    [
        (flat((2,)), None, "needs its support"),
        (flat((2,)), constraints.nonnegative_integer, "discrete"),
        (flat((2,)), constraints.lower_cholesky, "more dimensions"),
        (flat((2, 2)), constraints.positive_definite, "log-determinant"),
        (flat((2,)), constraints.dependent, "needs a bijection"),
        (Poisson(torch.ones(2)), None, "discrete"),
    ],
)
def test_an_unusable_support_is_refused(density, support, message):
    with pytest.raises(InputError, match=message):
        Constrained(density, support)


# Densities in numpy


def numpy_banana(x: np.ndarray) -> np.ndarray:
    return -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - x[:, 0] ** 2) ** 2


def numpy_slope(x: np.ndarray) -> np.ndarray:
    rest = x[:, 1] - x[:, 0] ** 2
    return np.stack([-x[:, 0] + 8 * rest * x[:, 0], -4 * rest], -1)


def test_a_numpy_density_with_gradient_equals_the_torch_one_also_through_a_transform():
    ours, torchs = NumpyDensity(numpy_banana, 2, numpy_slope), as_target(log_banana, event_shape=2)
    x = normal(8, 2, seed=21)
    assert_score_is_autograd(ours, x)
    transform = AffineTransform(torch.tensor([1.0, -0.5]).double(), torch.tensor([2.0, 0.3]).double(), event_dim=1)
    for one, other in ((ours, torchs), (TransformedTarget(ours, transform), TransformedTarget(torchs, transform))):
        torch.testing.assert_close(one.energy(x), other.energy(x))
        for mine, theirs in zip(energy_and_score(one, x), energy_and_score(other, x), strict=True):
            torch.testing.assert_close(mine, theirs)
    wrong = NumpyDensity(numpy_banana, 2, lambda x: -numpy_slope(x))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(energy_and_score(wrong, x)[1], energy_and_score(torchs, x)[1])
    check_target(ours, x)
    assert ours.energy(x.float()).dtype == torch.float32


def test_a_numpy_density_without_gradient_has_energies_and_says_what_it_lacks():
    target = NumpyDensity(numpy_banana, 2)
    x = normal(4, 2, seed=22)
    torch.testing.assert_close(target.energy(x), -log_banana(x))
    check_target(target, x, gradient=False)
    for ask in (lambda: target.energy_and_score(x), lambda: check_target(target, x)):
        with pytest.raises(InputError, match="random walks"):
            ask()
    shifted = TransformedTarget(target, AffineTransform(0.0, 2.0, event_dim=1))
    with pytest.raises(InputError, match="random walks"):
        shifted.energy_and_score(x)


def test_a_numpy_density_is_not_differentiated_twice():
    point = normal(3, 2, seed=23).requires_grad_()
    energy = NumpyDensity(numpy_banana, 2, numpy_slope).energy(point)
    (gradient,) = torch.autograd.grad(energy.sum(), point, create_graph=True)
    with pytest.raises(NotImplementedError, match="differentiated twice"):
        gradient.sum().backward()


def test_outside_its_support_a_numpy_density_has_no_score():
    def log_density(x: np.ndarray) -> np.ndarray:
        return np.where(x[:, 0] > 0, -x[:, 0], -np.inf)

    target = NumpyDensity(log_density, 1, lambda x: np.where(x > 0, -1.0, np.nan))
    x = torch.tensor([[-1.0], [2.0]])
    for evaluate in (
        target.energy_and_score,
        lambda v: energy_and_score(as_target(lambda p: -target.energy(p), event_shape=1), v),
    ):
        energy, score = evaluate(x)
        assert energy.tolist() == [math.inf, 2.0]
        assert score.tolist() == [[0.0], [-1.0]]
    check_target(target, x)


def test_a_numpy_density_cannot_change_the_walkers():
    def careless(x: np.ndarray) -> np.ndarray:
        x *= 0
        return x.sum(-1)

    x = torch.ones(3, 2, dtype=torch.float64)
    NumpyDensity(careless, 2).energy(x)
    assert torch.equal(x, torch.ones(3, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("log_density", "gradient", "message"),
    [
        (lambda x: -(x**2).sum(), None, r"shape \(2,\).*not batched"),
        (lambda x: -(x**2), None, r"got \(2, 3\)"),
        (lambda x: np.zeros(len(x), dtype=int), None, "int64"),
        (lambda x: -(x**2).sum(-1), lambda x: -x[0], r"gradient must give shape \(2, 3\)"),
    ],
)
def test_a_numpy_density_of_the_wrong_shape_is_named(log_density, gradient, message):
    target = NumpyDensity(log_density, 3, gradient)
    with pytest.raises(InputError, match=message):
        check_target(target, torch.ones(2, 3), gradient=gradient is not None)
