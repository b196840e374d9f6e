"""Clusters of like atoms against their trap: paths, maps, fields, and the rungs made of them."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from nessampler.closed_form.centre_apart import CentreApart
from nessampler.closed_form.pair_dictionary import PairDictionary
from nessampler.closed_form.radial_rearrangement import RadialRearrangement
from nessampler.divergence import exact_divergence
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.kernels import Langevin
from nessampler.methods.annealed_switching import CountedInterior, annealed_switching, place_times
from nessampler.methods.difference import free_energy
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import Block, Ends, split_by_time
from nessampler.methods.escorted_switching import escorted_switching
from nessampler.methods.ledger import Ledger
from nessampler.methods.rungs import CLUSTER_RUNGS, structure_of
from nessampler.methods.rungs import cluster as cluster_rungs
from nessampler.methods.stage import Stage
from nessampler.networks.cluster_fields import ClusterFields
from nessampler.paths import PathPoint, SoftCorePath
from nessampler.targets import Counted, Gaussian, Tally, TransformedTarget
from nessampler.targets.lennard_jones import LennardJonesCluster
from nessampler.targets.power_gas import PowerGas, fit_power_gas


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def heaps(n: int, atoms: int, seed: int = 0) -> Tensor:
    return LennardJonesCluster(atoms).start(n, generator=generator(seed))


def full(t: float, n: int) -> Tensor:
    return torch.full((n,), t, dtype=torch.float64)


def turn(seed: int, mirrored: bool = False) -> Tensor:
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator(seed), dtype=torch.float64)).Q
    return q * torch.linalg.det(q).sign() * (-1 if mirrored else 1)


# --- The gas and the map to it


@pytest.mark.parametrize("power", [2.0, 4.0, 7.5])
def test_the_partition_function_of_a_gas_is_its_integral(power: float):
    gas = PowerGas(3, radius=1.7, power=power)
    one, _ = quad(lambda r: 4 * np.pi * r**2 * np.exp(-((r / 1.7) ** power)), 0, 20)
    assert gas.log_z == pytest.approx(3 * np.log(one), rel=1e-10)


def test_draws_of_a_gas_have_its_energy_and_its_fit_finds_the_radius():
    gas = PowerGas(5, radius=2.0, power=4.0)
    x = gas.sample(4000, generator=generator(0))
    energy = gas.energy(x)
    error = float(energy.std()) / 4000**0.5
    assert error < 0.05
    assert abs(float(energy.mean()) - 5 * 3 / 4) < 4 * error  # each atom's is Gamma(3/p)
    assert abs(float(energy.mean()) - 5 * 3 / 2) > 20 * error
    assert fit_power_gas(x).radius == pytest.approx(2.0, rel=0.01)


def test_the_score_of_a_gas_is_minus_its_gradient():
    gas, x = PowerGas(4, radius=1.3, power=5.0), heaps(3, 4).requires_grad_()
    energy, score = gas.energy_and_score(x.detach())
    (gradient,) = torch.autograd.grad(gas.energy(x).sum(), x)
    assert torch.allclose(score, -gradient)
    assert torch.allclose(energy, gas.energy(x.detach()))


def test_a_rearranged_trap_is_the_gas_and_the_way_back_is_exact():
    trap, gas = LennardJonesCluster(3, 0.0, 2.0), PowerGas(3, radius=1.4, power=6.0)
    rearranged = RadialRearrangement(2.0, gas)
    x = 1.5 * trap.sample(50, generator=generator(1))  # with tails
    y = rearranged(x)
    assert isinstance(y, Tensor)
    assert torch.allclose(rearranged.inv(y), x, rtol=1e-9)  # pyright: ignore[reportArgumentType]
    mapped = TransformedTarget(trap, rearranged)
    assert torch.allclose(mapped.energy(y), gas.energy(y) + rearranged.log_z_ratio, rtol=1e-9)


def test_the_log_determinant_of_a_rearrangement_is_that_of_its_jacobian():
    rearranged = RadialRearrangement(1.0, PowerGas(1, radius=0.8, power=5.0))
    x, h = torch.tensor([[[0.7, -0.4, 0.9]]], dtype=torch.float64), 1e-5
    steps = h * torch.eye(3, dtype=torch.float64).view(3, 1, 3)
    ahead, behind = rearranged(x + steps), rearranged(x - steps)
    assert isinstance(ahead, Tensor)
    assert isinstance(behind, Tensor)
    jacobian = (ahead - behind)[:, 0] / (2 * h)
    expected = torch.linalg.slogdet(jacobian).logabsdet
    found = rearranged.log_abs_det_jacobian(x, rearranged(x))  # pyright: ignore[reportArgumentType]
    assert float(found) == pytest.approx(float(expected), abs=1e-7)


# --- The path


def by_hand(path: SoftCorePath, t: Tensor, x: Tensor) -> Tensor:
    first, second = torch.triu_indices(x.shape[1], x.shape[1], offset=1)
    sixth = ((x[:, first] - x[:, second]).square().sum(-1) / path.cluster.strength**2) ** 3
    core = path.softness * (1 - t)[:, None] + sixth
    pairs = 8 * path.cluster.strength * t * (core**-2 - 1 / core).sum(1)
    trap = 0.5 * path.cluster.trap * x.square().sum((1, 2))
    return (1 - t) * (path.start.energy(x) + path.offset) + t * trap + pairs


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9, 1.0])
def test_energy_score_and_time_derivative_are_those_of_the_formula(t: float):
    path = SoftCorePath(PowerGas(7, 1.8), LennardJonesCluster(7, 0.9, 1.3), softness=0.4, offset=2.5)
    x, time = heaps(5, 7).requires_grad_(), full(t, 5).requires_grad_()
    energy = by_hand(path, time, x)
    slope, gradient = torch.autograd.grad(energy.sum(), (time, x))
    found = path.evaluate(time.detach(), x.detach())
    assert torch.allclose(found.energy, energy.detach(), rtol=1e-12)
    assert torch.allclose(found.score, -gradient, rtol=1e-9, atol=1e-9)
    assert torch.allclose(found.time_derivative, slope, rtol=1e-9)
    inside = path.energy_and_score(time.detach(), x.detach())[1]
    assert torch.allclose(inside, found.score, rtol=1e-3, atol=1e-3 * float(found.score.abs().max()))


def test_the_path_ends_at_the_cluster():
    cluster = LennardJonesCluster(6, 1.1, 0.7)
    path, x = SoftCorePath(PowerGas(6, 2.0), cluster, offset=3.0), heaps(4, 6)
    energy, score = cluster.energy_and_score(x)
    found = path.evaluate(full(1.0, 4), x)
    assert torch.allclose(found.energy, energy)
    assert torch.allclose(found.score, score)
    assert torch.allclose(path.energy(full(0.0, 4), x), path.start.energy(x) + 3.0)


def test_atoms_on_top_of_each_other_weigh_nothing_at_the_end_and_little_before():
    path = SoftCorePath(PowerGas(2, 1.0), LennardJonesCluster(2))
    x = torch.zeros(1, 2, 3, dtype=torch.float64)
    assert float(path.energy(full(1.0, 1), x)) > 1e20
    assert 0 < float(path.energy(full(0.1, 1), x)) < 10


def test_a_path_to_no_cluster_is_refused():
    with pytest.raises(InputError, match="interacting cluster"):
        SoftCorePath(PowerGas(3, 1.0), LennardJonesCluster(3, 0.0))
    with pytest.raises(InputError, match="same atoms"):
        SoftCorePath(PowerGas(3, 1.0), LennardJonesCluster(4))
    with pytest.raises(InputError, match="softness"):
        SoftCorePath(PowerGas(3, 1.0), LennardJonesCluster(3), softness=0.0)


def test_interior_evaluations_are_charged_to_the_cluster():
    counted = Counted(LennardJonesCluster(3))
    path = CountedInterior(SoftCorePath(PowerGas(3, 1.0), LennardJonesCluster(3)), counted)
    x = heaps(5, 3)
    path.evaluate(full(0.5, 5), x)
    path.energy_and_score(full(0.5, 5), x)
    path.energy(full(0.5, 5), x)
    assert (counted.tally().energy, counted.tally().gradient) == (5, 10)


# --- Pair fields


def splines_by_hand(r: Tensor, coefficients: Tensor) -> Tensor:
    """Cubic B-splines by de Boor's recursion, spline m on knots m - 3 .. m + 1."""

    def spline(k: int, degree: int) -> Tensor:
        if degree == 0:
            return ((r >= k) & (r < k + 1)).to(r)
        return (r - k) / degree * spline(k, degree - 1) + (k + degree + 1 - r) / degree * spline(k + 1, degree - 1)

    return sum((c * spline(m - 3, 3) for m, c in enumerate(coefficients)), torch.zeros_like(r))


