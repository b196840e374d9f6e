"""The Langevin kernel is exact with any fields, at any step, in both directions; one flipped sign is noticed."""

from __future__ import annotations

import importlib
import inspect
import math
import types
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import Evaluated, PathScore
from nessampler.kernels import Kernel, Langevin, Walkers
from nessampler.paths import EndpointPath, LinearPath
from nessampler.simulate import simulate
from nessampler.targets import AnharmonicWell, Counted, Tally

EPSILON = 0.4
Outcome = tuple[Tensor, Tensor]  # log probability; log weight less log(Z_end / Z_start)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- the kernel, and copies of it with one thing wrong -------------------------------------------------------------


@dataclass(frozen=True)
class Engine:
    """The kernel and the loop, as they are or as a mutant has them."""

    langevin: Callable = Langevin
    simulate: Callable = simulate


@dataclass(frozen=True)
class Mutant:
    """One change of source, and whether it is a sign; amplitudes are too subtle for the simulation below."""

    old: str
    new: str
    module: str = "kernels.langevin"
    wrong_sign: bool = True

    def engine(self) -> Engine:
        source = inspect.getsource(importlib.import_module(f"nessampler.{self.module}"))
        assert self.old in source, f"the mutant no longer applies: {self.old!r}"
        broken = types.ModuleType(f"nessampler.{self.module}")  # dataclasses look their module up by this name
        exec(compile(source.replace(self.old, self.new), "<mutant>", "exec"), broken.__dict__)
        return Engine(broken.Langevin, simulate) if hasattr(broken, "Langevin") else Engine(Langevin, broken.simulate)


MUTANTS = {
    "velocity sign in the forward drift": Mutant("velocity, alpha=h", "velocity, alpha=-h"),
    "velocity sign in the forward residual": Mutant("(q, rate, here", "(q, -rate, here"),
    "velocity sign in the backward residual": Mutant("(q, -rate, there", "(q, rate, there"),
    "score sign in the forward drift": Mutant("0.5 * sigma.square() * at.score", "-0.5 * sigma.square() * at.score"),
    "score sign in the forward residual": Mutant("here.score + there.score", "there.score - here.score"),
    "score sign in the backward residual": Mutant("here.score + there.score", "here.score - there.score"),
    "score follows the direction of time": Mutant("0.5 * sigma", "0.5 * h / abs(h) * sigma"),
    "velocity ignores the direction of time": Mutant("t1 - t0, sigma", "abs(t1 - t0), sigma"),
    "time reversed in the drift alone": Mutant("_drift(here, t1 - t0, sigma)", "_drift(here, t0 - t1, sigma)"),
    "sign of the log ratio": Mutant("return -(q *", "return (q *"),
    "sign of the noise in the log ratio": Mutant("torch.add(noise, q", "torch.add(-noise, q"),
    "sign of the square in the log ratio": Mutant("alpha=0.5", "alpha=-0.5"),
    "variance eps, and the drift with it": Mutant("2 * epsilon * abs", "epsilon * abs", wrong_sign=False),
    "variance eps in the move alone": Mutant("), sigma, noise", "), 0.7071 * sigma, noise", wrong_sign=False),
    "drift of 2 eps score": Mutant("drift = 0.5 * sigma", "drift = sigma", wrong_sign=False),
    "sign of the energy at the end": Mutant("log_weight = total - energy", "log_weight = total + energy", "simulate"),
    "sign of the energy at the start": Mutant(
        "total = _energy(path, walkers)", "total = -_energy(path, walkers)", "simulate"
    ),
    "log ratio subtracted": Mutant("total + log_ratio", "total - log_ratio", "simulate"),
}


# ---- one step in one dimension, by quadrature ----------------------------------------------------------------------


def log_forward(
    fields: Callable[[Tensor, Tensor], Evaluated], t0: float, t1: float, x: Tensor, x_new: Tensor
) -> Tensor:
    """log F(x_new | x) on the line, written out from the definition."""
    at = fields(torch.full((len(x),), t0, dtype=x.dtype), x)
    h = t1 - t0
    mean = x + h * at.velocity + abs(h) * EPSILON * at.score
    variance = 2 * EPSILON * abs(h)
    return (-((x_new - mean) ** 2) / (2 * variance))[:, 0] - 0.5 * math.log(2 * math.pi * variance)


