"""Long Hamiltonian chains: averages with an error, an R-hat that sees chains which disagree, gradients counted."""

from __future__ import annotations

import math

import pytest
import torch

from nessampler.errors import InputError
from nessampler.methods.density.hmc_chains import hamiltonian_chains
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.paths import LinearPath
from nessampler.targets import Gaussian
from nessampler.targets.mixture import GaussianMixture


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wide(d: int) -> Gaussian:
    return Gaussian(torch.zeros(d).double(), torch.full((d,), 3.0).double())


def test_averages_are_those_of_the_target_within_their_errors(wells):
    path = LinearPath(wide(3), wells[1])
    found = hamiltonian_chains(path, trajectories=200, generator=seeded(0))
    mean, error = found.ensemble.expect(lambda x: torch.cat([x, x.square()], 1))
    exact = wells[1].sample(400_000, generator=seeded(1))
    exact = torch.cat([exact, exact.square()], 1).mean(0)
    assert float(error.max()) < 0.1
    assert float(((mean - exact) / error).abs().max()) < 4
    start = torch.cat([torch.zeros(3), torch.full((3,), 9.0)])
    assert float(((start - exact) / error).abs().max()) > 8  # draws of the base would not pass
    assert found.rhat < 1.05
    assert 0.65 < found.acceptance < 0.95
    assert found.ensemble.islands == (50,) * 64  # every third of 150
    assert found.effective_draws == pytest.approx(found.ess * 64 * 150)


def test_chains_that_stay_in_their_modes_disagree():
    far = GaussianMixture(torch.tensor([[-8.0, 0.0], [8.0, 0.0]]).double(), torch.ones(2).double())
    found = hamiltonian_chains(LinearPath(wide(2), far), trajectories=100, generator=seeded(0))
    assert found.rhat > 1.5
    assert found.effective_draws < 2 * 64


def test_no_length_of_trajectory_meets_the_period_of_a_gaussian_for_long():
    """At a fixed step the energy of a Gaussian, whose coordinates all have one period, might never be forgotten."""
    d = 20
    path = LinearPath(wide(d), Gaussian(torch.zeros(d).double(), torch.ones(d).double()))
    lengths = [hamiltonian_chains(path, mover=Hamiltonian(n), generator=seeded(0)).ess for n in (4, 6, 9)]
    assert min(lengths) > 0.05


def test_every_gradient_is_counted_and_runs_repeat():
    path = LinearPath(wide(2), Gaussian(torch.zeros(2).double(), torch.ones(2).double()))
    one, two = (
        hamiltonian_chains(path, chains=8, trajectories=50, mover=Hamiltonian(3, repeats=2), generator=seeded(0))
        for _ in range(2)
    )
    assert one.evaluations.gradient == 8 * (1 + 50 * 3 * 2)
    assert one.evaluations.energy == 0
    assert one.trajectories == 50 - math.ceil(50 / 4)
    assert torch.equal(one.ensemble.x, two.ensemble.x)


@pytest.mark.parametrize("options", [{"chains": 1}, {"trajectories": 20}, {"keep": 0}])
def test_too_few_chains_are_refused(options):
    with pytest.raises(InputError, match="at least 2 chains of 40 trajectories"):
        hamiltonian_chains(LinearPath(wide(2), wide(2)), generator=seeded(0), **options)