def test_pair_fields_are_splines_of_the_distance_with_exact_divergence():
    fields = PairDictionary(reach=3.0, splines=9)
    x, theta = torch.randn(4, 5, 3, generator=generator(2)).double(), torch.randn(9, generator=generator(3)).double()

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        difference = x[:, :, None] - x[:, None]
        r = (difference.square().sum(-1) + 1e-30).sqrt()
        return (splines_by_hand(r * 9 / 3.0, theta).unsqueeze(-1) * difference).sum(2)

    expected, divergence = exact_divergence(velocity, full(0.0, 4), x)
    found, exact = fields.velocity(0.0, x, theta)
    assert float(torch.cdist(x, x).max()) > 3.0  # some pairs are beyond the reach
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(exact, divergence.double(), atol=1e-10)


def test_stein_features_are_divergence_plus_field_times_score():
    fields = PairDictionary(reach=6.0, splines=8)
    x, score = (torch.randn(40, 4, 3, generator=generator(s), dtype=torch.float64) for s in (4, 5))
    point = PathPoint(torch.zeros(40), score, torch.zeros(40))
    features = fields.stein(0.0, x, point)
    for m in range(8):
        velocity, divergence = fields.velocity(0.0, x, torch.eye(8, dtype=torch.float64)[m])
        expected = divergence + (velocity * score).sum((1, 2))
        assert torch.allclose(features[:, m], expected) or (m in (0, 6, 7) and not bool(features[:, m].any()))
    assert bool(features[:, 2].any())


