"""The sampling loop: determinism, chunks, what it refuses, and the weighted ensemble that comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import PathScore
from nessampler.kernels import Identity, Langevin
from nessampler.paths import EndpointPath, LinearPath
from nessampler.simulate import Ensemble, simulate
from nessampler.targets import Gaussian

TIMES = [0.0, 0.2, 0.6, 1.0]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def annealed(wells, x: Tensor, seed: int = 1, **options) -> Ensemble:
    path = LinearPath(*wells)
    return simulate(Langevin(PathScore(path), 0.3), path, TIMES, x, generator=seeded(seed), **options)


def same(one: Ensemble, other: Ensemble) -> bool:
    return torch.equal(one.x, other.x) and torch.equal(one.log_weight, other.log_weight)


# ---- determinism and chunks ----------------------------------------------------------------------------------------


def test_a_run_repeats_with_its_seed_and_not_with_another(wells):
    x = wells[0].sample(40, generator=seeded(0))
    assert same(annealed(wells, x, seed=1), annealed(wells, x, seed=1))
    assert not same(annealed(wells, x, seed=1), annealed(wells, x, seed=2))


def test_a_run_ignores_global_random_state(wells):
    x = wells[0].sample(40, generator=seeded(0))
    torch.manual_seed(1)
    one = annealed(wells, x)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(one, annealed(wells, x))
    assert torch.equal(state, torch.get_rng_state())


def test_watching_a_run_does_not_change_it(wells):
    x, seen = wells[0].sample(50, generator=seeded(0)), []
    watched = annealed(wells, x, chunk_size=20, progress=lambda done, total: seen.append((done, total)))
    assert same(watched, annealed(wells, x, chunk_size=20))
    assert seen == [(done, 150) for done in (20, 40, 60, 80, 100, 120, 130, 140, 150)]


def test_a_chunk_does_not_depend_on_the_chunks_after_it(wells):
    x = wells[0].sample(60, generator=seeded(0))
    whole, part = annealed(wells, x, chunk_size=20), annealed(wells, x[:40], chunk_size=20)
    assert torch.equal(whole.x[:40], part.x)
    assert torch.equal(whole.log_weight[:40], part.log_weight)


def test_chunks_draw_noise_of_their_own(wells):
    x = wells[0].sample(20, generator=seeded(0)).repeat(2, 1)
    run = annealed(wells, x, chunk_size=20)
    assert not bool((run.x[:20] == run.x[20:]).any())


def test_a_single_chunk_is_the_run_without_chunks(wells):
    x = wells[0].sample(30, generator=seeded(0))
    assert same(annealed(wells, x), annealed(wells, x, chunk_size=30))
    assert same(annealed(wells, x), annealed(wells, x, chunk_size=99))


def test_weights_carry_no_graph_of_the_network(wells, random_fields):
    fields, x = random_fields(3), wells[0].sample(5, generator=seeded(0))
    assert all(p.requires_grad for p in fields.parameters())
    run = simulate(Langevin(fields, 0.3), EndpointPath(*wells), TIMES, x, generator=seeded(1))
    assert not run.log_weight.requires_grad
    assert not run.x.requires_grad
    assert torch.is_grad_enabled()


def test_a_run_between_interior_times_weights_with_the_interior_energies(wells):
    path, x = LinearPath(*wells), wells[0].sample(10, generator=seeded(0))
    run = simulate(Identity(), path, [0.25, 0.75], x, generator=seeded(1))
    torch.testing.assert_close(run.log_weight, 0.5 * (wells[0].energy(x) - wells[1].energy(x)))


# ---- the ensemble --------------------------------------------------------------------------------------------------


def test_merged_ensembles_hold_the_walkers_of_both(wells):
    x = wells[0].sample(60, generator=seeded(0))
    one, other = annealed(wells, x[:20], seed=1), annealed(wells, x[20:], seed=2)
    both = one.merge(other)
    assert torch.equal(both.x, torch.cat([one.x, other.x]))
    assert torch.equal(both.work, -torch.cat([one.log_weight, other.log_weight]))
    assert both.times == one.times
    pooled = (20 * math.exp(one.log_z_ratio) + 40 * math.exp(other.log_z_ratio)) / 60
    assert abs(both.log_z_ratio - math.log(pooled)) < 1e-12


def test_ensembles_of_different_times_do_not_merge(wells):
    x = wells[0].sample(5, generator=seeded(0))
    other = simulate(Identity(), EndpointPath(*wells), [0.0, 1.0], x, generator=seeded(0))
    with pytest.raises(InputError, match="same times"):
        annealed(wells, x).merge(other)


def test_expect_is_right_within_an_honest_error(wells_1d):
    well, wide = wells_1d[1], Gaussian(torch.tensor([0.3]).double(), torch.tensor([3.0]).double())
    grid = np.linspace(-9, 9, 2001)
    truth = float(np.trapezoid(grid * well.marginal(0, grid), grid))
    path, z, naive, errors = EndpointPath(wide, well), [], [], []
    for seed in range(300):
        x = wide.sample(1_000, generator=seeded(seed))
        run = simulate(Identity(), path, [0.0, 1.0], x, generator=seeded(0))
        mean, error = run.expect(lambda x: x[:, 0])
        unweighted = math.sqrt(float(run.expect(lambda x: (x[:, 0] - truth) ** 2)[0]) / 1_000)
        z.append(float((mean - truth) / error))
        naive.append(float((mean - truth) / unweighted))
        errors.append(float(error))
    assert abs(np.mean(z)) < 4 / math.sqrt(300)
    assert 0.84 < np.std(z) < 1.16  # four standard errors of the standard deviation of 300 normal numbers
    assert max(errors) < 0.08
    assert np.std(naive) > 1.16  # negative control: an error that forgets the weights is too small


def test_expect_of_a_tensor_is_the_expectation_of_its_entries(wells):
    run = annealed(wells, wells[0].sample(100, generator=seeded(0)))
    mean, error = run.expect(lambda x: x[:, :, None] * x[:, None, :])
    entry_mean, entry_error = run.expect(lambda x: x[:, 0] * x[:, 2])
    assert mean.shape == error.shape == (3, 3)
    torch.testing.assert_close((mean[0, 2], error[0, 2]), (entry_mean, entry_error))


def moments(x: Tensor) -> Tensor:
    return torch.cat([x, x**2], -1)


def test_what_follows_from_averages_has_the_error_of_the_delta_method(wells_1d):
    well, wide = wells_1d[1], Gaussian(torch.tensor([0.3]).double(), torch.tensor([3.0]).double())
    grid = np.linspace(-9, 9, 2001)
    mean, square = (float(np.trapezoid(grid**k * well.marginal(0, grid), grid)) for k in (1, 2))
    path, truth, z, forgetful, errors = EndpointPath(wide, well), square - mean**2, [], [], []
    for seed in range(300):
        x = wide.sample(1_000, generator=seeded(seed))
        run = simulate(Identity(), path, [0.0, 1.0], x, generator=seeded(0))
        found, error = run.expect(moments, then=lambda m: m[1] - m[0] ** 2)
        z.append(float((found - truth) / error))
        forgetful.append(float((found - truth) / run.expect(moments)[1][1]))
        errors.append(float(error))
    assert abs(np.mean(z)) < 4 / math.sqrt(300)
    assert 0.84 < np.std(z) < 1.16
    assert max(errors) < 0.08
    assert not 0.84 < np.std(forgetful) < 1.16  # negative control: the error of ⟨x²⟩ alone


def test_averages_pass_unchanged_through_the_identity(wells):
    run = annealed(wells, wells[0].sample(100, generator=seeded(0)))
    plain = run.expect(lambda x: x[:, :, None] * x[:, None, :])
    torch.testing.assert_close(run.expect(lambda x: x[:, :, None] * x[:, None, :], then=lambda m: m), plain)


def test_effective_sample_size_is_one_without_work_and_less_with_it(wells):
    x = wells[0].sample(200, generator=seeded(0))
    still = simulate(Identity(), EndpointPath(wells[0], wells[0]), [0.0, 1.0], x, generator=seeded(0))
    assert still.ess == 1.0
    assert still.log_z_ratio == 0.0
    weight = annealed(wells, x).log_weight.exp()
    assert abs(annealed(wells, x).ess - float(weight.sum() ** 2 / weight.square().sum() / 200)) < 1e-12
    assert annealed(wells, x).ess < 0.99


# ---- supports and refusals -----------------------------------------------------------------------------------------


class HalfLine:
    """A standard normal cut at zero: Z is half of the whole."""

    event_shape = torch.Size([1])

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, 0.5 * x[:, 0].square(), torch.inf)


class Constant:
    """U = 0 but for one walker of a batch."""

    event_shape = torch.Size([1])

    def __init__(self, value: float, walker: int) -> None:
        self.value, self.walker = value, walker

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] == self.walker, self.value, 0.0 * x[:, 0])


NORMAL = Gaussian(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("kernel", ["identity", "langevin"])
def test_walkers_that_leave_a_hard_support_keep_infinite_work(kernel):
    path = LinearPath(NORMAL, HalfLine())
    moves, times = (Identity(), [0.0, 1.0]) if kernel == "identity" else (Langevin(PathScore(path), 0.2), TIMES)
    n = 20_000
    run = simulate(moves, path, times, NORMAL.sample(n, generator=seeded(0)), generator=seeded(1))
    outside = run.x[:, 0] <= 0
    assert 0.1 < float(outside.double().mean()) < 0.6
    assert torch.equal(torch.isposinf(run.work), outside)
    weight = run.log_weight.exp()
    error = float(weight.std()) / math.sqrt(n)
    assert error < 0.01
    assert abs(float(weight.mean()) - 0.5) < 4 * error
    # Negative control: dropping those walkers would double the average, or nearly.
    assert abs(float(weight[~outside].mean()) - 0.5) > 8 * error


@pytest.mark.parametrize(("value", "written"), [(math.nan, "nan"), (-math.inf, "-inf")])
def test_an_energy_that_is_no_energy_is_refused_with_its_walker_and_term(value, written):
    path, x = EndpointPath(Constant(0.0, 0), Constant(value, 7)), torch.arange(10.0)[:, None]
    for chunk_size in (None, 3):
        with pytest.raises(InputError, match=f"walker 7 has {written} for the energy of the other state at the end"):
            simulate(Identity(), path, [0.0, 1.0], x, generator=seeded(0), chunk_size=chunk_size)


@pytest.mark.parametrize(("value", "written"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_walker_must_start_inside_its_own_support(value, written):
    path, x = EndpointPath(Constant(value, 3), Constant(0.0, 0)), torch.arange(10.0)[:, None]
    with pytest.raises(InputError, match=f"start inside the support: walker 3 has {written} for the energy of its own"):
        simulate(Identity(), path, [0.0, 1.0], x, generator=seeded(0))


class UpToThree:
    """A standard normal whose energy is NaN beyond 3."""

    event_shape = torch.Size([1])

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * x[:, 0].square() + 0 * (3 - x[:, 0]).sqrt()


def test_a_nan_met_on_the_way_is_refused_with_its_step_and_walker():
    path = LinearPath(UpToThree(), UpToThree())
    kernel = Langevin(PathScore(path, lambda t, x: 8 * (x > 1)), 0.01)
    x = torch.tensor([[0.0], [0.0], [1.5]], dtype=torch.float64)
    with pytest.raises(InputError, match="walker 2 has nan for the log ratio of step 1"):
        simulate(kernel, path, [0.0, 0.5, 1.0], x, generator=seeded(0))


@pytest.mark.parametrize(
    ("times", "received"),
    [
        ([0.0, 0.5, 0.5, 1.0], r"got times\[2\] = 0\.5 after times\[1\] = 0\.5; remove"),
        ([0.0, 0.7, 0.3, 1.0], r"got times\[2\] = 0\.3 after times\[1\] = 0\.7; remove"),
        ([1.0, 0.3, 0.7, 0.0], r"got times\[2\] = 0\.7 after times\[1\] = 0\.3; remove"),
        ([0.0, 1.5], r"got times\[1\] = 1\.5 after times\[0\] = 0\.0; remove"),
        ([-0.1, 1.0], r"got times\[1\] = 1\.0 after times\[0\] = -0\.1; remove"),
        ([0.0, math.nan, 1.0], r"got times\[1\] = nan after times\[0\] = 0\.0; remove"),
        ([0.0, 0.0], r"got times\[1\] = 0\.0 after times\[0\] = 0\.0; remove"),
        ([0.0], "must hold a start and an end: got 1 of them; give"),
    ],
)
def test_unusable_times_are_refused(wells_1d, times, received):
    x = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(InputError, match=received):
        simulate(Identity(), EndpointPath(*wells_1d), times, x, generator=seeded(0))


@pytest.mark.parametrize(("walkers", "chunk_size"), [(0, None), (4, 0), (4, -2)])
def test_a_run_without_walkers_or_with_empty_chunks_is_refused(wells_1d, walkers, chunk_size):
    x = torch.zeros(walkers, 1, dtype=torch.float64)
    with pytest.raises(InputError, match=f"at least one: got {walkers} and {chunk_size}"):
        simulate(Identity(), EndpointPath(*wells_1d), [0.0, 1.0], x, generator=seeded(0), chunk_size=chunk_size)


class ColumnPath(EndpointPath):
    """Energies as a column, which would broadcast against the row of log weights."""

    def energy(self, t: Tensor, x: Tensor) -> Tensor:
        return 0.5 * x.square()


class ColumnKernel(Identity):
    """The same mistake in the log ratio."""

    def step(self, t0, t1, walkers, *, generator):
        return super().step(t0, t1, walkers, generator=generator)[0], torch.zeros_like(walkers.x)


def test_energies_and_log_ratios_that_would_broadcast_are_refused():
    x = torch.zeros(4, 1, dtype=torch.float64)
    with pytest.raises(InputError, match=r"one energy per walker, shape \(4,\): got \(4, 1\); sum over"):
        simulate(Identity(), ColumnPath(NORMAL, NORMAL), [0.0, 1.0], x, generator=seeded(0))
    with pytest.raises(InputError, match=r"one log ratio per walker, shape \(4,\): got \(4, 1\); sum over"):
        simulate(ColumnKernel(), EndpointPath(NORMAL, NORMAL), [0.0, 1.0], x, generator=seeded(0))


def test_works_are_kept_in_double_precision_for_single_precision_walkers(wells):
    x = wells[0].sample(20, generator=seeded(0))
    single = simulate(Identity(), EndpointPath(*wells), [0.0, 1.0], x.float(), generator=seeded(0))
    double = simulate(Identity(), EndpointPath(*wells), [0.0, 1.0], x, generator=seeded(0))
    assert single.x.dtype == torch.float32
    assert single.work.dtype == torch.float64
    torch.testing.assert_close(single.work, double.work, rtol=0, atol=1e-5)
