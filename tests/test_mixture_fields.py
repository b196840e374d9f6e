"""The mixture interpolant's fields are conditional expectations, its maps exact, its fits free of sampling noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.component_pairs import independent_plan, optimal_plan, pair_components
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.closed_form.mixture_map import MixtureMap
from nessampler.closed_form.work_times import equal_work_times
from nessampler.errors import InputError
from nessampler.kernels import Branches, BranchingMap, Kernel, Langevin
from nessampler.paths import EndpointPath
from nessampler.simulate import simulate
from nessampler.targets import AnharmonicWell, energy_and_score
from nessampler.targets.covariance_mixture import CovarianceMixture
from nessampler.targets.mixture import GaussianMixture

HALF = [True, False]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _mixture(modes: int, d: int, seed: int, spread: float = 1.5, width: float = 1.0) -> GaussianMixture:
    g = _generator(seed)
    scales, weights = (0.3 + torch.rand(*shape, generator=g, dtype=torch.float64) for shape in ((modes, d), (modes,)))
    scales = width * scales
    return GaussianMixture(spread * torch.randn(modes, d, generator=g, dtype=torch.float64), scales, weights)


def _correlated(modes: int, d: int, seed: int) -> CovarianceMixture:
    g = _generator(seed)
    factor = 0.5 * torch.randn(modes, d, d, generator=g, dtype=torch.float64)
    weights = 0.3 + torch.rand(modes, generator=g, dtype=torch.float64)
    covariances = factor @ factor.mT + 0.1 * torch.eye(d)
    return CovarianceMixture(1.5 * torch.randn(modes, d, generator=g, dtype=torch.float64), covariances, weights)


def test_optimal_plan_has_the_marginals_and_few_pairs():
    a, b = _mixture(5, 3, 1), _mixture(7, 3, 2)
    plan = optimal_plan(a, b)
    torch.testing.assert_close(plan.sum(1), a.weights)
    torch.testing.assert_close(plan.sum(0), b.weights)
    assert int((plan > 1e-9).sum()) <= 5 + 7 - 1


def test_optimal_plan_of_equal_weights_is_the_cheapest_permutation():
    a, b = (GaussianMixture(_normal(4, 2, seed=s), torch.full((4,), 0.5).double()) for s in (3, 4))
    cost = torch.cdist(a.means, b.means).square()
    permutations = torch.cartesian_prod(*[torch.arange(4)] * 4)
    permutations = permutations[(permutations.sort(1).values == torch.arange(4)).all(1)]
    cheapest = permutations[cost[torch.arange(4), permutations].sum(1).argmin()]
    assert optimal_plan(a, b).argmax(1).tolist() == cheapest.tolist()


def test_circular_components_take_the_shorter_way_round():
    a = GaussianMixture(torch.tensor([[3.0, 3.0]]).double(), torch.tensor([0.2]))
    b = GaussianMixture(torch.tensor([[-3.0, -3.0]]).double(), torch.tensor([0.2]))
    travel = pair_components(a, b, circular=torch.tensor(HALF)).travel
    torch.testing.assert_close(travel, torch.tensor([[2 * math.pi - 6, -6.0]]).double())


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("t", [0.03, 0.5, 0.9])
def test_fields_are_conditional_expectations_by_quadrature(t, independent):
    a, b = _mixture(2, 1, 5), _mixture(3, 1, 6)
    plan = independent_plan(a, b) if independent else optimal_plan(a, b)
    fields = MixtureFields(pair_components(a, b, plan), strength=1.3)
    interpolant, grid = fields.interpolant, torch.linspace(-12, 12, 1001, dtype=torch.float64)
    normals = (torch.distributions.Normal(m.means.T, m.scales.T) for m in (a, b))
    density_a, density_b = (n.log_prob(grid[:, None]).exp() for n in normals)
    joint = density_a @ plan @ density_b.T
    x_a, x_b = (v.reshape(-1, 1) for v in torch.meshgrid(grid, grid, indexing="ij"))
    time = torch.full((len(x_a),), t, dtype=torch.float64)
    spread = (interpolant.gamma(time[:1]) * interpolant.noise).item()
    for x in (-1.0, 0.3, 1.7):
        z = (x - (1 - t) * x_a - t * x_b) / spread
        posterior = joint.reshape(-1) * torch.exp(-0.5 * z.square()).squeeze(-1)
        posterior = posterior / posterior.sum()
        here = fields(time[:1], torch.tensor([[x]], dtype=torch.float64))
        assert abs(float(here.velocity) - float(posterior @ interpolant.velocity(time, x_a, x_b, z))) < 1e-7
        assert abs(float(here.score) + float(posterior @ z) / spread) < 1e-7


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("t", [0.05, 0.6])
def test_regression_targets_average_to_the_exact_fields_of_ends_that_are_no_mixtures(t, independent):
    """By quadrature over both ends in one dimension, with mixtures that fit neither."""
    wells = (
        AnharmonicWell([0.3], stiffness=[1.0], quartic=[0.5], skew=[1.5], coupling=0.0),
        AnharmonicWell([1.0], stiffness=[2.0], quartic=[0.1], skew=[-1.0], coupling=0.0),
    )
    a, b = (GaussianMixture(0.8 * m.means, m.scales, m.weights) for m in (_mixture(2, 1, 53), _mixture(3, 1, 54)))
    fields = MixtureFields(pair_components(a, b, independent_plan(a, b) if independent else None), strength=1.5)
    interpolant, grid = fields.interpolant, torch.linspace(-7, 7, 351, dtype=torch.float64)
    x_a, x_b = (v.reshape(-1, 1) for v in torch.meshgrid(grid, grid, indexing="ij"))
    (u_a, s_a), (u_b, s_b) = (energy_and_score(w, x) for w, x in zip(wells, (x_a, x_b), strict=True))
    pairing = fields.pairing(x_a, x_b)
    if independent:
        torch.testing.assert_close(pairing, torch.ones_like(pairing))
    time = torch.full((len(x_a),), t, dtype=torch.float64)
    spread = (interpolant.gamma(time[:1]) * interpolant.noise[0]).unsqueeze(-1)
    for x in (-0.5, 1.2):
        z = (x - (1 - t) * x_a - t * x_b) / spread
        posterior = torch.softmax(pairing.log() - u_a - u_b - 0.5 * z.square().squeeze(-1), 0)
        targets = fields.targets(time, torch.full_like(x_a, x), x_a, x_b, s_a, s_b)
        exact = [posterior @ interpolant.velocity(time, x_a, x_b, z), -(posterior @ z) / spread.squeeze(-1)]
        torch.testing.assert_close(posterior @ targets.velocity, exact[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(posterior @ targets.score, exact[1], rtol=0, atol=1e-7)
        here = fields(time[:1], torch.tensor([[x]], dtype=torch.float64))
        assert abs(float(here.velocity) - float(exact[0])) > 0.01  # the mixtures alone are wrong


def _circular_fields() -> MixtureFields:
    means = (2 * _normal(2, 2, seed=7), 2 * _normal(3, 2, seed=8))
    a, b = (GaussianMixture(m, torch.full((len(m), 2), 0.6).double()) for m in means)
    return MixtureFields(pair_components(a, b, circular=torch.tensor(HALF)))


@pytest.mark.parametrize("kind", ["independent", "correlated", "circular"])
def test_fields_transport_the_density_whose_score_they_give(kind):
    if kind == "circular":
        fields = _circular_fields()
    else:
        a = _mixture(2, 2, 9) if kind == "independent" else _correlated(2, 2, 9)
        fields = MixtureFields(pair_components(a, _mixture(3, 2, 10)))
    t = torch.linspace(0.02, 0.95, 7, dtype=torch.float64).requires_grad_()
    x = (1.5 * _normal(7, 2, seed=11)).requires_grad_()
    energy, here = fields.energy(t, x), fields(t, x)
    change, score = torch.autograd.grad(-energy.sum(), (t, x), create_graph=True)
    torch.testing.assert_close(here.score, score, rtol=1e-9, atol=1e-9)
    divergence = sum(torch.autograd.grad(here.velocity[:, k].sum(), x, retain_graph=True)[0][:, k] for k in range(2))
    continuity = change + divergence + (here.velocity * score).sum(1)
    torch.testing.assert_close(continuity, torch.zeros_like(continuity), rtol=0, atol=1e-7)


def test_circular_fields_have_their_period_and_one_turn_holds_all_the_probability():
    fields, t = _circular_fields(), torch.full((6,), 0.4, dtype=torch.float64)
    x = 2 * _normal(6, 2, seed=12)
    turned = x + 2 * math.pi * torch.tensor([1.0, 0.0]).double()
    for one, other in zip(fields(t, x)[:2], fields(t, turned)[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    angle = torch.linspace(-math.pi, math.pi, 129, dtype=torch.float64)[:-1]
    other = torch.linspace(-12, 12, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(angle, other)
    density = torch.exp(-fields.energy(torch.full((len(grid),), 0.4).double(), grid)).sum()
    assert abs(float(density) * float(angle[1] - angle[0]) * float(other[1] - other[0]) - 1) < 1e-6


def test_independent_coordinates_are_diagonal_covariances():
    a, b, x = _mixture(2, 3, 13), _mixture(4, 3, 14), _normal(9, 3, seed=15)
    wide = CovarianceMixture(a.means, torch.diag_embed(a.scales.square()), a.weights)
    plain, full = (MixtureFields(pair_components(m, b)) for m in (a, wide))
    for t in (torch.full((9,), 0.3).double(), torch.rand(9, generator=_generator(16), dtype=torch.float64)):
        for one, other in zip(plain(t, x)[:2], full(t, x)[:2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(plain.variance(t), full.variance(t))
        torch.testing.assert_close(plain.log_posterior(t, x), full.log_posterior(t, x))


def test_a_field_does_not_depend_on_what_else_is_evaluated():
    fields = MixtureFields(pair_components(_mixture(2, 3, 17), _mixture(3, 3, 18)))
    t, x = torch.rand(5, generator=_generator(19), dtype=torch.float64), _normal(5, 3, seed=20)
    together = fields(t, x)
    for k in range(5):
        alone = fields(t[k].expand(2), x[k].expand(2, -1))
        torch.testing.assert_close(alone.velocity[0], together.velocity[k], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.score[1], together.score[k], rtol=1e-12, atol=1e-12)


def test_draws_have_the_moments_of_the_interpolant():
    a, b, t = _correlated(2, 2, 21), _mixture(3, 2, 22), 0.35
    fields = MixtureFields(pair_components(a, b))
    x = fields.sample(t, 20_000, generator=_generator(23))
    score = fields(torch.full((len(x),), t).double(), x).score
    for values in (score, score * x + 1, score * x.flip(1)):  # Stein's identity
        error = values.std(0) / math.sqrt(len(x))
        assert bool((values.mean(0).abs() < 4 * error).all())
        assert float(error.max()) < 0.03
    assert bool(((2 * score * x + 1).mean(0).abs() > 20 * (score * x).std(0) / math.sqrt(len(x))).all())


def _pairs_of_mixtures() -> list:
    circular = torch.tensor([True, False, False])
    return [
        pair_components(_mixture(2, 3, 24), _mixture(4, 3, 25)),
        pair_components(_correlated(2, 3, 26), _correlated(4, 3, 27)),
        pair_components(_mixture(2, 3, 28), _mixture(4, 3, 29), circular=circular),
    ]


@pytest.mark.parametrize("pairs", _pairs_of_mixtures(), ids=["independent", "correlated", "circular"])
def test_mixture_map_is_undone_by_its_inverse_and_knows_its_jacobian(pairs):
    branches = MixtureMap(pairs)
    assert isinstance(branches, Branches)
    assert isinstance(BranchingMap(branches), Kernel)
    pair, x = torch.arange(len(pairs.weight)), 0.5 * _normal(len(pairs.weight), 3, seed=30)
    moved, log_det = branches.move(pair, x, forward=True)
    back, opposite = branches.move(pair, moved, forward=False)
    turn = torch.where(pairs.circular, torch.remainder(back - x + math.pi, 2 * math.pi) - math.pi, back - x)
    torch.testing.assert_close(turn, torch.zeros_like(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(opposite, -log_det)
    for k in range(len(pair)):
        jacobian = torch.func.jacrev(lambda y, k=k: branches.move(pair[k : k + 1], y[None], forward=True)[0][0])(x[k])
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[k])


@pytest.mark.parametrize("correlated", [False, True])
def test_mixture_map_does_the_same_work_along_every_path_between_exact_mixtures(correlated):
    make = _correlated if correlated else _mixture
    a, b = make(3, 3, 31), make(4, 3, 32)
    kernel, path = BranchingMap(MixtureMap(pair_components(a, b))), EndpointPath(a, b)
    for end, times in ((a, (0.0, 1.0)), (b, (1.0, 0.0))):
        works = simulate(kernel, path, times, end.sample(300, generator=_generator(33)), generator=_generator(34)).work
        assert float(works.abs().max()) < 1e-10


class _Forgetful(MixtureMap):
    """Takes every branch as equally likely to have been the way."""

    def log_probability(self, t: float, x: Tensor) -> Tensor:
        known = super().log_probability(t, x)
        return known if t == 0 else torch.zeros_like(known)


def test_mixture_map_is_exact_for_any_ends():
    """Wells that are no mixtures, and mixtures that fit them badly."""
    wells = (
        AnharmonicWell([0.3, 0.0], stiffness=[1.0, 2.0], quartic=[0.5, 0.1], skew=[1.5, 0.3], coupling=0.4),
        AnharmonicWell([1.0, 0.4], stiffness=[2.0, 1.0], quartic=[0.1, 0.3], skew=[-1.0, 0.5], coupling=-0.4),
    )
    pairs = pair_components(_mixture(2, 2, 35, 0.4, 1.3), _mixture(3, 2, 36, 0.4, 1.3))
    x, truth = wells[0].sample(40_000, generator=_generator(37)), wells[0].log_z - wells[1].log_z
    z = {}
    for branches in (MixtureMap(pairs), _Forgetful(pairs)):
        kernel = BranchingMap(branches)
        run = simulate(kernel, EndpointPath(*wells), [0.0, 1.0], x, generator=_generator(38))
        z[type(branches)] = (run.log_z_ratio + truth) / run.log_z_error
        assert run.log_z_error < (0.04 if type(branches) is MixtureMap else 0.1)
    assert abs(z[MixtureMap]) < 4
    assert abs(z[_Forgetful]) > 20


def test_equal_work_times_beat_even_ones():
    a, b = _mixture(3, 8, 39, 4.0, 0.05), _mixture(4, 8, 40, 4.0)
    fields = MixtureFields(pair_components(a, b))
    times = {"even": torch.linspace(0, 1, 65, dtype=torch.float64).tolist()}
    times["equal work"] = equal_work_times(fields, fields, 64, generator=_generator(41))
    assert times["equal work"][0] == 0.0
    assert times["equal work"][-1] == 1.0
    spread = {}
    for name, grid in times.items():
        kernel = Langevin(fields, lambda t: 3 * fields.variance(t))
        x = a.sample(400, generator=_generator(42))
        work = simulate(kernel, EndpointPath(a, b), grid, x, generator=_generator(43)).work
        spread[name] = float(work.square().mean().sqrt())
    assert spread["equal work"] < 0.8 * spread["even"]


def test_langevin_work_between_exact_mixtures_falls_with_the_square_root_of_the_step():
    a, b = _mixture(2, 4, 44, 3.0), _mixture(3, 4, 45, 3.0)
    fields, spread = MixtureFields(pair_components(a, b)), {}
    kernel = Langevin(fields, lambda t: 2 * fields.variance(t))
    for steps in (16, 256):
        times = equal_work_times(fields, fields, steps, generator=_generator(46))
        for end, grid in ((a, times), (b, times[::-1])):
            x = end.sample(300, generator=_generator(47))
            work = simulate(kernel, EndpointPath(a, b), grid, x, generator=_generator(48)).work
            spread[steps, grid[0]] = float(work.square().mean().sqrt())
    for end in (0.0, 1.0):
        assert spread[256, end] < 0.5
        assert 2.5 < spread[16, end] / spread[256, end] < 7


def test_what_does_not_fit_together_is_named():
    a, b = _mixture(2, 3, 49), _mixture(3, 3, 50)
    with pytest.raises(InputError, match="marginals"):
        pair_components(a, b, torch.full((2, 3), 1 / 6).double())
    with pytest.raises(InputError, match="same variables"):
        pair_components(a, _mixture(3, 2, 51))
    with pytest.raises(InputError, match="circular"):
        pair_components(a, _correlated(3, 3, 52), circular=torch.tensor([True, False, False]))
    with pytest.raises(InputError, match="strength"):
        MixtureFields(pair_components(a, b), strength=0.0)
    with pytest.raises(InputError, match="noise"):
        MixtureFields(pair_components(a, b), noise=torch.eye(3))
