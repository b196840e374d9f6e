"""Underdamped Langevin steps are exact with any fields, at any step and friction, in both directions of time."""

from __future__ import annotations

import importlib
import inspect
import math
import types
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import bar
from nessampler.fields import Evaluated, PathScore
from nessampler.kernels import Compose, DenseMass, Flow, Inertial, Kernel, Langevin, SpectralMass, UnitMass
from nessampler.methods.density.nets import train_nets
from nessampler.networks.drift import DriftNetwork
from nessampler.networks.field import DriftFields
from nessampler.objectives.pinn import PinnObjective
from nessampler.paths import EndpointPath, LinearPath
from nessampler.simulate import simulate
from nessampler.targets import AnharmonicWell, Gaussian
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField

STEP, PERSISTENCE = 0.8, 0.6
TIMES = [0.0, 0.4, 1.0]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- two steps in one dimension, by quadrature ---------------------------------------------------------------------

MUTANTS = {
    "velocity sign in the move": ("here.velocity, alpha=h)", "here.velocity, alpha=-h)"),
    "velocity sign in the ratio": ("h * gap / tau", "-h * gap / tau"),
    "the later velocity is forgotten": ("there.velocity, 1.0)", "None, 1.0)"),
    "velocity ignores the direction of time": ("end - start, tau))", "abs(end - start), tau))"),
    "score sign in the kick": ("p + 0.5 * tau * here.score", "p - 0.5 * tau * here.score"),
    "the second kick is forgotten": ("tau * (here.score + moved.cached.score)", "tau * (here.score)"),
    "sign of the kinetic energy": ("log_ratio = -_dot(kick", "log_ratio = _dot(kick"),
    "half of the square of the kick": ("torch.add(p, kick, alpha=0.5)", "p"),
    "the noise's part": ("torch.add(noise, gap, alpha=0.5 / fresh)", "0.5 / fresh * gap"),
    "square of the noise's part": ("alpha=0.5 / fresh", "alpha=0.5"),
    "kicks of the shifted momentum": ("log_ratio - _dot(kick, shift)", "log_ratio"),
    "the shift of the step before": ("None if kept == 0 else old.shift", "None"),
    "its sign": ("old.shift, kept)", "old.shift, -kept)"),
    "kept momentum and fresh noise": ("(1 - kept**2) ** 0.5", "(1 - kept) ** 0.5"),
    "the noise alone": ("alpha=kept)", "alpha=0)"),
}


def mutant(old: str, new: str) -> Callable:
    source = inspect.getsource(importlib.import_module("nessampler.kernels.inertial"))
    assert old in source, f"the mutant no longer applies: {old!r}"
    broken = types.ModuleType("nessampler.kernels.inertial")
    exec(compile(source.replace(old, new), "<mutant>", "exec"), broken.__dict__)
    return broken.Inertial


def by_quadrature(kernel, wells, forward: bool, scripted_noise, points: int) -> tuple[Tensor, Tensor]:
    """Start and noises integrated: log probabilities, and log weights of the loop less log(Z_end / Z_start)."""
    start, end = wells if forward else wells[::-1]
    axes = [np.linspace(-10.5, 10.5, points)] * 3
    x, first, second = (torch.tensor(v.reshape(-1, 1)) for v in np.meshgrid(*axes, indexing="ij"))
    log_density = -start.energy(x) - start.log_z - 0.5 * (first.square() + second.square())[:, 0]
    log_density = log_density - math.log(2 * math.pi) + 3 * math.log(axes[0][1] - axes[0][0])
    scripted_noise([first, second])
    run = simulate(kernel, EndpointPath(*wells), TIMES if forward else TIMES[::-1], x, generator=seeded(0))
    return log_density, run.log_weight - (end.log_z - start.log_z)


def worst_error(make: Callable, wells, fields, scripted_noise, points: int) -> float:
    """Of Jarzynski's identity in both directions, and of BAR's between them."""
    kernel = make(fields, STEP, PERSISTENCE)
    runs = [by_quadrature(kernel, wells, way, scripted_noise, points) for way in (True, False)]
    jarzynski = [abs(float((density + log_weight).exp().sum()) - 1) for density, log_weight in runs]
    sides = [float((density.exp() * torch.sigmoid(log_weight)).sum()) for density, log_weight in runs]
    return max(*jarzynski, abs(sides[0] - sides[1]))


