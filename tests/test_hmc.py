"""Kernels that leave densities invariant, the flow, and their composition."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import PathScore
from nessampler.kernels import (
    HMC,
    Compose,
    DenseMass,
    DiagonalMass,
    Flow,
    Kernel,
    Langevin,
    Mirror,
    RandomWalk,
    SpectralMass,
    UnitMass,
)
from nessampler.paths import DifferentiablePath, LinearPath
from nessampler.simulate import simulate
from nessampler.targets import AnharmonicWell, Counted, Gaussian
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def always_accept(patch: pytest.MonkeyPatch) -> None:
    """The broken Metropolis step: every proposal with any density is taken."""
    patch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1e-300, dtype=torch.float64))


FACTOR = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 1.3]], dtype=torch.float64)
VARIANCE = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
MASSES = {
    "unit": (UnitMass(), lambda p: p),
    "diagonal": (DiagonalMass(VARIANCE), lambda p: p * VARIANCE.sqrt()),
    "dense": (DenseMass(FACTOR), lambda p: p @ FACTOR),
}


# ---- masses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mass", "shape"),
    [
        (UnitMass(), (3,)),
        (MASSES["diagonal"][0], (3,)),
        (MASSES["dense"][0], (3,)),
        (SpectralMass(2 * (lattice_momenta(4, 2) + 0.5)), (4, 4)),
        (SpectralMass(2 * (lattice_momenta(3, 2) + 0.5)), (3, 3)),
    ],
    ids=["unit", "diagonal", "dense", "even lattice", "odd lattice"],
)
def test_velocity_undoes_the_covariance_of_momenta(mass, shape):
    d = math.prod(shape)
    identity = torch.eye(d, dtype=torch.float64).view(d, *shape)
    rows, inverse = mass.momentum(identity).view(d, d), mass.velocity(identity).view(d, d)
    torch.testing.assert_close(rows.T @ rows @ inverse, torch.eye(d, dtype=torch.float64))


# ---- leapfrog ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MASSES)
def test_a_leapfrog_trajectory_is_retraced_when_its_momentum_is_turned_round(wells, scripted_noise, name):
    (mass, noise_of), path, h = MASSES[name], LinearPath(*wells), 0.05
    x = wells[0].sample(20, generator=seeded(0))
    noise = torch.randn(20, 3, generator=seeded(1), dtype=torch.float64)
    t = torch.full((20,), 0.6, dtype=torch.float64)
    y, p = x, mass.momentum(noise)
    for _ in range(4):  # the textbook's leapfrog, kicks not merged
        p = p + 0.5 * h * path.energy_and_score(t, y)[1]
        y = y + h * mass.velocity(p)
        p = p + 0.5 * h * path.energy_and_score(t, y)[1]
    kernel = HMC(path, h, leapfrog_steps=4, mass=mass)
    scripted_noise([noise, noise_of(-p)])
    there, _ = kernel.step(0.3, 0.6, kernel.start(0.3, x), generator=seeded(2))
    moved = (there.x != x).all(1)
    assert int(moved.sum()) > 15
    torch.testing.assert_close(there.x[moved], y[moved])
    back, _ = kernel.step(0.3, 0.6, kernel.start(0.3, y), generator=seeded(3))
    moved &= (back.x != y).all(1)
    torch.testing.assert_close(back.x[moved], x[moved])
    assert float((y - x).abs().max()) > 0.2


# ---- invariance ----------------------------------------------------------------------------------------------------

TIME = 0.5


def equilibrium(wells_1d, n: int, seed: int) -> Tensor:
    """Exact draws of U_t on the line, by inversion."""
    grid = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    energy = LinearPath(*wells_1d).energy(torch.full_like(grid, TIME), grid[:, None])
    cumulative = torch.exp(energy.min() - energy).cumsum(0)
    uniform = torch.rand(n, generator=seeded(seed), dtype=torch.float64) * cumulative[-1]
    return grid[torch.searchsorted(cumulative, uniform)][:, None]


def moments_z(x: Tensor, reference: Tensor) -> Tensor:
    """z-scores of moments and of shares of the line between two sets of draws."""

    def features(x: Tensor) -> Tensor:
        shares = [(x < q).double() for q in reference[:, 0].quantile(torch.linspace(0.1, 0.9, 5).double()).tolist()]
        return torch.cat([x, x**2, x**3, torch.sin(2 * x), *shares], 1)

    one, other = features(x), features(reference)
    error = other.std(0) * math.sqrt(1 / len(one) + 1 / len(other))  # of one density, if they are
    assert float((error / other.std(0)).max()) < 0.01
    return (one.mean(0) - other.mean(0)) / error


KERNELS = {
    "hmc": lambda path: HMC(path, 0.9, leapfrog_steps=3),
    "mala": lambda path: HMC(path, 1.0, leapfrog_steps=1, repeats=2),
    "random walk": lambda path: RandomWalk(path, 1.5, repeats=3),
    "mirror": lambda path: Mirror(path, lambda x: 1.0 - x),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("times", [(0.2, TIME), (TIME, 0.2)], ids=["forward", "backward"])
def test_a_skewed_density_is_left_invariant_at_the_later_time(wells_1d, monkeypatch, name, times):
    path = LinearPath(*wells_1d)
    kernel, x, fresh = (
        KERNELS[name](path),
        equilibrium(wells_1d, 30_000, seed=0),
        equilibrium(wells_1d, 300_000, seed=1),
    )

    def run() -> Tensor:
        y, generator = x, seeded(2)
        for _ in range(5):
            y = kernel.step(*times, kernel.start(times[0], y), generator=generator)[0].x
        assert float((y != x).double().mean()) > 0.2
        return y

    assert float(moments_z(run(), fresh).abs().max()) < 4
    with monkeypatch.context() as patch:
        always_accept(patch)
        assert float(moments_z(run(), fresh).abs().max()) > 8


@pytest.mark.parametrize("name", KERNELS)
def test_walkers_flow_between_any_two_regions_as_often_either_way(wells_1d, monkeypatch, name):
    path, n = LinearPath(*wells_1d), 40_000
    kernel, x = KERNELS[name](path), equilibrium(wells_1d, n, seed=0)

    def current() -> float:
        y = kernel.step(TIME, TIME, kernel.start(TIME, x), generator=seeded(3))[0].x
        flux = torch.tanh(x[:, 0]) * y[:, 0] ** 2 - torch.tanh(y[:, 0]) * x[:, 0] ** 2
        error = float(flux.std()) / math.sqrt(n)
        assert error < 0.1
        return float(flux.mean()) / error

    assert abs(current()) < 4
    with monkeypatch.context() as patch:
        always_accept(patch)
        assert abs(current()) > 8


def test_fourier_acceleration_samples_the_free_field(monkeypatch):
    size, squared = 6, 0.3
    field = FreeField.massive(size, mass_squared=squared)
    path = LinearPath(FreeField.massive(size, mass_squared=1.0), field)
    kernel = HMC(path, 0.5, leapfrog_steps=3, mass=SpectralMass(2 * (lattice_momenta(size, 2) + squared)))
    start = FreeField.massive(size, mass_squared=1.0).sample(2_000, generator=seeded(0))
    walkers, generator = kernel.start(1.0, start), seeded(1)
    for _ in range(12):
        walkers, _ = kernel.step(1.0, 1.0, walkers, generator=generator)
    full = 4 * np.sin(np.pi * np.arange(size) / size) ** 2
    exact = float(np.mean(1 / (2 * (full[:, None] + full[None, :] + squared))))

    def z(x: Tensor) -> float:
        square = x.square().flatten(1).mean(1)
        error = float(square.std()) / math.sqrt(len(x))
        assert error < 0.02 * exact
        return (float(square.mean()) - exact) / error

    assert abs(z(walkers.x)) < 4
    assert abs(z(start)) > 8  # negative control: the moves did the work
    assert walkers.acceptance is not None
    assert 0.7 < float(walkers.acceptance.mean()) < 0.999


# ---- what a step reports -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("moving", [False, True], ids=["linear", "differentiable"])
@pytest.mark.parametrize("times", [(0.2, 0.7), (0.7, 0.2)], ids=["forward", "backward"])
def test_the_log_ratio_is_the_energy_gained_at_the_later_time(wells_1d, name, moving, times):
    linear = LinearPath(*wells_1d)
    path = DifferentiablePath(*wells_1d, linear.energy) if moving else linear
    kernel, x = KERNELS[name](path), wells_1d[0].sample(50, generator=seeded(0))
    walkers, later = kernel.start(times[0], x), torch.full((50,), 0.7, dtype=torch.float64)
    for seed, (t0, t1) in enumerate((times, times[::-1])):  # the second step starts from what the first one cached
        moved, log_ratio = kernel.step(t0, t1, walkers, generator=seeded(seed))
        torch.testing.assert_close(log_ratio, linear.energy(later, moved.x) - linear.energy(later, walkers.x))
        assert float(log_ratio.abs().max()) > 0.1
        assert moved.time == t1
        if moved.energy is not None:
            torch.testing.assert_close(moved.energy, linear.energy(torch.full_like(later, t1), moved.x))
        assert moved.acceptance is not None
        assert 0 <= float(moved.acceptance.min()) <= float(moved.acceptance.max()) <= 1
        walkers = moved


def test_a_trajectory_asks_for_one_gradient_a_leapfrog_and_a_walk_for_none(wells):
    ends = [Counted(w) for w in wells]
    path, x = LinearPath(*ends), wells[0].sample(10, generator=seeded(0))
    simulate(HMC(path, 0.2, leapfrog_steps=4, repeats=2), path, [0.0, 0.3, 0.6, 1.0], x, generator=seeded(1))
    # Each end at the start once, then 2 trajectories of 4 leapfrogs in 3 steps; at t = 1 the start weighs nothing
    # in the 3 inner leapfrogs of each of the last two.
    assert (ends[1].tally().energy, ends[1].tally().gradient) == (0, 10 * (1 + 3 * 8))
    assert (ends[0].tally().energy, ends[0].tally().gradient) == (0, 10 * (1 + 3 * 8 - 6))
    walk = [Counted(w) for w in wells]
    path = LinearPath(*walk)
    simulate(RandomWalk(path, 0.2, repeats=5), path, [0.0, 0.5, 1.0], x, generator=seeded(1))
    assert [end.tally().gradient for end in walk] == [0, 0]
    assert walk[1].tally().energy == 10 * 2 * 6  # at the later time of each of two steps: here, and 5 proposals


def test_step_size_and_mass_may_depend_on_time(wells):
    path, x = LinearPath(*wells), wells[0].sample(10, generator=seeded(0))
    seen: list[float] = []

    def step_size(t: float) -> float:
        seen.append(t)
        return 0.1 + 0.2 * t

    moving = HMC(path, step_size, mass=lambda t: DiagonalMass(VARIANCE * (1 + t)))
    still = HMC(path, 0.1 + 0.2 * 0.6, mass=DiagonalMass(VARIANCE * 1.6))
    for times in ((0.3, 0.6), (0.6, 0.3)):
        one, _ = moving.step(*times, moving.start(times[0], x), generator=seeded(1))
        other, _ = still.step(*times, still.start(times[0], x), generator=seeded(1))
        assert torch.equal(one.x, other.x)
    assert seen == [0.6, 0.6]
    walk = RandomWalk(path, lambda t: (0.1 + t) * VARIANCE)
    same = RandomWalk(path, 0.7 * VARIANCE)
    one, _ = walk.step(0.3, 0.6, walk.start(0.3, x), generator=seeded(1))
    other, _ = same.step(0.3, 0.6, same.start(0.3, x), generator=seeded(1))
    assert torch.equal(one.x, other.x)


def test_single_precision_walkers_get_double_precision_ratios():
    path, n = LinearPath(FreeField.massive(4, mass_squared=1.0), Phi4(4, quartic=0.5)), 10
    x = path.start.sample(n, generator=seeded(0)).float()
    for kernel in (HMC(path, 0.1), RandomWalk(path, 0.1)):
        moved, log_ratio = kernel.step(0.0, 0.5, kernel.start(0.0, x), generator=seeded(1))
        assert moved.x.dtype == torch.float32
        assert log_ratio.dtype == torch.float64


def test_a_leapfrog_step_that_is_not_positive_is_refused(wells):
    path = LinearPath(*wells)
    kernel = HMC(path, lambda t: -t)
    with pytest.raises(InputError, match=r"must be positive: got -0\.5 at t = 0\.5"):
        kernel.step(0.0, 0.5, kernel.start(0.0, torch.zeros(2, 3).double()), generator=seeded(0))


class HalfLine:
    """A standard normal cut at zero."""

    event_shape = torch.Size([1])
    log_z = 0.5 * math.log(math.pi / 2)

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, 0.5 * x[:, 0].square(), torch.inf)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 1, generator=generator, dtype=torch.float64).abs()


NORMAL = Gaussian(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("name", KERNELS)
def test_walkers_outside_a_hard_support_have_no_weight_even_when_they_move_inside(name):
    path, n = LinearPath(NORMAL, HalfLine()), 20_000
    run = simulate(
        KERNELS[name](path), path, [0.0, 0.3, 0.6, 1.0], NORMAL.sample(n, generator=seeded(0)), generator=seeded(1)
    )
    assert run.log_z_error < 0.01
    assert abs(run.log_z_ratio - math.log(0.5)) < 4 * run.log_z_error
    lost = torch.isinf(run.log_weight)
    assert bool((run.x[lost] > 0).any())  # which is where forgetting that they were outside would show
    back = simulate(
        KERNELS[name](path), path, [1.0, 0.6, 0.3, 0.0], HalfLine().sample(n, generator=seeded(0)), generator=seeded(1)
    )
    assert bool(torch.isfinite(back.log_weight).all())


# ---- flows ---------------------------------------------------------------------------------------------------------


def swirl(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """A field that depends on time, couples its coordinates, and has a divergence of either sign."""
    a, b = x[:, 0], x[:, 1]
    velocity = torch.stack([torch.sin(a + t) * torch.cos(b), a * b * math.exp(-t) + 0.3 * b], 1)
    return velocity, (torch.cos(a + t) * torch.cos(b) + a * math.exp(-t) + 0.3).double()


@pytest.mark.parametrize("order", [2, 3, 4])
def test_a_flow_converges_with_the_order_it_claims(order):
    x = torch.randn(6, 2, generator=seeded(0), dtype=torch.float64)

    def flown(substeps: int, rule: int = order) -> Tensor:
        moved, log_det = Flow(swirl, rule, substeps).step(
            0.1, 0.9, Flow(swirl).start(0.1, x), generator=torch.Generator()
        )
        return torch.cat([moved.x, log_det[:, None]], 1)

    exact = flown(400, 4)
    errors = [float((flown(k) - exact).abs().max()) for k in (8, 16, 32)]
    for coarse, fine in pairwise(errors):
        assert abs(math.log2(coarse / fine) - order) < 0.35


def test_a_flows_log_determinant_is_that_of_its_jacobian():
    x, flow = torch.randn(3, 2, generator=seeded(0), dtype=torch.float64), Flow(swirl, substeps=20)
    _, log_det = flow.step(0.1, 0.9, flow.start(0.1, x), generator=torch.Generator())

    def moved(row: Tensor) -> Tensor:
        return flow.step(0.1, 0.9, flow.start(0.1, row[None]), generator=torch.Generator())[0].x[0]

    exact = torch.stack([torch.linalg.slogdet(torch.autograd.functional.jacobian(moved, row))[1] for row in x])
    torch.testing.assert_close(log_det, exact, atol=1e-5, rtol=0)
    assert float(exact.abs().min()) > 0.01


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("order", [2, 4])
def test_a_flow_backwards_undoes_the_flow_forwards_exactly(dtype, close, order):
    x = torch.randn(50, 2, generator=seeded(0), dtype=torch.float64).to(dtype)
    flow = Flow(swirl, order, substeps=2, tolerance=1e-12)
    there, log_det = flow.step(0.2, 0.5, flow.start(0.2, x), generator=torch.Generator())
    back, log_det_back = flow.step(0.5, 0.2, there, generator=torch.Generator())
    torch.testing.assert_close(back.x, x, atol=close, rtol=0)
    torch.testing.assert_close(log_det_back, -log_det, atol=10 * close, rtol=0)
    # Negative control: the rule run backwards without correction does not close the round trip.
    naive, _ = flow.advance(0.5, 0.2, there.x.double())
    assert order == 4 or float((naive - x).abs().max()) > 1e-4


def test_a_walker_that_no_flow_step_reaches_has_no_weight():
    # Forwards a midpoint step bends down as a parabola does: nothing comes near 50.
    flow = Flow(lambda t, x: (-2 * x.square(), (-4 * x[:, 0]).double()), order=2)
    reached = flow.step(0.0, 0.2, flow.start(0.0, torch.full((1, 1), 0.3).double()), generator=torch.Generator())[0].x
    x = torch.cat([reached, torch.full_like(reached, 50.0)])
    moved, log_ratio = flow.step(0.2, 0.0, flow.start(0.2, x), generator=torch.Generator())
    assert abs(float(moved.x[0]) - 0.3) < 1e-5
    assert bool(torch.isfinite(log_ratio[0]))
    assert float(log_ratio[1]) == -math.inf
    with pytest.raises(InputError, match="has order 2, 3, 4: got 5"):
        Flow(swirl, order=5)


def test_a_step_that_stretches_sixfold_finds_its_way_back() -> None:
    def steep(t: float, x: Tensor) -> tuple[Tensor, Tensor]:  # at zero; a step folds nothing
        return 8 * torch.tanh(x), (8 / torch.cosh(x).square()).sum(1)

    flow = Flow(steep, order=2)
    x = torch.linspace(-0.5, 0.5, 101, dtype=torch.float64).view(-1, 1)
    moved, change = flow.step(0.0, 0.3, flow.start(0.0, x), generator=torch.Generator())
    assert float((moved.x[51] - moved.x[50]) / (x[51] - x[50])) > 6
    back, undone = flow.step(0.3, 0.0, moved, generator=torch.Generator())
    torch.testing.assert_close(back.x, x, atol=2e-6, rtol=0)
    torch.testing.assert_close(undone, -change, atol=1e-4, rtol=0)


# ---- composition ---------------------------------------------------------------------------------------------------


def drift(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    return -0.4 + 0.2 * x, torch.full((len(x),), 0.2 * x.shape[1], dtype=torch.float64)


def test_a_composition_runs_its_parts_in_the_order_that_time_asks_for(wells):
    path, x = LinearPath(*wells), wells[0].sample(20, generator=seeded(0))
    flow, moves = Flow(drift), HMC(path, 0.3)
    both = Compose(flow, moves)
    for times, order in (((0.2, 0.6), (flow, moves)), ((0.6, 0.2), (moves, flow))):
        generator, walkers, total = seeded(1), order[0].start(times[0], x), 0.0
        for part in order:
            walkers, log_ratio = part.step(*times, part.start(walkers.time, walkers.x), generator=generator)
            total = total + log_ratio
        composed, ratio = both.step(*times, both.start(times[0], x), generator=seeded(1))
        torch.testing.assert_close(composed.x, walkers.x)
        torch.testing.assert_close(ratio, total)
        assert composed.acceptance is not None
        assert composed.time == times[1]


def test_parts_of_a_composition_do_not_mistake_each_others_evaluations_for_theirs(wells):
    path, x = LinearPath(*wells), wells[0].sample(2_000, generator=seeded(0))
    exact = wells[1].log_z - wells[0].log_z
    pairs: list[tuple[Kernel, Kernel]] = [
        (Langevin(PathScore(path), 0.3), HMC(path, 0.3)),
        (HMC(path, 0.3), Langevin(PathScore(path), 0.3)),
        (RandomWalk(path, 0.3), HMC(path, 0.3)),
    ]
    for first, second in pairs:
        kernel = Compose(first, second)
        forward = simulate(kernel, path, torch.linspace(0, 1, 9).tolist(), x, generator=seeded(1))
        y = wells[1].sample(2_000, generator=seeded(0))
        back = simulate(kernel, path, torch.linspace(1, 0, 9).tolist(), y, generator=seeded(1))
        for run, truth in ((forward, exact), (back, -exact)):
            assert run.log_z_error < 0.03
            assert abs(run.log_z_ratio - truth) < 4 * run.log_z_error


class Holed:
    """A normal whose gradient, not its energy, is NaN in a strip that chains meet."""

    event_shape = torch.Size([2])

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * x.square().sum(1)

    def energy_and_score(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.energy(x), torch.where((x[:, :1] - 0.8).abs() < 0.1, torch.nan, -x)


def test_a_gradient_that_is_nan_where_the_energy_is_finite_is_named() -> None:
    normal = Gaussian(torch.zeros(2), torch.ones(2))
    kernel = HMC(LinearPath(normal, Holed()), 0.3)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    x = x[(x[:, 0] - 0.8).abs() > 0.1]
    walkers = kernel.start(0.5, x)
    with pytest.raises(InputError, match=r"at \(0\.\d+, .*\) and t = 0\.5 the energy is .* and the gradient NaN"):
        kernel.step(0.5, 0.5, walkers, generator=torch.Generator().manual_seed(1))


def test_a_trajectory_that_diverges_is_refused_as_before() -> None:
    steep = AnharmonicWell([0.0], stiffness=[1.0], quartic=[50.0], skew=[0.0], coupling=0.0)
    kernel = HMC(LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), steep), 3.0, leapfrog_steps=40)
    walkers = kernel.start(1.0, torch.randn(50, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    moved, _ = kernel.step(1.0, 1.0, walkers, generator=torch.Generator().manual_seed(3))
    assert walkers.energy is not None
    assert torch.equal(moved.x, walkers.x)
    assert moved.acceptance is not None
    assert float(moved.acceptance.max()) == 0


@pytest.mark.parametrize("step_size", [0.1, lambda t: 0.2 - 0.1 * t])
def test_blocks_of_walkers_change_no_number(step_size, monkeypatch: pytest.MonkeyPatch) -> None:
    field = FreeField.massive(4, mass_squared=1.0)
    kernel = HMC(LinearPath(field, Phi4(4, quartic=0.8)), step_size, mass=SpectralMass(field.precision))
    walkers = kernel.start(0.0, field.sample(10, generator=torch.Generator().manual_seed(4)))
    found = []
    for block in (2**17, 3 * 16):  # all at once; three at a time, and one left over
        monkeypatch.setattr("nessampler.kernels.hmc.BLOCK", block)
        found.append(kernel.step(0.0, 0.5, walkers, generator=torch.Generator().manual_seed(5)))
    (one, ratio), (other, again) = found
    assert one.acceptance is not None
    assert other.acceptance is not None
    for a, b in ((one.x, other.x), (ratio, again), (one.acceptance, other.acceptance), (one.energy, other.energy)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