def product_grid(a: np.ndarray, b: np.ndarray) -> tuple[Tensor, Tensor, float]:
    first, second = np.meshgrid(a, b, indexing="ij")
    columns = (torch.tensor(v.reshape(-1, 1)) for v in (first, second))
    return *columns, float((a[1] - a[0]) * (b[1] - b[0]))


def pair_by_quadrature(engine: Engine, wells, fields, t0: float, t1: float) -> Outcome:
    """Both ends integrated, the explicit forward density and the kernel's `log_ratio` of each pair."""
    start, end = wells if t1 > t0 else wells[::-1]
    x0, x1, area = product_grid(np.linspace(-12, 12, 301), np.linspace(-12, 12, 301))
    log_density = -start.energy(x0) - start.log_z + log_forward(fields, t0, t1, x0, x1) + math.log(area)
    log_weight = start.energy(x0) - end.energy(x1) + engine.langevin(fields, EPSILON).log_ratio(t0, t1, x0, x1)
    return log_density, log_weight - (end.log_z - start.log_z)


def loop_by_quadrature(engine: Engine, wells, fields, t0: float, t1: float, scripted_noise) -> Outcome:
    """Start and noise integrated, the weights those of the loop."""
    start, end = wells if t1 > t0 else wells[::-1]
    x, noise, area = product_grid(np.linspace(-12, 12, 301), np.linspace(-20, 20, 401))
    scripted_noise([noise])
    run = engine.simulate(engine.langevin(fields, EPSILON), EndpointPath(*wells), [t0, t1], x, generator=seeded(0))
    log_density = -start.energy(x) - start.log_z - 0.5 * noise[:, 0] ** 2 + math.log(area / math.sqrt(2 * math.pi))
    return log_density, run.log_weight - (end.log_z - start.log_z)


def worst(forward: Outcome, reverse: Outcome) -> float:
    """Largest error of three identities: Jarzynski's in both directions, and BAR's between them.

    Jarzynski's holds for any normalised backward density; only BAR's asks that the reversed run draws from it.
    """
    jarzynski = [abs(float((p + w).exp().sum()) - 1) for p, w in (forward, reverse)]
    sides = [float((p.exp() * torch.sigmoid(w)).sum()) for p, w in (forward, reverse)]
    return max(*jarzynski, abs(sides[0] - sides[1]))


def worst_error_by_quadrature(engine: Engine, wells, fields, scripted_noise) -> float:
    directions = ((0.0, 1.0), (1.0, 0.0))
    pair = [pair_by_quadrature(engine, wells, fields, *d) for d in directions]
    loop = [loop_by_quadrature(engine, wells, fields, *d, scripted_noise) for d in directions]
    return max(worst(*pair), worst(*loop))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_work_is_unbiased_at_one_step_with_a_random_network(wells_1d, random_fields, scripted_noise, seed):
    fields = random_fields(1, seed=seed).requires_grad_(False)
    assert worst_error_by_quadrature(Engine(), wells_1d, fields, scripted_noise) < 1e-8


@pytest.mark.parametrize("name", MUTANTS)
def test_quadrature_notices_one_flipped_sign(wells_1d, random_fields, scripted_noise, name):
    fields = random_fields(1, seed=0).requires_grad_(False)
    assert worst_error_by_quadrature(MUTANTS[name].engine(), wells_1d, fields, scripted_noise) > 0.02


# ---- many steps in three dimensions, by simulation -----------------------------------------------------------------


@pytest.fixture(scope="module")
def light_wells() -> tuple[AnharmonicWell, AnharmonicWell]:
    """Skewed and coupled, but harmonic far out: with quartic tails the variance of the weights would be infinite."""
    none = [0.0, 0.0, 0.0]
    return (
        AnharmonicWell([0.1, -0.2, 0.3], stiffness=[1.0, 1.3, 1.1], quartic=none, skew=[0.6, -0.5, 0.5], coupling=0.4),
        AnharmonicWell([-0.1, 0.1, 0.2], stiffness=[1.2, 1.1, 1.2], quartic=none, skew=[-0.3, 0.5, 0.6], coupling=-0.3),
    )