@pytest.mark.parametrize("seed", [0, 1])
def test_work_is_unbiased_over_two_steps_with_a_random_network(wells_1d, random_fields, scripted_noise, seed):
    fields = random_fields(1, seed=seed, velocity=0.6).requires_grad_(False)
    # What is left is the grid: weights grow outwards, and the range ends somewhere.
    assert worst_error(Inertial, wells_1d, fields, scripted_noise, 101) < 1e-6


@pytest.mark.parametrize("name", MUTANTS)
def test_quadrature_notices_one_wrong_term(wells_1d, random_fields, scripted_noise, name):
    fields = random_fields(1, seed=0, velocity=0.6).requires_grad_(False)
    assert worst_error(mutant(*MUTANTS[name]), wells_1d, fields, scripted_noise, 61) > 1e-3


# ---- many steps ----------------------------------------------------------------------------------------------------


def both_ways(kernel, path, start, end, times, n: int) -> list[tuple[float, float]]:
    """Error of log(Z_1 / Z_0) and its standard error, of walkers that go forward and of both directions by BAR."""
    exact = end.log_z - start.log_z
    grids = ((times, start), (times[::-1], end))
    runs = [simulate(kernel, path, g, d.sample(n, generator=seeded(1)).double(), generator=seeded(2)) for g, d in grids]
    joint = bar(*(run.work.numpy() for run in runs))
    return [(runs[0].log_z_ratio - exact, runs[0].log_z_error), (-joint.delta_f - exact, joint.std_error)]


class DoubleWell:
    """Two wells on the line, harmonic far out, by quadrature and by inversion of the distribution function."""

    event_shape = torch.Size([1])

    def __init__(self) -> None:
        self._axis = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
        density = torch.exp(-self.energy(self._axis[:, None]))
        self._cumulated = torch.cumsum(density, 0) / density.sum()
        self.log_z = float(density.sum().log() + math.log(18 / 20_000))

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * x[:, 0] ** 2 + 3 * torch.exp(-1.5 * x[:, 0] ** 2) + 0.3 * x[:, 0]

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        index = torch.searchsorted(self._cumulated, torch.rand(n, generator=generator, dtype=torch.float64))
        return self._axis[index.clamp(max=len(self._axis) - 1)][:, None]


GAUSSIANS = (
    Gaussian(torch.tensor([0.0, 0.5]).double(), torch.tensor([1.0, 1.2]).double()),
    Gaussian(torch.tensor([0.5, 0.0]).double(), torch.tensor([0.8, 1.0]).double()),
)
DOUBLE_WELL = (Gaussian(torch.zeros(1).double(), torch.full((1,), 1.3).double()), DoubleWell())


@pytest.mark.parametrize(("step", "steps"), [(0.05, 8), (0.4, 12), (1.1, 6)])
@pytest.mark.parametrize("persistence", [0.0, 0.7, 0.99])
@pytest.mark.parametrize("ends", [GAUSSIANS, DOUBLE_WELL], ids=["Gaussians", "double well"])
def test_log_z_is_right_at_any_step_and_friction(ends, step, steps, persistence):
    path = LinearPath(*ends)
    # Beyond this step weights in the curved well stay exact, with a variance that 6,000 walkers cannot estimate.
    kernel = Inertial(PathScore(path), min(step, 0.7) if ends is DOUBLE_WELL else step, persistence)
    for error, std_error in both_ways(kernel, path, *ends, torch.linspace(0, 1, steps + 1).tolist(), 6_000):
        assert abs(error) < 4 * std_error < 0.16


@pytest.mark.parametrize("persistence", [0.0, 0.6, 0.9])
def test_log_z_is_right_with_a_velocity_that_is_wrong(light_wells, random_fields, persistence):
    path, network = LinearPath(*light_wells), random_fields(3, seed=4, velocity=0.7).requires_grad_(False)
    fields = PathScore(path, lambda t, x: network(t, x).velocity)
    kernel = Inertial(fields, torch.tensor([0.3, 0.5, 0.4]), persistence)
    for error, std_error in both_ways(kernel, path, *light_wells, torch.linspace(0, 1, 9).tolist(), 8_000):
        assert abs(error) < 4 * std_error < 0.1


@pytest.mark.parametrize("name", ["velocity sign in the ratio", "sign of the kinetic energy", "its sign"])
def test_simulation_notices_a_wrong_term(light_wells, random_fields, name):
    path, network = LinearPath(*light_wells), random_fields(3, seed=4, velocity=0.7).requires_grad_(False)
    kernel = mutant(*MUTANTS[name])(PathScore(path, lambda t, x: network(t, x).velocity), 0.4, 0.9)
    found = both_ways(kernel, path, *light_wells, torch.linspace(0, 1, 9).tolist(), 8_000)
    assert max(abs(error) / std_error for error, std_error in found) > 7


