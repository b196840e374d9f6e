"""Parallel tempering: log Z and shares of modes, an error that knows of correlations, honest about stuck copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student_t
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import HMC
from nessampler.kernels.hmc import trajectory
from nessampler.methods.density import tempering as module
from nessampler.methods.density.tempering import Tempered, tempering
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.paths import DifferentiablePath, LinearPath
from nessampler.targets import Gaussian
from nessampler.targets.mixture import GaussianMixture

SHARE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
THREE = GaussianMixture(
    torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]]).double(), torch.tensor([0.7, 1.0, 0.5]).double(), SHARE
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(mean: float, scale: float, d: int) -> Gaussian:
    return Gaussian(torch.full((d,), mean, dtype=torch.float64), torch.full((d,), scale, dtype=torch.float64))


def shares(found: Tempered) -> tuple[Tensor, Tensor]:
    return found.ensemble.expect(lambda x: torch.nn.functional.one_hot(THREE.modes(x).long(), 3).double())


@pytest.fixture(scope="module")
def three() -> Tempered:
    return tempering(LinearPath(gaussian(0, 4, 2), THREE), draws=300, generator=seeded(0))


# ---- the moves -----------------------------------------------------------------------------------------------------


def test_a_trajectory_at_one_time_for_all_is_that_of_the_kernel(wells):
    path = LinearPath(*wells)
    walkers = HMC(path, 0.2, 3).start(0.4, wells[0].sample(20, generator=seeded(0)))
    moved, _ = HMC(path, 0.2, 3).step(0.4, 0.4, walkers, generator=seeded(1))
    t = torch.full((20,), 0.4, dtype=torch.float64)
    x, point, rate = trajectory(
        path, t, walkers.x, walkers.cached, 0.2 * torch.ones(20), 3, Hamiltonian().mass, generator=seeded(1)
    )
    torch.testing.assert_close(x, moved.x)
    torch.testing.assert_close(point.energy, moved.energy)
    torch.testing.assert_close(rate, moved.acceptance)


@pytest.mark.parametrize("parity", [0, 1])
def test_a_swap_leaves_every_replica_with_its_path_at_its_own_time(wells, parity):
    path = LinearPath(*wells)
    found = _ladder(path, (0.0, 0.2, 0.5, 0.8, 1.0), 50)
    before = found.x.clone()
    rates, partner = found.swap(parity)
    assert torch.equal(found.x, before[partner])
    offered = torch.arange(4) % 2 == parity
    assert torch.equal(rates.isfinite(), offered)
    moved = (partner.view(5, 50) != torch.arange(250).view(5, 50)).double().mean(1)
    low = torch.arange(parity, 4, 2)
    torch.testing.assert_close(moved[low], moved[low + 1])
    assert float((moved[low] - rates[low]).abs().max()) < 4 * 0.5 / math.sqrt(50)
    exact = path.evaluate(found._t, found.x)
    torch.testing.assert_close(found.point.energy, exact.energy)
    torch.testing.assert_close(found.point.score, exact.score)


def test_swaps_alone_keep_the_replicas_in_equilibrium(monkeypatch):
    """Exact draws of neighbours, swapped once: each still has its own mean, unless every swap is accepted."""
    ends, n = (gaussian(0, 1, 1), gaussian(1.5, 1, 1)), 20_000
    found = _ladder(LinearPath(*ends), (0.0, 1.0), n)
    exact = torch.cat([end.sample(n, generator=seeded(7 + k)) for k, end in enumerate(ends)])

    def swapped() -> tuple[float, list[float]]:
        found.x, found.point = exact, found.path.evaluate(found._t, exact)
        rates, _ = found.swap(0)
        return float(rates[0]), [float(x) for x in found.x.view(2, -1).mean(1)]

    rate, (low, high) = swapped()
    assert 0.2 < rate < 0.8
    assert float((found.x != exact).double().mean()) == pytest.approx(rate, abs=0.02)
    assert max(abs(low), abs(high - 1.5)) < 4 / math.sqrt(n)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, 1e-300, dtype=torch.float64))
    assert swapped()[1][0] > 1.4


def _ladder(path, times, copies):
    counted = module.CountedPath(path)
    sizes = module.StepSizes((0.0, 1.0), (0.3, 0.3))
    found = module._Ladder(counted, Hamiltonian(), times, sizes, copies, torch.float64, seeded(0))
    found.climb()
    return found


# ---- the answer ----------------------------------------------------------------------------------------------------


def test_log_z_and_shares_of_modes_are_the_exact_ones_within_their_errors(three):
    assert three.std_error < 0.08
    assert abs(three.log_z) < 4 * three.std_error  # normalised
    assert abs(three.log_z - three.base_log_z) > 8 * three.std_error
    found, error = shares(three)
    assert float(error.max()) < 0.08
    assert float(((found - SHARE) / error).abs().max()) < 4
    assert three.x.shape == (2400, 2)
    assert three.flags == ()


def test_the_error_is_that_of_copies_and_its_interval_students(three):
    spread = np.std(three.copies, ddof=1) / math.sqrt(8)
    assert three.std_error == pytest.approx(spread)
    assert three.ci95[1] - three.log_z == pytest.approx(student_t.ppf(0.975, 7) * spread)
    assert abs(np.mean(three.copies) - three.log_z) < three.std_error  # all draws together say the same
    assert three.multistate.std_error is not None
    assert three.multistate.std_error < three.std_error  # as if draws were independent


def test_replicas_are_as_many_as_make_half_of_all_swaps_accepted(three):
    wide = tempering(LinearPath(gaussian(0, 1, 10), gaussian(1, 0.5, 10)), draws=60, generator=seeded(0))
    for found in (three, wide):
        assert 0.3 < min(found.swaps) < 0.6
        assert 0.4 < np.mean(found.swaps) < 0.7
    assert len(wide.times) > len(three.times)
    given = tempering(LinearPath(gaussian(0, 4, 2), THREE), steps=6, draws=20, generator=seeded(0))
    assert len(given.times) == 7
    assert len(given.swaps) == len(given.acceptance) == len(given.step_size) == len(given.inefficiency) == 6


def test_chains_that_swap_cross_between_modes_and_chains_that_do_not_are_flagged(three, monkeypatch):
    assert min(three.round_trips) > 10
    assert three.rhat < 1.1

    def refused(self, parity):
        rows = torch.arange(len(self.x))
        return torch.where(torch.arange(len(self.times) - 1) % 2 == parity, 0.0, torch.nan), rows

    monkeypatch.setattr(module._Ladder, "swap", refused)
    stuck = tempering(LinearPath(gaussian(0, 4, 2), THREE), draws=300, generator=seeded(0))
    assert {flag.code for flag in stuck.flags} == {"few_round_trips", "copies_disagree"}
    assert sum(stuck.round_trips) == 0


def test_round_trips_are_from_the_base_to_the_target_and_back():
    traffic = module._Traffic(3, 1)
    stay, low, high = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2]), torch.tensor([0, 2, 1])
    for partner in (high, low, stay):  # from the target, of unknown origin, to the base: none
        traffic.add(torch.zeros(2), partner)
    assert traffic.round_trips.tolist() == [0]
    for partner in (low, high, stay, high):  # up, and down again to the middle
        traffic.add(torch.zeros(2), partner)
    assert traffic.round_trips.tolist() == [0]
    traffic.add(torch.zeros(2), low)
    assert traffic.round_trips.tolist() == [1]
    traffic.add(torch.zeros(2), stay)
    assert traffic.round_trips.tolist() == [1]


def test_few_draws_are_flagged():
    found = tempering(LinearPath(gaussian(0, 4, 2), THREE), draws=8, generator=seeded(0))
    assert "few_round_trips" in {flag.code for flag in found.flags}
    assert "take more draws" in found.flags[-1].message


# ---- what it costs -------------------------------------------------------------------------------------------------


def test_every_evaluation_is_counted():
    mover, draws = Hamiltonian(4, repeats=2), 16
    found = tempering(
        LinearPath(gaussian(0, 1, 3), gaussian(1, 0.6, 3)), draws=draws, mover=mover, steps=3, generator=seeded(0)
    )
    sweeps, leapfrogs = draws + 4, 4 * 2 * 3  # of three replicas: the base is drawn, and asked once
    assert found.evaluations["sampling"].gradient == 8 * (1 + leapfrogs + sweeps * (1 + leapfrogs))
    assert found.evaluations["sampling"].energy == 0  # all that swaps and MBAR ask is known from both ends' energies
    assert found.evaluations["pilot"].gradient > 0


def test_a_path_without_parts_gives_the_same_and_costs_more():
    start, end = gaussian(0, 1, 2), gaussian(1, 0.5, 2)
    path = DifferentiablePath(
        start, end, lambda t, x: 0.5 * ((x - t[:, None]) / (1 - 0.5 * t[:, None])).square().sum(-1)
    )
    found = tempering(path, draws=100, generator=seeded(0))
    assert found.std_error < 0.1
    assert abs(found.log_z - end.log_z) < 4 * found.std_error
    n = 8 * len(found.times)
    assert found.evaluations["sampling"].energy == 100 * n * len(found.times)
    assert found.evaluations["sampling"].gradient > 125 * n


def test_the_same_seed_gives_the_same_draws():
    path = LinearPath(gaussian(0, 1, 2), gaussian(1, 0.5, 2))
    one, two, other = (tempering(path, draws=10, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(one.x, two.x)
    assert one.log_z == two.log_z != other.log_z


def test_few_energies_are_kept_where_there_are_many(monkeypatch):
    path = LinearPath(gaussian(0, 1, 2), gaussian(1, 0.5, 2))
    every = tempering(path, draws=40, steps=2, generator=seeded(0))
    monkeypatch.setattr(module, "MOST_ENERGIES", 8 * 9 * 10)
    some = tempering(path, draws=40, steps=2, generator=seeded(0))
    assert torch.equal(some.x, every.x)
    assert (every.multistate.n, some.multistate.n) == ((320,) * 3, (80,) * 3)


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_unusable_ladders_are_refused():
    path = LinearPath(gaussian(0, 1, 2), gaussian(1, 0.5, 2))
    for options in ({"copies": 3}, {"draws": 4}):
        with pytest.raises(InputError, match="at least 8 copies of 8 draws: got"):
            tempering(path, generator=seeded(0), **options)
    found = _ladder(path, (0.0, 1.0), 8)
    found.point = found.point._replace(energy=torch.full((16,), torch.inf, dtype=torch.float64))
    with pytest.raises(InputError, match="replicas must be inside the support of their own densities"):
        module._Record(8).add(found, torch.ones(1))


@pytest.mark.slow
def test_intervals_hold_the_exact_log_z_as_often_as_they_say():
    path, held, z = LinearPath(gaussian(0, 4, 2), THREE), 0, []
    for seed in range(100):
        found = tempering(path, draws=60, generator=seeded(seed))
        held += found.ci95[0] < 0 < found.ci95[1]
        z.append(found.log_z / found.std_error)
    assert held >= 88  # of 95 ± 2.2
    assert abs(np.mean(z)) < 4 * 1.18 / 10
    assert 0.8 < np.std(z) < 1.6  # Student's of 7 degrees of freedom: 1.18
