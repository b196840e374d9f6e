"""Bases fitted to annealed walkers: they find the target's shape, all of its modes, and change no answer."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from nessampler.closed_form.density_fits import FAMILIES
from nessampler.errors import InputError
from nessampler.kernels import HMC, DiagonalMass
from nessampler.methods.density.bases import Base, Round, _best, _Trial, learned_base, local_mass
from nessampler.paths import LinearPath
from nessampler.simulate import simulate
from nessampler.targets import Gaussian
from nessampler.targets.funnel import Funnel
from nessampler.targets.many_well import ManyWell
from nessampler.targets.mixture import GaussianMixture, random_mixture
from nessampler.targets.phi4 import Phi4
from nessampler.targets.product_mixture import ProductMixture
from nessampler.targets.student import student_mixture_50


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wide(d: int, scale: float) -> Gaussian:
    return Gaussian(torch.zeros(d, dtype=torch.float64), torch.full((d,), scale, dtype=torch.float64))


def cheap(*names: str) -> dict:
    return {name: FAMILIES[name] for name in names}


@pytest.fixture(scope="module")
def wells() -> Base:
    families = cheap("normal", "product mixture")
    return learned_base(ManyWell(2), wide(4, 2.0), pilots=1024, rounds=1, families=families, generator=seeded(0))


def test_the_base_of_wells_is_a_product_that_is_close(wells):
    assert wells.learned is not None
    last = wells.learned.rounds[wells.learned.chosen]
    assert isinstance(wells.target, ProductMixture)
    assert last.family == "product mixture"
    assert last.held_out["product mixture"] > last.held_out["normal"] + 0.5
    assert last.ess > 0.9
    assert last.std_error < 0.02
    assert abs(last.log_z - ManyWell(2).log_z) < 4 * last.std_error


def test_weights_through_a_learned_base_are_unbiased(wells):
    target, n = ManyWell(2), 4000
    path = LinearPath(wells.target, target)
    x = wells.target.sample(n, generator=seeded(1))
    ensemble = simulate(HMC(path, 0.5, 3, wells.mass), path, [0.0, 0.5, 1.0], x, generator=seeded(2))
    ratio = torch.exp(ensemble.log_weight - target.log_z)
    error = float(ratio.std() / math.sqrt(n))
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1) < 4 * error
    # The same walkers weighted as if they came from a base whose scales were another's.
    wrong = torch.exp(ensemble.log_weight - target.log_z + 4 * math.log(1.05))
    assert abs(float(wrong.mean()) - 1) > 4 * float(wrong.std() / math.sqrt(n))


def test_evaluations_are_counted(wells):
    assert wells.learned is not None
    assert wells.learned.evaluations.gradient > 1024 * 10


def test_the_same_generator_gives_the_same_base():
    families = cheap("normal")
    one, other = (
        learned_base(Funnel(2, 1.0), wide(2, 2.0), pilots=512, rounds=0, families=families, generator=seeded(3))
        for _ in range(2)
    )
    x = torch.ones(1, 2, dtype=torch.float64)
    assert torch.equal(one.target.energy(x), other.target.energy(x))


def test_modes_that_resampling_loses_are_found():
    """Uneven modes in 20 dimensions: one attracts an annealed walker in a hundred, and no particle."""
    target = random_mixture(4, 20, scale=1.0, spread=6.0, seed=3)
    families = cheap("normal", "Gaussian mixture")
    base = learned_base(target, wide(20, 4.0), pilots=512, rounds=1, families=families, generator=seeded(4))
    assert isinstance(base.target, GaussianMixture)
    distance = torch.cdist(target.means, base.target.means)
    assert float(distance.min(1).values.max()) < 2.0
    share = torch.zeros(4, dtype=torch.float64).index_add_(0, distance.argmin(0), base.target.weights)
    assert float((share - 0.25).abs().max()) < 0.1


@pytest.mark.parametrize("seed", [1, 2])
def test_modes_that_particles_lose_later_are_remembered(seed):
    """Ten heavy-tailed modes: scouts know all of them, the particles of a later round a few."""
    target = student_mixture_50()
    families = cheap("Student mixture")
    base = learned_base(target, wide(50, 8.0), pilots=512, families=families, generator=seeded(seed))
    draws = base.target.sample(4000, generator=seeded(0))  # pyright: ignore[reportAttributeAccessIssue]
    share = torch.bincount(torch.cdist(draws, target.means).argmin(1), minlength=10) / len(draws)
    assert float(share.min()) > 0.02  # of a tenth; one that was lost has less than a thousandth


def test_a_base_that_lacks_a_mode_is_not_chosen_for_its_ess():
    def tried(ess: float, log_z: float) -> Round:
        return Round("normal", {}, 1.0, 0.0, ess, log_z, 0.01)

    assert _best([tried(0.99, -1.0), tried(0.7, 0.0)]) == 1
    assert _best([tried(0.99, 0.02), tried(0.7, 0.0)]) == 0
    assert _best([replace(tried(0.99, 0.02), lacking=0.05), tried(0.7, 0.0)]) == 1  # too few walkers for log Z to tell


def test_the_mass_is_of_modes_and_not_of_what_lies_between():
    mixture = GaussianMixture(torch.tensor([[-20.0, 0.0], [20.0, 0.0]]).double(), torch.tensor([0.5, 0.5]).double())
    mass = local_mass(mixture, generator=seeded(5))
    assert isinstance(mass, DiagonalMass)
    torch.testing.assert_close(mass.variance, torch.full((2,), 0.25).double(), rtol=0.1, atol=0)


def test_a_path_may_stand_for_its_ends():
    path = LinearPath(wide(2, 2.0), Funnel(2, 1.0))
    base = learned_base(path, pilots=512, rounds=0, families=cheap("normal"), generator=seeded(6))
    assert base.target.event_shape == torch.Size([2])
    assert base.learned is not None
    assert base.learned.evaluations.gradient > 0


def test_lattices_and_too_few_pilots_are_refused():
    with pytest.raises(InputError, match="vectors"):
        learned_base(Phi4(4, quartic=0.5), generator=seeded(7))
    with pytest.raises(InputError, match="pilots"):
        learned_base(Funnel(2), wide(2, 1.0), pilots=100, generator=seeded(7))


def test_a_trial_without_any_weight_says_nothing_about_another_base():
    lost = SimpleNamespace(log_weight=torch.full((3,), -math.inf), x=torch.zeros(3, 1))
    found = SimpleNamespace(log_weight=torch.tensor([0.0, 0.0, -math.inf]), x=torch.tensor([[1.0], [-1.0], [1.0]]))
    masses = [_Trial(None, drawn).mass_where(lambda x: x[:, 0] > 0) for drawn in (None, lost, found)]  # pyright: ignore[reportArgumentType]
    assert masses == [0.0, 0.0, 0.5]