@pytest.fixture(scope="module")
def light_wells():
    """Skewed and coupled, but harmonic far out: with quartic tails the variance of the weights would be infinite."""
    none = [0.0, 0.0, 0.0]
    return (
        AnharmonicWell([0.1, -0.2, 0.3], stiffness=[1.0, 1.3, 1.1], quartic=none, skew=[0.6, -0.5, 0.5], coupling=0.4),
        AnharmonicWell([-0.1, 0.1, 0.2], stiffness=[1.2, 1.1, 1.2], quartic=none, skew=[-0.3, 0.5, 0.6], coupling=-0.3),
    )


def test_the_path_backwards_has_the_opposite_log_ratio(random_fields, scripted_noise):
    """Positions of a path fix its momenta and noises, forwards and backwards."""
    fields, times = random_fields(3, velocity=0.8).requires_grad_(False), [0.1, 0.3, 0.45, 0.8]
    positions = [torch.randn(50, 3, generator=seeded(k), dtype=torch.float64) for k in range(4)]
    totals = []
    for grid, path in ((times, positions), (times[::-1], positions[::-1])):
        kernel, noises, before = Inertial(fields, STEP, PERSISTENCE), [], None
        for (t0, x), (t1, y) in pairwise(zip(grid, path, strict=True)):
            here, there = (fields(torch.full((50,), t).double(), z) for t, z in ((t0, x), (t1, y)))
            middle = (y - x - (t1 - t0) * here.velocity) / STEP
            p = middle - 0.5 * STEP * here.score
            noises.append(p if before is None else (p - PERSISTENCE * before) / math.sqrt(1 - PERSISTENCE**2))
            before = middle + 0.5 * STEP * there.score
        scripted_noise(noises)
        walkers, total = kernel.start(grid[0], path[0]), torch.zeros(50, dtype=torch.float64)
        for k, (t0, t1) in enumerate(pairwise(grid)):
            walkers, log_ratio = kernel.step(t0, t1, walkers, generator=seeded(0))
            total = total + log_ratio
            torch.testing.assert_close(walkers.x, path[k + 1])
        totals.append(total)
    torch.testing.assert_close(totals[0], -totals[1], rtol=1e-9, atol=1e-6)
    assert float(totals[0].abs().mean()) > 1


# ---- what the kernel promises --------------------------------------------------------------------------------------


@pytest.mark.parametrize("forward", [True, False])
def test_without_persistence_it_is_langevin(wells, random_fields, scripted_noise, forward):
    times = np.linspace(0, 1, 6)[:: 1 if forward else -1].tolist()
    x = wells[0 if forward else 1].sample(20, generator=seeded(0))
    noises = list(torch.randn(5, 20, 3, generator=seeded(1), dtype=torch.float64))
    scale = torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64)
    runs = []
    for kernel in (Inertial(random_fields(3), scale, 0.0), Langevin(random_fields(3), scale**2 / (2 * 0.2))):
        scripted_noise(noises)
        runs.append(simulate(kernel, EndpointPath(*wells), times, x, generator=seeded(2)))
    torch.testing.assert_close(runs[0].x, runs[1].x)
    torch.testing.assert_close(runs[0].log_weight, runs[1].log_weight)


def test_high_friction_comes_near_to_langevin_and_low_friction_does_not(wells):
    path, x = LinearPath(*wells), wells[0].sample(400, generator=seeded(0))
    times = torch.linspace(0, 1, 11).tolist()
    langevin = simulate(Langevin(PathScore(path), 0.3**2 / 0.2), path, times, x, generator=seeded(1)).x
    gaps = []
    for friction in (30.0, 10.0, 1.0):
        kernel = Inertial(PathScore(path), 0.3, math.exp(-friction * 0.3))
        gaps.append(float((simulate(kernel, path, times, x, generator=seeded(1)).x - langevin).abs().max()))
    assert gaps[0] < 1e-3 < gaps[1] < 0.5 < gaps[2]


