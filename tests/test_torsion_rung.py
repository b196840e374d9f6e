"""The rungs that move angles, on densities whose norms are known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.special import i0
from torch import Tensor
from torch.distributions.transforms import AffineTransform

from nessampler.closed_form.affine import fit_map
from nessampler.closed_form.wrapped_mixture import WrappedMixture
from nessampler.estimators import bar
from nessampler.methods.difference import free_energy
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import Block, Ends, generator_for
from nessampler.methods.feat import feat_rung
from nessampler.methods.ledger import Ledger
from nessampler.methods.maps import mapped
from nessampler.methods.one_sided import _Marked
from nessampler.methods.stage import Stage
from nessampler.methods.torsion_fields import learned_torsions, torsion_fields
from nessampler.methods.transport import Transport
from nessampler.methods.trip import shared_ends
from nessampler.targets import Counted, Tally

CIRCULAR = torch.tensor([False, False, True, True, True])


class Rotors:
    """Three angles in a mixture, and two Gaussian coordinates whose means follow them."""

    event_shape = torch.Size([5])

    def __init__(self, seed: int, width: float) -> None:
        g = torch.Generator().manual_seed(seed)
        draw = {"generator": g, "dtype": torch.float64}
        share = torch.tensor([0.6, 0.4], dtype=torch.float64)
        self.mixture = WrappedMixture(
            share, 2 * math.pi * torch.rand(2, 3, **draw) - math.pi, (0.2 + 0.3 * torch.rand(2, 3, **draw)).square()
        )
        self.waves, self.width = torch.randn(7, 2, **draw), torch.tensor([0.3, width], dtype=torch.float64)
        self.log_z = float((self.width * math.sqrt(2 * math.pi)).log().sum())

    def energy(self, x: Tensor) -> Tensor:
        deviation = (x[:, :2] - self._mean(x[:, 2:])) / self.width
        return 0.5 * deviation.square().sum(1) - self.mixture.log_density(x[:, 2:])

    def sample(self, n: int, g: torch.Generator) -> Tensor:
        label = (torch.rand(n, generator=g) > 0.6).long()
        noise = torch.randn(n, 5, generator=g, dtype=torch.float64)
        angle = self.mixture.means[label] + self.mixture.variances[label].sqrt() * noise[:, :3]
        angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        return torch.cat([self._mean(angle) + self.width * noise[:, 3:], angle], 1)

    def _mean(self, angle: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(angle[:, :1]), angle.cos(), angle.sin()], 1) @ self.waves


@pytest.fixture(scope="module")
def stage() -> Stage:
    a, b = (Counted(Rotors(seed, width)) for seed, width in ((1, 0.5), (2, 0.8)))
    g = torch.Generator().manual_seed(0)
    fit, select = (Block(a.target.sample(n, g)[None], b.target.sample(n, g)[None], False) for n in (500, 150))  # pyright: ignore
    effort = Effort(fields_steps=20, tuning_samples=60, feat=Training(steps=30, sampling_steps=20, width=16, depth=1))
    return Stage(Ends(a, b, CIRCULAR, (a, b)), fit, select, effort, Ledger((a, b), (Tally(), Tally())))


@pytest.mark.parametrize("rung", [torsion_fields, learned_torsions])
def test_angles_that_move_give_the_known_difference(stage: Stage, rung) -> None:
    hard = fit_map(stage.fit.flat_a, stage.fit.flat_b, CIRCULAR, scale="full", shrink=1.0, conditional=True)
    ((transport, counted),) = rung(stage, hard)
    a, b = (c.target for c in stage.ends.counted)
    g = torch.Generator().manual_seed(7)
    fresh = Block(a.sample(1500, g)[None], b.sample(1500, g)[None], False)  # pyright: ignore
    found = bar(*transport.works(fresh, generator=generator_for(0, "evaluate")))
    exact = a.log_z - b.log_z  # pyright: ignore
    assert found.std_error is not None
    assert found.std_error < 0.02
    assert abs(found.delta_f - exact) < 4 * found.std_error  # pyright: ignore
    assert abs(found.delta_f - exact - 0.1) > 4 * found.std_error  # pyright: ignore
    assert counted is not None
    assert counted.evaluations > 3000 * 20


def test_nothing_is_tried_without_angles(stage: Stage) -> None:
    hard = fit_map(stage.fit.flat_a, stage.fit.flat_b, CIRCULAR, conditional=True)
    ends = Ends(stage.ends.a, stage.ends.b, torch.zeros(5, dtype=torch.bool), stage.ends.counted)
    assert list(torsion_fields(replace(stage, ends=ends), hard)) == []


class Bent:
    """An angle about a centre, and a length that follows its cosine."""

    event_shape = torch.Size([2])

    def __init__(self, centre: float, concentration: float) -> None:
        self.centre, self.concentration = centre, concentration

    def energy(self, x: Tensor) -> Tensor:
        bending = -self.concentration * torch.cos(x[:, 0] - self.centre)
        return bending + 2 * (x[:, 1] - torch.cos(x[:, 0])).square()

    def sample(self, n: int, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        angle = rng.vonmises(self.centre, self.concentration, n)
        return torch.from_numpy(np.stack([angle, np.cos(angle) + 0.5 * rng.normal(size=n)], 1))


@pytest.mark.parametrize("centres", [(0.0, 1.0), (2.3, -2.6)])
def test_walkers_that_cross_pi_are_not_held_against_samples_that_do_not(centres: tuple[float, float]) -> None:
    a, b = Bent(centres[0], 4.0), Bent(centres[1], 6.0)
    x_a, x_b, angle = a.sample(900, 0), b.sample(900, 5), _Marked(torch.tensor([True, False]))
    found = free_energy(
        a,
        b,
        x_a,
        x_b,
        method="fields",
        coordinates=angle,
        effort=Effort(fields_steps=20),
    )
    assert found.rung.trips is not None
    assert (found.rung.trips[0].end[:, 0].abs().max() > 3.5) == (centres[1] < 0)
    assert found.delta_f.delta_f == pytest.approx(math.log(i0(4) / i0(6)), abs=4 * (found.delta_f.std_error or 0.0))
    assert found.delta_f.std_error is not None
    assert found.delta_f.std_error < 0.02
    assert found.flags == ()
    as_numbers = shared_ends(*found.rung.trips, torch.zeros(2, dtype=torch.bool))
    assert ("overlap_disagrees" in {flag.code for flag in as_numbers}) == (centres[1] < 0)


@pytest.mark.parametrize(("rung", "name"), [(torsion_fields, "fields"), (learned_torsions, "feat")])
def test_samples_too_few_for_angles_are_named(stage: Stage, rung, name: str) -> None:
    said: list[str] = []
    few = replace(stage, fit=Block(stage.fit.a[:, :30], stage.fit.b, False), say=said.append)
    hard = fit_map(stage.fit.flat_a, stage.fit.flat_b, CIRCULAR, conditional=True)
    assert list(rung(few, hard)) == []
    assert len(said) == 1
    assert said[0].startswith(f"{name}: no fields of torsions; ")
    assert "40 samples of each end in the block that fits: got 30" in said[0]
    said.clear()
    assert list(rung(few, AffineTransform(0.0, 2.0))) == []  # which hard coordinates no samples would make follow
    assert said == []
    untrained = replace(stage.effort, feat=Training(steps=0))
    assert rung is torsion_fields or list(rung(replace(few, effort=untrained), hard)) == []
    assert said == []


def test_an_informed_network_that_circular_coordinates_rule_out_is_named(stage: Stage) -> None:
    hard = fit_map(stage.fit.flat_a, stage.fit.flat_b, CIRCULAR, conditional=True)
    for informed in (True, False):
        said: list[str] = []
        effort = replace(stage.effort, feat=replace(stage.effort.feat, steps=2, informed=informed))
        asked = replace(stage, effort=effort, say=said.append, below={"map": _Below(mapped(stage.ends, "hard", hard))})  # pyright: ignore
        assert len(list(feat_rung(asked))) == 1
        assert ["informed=True is without effect" in line and "3 of 5" in line for line in said] == [True] * informed


class _Below(NamedTuple):
    """What a stage asks of the pilot of a map."""

    transport: Transport
