"""How `auto` climbs: a few samples first, and no network whose training could not be lost."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.methods import ladder
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import Block, Ends
from nessampler.methods.ladder import PILOTS
from nessampler.methods.ledger import CountedFields, Ledger, Prices
from nessampler.methods.rungs import VECTOR_RUNGS, Structure
from nessampler.methods.stage import Stage
from nessampler.methods.transport import Transport
from nessampler.targets import AnharmonicWell, Tally

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


def test_steps_are_tuned_on_samples_that_no_fit_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    n, seen, error_of = 600, [], Transport.pilot_error

    def pilot_error(transport: Transport, pilot: Block, **options: torch.Generator) -> float:
        seen.append((transport.name, pilot))
        return error_of(transport, pilot, **options)

    monkeypatch.setattr(Transport, "pilot_error", pilot_error)
    climbed(n)
    assert {name for name, _ in seen} == {"fields", "switching"}
    x = A.sample(n, generator=torch.Generator().manual_seed(100))
    place = {tuple(row): k for k, row in enumerate(x.tolist())}
    tuned_on = {place[tuple(row)] for _, block in seen for row in block.flat_a.tolist()}
    assert min(tuned_on) >= 0.4 * n  # of the select block, which follows the fit block
    assert max(tuned_on) < 0.6 * n


@pytest.mark.parametrize(("price", "tried"), [(1.0, False), (1e-6, True)])
def test_a_network_is_trained_where_its_training_is_a_small_part_of_the_price(
    price: float, tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "PATIENCE", 100)
    learning = replace(EFFORT, feat=Training(steps=20, batch_size=64, width=8, depth=1, sampling_steps=6))
    found = climbed(600, replace(learning, prices=Prices(network=price)))
    assert ("feat" in {rung.name for rung in found.rungs}) == tried


class Box:
    """Uniform in a square of side l: no force anywhere, log Z = 2 log l."""

    event_shape = torch.Size([2])

    def __init__(self, side: float) -> None:
        self.side = side

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(((x > 0) & (x < self.side)).all(-1), 0.0 * x[:, 0], torch.inf)

    def sample(self, n: int) -> Tensor:
        return self.side * torch.rand(
            n, 2, generator=torch.Generator().manual_seed(int(self.side)), dtype=torch.float64
        )


def in_boxes(method: str, said: list[str], n: int = 1000) -> Difference:
    return free_energy(Box(1.0), Box(3.0), Box(1.0).sample(n), Box(3.0).sample(n), method=method, say=said.append)  # pyright: ignore


@pytest.mark.parametrize("n", [300, 1000])  # without scouts, and with them
def test_a_rung_that_fails_is_passed_over_where_the_rungs_below_give_an_answer(n: int) -> None:
    said: list[str] = []
    found = in_boxes("auto", said, n)
    assert any(line.startswith("switching is passed over: ") and "scores that are zero" in line for line in said)
    assert "switching" not in {rung.name for rung in found.rungs}
    assert found.delta_f.delta_f == pytest.approx(-2 * torch.tensor(3.0).log().item(), abs=0.2)


def test_a_rung_that_fails_is_an_error_where_it_was_asked_for() -> None:
    with pytest.raises(InputError, match=r"zero at all of .* along coordinates \[0, 1\]; use method='map'"):
        in_boxes("switching", [])


def fails(stage: Stage):
    """A candidate that works, and after an evaluation of A another that cannot be made."""
    yield next(iter(VECTOR_RUNGS["map"](stage)))
    with stage.ledger.charge("map", "training"):
        stage.ends.a.energy(stage.fit.flat_a)
        raise InputError("this map cannot be made")


def test_what_a_rung_has_made_before_it_fails_is_kept() -> None:
    said: list[str] = []
    x = [end.sample(300, generator=torch.Generator().manual_seed(k)) for k, end in enumerate((A, B))]
    found = free_energy(A, B, *x, structure=Structure({"map": fails}), say=said.append)
    assert found.chosen == "map"
    assert "map is passed over: this map cannot be made" in said
    # the fit block, the pilot's 60 of either direction, and the evaluate block
    assert found.rung.evaluations["state_a"]["training"]["energy"] >= 120 + 120


def test_nothing_stands_on_a_map_that_failed() -> None:
    def none(stage: Stage):
        raise InputError("no map")

    x = [end.sample(300, generator=torch.Generator().manual_seed(k)) for k, end in enumerate((A, B))]
    found = free_energy(A, B, *x, structure=Structure({**VECTOR_RUNGS, "map": none}))
    assert [rung.name for rung in found.rungs] == ["plain"]
    apart = [x[0], x[1] + 40.0]
    far = AnharmonicWell([41.2, 39.5], stiffness=[2.0, 0.8], quartic=[0.1, 0.4], skew=[-0.3, 0.3], coupling=-0.4)
    with pytest.raises(InputError, match="no map"):  # where plain has no answer, nothing is passed over
        free_energy(A, far, *apart, structure=Structure({**VECTOR_RUNGS, "map": none}))


def test_singular_equations_are_an_error_that_names_them() -> None:
    def singular(stage: Stage):
        torch.linalg.cholesky(torch.zeros(2, 2))
        yield from VECTOR_RUNGS["map"](stage)

    x = [end.sample(300, generator=torch.Generator().manual_seed(k)) for k, end in enumerate((A, B))]
    with pytest.raises(InputError, match=r"must not be singular: .*cholesky.*use another method"):
        free_energy(A, B, *x, method="map", structure=Structure({"map": singular}))
    assert free_energy(A, B, *x, structure=Structure({"map": singular})).chosen == "plain"


def test_a_rung_that_fails_is_billed() -> None:
    ends = Ends.of(A, B, None)
    ledger = Ledger(ends.counted, (Tally(), Tally()))
    fields = CountedFields(lambda t, x: None)  # pyright: ignore

    def spend() -> None:
        with ledger.charge("switching", "training", fields):
            ends.a.energy(torch.zeros(500, 2, dtype=torch.float64))
            fields(torch.zeros(7), torch.zeros(7, 2))
            raise InputError("after it has spent something")

    with pytest.raises(InputError, match="spent something"):
        spend()
    spent = ledger.evaluations("switching")
    assert spent["state_a"]["training"] == {"energy": 500, "gradient": 0}
    assert spent["networks"]["training"] == 7
    assert ledger.seconds("switching", "training") > 0
