"""Benchmark densities: normalisers, exact draws, scores and Laplacians, each by an independent route."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor, distributions

from nessampler.errors import InputError
from nessampler.targets import energy_and_score, mixture, student
from nessampler.targets.curie_weiss import CurieWeiss
from nessampler.targets.funnel import Funnel
from nessampler.targets.many_well import ManyWell, sample_quartic
from nessampler.targets.mixture import GaussianMixture, gmm_40, random_mixture
from nessampler.targets.shapes import Ring, TwoMoons
from nessampler.targets.student import StudentMixture, student_mixture_50


def double(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


UNEVEN = GaussianMixture(
    double([-2.0, 1.0], [0.5, -1.5], [3.0, 2.0]), double([0.5, 1.0], [1.2, 0.4], [0.7, 0.7]), double(0.2, 0.5, 0.3)
)
HEAVY = StudentMixture(double([-3.0, 1.0], [2.0, 0.0]), 0.7, 2.5, double(0.3, 0.7))
TARGETS = {
    "mixture": UNEVEN,
    "gmm-40": gmm_40(),
    "gmm-50d": random_mixture(8, 50, scale=0.8, spread=3.0, seed=1),
    "student": HEAVY,
    "student-50d": student_mixture_50(),
    "funnel-10": Funnel(),
    "many-well-32": ManyWell(pairs=16),
    "ring": Ring(2.0, 0.4),
    "wide-ring": Ring(0.5, 1.0),
    "moons": TwoMoons(),
    "magnet": CurieWeiss(8, stiffness=2.0, coupling=1.5, field=0.05),
    "soft-magnet": CurieWeiss(3, stiffness=0.3, coupling=0.8, field=-0.4),
}
every_target = pytest.mark.parametrize("name", TARGETS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probes(name: str, n: int = 6) -> Tensor:
    """Typical points and points far out."""
    x = TARGETS[name].sample(n, generator=seeded(10))
    return torch.cat([x, 1.5 * x + 0.3 * torch.randn(x.shape, generator=seeded(11), dtype=torch.float64)])


# --- derivatives, dtypes, shapes ---------------------------------------------------------------------------------


@every_target
def test_score_and_laplacian_are_those_of_autograd(name):
    target, x = TARGETS[name], probes(name)
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(point).sum(), point)
    energy, score = target.energy_and_score(x)
    torch.testing.assert_close(energy, target.energy(x), rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(score, -gradient, rtol=1e-9, atol=1e-9)
    hessian = [torch.autograd.functional.hessian(lambda z: target.energy(z[None])[0], z) for z in x]
    expected = torch.stack([torch.trace(h) for h in hessian])  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(target.laplacian(x), expected, rtol=1e-8, atol=1e-8)


@every_target
def test_score_is_the_slope_of_the_energy_by_finite_differences(name):
    target, x, h = TARGETS[name], probes(name), 1e-5
    direction = torch.randn(x.shape, generator=seeded(12), dtype=torch.float64)
    slope = (target.energy(x + h * direction) - target.energy(x - h * direction)) / (2 * h)
    _, score = energy_and_score(target, x)
    scale = (score * direction).abs().sum(-1) + 1
    assert float(((slope + (score * direction).sum(-1)) / scale).abs().max()) < 1e-6


@every_target
def test_float32_walkers_give_float32_answers_that_agree_with_float64(name):
    target, x = TARGETS[name], probes(name).float()
    exact = (*target.energy_and_score(x.double()), target.laplacian(x.double()), target.energy(x.double()))
    single = (*target.energy_and_score(x), target.laplacian(x), target.energy(x))
    for rough, fine in zip(single, exact, strict=True):
        assert rough.dtype == torch.float32
        assert float((rough - fine).abs().max() / (1 + fine.abs().max())) < 2e-6


@every_target
@pytest.mark.parametrize("n", [0, 1, 7])
def test_a_batch_of_any_size_is_its_walkers_one_by_one(name, n, monkeypatch):
    target, x = TARGETS[name], TARGETS[name].sample(n, generator=seeded(13))
    assert x.shape == (n, *target.event_shape)
    whole = (target.energy(x), *target.energy_and_score(x), target.laplacian(x))
    assert [v.shape for v in whole] == [(n,), (n,), x.shape, (n,)]
    for module in (mixture, student):
        monkeypatch.setattr(module, "CHUNK", 1)
    for all_at_once, one_by_one in zip(
        whole, (target.energy(x), *target.energy_and_score(x), target.laplacian(x)), strict=True
    ):
        torch.testing.assert_close(one_by_one, all_at_once, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("name", ["gmm-40", "gmm-50d"])
def test_intermediate_arrays_of_a_mixture_do_not_grow_with_the_walkers(name):
    target = TARGETS[name]
    x = target.sample(30_000, generator=seeded(14))
    parts = [(y.numel(), logits.numel()) for y, logits in target._chunks(x)]
    assert len(parts) > 10
    assert max(max(part) for part in parts) <= mixture.CHUNK


@every_target
def test_draws_repeat_with_their_seed_and_leave_the_global_generator_alone(name):
    before = torch.get_rng_state()
    one, same, other = (TARGETS[name].sample(20, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


# --- normalisers -------------------------------------------------------------------------------------------------


def plane(target: object, reach: float, points: int = 801) -> float:
    """log of the integral over a square, by the trapezoidal rule."""
    axis = torch.linspace(-reach, reach, points, dtype=torch.float64)
    energy = target.energy(torch.cartesian_prod(axis, axis))  # pyright: ignore[reportAttributeAccessIssue]
    return float(torch.logsumexp(-energy, 0) + 2 * torch.log(axis[1] - axis[0]))


def test_a_gaussian_mixture_integrates_to_one():
    assert abs(plane(UNEVEN, 12.0) - UNEVEN.log_z) < 1e-10
    assert abs(plane(gmm_40(), 60.0) - gmm_40().log_z) < 1e-10


@pytest.mark.parametrize(("modes", "dimension"), [(8, 50), (40, 200)])
def test_a_gaussian_mixture_in_many_dimensions_is_the_normalised_one_of_torch(modes, dimension):
    ours = random_mixture(modes, dimension, scale=0.7, spread=10.0, seed=3)
    components = distributions.Independent(distributions.Normal(ours.means, ours.scales), 1)
    theirs = distributions.MixtureSameFamily(distributions.Categorical(ours.weights), components)
    x = torch.cat([ours.sample(50, generator=seeded(1)), 15 * torch.randn(50, dimension, generator=seeded(2)).double()])
    torch.testing.assert_close(ours.energy(x), -theirs.log_prob(x), rtol=1e-12, atol=1e-9)


def test_far_components_of_a_mixture_count_as_by_logsumexp_and_nowhere_is_nowhere():
    """Shares below e^-200 are cut: energies and their derivatives do not notice, and infinity stays infinite."""
    target, x = gmm_40(), 300 * torch.randn(200, 2, generator=seeded(3), dtype=torch.float64)
    logits = -0.5 * ((x[:, None] - target.means) / target.scales).square().sum(-1)
    assert float((logits - logits.amax(-1, keepdim=True)).min()) < -1000  # there is something to cut
    constant = math.log(40) + float(target.scales[0].log().sum()) + math.log(2 * math.pi)
    energy, score = target.energy_and_score(x)
    torch.testing.assert_close(energy, constant - torch.logsumexp(logits, -1), rtol=1e-12, atol=0)
    share = torch.softmax(logits, -1)[..., None]
    torch.testing.assert_close(score, (share * (target.means - x[:, None])).sum(1) / target.scales[0] ** 2)
    position = x[:3].clone().requires_grad_()
    (slope,) = torch.autograd.grad(target.energy(position).sum(), position, create_graph=True)
    torch.testing.assert_close(slope, -score[:3])
    assert bool(torch.isfinite(torch.autograd.grad(slope.square().sum(), position)[0]).all())
    assert target.energy(double([1e200, 0.0])).tolist() == [torch.inf]  # its square is infinite


def test_a_student_mixture_integrates_to_one():
    line = StudentMixture(double([-3.0], [2.0]), 0.7, 2.5, double(0.3, 0.7))
    total, _ = integrate.quad(
        lambda a: math.exp(-float(line.energy(double([math.tan(a)]))[0])) / math.cos(a) ** 2,
        -math.pi / 2,
        math.pi / 2,
        epsabs=1e-11,
        limit=500,
    )
    assert abs(total - 1) < 1e-8


def test_the_student_benchmark_is_the_normalised_mixture_of_torch():
    ours = student_mixture_50()
    components = distributions.Independent(distributions.StudentT(2.0, ours.means, 1.0), 1)
    theirs = distributions.MixtureSameFamily(distributions.Categorical(ours.weights), components)
    x = ours.sample(100, generator=seeded(3))
    torch.testing.assert_close(ours.energy(x), -theirs.log_prob(x), rtol=1e-11, atol=1e-9)
    assert float(ours.means.abs().max()) < 10


def test_the_funnel_integrates_to_one():
    funnel = Funnel(2, scale=1.5)
    neck, y = np.linspace(-13, 13, 1001), np.linspace(-9, 9, 501)
    a, b = np.meshgrid(neck, y, indexing="ij")
    x = torch.tensor(np.stack([a, b * np.exp(a / 2)], -1).reshape(-1, 2))  # straightened: dx = exp(a/2) db
    density = torch.exp(-funnel.energy(x)).numpy().reshape(a.shape) * np.exp(a / 2)
    assert abs(density.sum() * (neck[1] - neck[0]) * (y[1] - y[0]) - 1) < 1e-10


def test_the_funnel_is_the_normalised_product_of_torch():
    x = Funnel().sample(100, generator=seeded(4))
    log_p = distributions.Normal(0.0, 3.0).log_prob(x[:, 0])
    log_p += distributions.Normal(0.0, torch.exp(x[:, :1] / 2)).log_prob(x[:, 1:]).sum(-1)
    torch.testing.assert_close(Funnel().energy(x), -log_p)


def test_log_z_of_the_many_well_is_that_of_quadrature_and_of_the_literature():
    well, _ = integrate.quad(lambda u: math.exp(-(u**4) + 6 * u**2 + u / 2), -6, 6, points=[-1.7, 0, 1.7], epsabs=1e-8)
    pair = math.log(well) + 0.5 * math.log(2 * math.pi)
    assert abs(ManyWell(1).log_z - pair) < 1e-10
    assert abs(plane(ManyWell(1), 10.0) - pair) < 1e-10
    assert abs(ManyWell(1).log_z - 10.29348) < 1e-5
    assert abs(ManyWell(16).log_z - 164.6957) < 5e-5
    assert abs(ManyWell(32).log_z - 329.3914) < 1e-4


@pytest.mark.parametrize(("radius", "width"), [(2.0, 0.4), (1.0, 0.02), (0.5, 2.0)])
def test_log_z_of_a_ring_is_that_of_radial_quadrature(radius, width):
    ring = Ring(radius, width)
    total, _ = integrate.quad(
        lambda r: 2 * math.pi * r * math.exp(-float(ring.energy(double([0.0, r]))[0])),
        max(0.0, radius - 12 * width),
        radius + 12 * width,
        points=[radius],
        epsabs=1e-13,
    )
    assert abs(ring.log_z - math.log(total)) < 1e-9


def test_log_z_of_two_moons_is_that_of_quadrature_in_polar_coordinates():
    r, w = np.polynomial.legendre.leggauss(200)
    r, w = 2 + 2 * r, 2 * w
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)  # periodic and analytic: the rectangle rule is exact
    x = r[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    density = torch.exp(-TwoMoons().energy(torch.tensor(x.reshape(-1, 2)))).numpy().reshape(200, 2000)
    assert abs(TwoMoons().log_z - math.log((w * r) @ density.mean(1) * 2 * np.pi)) < 1e-10


@pytest.mark.parametrize("spins", [1, 2, 3])
@pytest.mark.parametrize(
    ("stiffness", "coupling", "field"), [(2.0, 1.5, 0.05), (0.3, 0.8, -0.4), (5.0, 0.2, 2.0), (0.05, 4.0, 0.0)]
)
def test_log_z_of_the_magnet_is_that_of_direct_quadrature(spins, stiffness, coupling, field):
    magnet = CurieWeiss(spins, stiffness=stiffness, coupling=coupling, field=field)
    nodes, weights = np.polynomial.legendre.leggauss(120)
    # Where b (x² - c)² with c = 1 + J/4b, the whole well of aligned spins, is 60 kT; and a margin for the field.
    reach = (1 + coupling / (4 * stiffness) + (60 / stiffness) ** 0.5) ** 0.5 + 0.5
    x = np.meshgrid(*[reach * nodes] * spins, indexing="ij", sparse=True)
    energy = sum(stiffness * (xi**2 - 1) ** 2 - field * xi for xi in x) - coupling / (2 * spins) * sum(x) ** 2
    weight = math.prod(np.meshgrid(*[reach * weights] * spins, indexing="ij", sparse=True))
    assert abs(magnet.log_z - float(np.asarray(special.logsumexp(-energy, b=weight)))) < 1e-9


def test_log_z_of_a_large_magnet_is_that_of_importance_sampling_from_free_spins():
    spins, b, coupling, field, tilt = 64, 2.0, 0.3, 0.2, 0.26
    free, _ = integrate.quad(lambda x: math.exp(-b * (x * x - 1) ** 2 + tilt * x), -4, 4, epsabs=1e-12)
    x = sample_quartic(b, 2 * b, torch.full((20_000, spins), tilt, dtype=torch.float64), generator=seeded(5))
    magnet = CurieWeiss(spins, stiffness=b, coupling=coupling, field=field)
    log_q = (tilt * x - b * (x.square() - 1).square()).sum(-1) - spins * math.log(free)
    log_weight = -magnet.energy(x) - log_q
    ratio = torch.exp(log_weight - magnet.log_z)
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.005
    assert abs(float(ratio.mean()) - 1) < 4 * error
    other = CurieWeiss(spins, stiffness=b, coupling=coupling, field=-field)
    assert abs(other.log_z - magnet.log_z) < 1e-9  # the mirror image
    wrong = torch.exp(log_weight - CurieWeiss(spins, stiffness=b, coupling=1.1 * coupling, field=field).log_z)
    assert abs(float(wrong.mean()) - 1) > 8 * error  # negative control


def test_log_z_of_a_very_large_magnet_stays_finite_and_is_extensive_above_the_transition():
    one, four = (CurieWeiss(n, stiffness=2.0, coupling=3.0, field=0.1).log_z for n in (4_000, 16_000))
    assert abs(four / one - 4) < 1e-4


# --- draws -------------------------------------------------------------------------------------------------------


def stein(name: str, x: Tensor) -> Tensor:
    r"""One value of $a\cdot\nabla g - g\, a\cdot\nabla U$ per walker, of mean zero under the target."""
    d = x.shape[-1]
    point = x.clone().requires_grad_()
    if name == "funnel-10":  # along the neck, in units in which the others are standard normal
        a = torch.nn.functional.one_hot(torch.tensor(0), d).double()
        g = torch.sin(0.3 * point[:, 0] + 0.5 * point[:, 1] * torch.exp(-point[:, 0] / 2) + 0.7)
    else:
        # Mostly the first coordinates: averaged over many, modes that sit wrongly would hide.
        a = torch.linspace(1.0, -0.7, d, dtype=torch.float64) ** (15 if d > 2 else 1)
        a = a / a.norm()
        g = torch.sin(point @ a + 0.4) + torch.tanh(point[:, 0] - 0.3)
    (gradient,) = torch.autograd.grad(g.sum(), point)
    _, score = TARGETS[name].energy_and_score(x)
    return gradient @ a + g.detach() * (score @ a)


def distorted(name: str, x: Tensor) -> Tensor:
    """Almost the right draws. A funnel is only shifted along its neck, as scaling would give it infinite moments."""
    shift = torch.nn.functional.one_hot(torch.tensor(0), x.shape[-1])
    return x + 0.2 * shift if name == "funnel-10" else 1.15 * x + 0.05


@every_target
def test_draws_fulfil_the_stein_identity(name):
    x = TARGETS[name].sample(30_000, generator=seeded(20))
    values = stein(name, x)
    error = float(values.std()) / math.sqrt(len(values))
    assert error < 0.06
    assert abs(float(values.mean())) < 4 * error
    broken = stein(name, distorted(name, x))
    assert abs(float(broken.mean())) > 6 * float(broken.std()) / math.sqrt(len(broken))  # negative control


def cumulative(grid: np.ndarray, density: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    total = integrate.cumulative_trapezoid(density, grid, initial=0)
    return lambda v: np.interp(v, grid, total / total[-1])


def of_mixture(target: GaussianMixture, i: int) -> Callable[[np.ndarray], np.ndarray]:
    w, mu, sigma = (v.numpy() for v in (target.weights, target.means[:, i], target.scales[:, i]))
    return lambda v: stats.norm.cdf(v[:, None], mu, sigma) @ w


def of_students(target: StudentMixture, i: int) -> Callable[[np.ndarray], np.ndarray]:
    w, mu = target.weights.numpy(), target.means[:, i].numpy()
    return lambda v: stats.t.cdf(v[:, None], target.degrees_of_freedom, mu, target.scale) @ w


def of_plane(target: object, i: int, reach: float) -> Callable[[np.ndarray], np.ndarray]:
    axis = torch.linspace(-reach, reach, 801, dtype=torch.float64)
    energy = target.energy(torch.cartesian_prod(axis, axis)).view(801, 801)  # pyright: ignore
    return cumulative(axis.numpy(), torch.exp(energy.min() - energy).sum(1 - i).numpy())


FINE = np.linspace(-8, 8, 20_001)
MARGINALS: dict[str, tuple[str, Callable[[Tensor], Tensor], Callable[[np.ndarray], np.ndarray]]] = {
    "mixture, first": ("mixture", lambda x: x[:, 0], of_mixture(UNEVEN, 0)),
    "mixture, second": ("mixture", lambda x: x[:, 1], of_mixture(UNEVEN, 1)),
    "gmm-40": ("gmm-40", lambda x: x[:, 1], of_mixture(TARGETS["gmm-40"], 1)),
    "gmm-50d": ("gmm-50d", lambda x: x[:, 31], of_mixture(TARGETS["gmm-50d"], 31)),
    "student": ("student", lambda x: x[:, 0], of_students(HEAVY, 0)),
    "student-50d": ("student-50d", lambda x: x[:, 49], of_students(TARGETS["student-50d"], 49)),
    "funnel, neck": ("funnel-10", lambda x: x[:, 0], lambda v: stats.norm.cdf(v, scale=3)),
    "funnel, mouth": ("funnel-10", lambda x: x[:, 9] * torch.exp(-x[:, 0] / 2), stats.norm.cdf),
    "well": ("many-well-32", lambda x: x[:, 6], cumulative(FINE, np.exp(-(FINE**4) + 6 * FINE**2 + FINE / 2 - 9.7))),
    "beside the well": ("many-well-32", lambda x: x[:, 7], stats.norm.cdf),
    "ring": (
        "ring",
        lambda x: x.norm(dim=-1),
        cumulative(FINE[10_000:], FINE[10_000:] * np.exp(-((FINE[10_000:] - 2) ** 2) / 0.32)),
    ),
    "wide ring": ("wide-ring", lambda x: x[:, 1], of_plane(Ring(0.5, 1.0), 1, 9.0)),
    "moons, first": ("moons", lambda x: x[:, 0], of_plane(TwoMoons(), 0, 4.0)),
    "moons, second": ("moons", lambda x: x[:, 1], of_plane(TwoMoons(), 1, 4.0)),
}


@pytest.mark.parametrize("case", MARGINALS)
def test_draws_follow_their_marginals(case):
    name, coordinate, cdf = MARGINALS[case]
    values = coordinate(TARGETS[name].sample(20_000, generator=seeded(21))).numpy()
    assert stats.kstest(values, cdf).pvalue > 1e-3
    broken = 1.1 * values + 0.05 * values.std() if "student" not in name else 1.1 * values + 0.1
    assert stats.kstest(broken, cdf).pvalue < 1e-6  # negative control


def test_draws_of_a_mixture_visit_every_mode_as_often_as_its_weight_says():
    means = random_mixture(8, 50, scale=1.0, spread=10.0, seed=5).means
    weights = torch.arange(1.0, 9.0, dtype=torch.float64)
    target = GaussianMixture(means, torch.ones(8, dtype=torch.float64), weights)
    counts = torch.bincount(target.modes(target.sample(20_000, generator=seeded(22))), minlength=8).numpy()
    expected = 20_000 * target.weights.numpy()
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    assert stats.chisquare(counts, np.full(8, 2_500.0)).pvalue < 1e-6  # negative control


def test_draws_of_a_mixture_have_its_covariance():
    x = UNEVEN.sample(100_000, generator=seeded(23))
    w, mu, var = UNEVEN.weights, UNEVEN.means, UNEVEN.scales.square()
    mean = w @ mu
    products = (x[:, 0] - mean[0]) * (x[:, 1] - mean[1])
    expected = float(w @ (mu[:, 0] * mu[:, 1]) - mean[0] * mean[1])
    error = float(products.std()) / math.sqrt(len(x))
    assert error < 0.02
    assert abs(float(products.mean()) - expected) < 4 * error
    assert abs(expected) > 8 * error  # negative control: independent coordinates
    for i in range(2):
        spread = (x[:, i] - mean[i]).square()
        exact = float(w @ (var[:, i] + mu[:, i].square()) - mean[i].square())
        assert abs(float(spread.mean()) - exact) < 4 * float(spread.std()) / math.sqrt(len(x))


def test_modes_of_a_student_mixture_are_its_nearest_centres():
    target = student_mixture_50()
    x = target.sample(2_000, generator=seeded(24))
    assert torch.equal(target.modes(target.means), torch.arange(10))
    assert stats.chisquare(torch.bincount(target.modes(x), minlength=10).numpy()).pvalue > 1e-3


def test_pairs_of_the_many_well_are_independent_and_both_wells_are_visited():
    u = ManyWell(8).sample(40_000, generator=seeded(25))[:, ::2]
    right = integrate.quad(lambda v: math.exp(-(v**4) + 6 * v**2 + v / 2 - 9.4), 0, 6)[0]
    left = integrate.quad(lambda v: math.exp(-(v**4) + 6 * v**2 + v / 2 - 9.4), -6, 0)[0]
    p = right / (left + right)
    side = (u > 0).double()
    error = math.sqrt(p * (1 - p) / side.numel())
    assert abs(float(side.mean()) - p) < 4 * error
    assert abs(0.5 - p) > 8 * error  # negative control: equal wells
    correlation = torch.corrcoef(u.T) - torch.eye(8)
    assert float(correlation.abs().max()) < 4.5 / math.sqrt(len(u))


@pytest.mark.parametrize(("quartic", "quadratic"), [(1.0, 6.0), (10.0, 20.0), (0.05, 0.0)])
@pytest.mark.parametrize("tilt", [0.0, -0.5, 40.0])
def test_draws_of_a_tilted_quartic_follow_its_density(quartic, quadratic, tilt):
    h = torch.full((20_000,), tilt, dtype=torch.float64)
    x = sample_quartic(quartic, quadratic, h, generator=seeded(26)).numpy()
    log_density = -quartic * FINE**4 + quadratic * FINE**2 + tilt * FINE
    cdf = cumulative(FINE, np.exp(log_density - log_density.max()))
    assert stats.kstest(x, cdf).pvalue > 1e-3
    assert stats.kstest(1.05 * x + 0.02, cdf).pvalue < 1e-3  # negative control


def test_every_tilted_quartic_has_its_own_tilt():
    h = torch.linspace(-3, 3, 7, dtype=torch.float64).expand(5_000, 7)
    x = sample_quartic(2.0, 4.0, h, generator=seeded(27))
    for tilt, column in zip(h[0].tolist(), x.unbind(1), strict=True):
        density = np.exp(-2 * FINE**4 + 4 * FINE**2 + tilt * FINE - 8)
        mean = (FINE * density).sum() / density.sum()
        assert abs(float(column.mean()) - mean) < 4 * float(column.std()) / math.sqrt(5_000)


@pytest.mark.parametrize(
    ("spins", "stiffness", "coupling", "field"), [(2, 0.3, 0.8, -0.4), (24, 2.0, 1.2, 0.02), (100, 2.0, 0.9, 0.0)]
)
def test_draws_of_the_magnet_have_the_moments_that_log_z_implies(spins, stiffness, coupling, field):
    def log_z(j: float, h: float) -> float:
        return CurieWeiss(spins, stiffness=stiffness, coupling=j, field=h).log_z

    step = 1e-4
    first = (log_z(coupling, field + step) - log_z(coupling, field - step)) / (2 * step) / spins
    second = (log_z(coupling + step, field) - log_z(coupling - step, field)) / step / spins
    magnet = CurieWeiss(spins, stiffness=stiffness, coupling=coupling, field=field)
    m = magnet.magnetisation(magnet.sample(20_000, generator=seeded(28)))
    for values, expected in ((m, first), (m.square(), second)):
        error = float(values.std()) / math.sqrt(len(m))
        assert error < 0.01
        assert abs(float(values.mean()) - expected) < 4 * error
    weaker = CurieWeiss(spins, stiffness=stiffness, coupling=0.8 * coupling, field=field)
    broken = weaker.magnetisation(weaker.sample(20_000, generator=seeded(28))).square()
    assert abs(float(broken.mean()) - second) > 6 * float(broken.std()) / math.sqrt(len(m))  # negative control


def test_one_spin_of_a_magnet_of_two_follows_its_marginal():
    magnet = CurieWeiss(2, stiffness=2.0, coupling=1.5, field=0.1)
    values = magnet.sample(20_000, generator=seeded(29))[:, 0].numpy()
    cdf = of_plane(magnet, 0, 4.0)
    assert stats.kstest(values, cdf).pvalue > 1e-3
    assert stats.kstest(-values, cdf).pvalue < 1e-6  # negative control: the mirror image


# --- constants of the literature, and refusals -------------------------------------------------------------------


def test_the_forty_modes_are_the_published_ones():
    target = gmm_40()
    published = {
        0: [-0.2995, 21.4577],
        1: [-32.9218, -29.4376],
        13: [36.2190, -37.1068],
        25: [25.5824, 39.7653],
        29: [-27.7234, -20.6633],
    }
    for k, mean in published.items():
        torch.testing.assert_close(target.means[k], double(*mean), rtol=0, atol=6e-5)
    assert target.means.shape == (40, 2)
    torch.testing.assert_close(target.scales, torch.full((40, 2), 1.3133).double(), rtol=0, atol=5e-5)
    assert torch.equal(target.modes(target.means), torch.arange(40))


@pytest.mark.parametrize(
    "build",
    [
        lambda: GaussianMixture(torch.zeros(2, 1), torch.tensor([1.0, 0.0])),
        lambda: GaussianMixture(torch.zeros(2, 1), torch.tensor([1.0, math.nan])),
        lambda: GaussianMixture(torch.zeros(2, 1), torch.ones(2), torch.tensor([1.0, -1.0])),
        lambda: GaussianMixture(torch.tensor([[math.inf]]), torch.ones(1)),
        lambda: random_mixture(0, 2, scale=1.0, spread=1.0, seed=0),
        lambda: StudentMixture(torch.zeros(2, 1), scale=0.0),
        lambda: StudentMixture(torch.zeros(2, 1), degrees_of_freedom=-1.0),
        lambda: Funnel(1),
        lambda: Funnel(3, scale=0.0),
        lambda: ManyWell(0),
        lambda: sample_quartic(0.0, 1.0, torch.zeros(1), generator=seeded(0)),
        lambda: Ring(0.0, 1.0),
        lambda: Ring(1.0, math.nan),
        lambda: CurieWeiss(0, stiffness=1.0, coupling=1.0),
        lambda: CurieWeiss(2, stiffness=0.0, coupling=1.0),
        lambda: CurieWeiss(2, stiffness=1.0, coupling=0.0),
        lambda: CurieWeiss(2, stiffness=1.0, coupling=1.0, field=math.inf),
    ],
)
def test_unusable_parameters_are_refused(build):
    with pytest.raises(InputError, match="got"):
        build()
