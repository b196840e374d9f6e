"""Absolute free energies from samples of one state, and differences of two."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import AffineTransform

import nessampler as ns
from nessampler.errors import InputError
from nessampler.methods import difference
from nessampler.methods.effort import Training
from nessampler.methods.ends import generator_for
from nessampler.targets import AnglesAndNormals, AnharmonicWell, Gaussian

WELLS = (
    AnharmonicWell([0.5, -0.2], stiffness=[0.6, 1.5], quartic=[0.3, 0.0], skew=[2.5, -2.0], coupling=1.0),
    AnharmonicWell([-0.4, 0.3], stiffness=[1.6, 1.0], quartic=[0.05, 0.1], skew=[-0.4, 0.5], coupling=-0.4),
)
QUICK = ns.Effort(
    fields_steps=16, feat=Training(steps=80, batch_size=256, width=24, depth=2, sampling_steps=16, learning_rate=1e-2)
)


def _draws(well: AnharmonicWell, n: int, seed: int) -> Tensor:
    return well.sample(n, generator=torch.Generator().manual_seed(seed))


def _z(found: ns.Absolute, exact: float) -> float:
    return (found.log_z - exact) / found.free_energy.std_error


@pytest.mark.parametrize(("method", "cap"), [("plain", 0.08), ("fields", 0.08), ("switching", 0.06)])
def test_log_z_of_a_well_is_found_from_its_samples_alone(method, cap: float):
    well = WELLS[0]
    found = ns.absolute_free_energy(well, _draws(well, 1500, 1), method=method, effort=QUICK)
    assert abs(_z(found, well.log_z)) <= 4
    assert found.free_energy.std_error < cap
    assert abs(_z(found, well.log_z + 0.35)) > 4  # the test would see 0.35 kT
    low, high = found.bounds
    assert low < -well.log_z < high
    assert found.difference.chosen == method


def test_learning_narrows_the_error_of_a_map():
    x, errors = _draws(WELLS[0], 1500, 2), {}
    for method in ("map", "feat"):
        found = ns.absolute_free_energy(WELLS[0], x, method=method, effort=QUICK)
        errors[method] = found.free_energy.std_error
        assert abs(_z(found, WELLS[0].log_z)) <= 4
    assert errors["feat"] < 0.75 * errors["map"]


def test_difference_of_two_states_is_that_of_their_absolute_free_energies():
    a, b = (ns.absolute_free_energy(w, _draws(w, 1200, 3 + i), method="plain") for i, w in enumerate(WELLS))
    found = b - a
    exact = WELLS[0].log_z - WELLS[1].log_z
    assert abs(found.delta_f - exact) <= 4 * found.std_error
    assert found.std_error == pytest.approx(math.hypot(a.free_energy.std_error, b.free_energy.std_error))
    assert found.std_error < 0.1
    assert abs(found.delta_f + exact) > 4 * found.std_error  # a wrong sign fails


def test_two_states_at_one_seed_share_neither_base_draws_nor_noise(monkeypatch):
    seeds: list[int] = []

    def watched(seed: int, purpose: str, *rest: object) -> torch.Generator:
        seeds.extend([seed] * (purpose == "evaluate plain"))
        return generator_for(seed, purpose, *rest)

    monkeypatch.setattr(difference, "generator_for", watched)
    x = _draws(WELLS[1], 400, 5), _draws(WELLS[1], 400, 6)
    first, other, again = (ns.absolute_free_energy(WELLS[1], y, method="plain") for y in (x[0], x[1], x[0]))
    starts = [found.difference.rung.trips[0].start for found in (first, other, again)]
    assert abs(float((starts[0] * starts[1]).mean())) < 4 / math.sqrt(starts[0].numel())  # shared draws make one
    assert float(starts[0].square().mean()) > 0.5
    assert torch.equal(starts[0], starts[2])
    assert seeds[0] != seeds[1]
    assert seeds[0] == seeds[2]


def test_doubts_about_the_samples_of_a_state_are_doubts_about_a_difference():
    x = _draws(WELLS[1], 2000, 5)
    sound = ns.absolute_free_energy(WELLS[1], x, method="plain")
    moved = ns.absolute_free_energy(WELLS[1], x + 0.08, method="plain")
    assert moved.free_energy.trusted  # nothing is wrong with the works
    assert moved.difference.flags
    for found in (sound - moved, moved - sound):
        assert set(moved.difference.flags) <= set(found.flags)
        assert not found.trusted
        assert len(set(found.flags)) == len(found.flags)
    assert (sound - sound).trusted


def test_units_of_a_coordinate_shift_log_z_by_their_logarithm():
    x = _draws(WELLS[1], 600, 6)
    scale = AffineTransform(torch.tensor([1.0, 0.0]).double(), torch.full((2,), 10.0).double(), event_dim=1)

    class Scaled:
        event_shape = torch.Size([2])

        def energy(self, y: Tensor) -> Tensor:
            return WELLS[1].energy(scale.inv(y))

    here = ns.absolute_free_energy(WELLS[1], x, method="plain")
    there = ns.absolute_free_energy(Scaled(), scale(x), method="plain")
    assert there.log_z - here.log_z == pytest.approx(math.log(100), abs=1e-9)
    # A bijection named as coordinates changes nothing but where the base lives.
    moved = ns.absolute_free_energy(WELLS[1], x, method="plain", coordinates=scale)
    assert moved.log_z == pytest.approx(here.log_z, abs=1e-9)


def test_base_sees_the_fit_block_only_and_chains_stay_chains():
    x = _draws(WELLS[1], 600, 7).view(2, 300, 2)
    first = ns.absolute_free_energy(WELLS[1], x, method="plain")
    other = x.clone()
    other[:, -50:] = _draws(WELLS[1], 100, 8).view(2, 50, 2)
    second = ns.absolute_free_energy(WELLS[1], other, method="plain")
    works = first.difference.rung.works, second.difference.rung.works
    assert works[0].forward.shape == (2, 120)
    assert (works[0].forward == works[1].forward).all()  # base and its samples do not depend on evaluate samples
    assert (works[0].reverse[:, :70] == works[1].reverse[:, :70]).all()
    assert (works[0].reverse[:, 70:] != works[1].reverse[:, 70:]).all()


def test_another_base_gives_the_same_answer():
    wide = Gaussian(torch.tensor([-0.3, 0.2]).double(), torch.tensor([1.0, 1.2]).double())
    found = ns.absolute_free_energy(WELLS[1], _draws(WELLS[1], 1000, 9), base=wide, method="plain")
    assert found.base is wide
    assert abs(_z(found, WELLS[1].log_z)) <= 4
    assert found.free_energy.std_error < 0.1


class Turning:
    """Two states of an angle, and a coordinate that follows it; log Z in closed form."""

    event_shape = torch.Size([2])
    log_z = (
        math.log(2 * math.pi)
        + 0.5 * math.log(2 * math.pi * 0.09)
        + float(torch.special.i0(torch.tensor(1.8).double()).log())
    )

    def energy(self, x: Tensor) -> Tensor:
        angle, other = x[:, 0], x[:, 1]
        return -1.8 * torch.cos(2 * angle - 0.5) + 0.5 * ((other - 0.7 * torch.sin(angle) + 2) / 0.3).square()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        tries = torch.rand(20 * n, 2, generator=generator, dtype=torch.float64)
        angle = (2 * math.pi * tries[:, 0] - math.pi)[
            tries[:, 1] < torch.exp(1.8 * torch.cos(4 * math.pi * tries[:, 0] - 2 * math.pi - 0.5) - 1.8)
        ][:n]
        other = 0.7 * torch.sin(angle) - 2 + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
        return torch.stack([angle, other], -1)


class Marked(AffineTransform):
    circular = torch.tensor([True, False])


@pytest.mark.parametrize("method", ["plain", "switching"])
def test_angles_stay_on_the_circle_of_a_base_with_angles(method: str):
    target = Turning()
    x = target.sample(1500, generator=torch.Generator().manual_seed(11))
    found = ns.absolute_free_energy(target, x, coordinates=Marked(0.0, 1.0, event_dim=1), method=method, effort=QUICK)
    assert abs(_z(found, target.log_z)) <= 4
    assert found.free_energy.std_error < 0.05
    assert abs(_z(found, target.log_z + 0.3)) > 4


def test_base_with_angles_is_normalised_and_sampled():
    base = AnglesAndNormals(
        torch.tensor([1.0, 3.0]).double(),
        torch.tensor([[0.3, 3.0], [-2.0, -0.5]]).double(),
        torch.tensor([[0.4, 1.5], [0.2, 0.7]]).double(),
        torch.tensor([True, True]),
    )
    grid = torch.linspace(-math.pi, math.pi, 121, dtype=torch.float64)[:-1]
    pairs = torch.cartesian_prod(grid, grid)
    weight = torch.exp(-base.energy(pairs)) * (2 * math.pi / 120) ** 2
    assert float(weight.sum()) == pytest.approx(math.exp(base.log_z), abs=1e-8)
    x = base.sample(20_000, generator=torch.Generator().manual_seed(12))
    assert bool((x.abs() <= math.pi).all())
    for of in (torch.cos, torch.sin):
        seen, expected = of(x), weight @ of(pairs)
        z = (seen.mean(0) - expected) / (seen.std(0) / math.sqrt(len(x)))
        assert float(z.abs().max()) <= 4
    with pytest.raises(InputError, match=r"scales in \(0, 1.5\] rad"):
        AnglesAndNormals(base.weights, base.means, 2 * base.scales, base.circular)


class Unsampled:
    event_shape = torch.Size([2])

    def energy(self, x: Tensor) -> Tensor:
        return x.square().sum(-1)


def test_bases_and_samples_that_cannot_do_are_refused():
    x = _draws(WELLS[1], 100, 10)
    with pytest.raises(InputError, match="without sample and log_z"):
        ns.absolute_free_energy(WELLS[1], x, base=Unsampled())
    with pytest.raises(InputError, match=r"event shape \(2,\)"):
        ns.absolute_free_energy(WELLS[1], x[:, :1])
