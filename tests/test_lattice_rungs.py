"""Differences between fields on a lattice: modes, maps, interpolants, drifts and networks, and the ladder over them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nessampler.closed_form.hartley import Hartley, shell_spectrum
from nessampler.closed_form.lattice_map import fit_lattice_map
from nessampler.closed_form.lattice_velocity import by_magnetisation, interpolant_velocity
from nessampler.errors import InputError
from nessampler.estimators import mbar
from nessampler.estimators.reweighting import mixture_weights
from nessampler.kernels import Flow, Map
from nessampler.methods.density.dictionaries import lattice_sines
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort, Training
from nessampler.methods.rungs.structure import structure_of
from nessampler.networks.field import NetworkField
from nessampler.networks.lattice import LatticeNetwork
from nessampler.objectives.work_variance import EndBatch, WorkVariance
from nessampler.paths import EndpointPath
from nessampler.simulate import simulate
from nessampler.targets import Gaussian
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta
from nessampler.targets.umbrella import Umbrella


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def free(mass_squared: float, n: int = 400, size: int = 4, seed: int = 0) -> Tensor:
    return FreeField.massive(size, mass_squared=mass_squared).sample(n, generator=seeded(seed))


# --- modes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (4, 4), (3, 3, 3)])
def test_hartley_is_an_orthogonal_involution_whose_first_mode_is_the_mean(shape: tuple[int, ...]) -> None:
    modes, x = Hartley(shape), torch.randn(6, *shape, generator=seeded(0), dtype=torch.float64)
    y = modes(x)
    torch.testing.assert_close(modes.inv(y), x)
    torch.testing.assert_close(y.square().sum(1), x.square().flatten(1).sum(1))
    torch.testing.assert_close(y[:, 0], x.flatten(1).mean(1) * math.prod(shape) ** 0.5)
    d = math.prod(shape)
    matrix = modes(torch.eye(d, dtype=torch.float64).view(d, *shape))
    torch.testing.assert_close(matrix @ matrix, torch.eye(d, dtype=torch.float64))
    assert modes.log_abs_det_jacobian(x, y).tolist() == [0.0] * 6


def test_the_covariance_of_a_free_field_is_diagonal_in_modes_and_the_spectrum_its_diagonal() -> None:
    x = free(0.7, 20_000, size=4)
    y = Hartley((4, 4))(x)
    k = torch.arange(4)
    momenta = lattice_momenta(4, 2)[:, torch.minimum(k, 4 - k)].flatten()
    exact = 1 / (2 * (momenta + 0.7))
    error = exact * math.sqrt(2 / 20_000)
    assert float(((shell_spectrum(x) - exact) / error).abs().max()) < 4
    correlations = torch.corrcoef(y.T) - torch.eye(16, dtype=torch.float64)
    assert float(correlations.abs().max()) < 5 / math.sqrt(20_000)  # of 120 numbers
    sites = torch.corrcoef(x.flatten(1).T) - torch.eye(16, dtype=torch.float64)
    assert float(sites.abs().max()) > 0.1  # what the modes are free of


def test_lattices_of_unequal_sides_and_fields_that_stand_still_are_refused() -> None:
    with pytest.raises(InputError, match="equal sides"):
        Hartley((2, 3))
    with pytest.raises(InputError, match="two fields"):
        shell_spectrum(torch.ones(1, 4, 4))
    with pytest.raises(InputError, match="must vary"):
        shell_spectrum(torch.ones(5, 4, 4))


# --- maps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"reflect": True}, {"scale": False}, {"reflect": True, "shift": False}])
def test_lattice_maps_invert_exactly_and_their_log_determinant_is_that_of_the_jacobian(options: dict) -> None:
    a, b = free(1.0, size=3) + 0.4, free(3.0, size=3, seed=1) - 0.9
    transform, x = fit_lattice_map(a, b, **options), free(1.0, 4, size=3, seed=2)
    y = transform(x)
    torch.testing.assert_close(transform.inv(y), x)
    jacobian = torch.autograd.functional.jacobian(lambda z: transform(z[None])[0].flatten(), x[0]).reshape(9, 9)
    exact = torch.linalg.slogdet(jacobian)[1]  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), exact.expand(4))
    moved = transform(x.roll((1, 2), (1, 2)))
    torch.testing.assert_close(moved, y.roll((1, 2), (1, 2)))


def test_between_free_fields_the_works_of_the_map_do_not_vary() -> None:
    """The exact map scales every wave; fitted to samples it leaves little, and its works know the exact difference."""
    start, end = (FreeField.massive(4, mass_squared=m) for m in (1.0, 4.0))
    x = start.sample(500, generator=seeded(3))
    kernel = Map(fit_lattice_map(free(1.0, 4000), free(4.0, 4000, seed=1)))
    work = simulate(kernel, EndpointPath(start, end), [0.0, 1.0], x, generator=seeded(0)).work
    plain = end.energy(x) - start.energy(x)
    assert float(work.std()) < 0.1 < 10 * 0.1 < float(plain.std())
    error = float(work.std()) / math.sqrt(500)
    assert abs(float(work.mean()) - 0.5 * float(work.var()) - (start.log_z - end.log_z)) < 4 * error + 1e-3


# --- interpolants ------------------------------------------------------------------------------------------------


def test_pairs_by_magnetisation_keep_the_laws_and_agree_in_sign_and_order() -> None:
    a, b = free(0.3, 100, seed=4), free(0.3, 80, seed=5)
    for even in (True, False):
        x, y = by_magnetisation(even)(a, b, seeded(6))
        assert len(x) == len(y) == 80
        m, n = x.flatten(1).mean(1), y.flatten(1).mean(1)
        sorted_by = (m.abs(), n.abs()) if even else (m, n)
        assert all(bool((v.diff() >= 0).all()) for v in sorted_by)
        assert not even or bool((m * n > 0).all())
        whole = {round(float(v), 9) for v in (b.flatten(1).mean(1).abs() if even else b.flatten(1).mean(1))}
        assert {round(float(v), 9) for v in (n.abs() if even else n)} == whole


def works_of(field, start: FreeField, end: FreeField, steps: int = 4) -> Tensor:
    x, times = start.sample(400, generator=seeded(7)), [k / steps for k in range(steps + 1)]
    return simulate(Flow(field, 4), EndpointPath(start, end), times, x, generator=seeded(8)).work


def test_a_velocity_solved_on_samples_carries_one_free_field_into_another() -> None:
    start, end = (FreeField.massive(4, mass_squared=m) for m in (1.0, 2.0))
    a, b = start.sample(1000, generator=seeded(9)), end.sample(1000, generator=seeded(10))
    fields = lattice_sines(1, inner=(1.0,), outer=(math.inf, 3.0, 0.5))(torch.cat([a, b]), seeded(11))
    knots = torch.linspace(0, 1, 7).tolist()

    def spread(x_b: Tensor) -> float:
        drift = interpolant_velocity(a, x_b, fields, knots, coupling=by_magnetisation(even=True), generator=seeded(12))
        return float(works_of(drift, start, end).std())

    plain = float((end.energy(a) - start.energy(a)).std())
    assert spread(b) < 0.35 < 0.8 < plain
    assert spread(-0.2 * b) > 0.8  # negative control: another end


def test_knots_of_a_velocity_must_increase() -> None:
    fields = lattice_sines(1)(free(1.0, 10), seeded(0))
    for knots, rounds in (([0.0, 0.0], 1), ([0.0, 2.0], 1), ([0.0, 1.0], 0)):
        with pytest.raises(InputError, match="increasing times"):
            interpolant_velocity(
                free(1.0), free(1.0), fields, knots, coupling=by_magnetisation(True), rounds=rounds, generator=seeded(0)
            )


# --- the learned drift -------------------------------------------------------------------------------------------


def network(phases: bool, size: int = 3) -> LatticeNetwork:
    def normal(*shape: int, seed: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)

    knots, given = torch.tensor([0.0, 1.0]), normal(2, 2, 4, seed=1)
    more = {"phases": normal(3, seed=2) * 5} if phases else {}
    return LatticeNetwork(
        (size, size), (math.inf, 1.0), (math.inf, 0.5), normal(2, 3, seed=0) * 4, knots, given, **more
    )


@pytest.mark.parametrize("phases", [False, True])
def test_the_divergence_of_a_lattice_network_is_exact_with_phases_too(phases: bool) -> None:
    field, x = network(phases), free(1.0, 2, size=3)
    velocity, divergence = NetworkField(field)(0.4, x)

    def one(y: Tensor) -> Tensor:
        return field(torch.full((1,), 0.4), y[None])[0].flatten()

    exact = [torch.autograd.functional.jacobian(one, y).reshape(9, 9).trace() for y in x]  # pyright: ignore
    torch.testing.assert_close(divergence, torch.stack(exact))
    odd = torch.allclose(NetworkField(field)(0.4, -x)[0], -velocity)
    assert odd is not phases


def test_the_works_of_training_are_those_of_the_kernel_and_their_gradient_that_of_finite_differences() -> None:
    field, start, end = network(True), Phi4(3, quartic=0.8), Umbrella(Phi4(3, quartic=1.0), stiffness=2.0, center=0.5)
    times = (0.0, 0.25, 0.5, 0.75, 1.0)
    objective, x = WorkVariance(field, start, end, times), free(1.0, 5, size=3, seed=3)
    batch = EndBatch(x, x + 0.2, start.energy(x), end.energy(x + 0.2))
    path, kernel = EndpointPath(start, end), Flow(NetworkField(field), 4)
    forward, reverse = objective.works(batch)
    for works, fields, grid in ((forward, x, times), (reverse, x + 0.2, times[::-1])):
        known = simulate(kernel, path, grid, fields, generator=seeded(0)).work
        torch.testing.assert_close(works.detach(), known, rtol=0, atol=2e-3)  # backwards up to the order of the rule
    loss = objective(batch)
    loss.backward()
    for parameter in (field.change, field.weights, field.phases, field.log_inner):
        assert parameter is not None
        assert parameter.grad is not None
        place = int(parameter.grad.abs().argmax())
        slope, values = float(parameter.grad.flatten()[place]), []
        for h in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.view(-1)[place] += h
                values.append(float(objective(batch)))
                parameter.view(-1)[place] -= h
        assert abs((values[0] - values[1]) / 2e-5 - slope) < 1e-5 * max(1.0, abs(slope))


def test_a_variance_needs_two_samples_of_each_end() -> None:
    one, x = Phi4(3, quartic=0.8), free(1.0, 1, size=3)
    with pytest.raises(InputError, match="two samples"):
        WorkVariance(network(False), one, one, (0.0, 1.0))(EndBatch(x, x, one.energy(x), one.energy(x)))


# --- the ladder --------------------------------------------------------------------------------------------------

SHARP = Umbrella(FreeField.massive(4, mass_squared=0.5), stiffness=8.0, center=-0.6)
WIDE = Umbrella(FreeField.massive(4, mass_squared=1.5), stiffness=3.0, center=0.5)


def exact_samples(umbrella: Umbrella, n: int, seed: int) -> tuple[Tensor, float]:
    """Of a free field under an umbrella, and its log Z: the bias changes the law of M alone, which stays normal."""
    field = umbrella.target
    assert isinstance(field, FreeField)
    x, sites = field.sample(n, generator=seeded(seed)), 16
    precision, bias = sites * float(field.precision[0, 0]), 2 * umbrella.stiffness  # of M
    mean, variance = bias * umbrella.center / (precision + bias), 1 / (precision + bias)
    m = x.flatten(1).mean(1)
    fresh = mean + variance**0.5 * torch.randn(n, generator=seeded(seed + 100), dtype=torch.float64)
    log_z = field.log_z + 0.5 * math.log(precision * variance)
    log_z -= umbrella.stiffness * umbrella.center**2 * precision / (precision + bias)
    return x + (fresh - m).view(-1, 1, 1), log_z


def climbed(method: str, seed: int = 0, n: int = 600, training: int = 0) -> tuple[Difference, float]:
    (a, log_z_a), (b, log_z_b) = exact_samples(SHARP, n, seed), exact_samples(WIDE, n, seed + 1)
    effort = Effort(fields_steps=16, switching_steps=4, tuning_samples=60, feat=Training(training, patience=100))
    return free_energy(SHARP, WIDE, a, b, method=method, effort=effort, seed=seed), log_z_a - log_z_b  # pyright: ignore


@pytest.mark.parametrize(
    ("method", "cap"),
    [("map", 0.06), ("fields", 0.08), ("switching", 0.04), ("feat", 0.04), ("tfep", 0.08), ("annealed", 0.08)],
)
def test_every_rung_finds_the_exact_difference_between_two_umbrellas(method: str, cap: float) -> None:
    result, exact = climbed(method, training=6)
    found = result.delta_f
    assert found.delta_f is not None
    assert found.std_error is not None
    assert abs(found.delta_f - exact) < 4 * found.std_error
    assert found.std_error < cap
    plain = next(r.estimate for r in result.rungs if r.name == "plain")
    assert plain.std_error is None or found.std_error < 0.5 * plain.std_error
    assert abs(found.delta_f + exact) > 8 * found.std_error  # negative control: the sign


def test_opposed_magnets_are_reflected_and_networks_billed() -> None:
    result, _ = climbed("switching")
    assert "reflection" in next(r.description for r in result.rungs if r.name == "map")
    spent = result.rung.evaluations
    assert spent["networks"]["training"] > 0
    assert spent["networks"]["sampling"] > 0
    assert spent["state_a"]["training"]["gradient"] > 0


def test_a_flow_learns_on_a_lattice_and_its_works_are_as_exact_as_it_says() -> None:
    """Between free fields that are scaled mode by mode, where ΔF is known and a linear velocity is enough."""
    a, b = FreeField.massive(4, mass_squared=0.3), FreeField.massive(4, mass_squared=1.2)
    x_a, x_b = a.sample(900, generator=seeded(0)), b.sample(900, generator=seeded(1))
    effort = Effort(tuning_samples=60, feat=Training(40, learning_rate=1e-2))
    found = free_energy(a, b, x_a, x_b, method="tfep", effort=effort, seed=0)
    estimate = found.delta_f
    assert estimate.delta_f is not None
    assert estimate.std_error is not None
    assert abs(estimate.delta_f - (a.log_z - b.log_z)) < 4 * estimate.std_error < 0.06
    plain = free_energy(a, b, x_a, x_b, method="plain", effort=effort, seed=0).rung.estimate
    assert plain.std_error is not None
    assert estimate.std_error < 0.5 * plain.std_error
    assert found.rung.pilot.transport.systematic < 2e-3  # measured, and in the error


def test_only_two_lattices_climb_the_ladder_of_lattices() -> None:
    vector = Gaussian(torch.zeros(4), torch.ones(4))
    assert structure_of(SHARP, Phi4(4, quartic=0.8)).coordinates is None
    assert structure_of(SHARP, WIDE).rungs is not structure_of(vector, vector).rungs
    biased = Umbrella(vector, stiffness=1.0, center=0.0)
    assert structure_of(biased, biased).rungs is structure_of(vector, vector).rungs


# --- reweighting -------------------------------------------------------------------------------------------------


def test_weights_of_the_mixture_are_those_of_mbar_and_give_the_target_its_moments() -> None:
    generator = np.random.default_rng(0)
    centers, counts = np.array([-0.6, 0.9]), [4000, 2500]
    x = np.concatenate([c + generator.normal(size=n) for c, n in zip(centers, counts, strict=True)])
    energies = 0.5 * (x - centers[:, None]) ** 2 + np.array([[0.0], [0.7]])
    target = x**2  # a normal of variance 1/2
    weights = mixture_weights(energies, counts, np.array([0.0, 0.7]), target)
    assert abs(weights.sum() - 1) < 1e-12
    mean, square = float(weights @ x), float(weights @ x**2)
    errors = [float(np.sqrt(((weights * (v - weights @ v)) ** 2).sum())) for v in (x, x**2)]
    assert abs(mean) < 4 * errors[0] < 0.08
    assert abs(square - 0.5) < 4 * errors[1] < 0.1
    wrong = mixture_weights(energies, counts, np.array([0.0, -2.0]), target)  # negative control
    assert abs(float(wrong @ x)) > 4 * errors[0]
    solved = mbar(energies, counts)
    assert solved.delta_f is not None
    own = mixture_weights(energies, counts, np.array([0.0, solved.delta_f]), energies[1])
    mixture = np.log(np.array(counts)[:, None] * np.exp(np.array([[0.0], [solved.delta_f]]) - energies))
    assert abs(-np.log(np.exp(-energies[1] - np.logaddexp(*mixture)).sum()) - solved.delta_f) < 1e-6  # self-consistent
    assert own.shape == x.shape


def test_reweighting_refuses_what_does_not_fit() -> None:
    u = np.zeros((2, 3))
    with pytest.raises(InputError, match="a count and a free energy"):
        mixture_weights(u, [1, 1], np.zeros(2), np.zeros(3))
    with pytest.raises(InputError, match="finite or"):
        mixture_weights(u + np.nan, [1, 2], np.zeros(2), np.zeros(3))
    with pytest.raises(InputError, match="no sample has weight"):
        mixture_weights(u, [1, 2], np.zeros(2), np.full(3, np.inf))