def weights(engine: Engine, wells, fields, steps: int, forward: bool) -> Tensor:
    """exp(-work) of one run, in units of the exact Z1 / Z0."""
    start, end = wells if forward else wells[::-1]
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    x = start.sample(20_000 if steps > 4 else 40_000, generator=seeded(10 + steps))
    kernel, path = engine.langevin(fields, 0.1), EndpointPath(*wells)
    run = engine.simulate(kernel, path, times if forward else times.flip(0), x, generator=seeded(20 + steps))
    return (run.log_weight - (end.log_z - start.log_z)).exp()


def z_scores_and_errors(engine: Engine, wells, fields, steps: int) -> tuple[Tensor, Tensor]:
    """Of Jarzynski's identity forward and reverse, and of BAR's between them."""
    forward, reverse = (weights(engine, wells, fields, steps, direction) for direction in (True, False))
    sides = [w / (1 + w) for w in (forward, reverse)]
    gaps = torch.stack([forward.mean() - 1, reverse.mean() - 1, sides[0].mean() - sides[1].mean()])
    variances = torch.stack([forward.var(), reverse.var(), sides[0].var() + sides[1].var()])
    errors = (variances / len(forward)).sqrt()
    return gaps / errors, errors


CAPS = torch.tensor([0.035, 0.035, 0.003], dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 4, 64])
def test_work_is_unbiased_over_many_steps_with_a_random_network(light_wells, random_fields, steps):
    fields = random_fields(3, seed=1, velocity=0.5, score=4.0).requires_grad_(False)
    z, errors = z_scores_and_errors(Engine(), light_wells, fields, steps)
    assert bool((z.abs() <= 4).all())
    assert bool((errors < CAPS).all())


@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.wrong_sign])
def test_simulation_notices_one_flipped_sign(light_wells, random_fields, name):
    fields = random_fields(3, seed=1, velocity=0.5, score=4.0).requires_grad_(False)
    z, _ = z_scores_and_errors(MUTANTS[name].engine(), light_wells, fields, steps=4)
    assert float(z.abs().max()) > 7


# ---- what the pair promises ----------------------------------------------------------------------------------------


def pair_of_points(n: int = 200) -> tuple[Tensor, Tensor]:
    points = torch.randn(2, n, 3, generator=seeded(0), dtype=torch.float64)
    return points[0], points[1]


@pytest.mark.parametrize("diffusion", [EPSILON, torch.tensor([0.1, 0.4, 2.0]), lambda t: torch.tensor(0.2 + t)])
def test_log_ratio_is_antisymmetric_under_exchange_of_the_ends(random_fields, diffusion):
    kernel, (x, y) = Langevin(random_fields(3), diffusion), pair_of_points()
    there, back = kernel.log_ratio(0.3, 0.55, x, y), kernel.log_ratio(0.55, 0.3, y, x)
    torch.testing.assert_close(there, -back, rtol=1e-10, atol=1e-10)
    assert float(there.detach().abs().mean()) > 0.1  # two zeros would be antisymmetric


@pytest.mark.parametrize(("t0", "t1"), [(0.3, 0.55), (0.55, 0.3)])
def test_the_step_reports_the_log_ratio_of_the_pair_it_made(random_fields, t0, t1):
    kernel, (x, _) = Langevin(random_fields(3), torch.tensor([0.1, 0.4, 2.0])), pair_of_points()
    moved, log_ratio = kernel.step(t0, t1, kernel.start(t0, x), generator=seeded(1))
    assert moved.time == t1
    torch.testing.assert_close(log_ratio, kernel.log_ratio(t0, t1, x, moved.x), rtol=1e-10, atol=1e-10)


def test_a_velocity_given_at_one_end_only_counts_as_zero_at_the_other(random_fields):
    network, (x, y) = random_fields(3), pair_of_points()

    def only_early(t: Tensor, x: Tensor) -> Evaluated:
        at = network(t, x)
        return at if float(t[0]) < 0.5 else at._replace(velocity=None)

    def zero_late(t: Tensor, x: Tensor) -> Evaluated:
        at = network(t, x)
        return at if float(t[0]) < 0.5 else at._replace(velocity=torch.zeros_like(x))

    for t0, t1 in ((0.2, 0.8), (0.8, 0.2)):
        one, other = (Langevin(f, EPSILON).log_ratio(t0, t1, x, y) for f in (only_early, zero_late))
        torch.testing.assert_close(one, other)


