"""Densities fitted to weighted samples, and the densities that such fits give."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import integrate
from torch import Tensor

from nessampler.closed_form.density_fits import fit_density, widened
from nessampler.closed_form.fit_mixture import fit_gaussian_mixture, fit_student_mixture
from nessampler.closed_form.fit_product import fit_product_mixture
from nessampler.closed_form.fit_triangular import fit_triangular_normal
from nessampler.errors import InputError
from nessampler.targets.covariance_mixture import CovarianceMixture
from nessampler.targets.funnel import Funnel
from nessampler.targets.many_well import ManyWell
from nessampler.targets.mixture import GaussianMixture, random_mixture
from nessampler.targets.product_mixture import ProductMixture
from nessampler.targets.student import StudentMixture
from nessampler.targets.student_products import StudentProducts
from nessampler.targets.triangular_normal import TriangularNormal


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


TRIANGLE = TriangularNormal(
    double(0.3, -0.2),
    double([0.0, 0.7], [0.0, 0.0]),
    double(-0.4, 0.5),
    double([0.0, 0.3], [0.0, 0.0]),
    torch.tensor([1, 0]),
)
TARGETS = {
    "product": ProductMixture(
        double([-1.0, 1.5], [0.5, 0.0]), double([0.4, 0.7], [1.1, 1.0]), double([1.0, 3.0], [1.0, 0.0])
    ),
    "triangle": TRIANGLE,
    "covariance": CovarianceMixture(
        double([-1.0, 0.0], [1.5, 1.0]),
        double([[1.0, 0.6], [0.6, 0.8]], [[0.3, -0.1], [-0.1, 0.5]]),
        double(0.3, 0.7),
    ),
    "student": StudentProducts(
        double([-1.0, 0.0], [2.0, 1.0]), double([0.5, 1.0], [0.8, 0.6]), double(3.0, 6.0), double(0.4, 0.6)
    ),
}
every_target = pytest.mark.parametrize("name", TARGETS)


# --- the densities ---------------------------------------------------------------------------------------------------


@every_target
def test_score_and_laplacian_are_those_of_autograd(name):
    target = TARGETS[name]
    x = 1.5 * target.sample(8, generator=seeded(0))
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(point).sum(), point)
    energy, score = target.energy_and_score(x)
    torch.testing.assert_close(energy, target.energy(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score, -gradient, rtol=1e-10, atol=1e-10)
    hessians = [torch.autograd.functional.hessian(lambda z: target.energy(z[None])[0], z) for z in x]
    traces = torch.stack([torch.trace(h) for h in hessians])  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(target.laplacian(x), traces, rtol=1e-9, atol=1e-9)


@every_target
def test_densities_integrate_to_one(name):
    target, reach = TARGETS[name], 400.0 if name == "student" else 14.0
    half = math.asinh(reach)
    nodes = torch.linspace(-half, half, 701, dtype=torch.float64)  # x = sinh s: tails and centre on one grid
    x, jacobian = torch.sinh(nodes), torch.cosh(nodes)
    grid = torch.stack(torch.meshgrid(x, x, indexing="ij"), -1).view(-1, 2)
    density = torch.exp(-target.energy(grid)) * jacobian.outer(jacobian).flatten()
    assert abs(float(density.sum() * (nodes[1] - nodes[0]) ** 2) - 1) < (2e-5 if name != "student" else 1e-3)


@every_target
def test_draws_follow_the_density(name):
    """E_p[log q/p] + log-sum: the mean of q/p over draws of p is one, for a density q a little to the side."""
    target, n = TARGETS[name], 20_000
    x = target.sample(n, generator=seeded(1))
    ratio = torch.exp(target.energy(x) - target.energy(x - 0.15))
    error = float(ratio.std() / math.sqrt(n))
    assert error < 0.01
    assert abs(float(ratio.mean()) - 1) < 4 * error
    y = 1.2 * x + 0.2
    broken = torch.exp(target.energy(y) - target.energy(y - 0.15))
    assert abs(float(broken.mean()) - 1) > 4 * float(broken.std() / math.sqrt(n))


@every_target
def test_energies_keep_the_dtype_and_hardly_depend_on_it(name):
    target = TARGETS[name]
    x = target.sample(50, generator=seeded(2))
    energy, score = target.energy_and_score(x.float())
    assert energy.dtype == score.dtype == torch.float32
    torch.testing.assert_close(energy.double(), target.energy(x), rtol=1e-5, atol=1e-5)


def test_the_funnel_is_a_triangular_normal():
    slope = torch.zeros(10, 10, dtype=torch.float64)
    slope[1:, 0] = 0.5
    log_scale = torch.zeros(10, dtype=torch.float64)
    log_scale[0] = math.log(3)
    funnel = TriangularNormal(0 * log_scale, 0 * slope, log_scale, slope)
    x = Funnel().sample(100, generator=seeded(3))
    torch.testing.assert_close(funnel.energy(x), Funnel().energy(x))
    torch.testing.assert_close(funnel.energy_and_score(x)[1], Funnel().energy_and_score(x)[1])


def test_clamped_log_scales_do_not_overflow():
    slope = double([0.0, 0.0], [0.5, 0.0])
    funnel = TriangularNormal(double(0.0, 0.0), 0 * slope, double(0.0, 0.0), slope)
    far = torch.tensor([[-1e4, 1.0], [1e4, 1.0]])
    energy, score = funnel.energy_and_score(far)
    assert bool(torch.isfinite(energy).all() & torch.isfinite(score).all())


def test_one_tail_is_the_student_mixture():
    student = StudentMixture(double([-3.0, 1.0], [2.0, 0.0]), 0.7, 2.5, double(0.3, 0.7))
    ours = StudentProducts(student.means, torch.full((2, 2), 0.7), torch.full((2,), 2.5), student.weights)
    x = student.sample(20, generator=seeded(4))
    torch.testing.assert_close(ours.energy(x), student.energy(x), rtol=1e-6, atol=1e-6)


def test_a_wrong_order_is_refused():
    slope = double([0.0, 0.5], [0.0, 0.0])
    with pytest.raises(InputError, match="only those before it"):
        TriangularNormal(double(0.0, 0.0), slope, double(0.0, 0.0), 0 * slope)


@every_target
def test_widening_multiplies_the_scales(name):
    wide: Any = widened(TARGETS[name], 2.0)
    if name == "triangle":
        torch.testing.assert_close(wide.log_scale, TRIANGLE.log_scale + math.log(2))
    elif name == "covariance":
        torch.testing.assert_close(wide.covariances, 4 * TARGETS[name].covariances)
    else:
        torch.testing.assert_close(wide.scales, 2 * TARGETS[name].scales)


# --- the fits --------------------------------------------------------------------------------------------------------


def quality(target, fit, n: int = 4000) -> float:
    """ESS of exact samples of the fit weighted to the target."""
    x = fit.sample(n, generator=seeded(99))
    log_weight = fit.energy(x) - target.energy(x)
    return float(torch.exp(2 * torch.logsumexp(log_weight, 0) - torch.logsumexp(2 * log_weight, 0)) / n)


def test_product_fit_recovers_its_parameters():
    truth = ProductMixture(double([-2.0, 2.0], [0.0, 5.0]), double([0.5, 0.8], [1.0, 0.4]), double([1, 3], [2, 1]))
    n = 8000
    fit = fit_product_mixture(truth.sample(n, generator=seeded(5)))
    assert fit.means.shape == (2, 2)
    count = n * truth.weights
    assert bool(((fit.means - truth.means).abs() < 4 * truth.scales / count.sqrt()).all())
    assert bool(((fit.scales - truth.scales).abs() < 4 * truth.scales / (2 * count).sqrt()).all())
    assert bool(((fit.weights - truth.weights).abs() < 4 * (0.25 / n) ** 0.5).all())


def test_product_fit_of_many_wells_is_nearly_exact():
    wells = ManyWell(pairs=4)
    assert quality(wells, fit_product_mixture(wells.sample(4000, generator=seeded(6)))) > 0.93
    assert quality(wells, fit_product_mixture(wells.sample(4000, generator=seeded(6)), components=1)) < 0.5


def test_triangular_fit_finds_the_funnel_and_prunes_the_rest():
    x = Funnel(6).sample(3000, generator=seeded(7))
    fit = fit_triangular_normal(x)
    slopes = fit.log_scale_slope[1:, 0]
    assert bool(((slopes - 0.5).abs() < 4 / math.sqrt(2 * 9 * 3000)).all())  # information 2 Var(x0) a sample
    assert int(fit.shift_slope.count_nonzero()) == 0
    assert int(fit.log_scale_slope.count_nonzero()) == 5
    assert quality(Funnel(6), fit) > 0.95


def test_a_slope_that_only_one_half_of_the_samples_asks_for_is_pruned():
    """Two families of siblings far out along x1, both in the first half, where x2 happens to be narrow."""
    generator = seeded(31)
    x = torch.randn(2048, 3, generator=generator, dtype=torch.float64)
    x[:, 2] *= (0.5 * x[:, 0]).exp()
    for row in (100, 700):
        x[row : row + 32, 1] += 6.0
        x[row : row + 32, 2] *= 0.01
    natural = (torch.arange(3),)
    slopes = fit_triangular_normal(x, orders=natural).log_scale_slope
    assert 0.4 < slopes[2, 0] < 0.6  # both halves ask for it
    assert slopes[2, 1] == 0
    # Had the second half such families too, the slope would be a fact.
    everywhere = torch.cat([x[:1024], x[:1024]])
    assert fit_triangular_normal(everywhere, orders=natural).log_scale_slope[2, 1] < -0.2


def test_triangular_fit_finds_the_order_by_itself():
    x = Funnel(6).sample(3000, generator=seeded(8))[:, [3, 4, 0, 1, 5, 2]]
    fit = fit_triangular_normal(x)
    assert fit.order.tolist()[0] == 2
    assert int(fit.log_scale_slope[:, 2].count_nonzero()) == 5


def test_triangular_fit_recovers_correlations():
    fit = fit_triangular_normal(TRIANGLE.sample(20_000, generator=seeded(9)))
    assert fit.order.tolist() == [1, 0]
    torch.testing.assert_close(fit.shift_slope, TRIANGLE.shift_slope, rtol=0, atol=0.02)
    torch.testing.assert_close(fit.log_scale_slope, TRIANGLE.log_scale_slope, rtol=0, atol=0.02)


def test_gaussian_mixture_fit_finds_all_modes_in_high_dimension():
    truth = random_mixture(8, 30, scale=1.0, spread=10.0, seed=1)
    fit = fit_gaussian_mixture(truth.sample(2000, generator=seeded(10)), generator=seeded(11))
    assert isinstance(fit, GaussianMixture)
    assert len(fit.means) == 8
    nearest = torch.cdist(truth.means, fit.means).min(1).values
    assert float(nearest.max()) < 1.0  # sqrt(30/250) = 0.35 expected
    assert float((fit.weights - 1 / 8).abs().max()) < 4 * math.sqrt(7 / 64 / 2000)


def correlated_normals(n: int, chains: int, rho: float, seed: int) -> Tensor:
    """Chains of four coordinates whose every draw is rho times the last one and noise, `(chains * n, 4)`."""
    noise = torch.randn(n, chains, 4, generator=seeded(seed), dtype=torch.float64)
    for k in range(1, n):
        noise[k] = rho * noise[k - 1] + math.sqrt(1 - rho**2) * noise[k]
    return noise.transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize("kinds", [("diagonal",), ("shrunk", "full")])
def test_correlated_samples_of_one_gaussian_are_one_component_where_the_last_in_time_judge(kinds):
    late = (torch.arange(200) >= 150).repeat(4)
    for seed in range(3):
        x = correlated_normals(200, 4, 0.97, seed)
        counts = [
            len(fit_gaussian_mixture(x, kinds=kinds, held_out=held, generator=seeded(seed)).means)
            for held in (None, late)
        ]
        assert counts[0] > 8  # neighbours in time of what is fitted reward any number
        assert counts[1] <= 2


def test_samples_held_out_are_those_that_have_weight():
    x, weights = correlated_normals(100, 1, 0.5, 0), torch.ones(100)
    late, weights[::3] = torch.arange(100) >= 75, 0.0
    kept = weights > 0
    one = fit_gaussian_mixture(x, weights, held_out=late, generator=seeded(1))
    other = fit_gaussian_mixture(x[kept], held_out=late[kept], generator=seeded(1))
    assert torch.equal(one.means, other.means)


@pytest.mark.parametrize(
    ("held_out", "received"),
    [
        (torch.zeros(100, dtype=torch.bool), "got 0 of 100 held out"),
        (torch.ones(100, dtype=torch.bool), "got 100 of 100 held out"),
        (torch.arange(50) > 40, r"torch.bool of shape \(50,\) for samples \(100, 4\)"),
        (torch.arange(100), r"torch.int64 of shape \(100,\)"),
    ],
)
def test_what_cannot_be_held_out_is_named(held_out, received):
    with pytest.raises(InputError, match=received):
        fit_gaussian_mixture(correlated_normals(100, 1, 0.5, 0), held_out=held_out, generator=seeded(1))


def test_gaussian_mixture_fit_recovers_covariances():
    truth = TARGETS["covariance"]
    wide = CovarianceMixture(6 * truth.means, truth.covariances, truth.weights)
    fit = fit_gaussian_mixture(wide.sample(8000, generator=seeded(12)), generator=seeded(13))
    assert isinstance(fit, CovarianceMixture)
    assert len(fit.means) == 2
    pair = torch.cdist(wide.means, fit.means).argmin(1)
    torch.testing.assert_close(fit.covariances[pair], wide.covariances, rtol=0, atol=0.08)


def test_student_fit_recovers_tails_and_scales():
    truth = StudentProducts(double([-8.0] * 5, [8.0] * 5), double([1.0] * 5, [2.0] * 5), double(2.0, 2.0))
    fit = fit_student_mixture(truth.sample(4000, generator=seeded(14)), generator=seeded(15))
    assert len(fit.means) == 2
    pair = torch.cdist(truth.means, fit.means).argmin(1)
    assert float((fit.degrees_of_freedom - 2).abs().max()) < 0.25
    # The information about log σ of a t is 2ν/(ν + 3) a sample.
    error = math.sqrt(5 / 4 / 2000)
    assert float((fit.scales[pair] / truth.scales).log().abs().max()) < 4 * error


def importance(truth, wide, n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = wide.sample(n, generator=seeded(seed))
    return x, torch.softmax(wide.energy(x) - truth.energy(x), 0)


@pytest.mark.parametrize("family", ["product", "triangle", "mixture", "student"])
def test_fits_use_the_weights(family):
    """Weighted samples of another density give the target's fit; the same samples without weights do not."""
    truth = CovarianceMixture(double([1.0, -0.5]), double([[0.5, 0.0], [0.0, 0.3]]), double(1.0))
    wide = CovarianceMixture(double([0.0, 0.0]), double([[4.0, 0.0], [0.0, 4.0]]), double(1.0))
    x, weights = importance(truth, wide, 8000, 16)
    fits = {
        "product": lambda w: fit_product_mixture(x, w),
        "triangle": lambda w: fit_triangular_normal(x, w),
        "mixture": lambda w: fit_gaussian_mixture(x, w, components=1, generator=seeded(17)),
        "student": lambda w: fit_student_mixture(x, w, components=1, generator=seeded(17)),
    }
    assert quality(truth, fits[family](weights)) > 0.97
    assert quality(truth, fits[family](None)) < 0.6