def test_persistence_pays_where_scales_differ():
    """A soft direction is crossed by momenta that last, at the same number of gradients."""
    soft = torch.tensor([1.0, 6.0], dtype=torch.float64)
    path = LinearPath(Gaussian(torch.zeros(2).double(), soft), Gaussian(torch.tensor([0.0, 9.0]).double(), soft))
    x, times = path.start.sample(2_000, generator=seeded(0)), torch.linspace(0, 1, 61).tolist()
    run = {
        kept: simulate(Inertial(PathScore(path), 0.5, kept), path, times, x, generator=seeded(1)).ess
        for kept in (0.0, 0.95)
    }
    assert run[0.95] > run[0.0] + 0.1


def test_a_uniform_velocity_that_is_exact_leaves_no_variance():
    path = LinearPath(
        *(Gaussian(torch.tensor([m, 0.0], dtype=torch.float64), torch.ones(2).double()) for m in (0.0, 2.0))
    )
    fields = PathScore(path, lambda t, x: torch.tensor([2.0, 0.0], dtype=x.dtype).expand_as(x))
    x, times = path.start.sample(2_000, generator=seeded(0)), torch.linspace(0, 1, 41).tolist()
    assert simulate(Inertial(fields, 0.1, 0.9), path, times, x, generator=seeded(1)).log_weight.std() < 0.1
    plain = simulate(Inertial(PathScore(path), 0.1, 0.9), path, times, x, generator=seeded(1))
    assert plain.log_weight.std() > 1


@pytest.mark.parametrize(
    ("target", "mass"),
    [
        (Normal(torch.tensor([0.5, 0.0]), torch.tensor([[1.0, 0.6], [0.6, 1.0]])), "dense"),
        (FreeField.massive(4, mass_squared=0.7), "spectral"),
    ],
)
def test_log_z_is_right_in_any_mass(target, mass):
    if mass == "dense":
        start, metric = Normal(torch.zeros(2), torch.eye(2)), DenseMass(target.cholesky)
    else:
        start, metric = FreeField.massive(4, mass_squared=1.0), SpectralMass(target.precision)
    path = LinearPath(start, target)
    kernel = Inertial(PathScore(path), 0.5, 0.8, metric)
    for error, std_error in both_ways(kernel, path, start, target, torch.linspace(0, 1, 9).tolist(), 3_000):
        assert abs(error) < 4 * std_error < 0.1