def test_fields_that_few_walkers_feel_are_left_out():
    x = torch.zeros(100, 2, 3, dtype=torch.float64)
    x[:, 0, 0] = 2.0
    x[0, 0, 0] = 0.1  # one walker alone is close
    point = PathPoint(torch.zeros(100), torch.zeros_like(x), torch.zeros(100))
    felt = PairDictionary(reach=4.0, splines=8).stein(0.0, x, point).abs().sum(0) > 0
    assert not bool(felt[0])
    assert bool(felt[4])


@pytest.mark.parametrize("mirrored", [False, True])
def test_pair_fields_turn_with_the_cluster_and_keep_its_centre(mirrored: bool):
    fields, x = PairDictionary(reach=5.0), heaps(3, 6)
    theta, q, order = torch.randn(24, generator=generator(6)).double(), turn(7, mirrored), torch.randperm(6)
    velocity, divergence = fields.velocity(0.0, x, theta)
    turned, same = fields.velocity(0.0, x[:, order] @ q + 1.5, theta)
    assert torch.allclose(turned, velocity[:, order] @ q, atol=1e-9)
    assert torch.allclose(divergence, same)
    assert float(velocity.mean(1).abs().max()) < 1e-10


# --- Two atoms, whose free energy is an integral


@cache
def two_atoms() -> tuple[float, np.ndarray, np.ndarray]:
    """ΔF, and distances with the cumulated distribution of B."""
    r = np.linspace(0.5, 12.0, 40001)
    weight = r**2 * np.exp(-8 * (r**-12 - r**-6) - r**2 / 4)
    cumulated = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]) * np.diff(r))])
    free = np.sqrt(np.pi) * 2  # of r^2 exp(-r^2 / 4)
    return -np.log(cumulated[-1] / free), r, cumulated / cumulated[-1]


def pairs_of_atoms(n: int, seed: int) -> Tensor:
    _, r, cumulated = two_atoms()
    g = generator(seed)
    length = torch.from_numpy(np.interp(torch.rand(n, generator=g).double().numpy(), cumulated, r))
    direction, centre = (torch.randn(n, 3, generator=g, dtype=torch.float64) for _ in range(2))
    half = 0.5 * length[:, None] * direction / direction.norm(dim=1, keepdim=True)
    centre = centre / 2**0.5
    return torch.stack([centre + half, centre - half], 1)


def ends(n: int, seed: int) -> tuple[LennardJonesCluster, LennardJonesCluster, Tensor, Tensor]:
    a, b = LennardJonesCluster(2, 0.0), LennardJonesCluster(2)
    return a, b, a.sample(n, generator=generator(seed)), pairs_of_atoms(n, seed + 1)