def test_samples_without_weight_do_not_matter():
    x = TRIANGLE.sample(500, generator=seeded(18))
    junk = torch.cat([x, torch.full((3, 2), math.nan, dtype=torch.float64)])
    weights = torch.cat([torch.ones(500), torch.zeros(3)])
    torch.testing.assert_close(fit_product_mixture(junk, weights).means, fit_product_mixture(x).means)


@pytest.mark.parametrize(
    ("target", "family"),
    [
        (Funnel(4), "triangular normal"),
        (ManyWell(2), "product mixture"),
        (random_mixture(5, 4, scale=0.5, spread=6.0, seed=2), "Gaussian mixture"),
        (StudentMixture(double([-9.0, 0.0, 3.0], [9.0, 4.0, 0.0])), "Student mixture"),
    ],
    ids=["funnel", "wells", "modes", "tails"],
)
def test_the_family_that_suits_is_chosen(target, family):
    x = target.sample(2000, generator=seeded(19))
    fitted = fit_density(x, generator=seeded(20))
    assert fitted.family == family
    assert fitted.held_out[family] > fitted.held_out["normal"] + 0.1


def test_the_same_generator_gives_the_same_fit():
    x = TARGETS["covariance"].sample(1000, generator=seeded(21))
    one, other = (fit_gaussian_mixture(x, generator=seeded(22)) for _ in range(2))
    assert torch.equal(one.means, other.means)


def test_bad_weights_are_refused():
    x = torch.zeros(10, 2)
    with pytest.raises(InputError, match="not all zero"):
        fit_product_mixture(x, torch.zeros(10))
    with pytest.raises(InputError, match="weights"):
        fit_product_mixture(x, -torch.ones(10))


def test_marginal_of_a_product_is_its_mixture():
    target = TARGETS["product"]
    inner, _ = integrate.quad(
        lambda y: math.exp(-float(target.energy(double([0.7, y])))), -12, 12, epsabs=1e-10, epsrel=1e-10
    )
    w, mu, s = target.weights[0], target.means[0], target.scales[0]
    own = float((w * torch.exp(-0.5 * ((0.7 - mu) / s) ** 2) / (s * math.sqrt(2 * math.pi))).sum())
    assert abs(inner - own) < 1e-8