def test_momenta_are_kept_through_a_flow_step_and_the_weights_stay_exact():
    """The flow of x' = c x, whose log-determinant order 4 integrates to rounding."""
    start, end = (Gaussian(torch.zeros(1).double(), torch.full((1,), s).double()) for s in (1.0, 0.6))
    path, rate = LinearPath(start, end), 1.2 * math.log(0.6)

    def field(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        return rate * x, torch.full((len(x),), rate, dtype=torch.float64)

    kernel = Compose(Flow(field), Inertial(PathScore(path), 0.5, 0.9, relax=True))
    for error, std_error in both_ways(kernel, path, start, end, torch.linspace(0, 1, 9).tolist(), 8_000):
        assert abs(error) < 4 * std_error < 0.03
    walkers, _ = kernel.step(0.0, 0.1, kernel.start(0.0, torch.ones(500, 1).double()), generator=seeded(0))
    after, _ = kernel.step(0.1, 0.2, walkers, generator=seeded(1))
    both = torch.cat([walkers.momentum.p, after.momentum.p], 1)
    assert float(torch.corrcoef(both.T)[0, 1]) > 0.5


def test_a_relaxing_step_leaves_momenta_and_the_later_density_alone_on_average():
    path = LinearPath(*GAUSSIANS)
    kernel = Inertial(PathScore(path), 0.1, 0.5, relax=True)
    for t0, t1 in ((0.3, 1.0), (1.0, 0.3)):
        walkers, log_ratio = kernel.start(t0, GAUSSIANS[1].sample(4_000, generator=seeded(0))), 0.0
        generator = seeded(3)
        for _ in range(20):
            walkers, ratio = kernel.step(t0, t1, walkers, generator=generator)
            log_ratio = log_ratio + ratio
        moved = GAUSSIANS[1].energy(walkers.x)
        assert walkers.time == t1
        assert (walkers.energy is not None) == (t1 == 1.0)
        assert abs(float(moved.mean()) - 1) < 4 / math.sqrt(4_000)


def test_selected_walkers_keep_their_momenta_and_islands_are_unbiased():
    path = LinearPath(*GAUSSIANS)
    kernel = Inertial(PathScore(path), 0.4, 0.9)
    walkers, _ = kernel.step(0.0, 0.2, kernel.start(0.0, torch.zeros(6, 2).double()), generator=seeded(0))
    index = torch.tensor([4, 0, 0])
    assert torch.equal(walkers[index].momentum.p, walkers.momentum.p[index])
    x = GAUSSIANS[0].sample(8_000, generator=seeded(1))
    times = torch.linspace(0, 1, 9).tolist()
    run = simulate(kernel, path, times, x, resample=0.95, islands=40, generator=seeded(2))
    exact = GAUSSIANS[1].log_z - GAUSSIANS[0].log_z
    assert abs(run.log_z_ratio - exact) < 4 * run.log_z_error < 0.12


def test_fields_are_evaluated_once_per_step_and_once_at_the_start(wells, random_fields):
    fields = random_fields(3)
    times = torch.linspace(0, 1, 8).tolist()
    simulate(Inertial(fields, 0.2), EndpointPath(*wells), times, torch.zeros(5, 3).double(), generator=seeded(0))
    assert fields.calls == 8


def test_float32_walkers_agree_with_float64_over_300_steps(wells, random_fields, scripted_noise):
    times = np.linspace(0, 1, 301).tolist()
    noises = list(torch.randn(300, 40, 3, generator=seeded(5), dtype=torch.float32))
    x = wells[0].sample(40, generator=seeded(6)).float()
    log_weights = []
    for dtype in (torch.float32, torch.float64):
        fields = random_fields(3, seed=5, velocity=0.5, score=0.5, dtype=dtype)
        scripted_noise(noises)
        run = simulate(Inertial(fields, 0.05, 0.8), EndpointPath(*wells), times, x.to(dtype), generator=seeded(0))
        assert run.log_weight.dtype == torch.float64
        log_weights.append(run.log_weight)
    assert float((log_weights[0] - log_weights[1]).abs().max()) < 2e-3
    assert float(log_weights[1].std()) > 0.1


def test_a_velocity_is_learned_on_inertial_walkers():
    a, b = (Gaussian(torch.full((1,), m).double(), torch.ones(1).double()) for m in (0.0, 2.0))
    path, generator = LinearPath(a, b), seeded(0)
    network = DriftNetwork(center=torch.ones(1).double(), scale=torch.ones(1).double(), width=8, generator=generator)
    network = network.double()
    done = train_nets(
        path,
        a.sample(600, generator=generator),
        network,
        PinnObjective(network),
        kernel=lambda module: Inertial(DriftFields(path, module), 0.5, 0.7),
        steps=60,
        rollout_steps=8,
        learning_rate=0.02,
        pilots=300,
        every=30,
        generator=generator,
    )
    assert done.ess[-1] > done.ess[0] + 0.15


def test_steps_and_persistence_may_depend_on_time():
    path, seen = LinearPath(*GAUSSIANS), []

    def note(t: float) -> float:
        seen.append(t)
        return 0.4

    kernel = Inertial(PathScore(path), lambda t: 0.2 + 0.3 * t, note)
    for error, std_error in both_ways(kernel, path, *GAUSSIANS, torch.linspace(0, 1, 5).tolist(), 4_000):
        assert abs(error) < 4 * std_error < 0.15
    # A momentum is kept or not where two intervals meet, the same place in both directions.
    assert seen == [0.25, 0.5, 0.75, 0.75, 0.5, 0.25]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": 0.0}, "step must be positive and finite: got 0"),
        ({"step_size": torch.tensor([0.1, math.inf])}, "step must be positive and finite"),
        ({"persistence": 1.0}, r"persistence of 1\.0 at t = 0\.5"),
        ({"persistence": -0.1}, "share of the momentum"),
        ({"mass": DenseMass(torch.eye(2)), "step_size": torch.tensor([0.1, 0.2])}, "take the place of a mass"),
        ({"mass": DenseMass(torch.eye(2)), "velocity": True}, "a velocity needs the unit mass: got DenseMass"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    velocity = torch.ones_like if options.pop("velocity", False) else None
    fields = lambda t, x: Evaluated(None if velocity is None else velocity(x), -x)  # noqa: E731
    kernel = Inertial(fields, **{"step_size": 0.3, **options})
    path = LinearPath(*[Gaussian(torch.zeros(2), torch.ones(2))] * 2)
    with pytest.raises(InputError, match=message):
        simulate(kernel, path, [0.0, 0.5, 1.0], torch.zeros(2, 2), generator=seeded(0))


def test_the_kernel_satisfies_the_protocol(random_fields):
    assert isinstance(Inertial(random_fields(3), 0.3), Kernel)
    assert isinstance(Inertial(random_fields(3), 0.3).mass, UnitMass)