@pytest.mark.parametrize("escorted", [False, True])
def test_switching_gives_the_free_energy_of_two_atoms(escorted: bool):
    a, b, x_a, x_b = ends(500, 10)
    rearranged = RadialRearrangement(1.0, fit_power_gas(x_b))
    exact, block = two_atoms()[0], Block(x_a[None], x_b[None], False)
    for offset, right in ((rearranged.log_z_ratio, True), (rearranged.log_z_ratio + 0.3, False)):
        path = SoftCorePath(rearranged.gas, b, offset=offset)
        pilots = rearranged(a.sample(800, generator=generator(12)))
        assert isinstance(pilots, Tensor)
        found = place_times(path, pilots, generator=generator(13))
        transport = annealed_switching(path, found, steps=12, encode_a=rearranged, leapfrogs=2)
        if escorted:
            fields = PairDictionary(reach=6.0, splines=24)
            escort = escorted_switching(
                transport, found, fields, pilots, steps=12, pilot_steps=16, generator=generator(14)
            )
            transport = escort.transport
            assert transport.systematic == escort.flow_error.bound < 0.02
        estimate = transport.estimate(transport.works(block, generator=generator(15)))
        assert estimate.delta_f is not None
        assert estimate.std_error is not None
        assert estimate.std_error < 0.05
        assert (abs(estimate.delta_f - exact) < 4 * estimate.std_error) == right


@pytest.mark.parametrize("method", ["switching", "annealed"])
def test_places_and_steps_are_found_on_samples_that_no_fit_has_seen(method: str, monkeypatch: pytest.MonkeyPatch):
    seen: list[Tensor] = []

    class Seen(Exception):
        pass

    def placing(path: object, pilots: Tensor, *, generator: torch.Generator) -> None:
        seen.append(pilots)
        raise Seen

    monkeypatch.setattr(cluster_rungs, "place_times", placing)
    a, b, x_a, x_b = ends(200, 40)
    fit, select, _ = split_by_time(x_a[None], x_b[None], (0.4, 0.2, 0.4), correlated=False)
    both = Ends.of(a, b, None)
    stage = Stage(both, fit, select, Effort(tuning_samples=20), Ledger(both.counted, (Tally(), Tally())))
    with pytest.raises(Seen):
        list(CLUSTER_RUNGS[method](stage))
    rearranged = RadialRearrangement(1.0, fit_power_gas(fit.flat_b, cluster_rungs.SWITCHED_FROM))
    torch.testing.assert_close(seen[0], rearranged(select.thinned(20).flat_a))


def test_an_escort_makes_works_narrower():
    a, b, x_a, x_b = ends(400, 20)
    rearranged = RadialRearrangement(1.0, fit_power_gas(x_b))
    path = SoftCorePath(rearranged.gas, b, offset=rearranged.log_z_ratio)
    pilots = rearranged(a.sample(800, generator=generator(21)))
    assert isinstance(pilots, Tensor)
    found = place_times(path, pilots, generator=generator(22))
    plain = annealed_switching(path, found, steps=12, encode_a=rearranged, leapfrogs=2)
    escort = escorted_switching(
        plain, found, PairDictionary(6.0, 24), pilots, steps=12, pilot_steps=16, generator=generator(23)
    )
    block = Block(x_a[None], x_b[None], False)
    errors = [t.pilot_error(block, generator=generator(24)) for t in (plain, escort.transport)]
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.parametrize("method", ["fields", "switching", "feat", "tfep", "annealed"])
def test_every_rung_of_a_cluster_gives_the_same_free_energy(method: str):
    a, b, x_a, x_b = ends(600, 30)
    effort = Effort(
        switching_steps=4,
        fields_steps=12,
        tuning_samples=60,
        feat=Training(steps=10, batch_size=64, width=8, depth=1, sampling_steps=12),
    )
    found = free_energy(a, b, x_a, x_b, method=method, effort=effort, seed=1)  # pyright: ignore[reportArgumentType]
    assert found.delta_f.delta_f is not None
    assert found.delta_f.std_error is not None
    assert found.delta_f.std_error < 0.15
    assert abs(found.delta_f.delta_f - two_atoms()[0]) < 4 * found.delta_f.std_error
    assert abs(found.delta_f.delta_f + two_atoms()[0]) > 4 * found.delta_f.std_error


def test_clusters_are_recognised_and_others_are_not():
    a, b = LennardJonesCluster(3, 0.0), LennardJonesCluster(3)
    assert structure_of(a, b).rungs is CLUSTER_RUNGS
    others = (LennardJonesCluster(3, 0.5), LennardJonesCluster(3, 0.0, 2.0), Gaussian(torch.zeros(3), torch.ones(3)))
    for other in others:
        assert structure_of(other, b).rungs is not CLUSTER_RUNGS