def test_fields_are_evaluated_once_per_step_and_once_at_the_start(wells, random_fields):
    fields = random_fields(3)
    simulate(
        Langevin(fields, 0.1),
        EndpointPath(*wells),
        torch.linspace(0, 1, 8),
        torch.zeros(5, 3).double(),
        generator=seeded(0),
    )
    assert fields.calls == 8


def test_fields_are_evaluated_afresh_for_walkers_of_another_time(random_fields):
    fields = random_fields(3)
    kernel, (x, _) = Langevin(fields, EPSILON), pair_of_points()
    stale, fresh = kernel.start(0.9, x), kernel.start(0.3, x)
    a, b = (kernel.step(0.3, 0.5, walkers, generator=seeded(1)) for walkers in (stale, fresh))
    assert fields.calls == 5
    assert torch.equal(a[1], b[1])


def test_annealing_evaluates_each_end_once_per_step_and_not_where_it_has_no_weight(wells):
    start, end = Counted(wells[0]), Counted(wells[1])
    path = LinearPath(start, end)
    x = wells[0].sample(5, generator=seeded(0))
    simulate(Langevin(PathScore(path), 0.1), path, [0.0, 0.25, 0.5, 0.75, 1.0], x, generator=seeded(0))
    assert start.tallies == {"sampling": Tally(energy=0, gradient=5 * 4)}
    assert end.tallies == {"sampling": Tally(energy=0, gradient=5 * 4)}


# ---- annealed importance sampling, written independently -----------------------------------------------------------


def gradient(well: AnharmonicWell, x: np.ndarray) -> np.ndarray:
    y = x - well.center.numpy()
    k, q, s = (v.numpy() for v in (well.stiffness, well.quartic, well.skew))
    slope = k * y + 4 * q * y**3 + 2 * s * np.cos(2 * y + 0.5)
    bend = well.coupling * np.sin(y[:, :-1] - y[:, 1:] + 1)
    slope[:, :-1] -= bend
    slope[:, 1:] += bend
    return slope


