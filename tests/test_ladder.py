"""How `auto` climbs: a few samples first, and no network whose training could not be lost."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from nessampler.methods import ladder
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ladder import PILOTS
from nessampler.methods.ledger import Prices
from nessampler.targets import AnharmonicWell

A = AnharmonicWell([0.0, 0.0], stiffness=[1.0, 1.5], quartic=[0.3, 0.1], skew=[0.4, 0.0], coupling=0.3)
B = AnharmonicWell([1.2, -0.5], stiffness=[2.0, 0.8], quartic=[0.1, 0.4], skew=[-0.3, 0.3], coupling=-0.4)
EFFORT = Effort(fields_steps=12, switching_steps=6, tuning_samples=60, feat=Training(steps=0))


@functools.cache
def with_scouts() -> Difference:
    return climbed(8_000)


def climbed(n: int, effort: Effort = EFFORT, seed: int = 0) -> Difference:
    generator = torch.Generator().manual_seed(100 + seed)
    x = [end.sample(n, generator=generator) for end in (A, B)]
    spent = (10 * n, 10 * n)  # as chains of ten moves a sample would
    return free_energy(A, B, *x, method="auto", seed=seed, effort=effort, endstate_evaluations=spent)


def test_rungs_that_are_not_reported_take_less_than_a_tenth_of_a_large_run() -> None:
    found = with_scouts()
    assert {rung.name for rung in found.rungs} == {"plain", "map", "fields", "switching"}
    assert 0 < found.pilot_share < 0.1
    error, value = found.delta_f.std_error, found.delta_f.delta_f
    assert error is not None
    assert value is not None
    assert error < 0.005
    assert abs(value - (A.log_z - B.log_z)) < 4 * error
    looked_at = [rung for rung in found.rungs if rung.pilot.share < 1]
    assert {rung.name for rung in looked_at} == {"fields", "switching"}
    assert all(len(rung.pilot.works.forward) <= 2 * PILOTS for rung in looked_at)
    assert all("pilot of" in rung.note for rung in looked_at if rung.name != found.chosen)


def test_without_scouts_they_take_twice_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    few = with_scouts()
    monkeypatch.setattr(ladder, "SCOUTS", 10**6)
    found = climbed(8_000)
    assert found.chosen == few.chosen
    assert found.pilot_share > 2 * few.pilot_share
    assert all(rung.pilot.share == 1 for rung in found.rungs)


def test_few_samples_are_all_looked_at() -> None:
    found = climbed(400)
    assert all(rung.pilot.share == 1 for rung in found.rungs)


@pytest.mark.parametrize(("price", "tried"), [(1.0, False), (1e-6, True)])
def test_a_network_is_trained_where_its_training_is_a_small_part_of_the_price(
    price: float, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "PATIENCE", 100)
    learning = replace(EFFORT, feat=Training(steps=20, batch_size=64, width=8, depth=1, sampling_steps=6))
    found = climbed(600, replace(learning, prices=Prices(network=price)))
    assert ("feat" in {rung.name for rung in found.rungs}) == tried