# --- Without a centre of mass


def test_the_centre_is_set_apart_by_an_orthonormal_turn():
    apart, x = CentreApart(5), heaps(4, 5)
    y = apart(x)
    assert isinstance(y, Tensor)
    assert torch.allclose(apart.inv(y), x)  # pyright: ignore[reportArgumentType]
    assert torch.allclose(y.square().sum(1), x.square().sum((1, 2)))
    assert torch.allclose(y[:, ~apart.internal], 5**0.5 * x.mean(1))
    shifted = apart(x + torch.tensor([1.0, -2.0, 0.5]))
    assert isinstance(shifted, Tensor)
    assert torch.allclose(shifted[:, apart.internal], y[:, apart.internal], atol=1e-12)


def test_a_step_without_a_centre_has_the_log_ratio_of_projected_noise():
    """In positions: residuals of both Gaussians, whose equal normalisers over the subspace cancel."""
    apart, h, epsilon = CentreApart(4), 0.1, 0.3
    fields = network(4, seed=40)
    diffusion = torch.where(apart.internal, epsilon, 0.0).double()
    kernel = Langevin(fields, lambda t: diffusion)
    y = apart(heaps(6, 4))
    assert isinstance(y, Tensor)
    moved, ratio = kernel.step(0.2, 0.3, kernel.start(0.2, y), generator=generator(41))

    def positions(t: float, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = fields(full(t, len(y)), y)
        assert found.velocity is not None
        return tuple(apart.inv(v).detach() for v in (y, found.velocity, found.score))  # pyright: ignore

    (x, b, s), (x1, b1, s1) = positions(0.2, y), positions(0.3, moved.x)
    forward, back = x1 - x - h * (b + epsilon * s), x - x1 + h * b1 - h * epsilon * s1
    squares = [r.square().sum((1, 2)) / (4 * epsilon * h) for r in (forward, back)]
    assert torch.allclose(ratio, squares[0] - squares[1], atol=1e-8)
    assert torch.allclose(x1.mean(1), x.mean(1), atol=1e-12)
    assert float((x1 - x).abs().mean()) > 0.05


# --- The network


def network(atoms: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> ClusterFields:
    """With remainders that are not zero."""
    internal = CentreApart(atoms).internal

    def base(t: Tensor, x: Tensor) -> Evaluated:
        return Evaluated(0.5 * x * internal, -x * internal)

    fields = ClusterFields(base, atoms, scale=1.3, reach=4.0, width=8, generator=generator(seed))
    for layer in (fields.along, fields.out):
        torch.nn.init.normal_(layer.weight, generator=generator(seed + 1))
    return fields.to(dtype)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_knows_the_symmetry_of_like_atoms(dtype: torch.dtype, mirrored: bool):
    atoms, apart = 5, CentreApart(5)
    fields, x = network(atoms, dtype=dtype), heaps(4, atoms, seed=1).to(dtype)
    q, order, t = turn(2, mirrored).to(dtype), torch.tensor([2, 4, 0, 1, 3]), full(0.4, 4).to(dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4

    def positions(x: Tensor) -> tuple[Tensor, Tensor]:
        found = fields(t, apart(x))  # pyright: ignore[reportArgumentType]
        return tuple(apart.inv(v).detach() for v in (found.velocity, found.score))  # pyright: ignore

    for before, after in zip(positions(x), positions((x @ q)[:, order] + 0.7), strict=True):
        assert torch.allclose(after, (before @ q)[:, order], atol=tolerance)
        assert not torch.allclose(after, before, atol=100 * tolerance)
        assert float(before.mean(1).abs().max()) < tolerance


def test_an_untrained_network_is_its_base_and_can_learn():
    fields = ClusterFields(lambda t, x: Evaluated(2 * x, -x), 3, scale=1.0, reach=4.0, width=8, generator=generator(0))
    x = CentreApart(3)(heaps(2, 3))
    assert isinstance(x, Tensor)
    found = fields(full(0.5, 2), x)
    assert found.velocity is not None
    assert torch.equal(found.velocity, 2 * x)
    assert torch.equal(found.score, -x)
    (found.velocity.sum() + found.score.square().sum()).backward()
    assert fields.along.weight.grad is not None
    assert bool(fields.along.weight.grad.any())
    assert fields.evaluations == 2