def textbook_ais(wells, times: list[float], x: np.ndarray, noises: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Unadjusted Langevin moves on U_t = (1 - t) U_0 + t U_1, weighted with explicit Gaussian densities."""

    def mean(t: float, x: np.ndarray, step: float) -> np.ndarray:
        return x - step * ((1 - t) * gradient(wells[0], x) + t * gradient(wells[1], x))

    def log_normal(x: np.ndarray, mean: np.ndarray, variance: float) -> np.ndarray:
        return -((x - mean) ** 2).sum(1) / (2 * variance)

    ends = [wells[int(t)] for t in (times[0], times[-1])]
    log_weight = ends[0].energy(torch.tensor(x)).numpy()
    for t0, t1, noise in zip(times, times[1:], noises, strict=False):
        step = EPSILON * abs(t1 - t0)
        new = mean(t0, x, step) + math.sqrt(2 * step) * noise
        log_weight = (
            log_weight + log_normal(x, mean(t1, new, step), 2 * step) - log_normal(new, mean(t0, x, step), 2 * step)
        )
        x = new
    return x, log_weight - ends[1].energy(torch.tensor(x)).numpy()


@pytest.mark.parametrize("times", [[0.0, 0.1, 0.4, 0.7, 1.0], [1.0, 0.8, 0.5, 0.1, 0.0]])
def test_without_velocity_the_run_is_annealed_importance_sampling(wells, scripted_noise, times):
    noises = list(torch.randn(4, 50, 3, generator=seeded(2), dtype=torch.float64))
    x = wells[int(times[0])].sample(50, generator=seeded(3))
    path = LinearPath(*wells)
    expected_x, expected = textbook_ais(wells, times, x.numpy(), [n.numpy() for n in noises])
    scripted_noise(noises)
    run = simulate(Langevin(PathScore(path), EPSILON), path, times, x, generator=seeded(4))
    np.testing.assert_allclose(run.x.numpy(), expected_x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.log_weight.numpy(), expected, rtol=0, atol=1e-11)


# ---- precision, frozen coordinates, resampled walkers --------------------------------------------------------------


@pytest.mark.parametrize("forward", [True, False])
def test_float32_walkers_agree_with_float64_over_500_steps(wells, random_fields, scripted_noise, forward):
    times = np.linspace(0, 1, 501)[:: 1 if forward else -1].tolist()
    noises = list(torch.randn(500, 60, 3, generator=seeded(5), dtype=torch.float32))
    # Both start from the same point, one that float32 can hold.
    x = wells[0 if forward else 1].sample(60, generator=seeded(6)).float()
    log_weights = []
    for dtype in (torch.float32, torch.float64):
        fields = random_fields(3, seed=5, velocity=0.5, score=0.5, dtype=dtype)
        scripted_noise(noises)
        run = simulate(Langevin(fields, EPSILON), EndpointPath(*wells), times, x.to(dtype), generator=seeded(0))
        assert run.x.dtype == dtype
        assert run.log_weight.dtype == torch.float64
        log_weights.append(run.log_weight)
    assert float((log_weights[0] - log_weights[1]).abs().max()) < 1e-3
    assert float(log_weights[1].std()) > 0.1  # equal because they move, not because nothing happens


def test_coordinates_without_diffusion_stay_where_they_are_bit_for_bit(random_fields):
    network = random_fields(3)

    def fields(t: Tensor, x: Tensor) -> Evaluated:
        at = network(t, x)
        assert at.velocity is not None
        return Evaluated(at.velocity * torch.tensor([1.0, 0.0, 1.0]), at.score)

    kernel, (x, _) = Langevin(fields, torch.tensor([0.3, 0.0, 0.7])), pair_of_points()
    walkers, total = kernel.start(0.0, x), torch.zeros(len(x), dtype=torch.float64)
    for t in (0.0, 0.25, 0.5, 0.75):
        walkers, log_ratio = kernel.step(t, t + 0.25, walkers, generator=seeded(7))
        total = total + log_ratio
    assert torch.equal(walkers.x[:, 1], x[:, 1])
    assert bool((walkers.x[:, [0, 2]] != x[:, [0, 2]]).all())
    assert bool(torch.isfinite(total).all())


@pytest.mark.parametrize("moving_at", [0.0, 1.0])
def test_a_velocity_along_a_coordinate_without_diffusion_is_refused(moving_at):
    def fields(t: Tensor, x: Tensor) -> Evaluated:
        return Evaluated((t == moving_at)[:, None] * torch.ones_like(x), -x)

    kernel = Langevin(fields, torch.tensor([0.5, 0.0, 0.5]))
    with pytest.raises(InputError, match="zero diffusion cannot have a velocity"):
        kernel.step(0.0, 1.0, kernel.start(0.0, torch.zeros(2, 3)), generator=seeded(0))


@pytest.mark.parametrize("diffusion", [-0.1, math.inf, math.nan, torch.tensor([0.1, -1.0, 0.1])])
def test_an_unusable_diffusion_is_refused(random_fields, diffusion):
    kernel, (x, _) = Langevin(random_fields(3), diffusion), pair_of_points()
    with pytest.raises(InputError, match="diffusion must be finite and not negative: got"):
        kernel.step(0.0, 0.5, kernel.start(0.0, x), generator=seeded(0))


def test_selected_walkers_carry_what_was_evaluated_for_them(wells, random_fields):
    path, (x, _) = LinearPath(*wells), pair_of_points(6)
    kernel = Langevin(PathScore(path, lambda t, x: random_fields(3)(t, x).score), EPSILON)
    walkers, _ = kernel.step(0.0, 0.5, kernel.start(0.0, x), generator=seeded(0))
    index = torch.tensor([4, 0, 0, 3])
    chosen, anew = walkers[index], kernel.start(0.5, walkers.x[index])
    assert torch.equal(chosen.x, anew.x)
    assert chosen.ancestors is index
    for mine, theirs in zip((*chosen.cached, chosen.energy), (*anew.cached, anew.energy), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_selection_reaches_into_tuples_of_any_kind():
    walkers = Walkers(torch.arange(3.0)[:, None], 0.0, cached=(torch.arange(3), (torch.arange(3), "label")))
    first, (second, label) = walkers[torch.tensor([2, 2])].cached
    assert (first.tolist(), second.tolist(), label) == ([2, 2], [2, 2], "label")


def test_the_kernel_satisfies_the_protocol(random_fields):
    assert isinstance(Langevin(random_fields(3), EPSILON), Kernel)
