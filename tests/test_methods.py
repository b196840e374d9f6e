"""The ladder: blocks that never mix, a choice that evaluation samples cannot sway, and every evaluation on the bill."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nessampler as ns
from nessampler.errors import InputError
from nessampler.estimators import Flag, FreeEnergy, bar
from nessampler.fields import Evaluated
from nessampler.kernels import Langevin, Walkers
from nessampler.methods import difference
from nessampler.methods.effort import Training
from nessampler.methods.ends import Block, split_by_time
from nessampler.methods.ladder import RUNGS, Method
from nessampler.methods.ledger import Prices
from nessampler.methods.rungs import VECTOR_RUNGS, Structure
from nessampler.methods.verdict import judge
from nessampler.networks.mlp import ResidualFields
from nessampler.targets import AnharmonicWell, Gaussian

Wells = tuple[AnharmonicWell, AnharmonicWell]
LITTLE = ns.Effort(
    switching_steps=3, tuning_samples=60, feat=Training(steps=30, batch_size=64, width=16, depth=2, sampling_steps=6)
)


def draws(wells: Wells, n: int = 600, m: int = 600, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return wells[0].sample(n, generator=generator), wells[1].sample(m, generator=generator)


def climbed(wells: Wells, method: Method = "auto", effort: ns.Effort = LITTLE, **options: Any) -> ns.Difference:
    return ns.free_energy(*wells, *draws(wells), method=method, effort=effort, **options)


@pytest.fixture(scope="module")
def auto(wells: Wells) -> ns.Difference:
    return climbed(wells)


# --- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fractions", [(0.4, 0.2, 0.4), (0.1, 0.3, 0.6), (1 / 3, 1 / 3, 1 / 3)])
@pytest.mark.parametrize("lengths", [(100, 37), (61, 200)])
def test_blocks_are_consecutive_and_share_no_sample(
    fractions: tuple[float, float, float], lengths: tuple[int, int]
) -> None:
    chains = 3
    samples = [1000 * torch.arange(chains)[:, None] + torch.arange(n) for n in lengths]
    blocks = split_by_time(samples[0], samples[1], fractions, correlated=True)
    for whole, pieces in zip(samples, ([b.a for b in blocks], [b.b for b in blocks]), strict=True):
        assert torch.equal(torch.cat(pieces, 1), whole)  # each once, in time order, in every chain
        for piece, fraction in zip(pieces, fractions, strict=True):
            assert abs(piece.shape[1] - fraction * whole.shape[1]) <= 1
    assert [len(b) for b in blocks] == [b.a.numel() + b.b.numel() for b in blocks]


def test_the_last_quarter_of_every_chain_is_late_where_samples_are_correlated() -> None:
    x = 1000 * torch.arange(3)[:, None, None] + torch.arange(10).view(1, 10, 1)
    late, single = Block(x, x[:, :1], True).late
    assert late is not None
    assert Block(x, x, True).flat_a[late].flatten().tolist() == [8, 9, 1008, 1009, 2008, 2009]
    assert single is None  # single draws of many chains are independent
    assert Block(x, x, False).late == (None, None)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (0.5, 0.5, 0.0), (0.5, 0.5), (1.2, -0.4, 0.2)])
def test_fractions_that_are_none_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="three positive fractions"):
        split_by_time(torch.zeros(1, 100), torch.zeros(1, 100), fractions, correlated=False)


def test_a_block_of_a_few_samples_is_refused_by_name() -> None:
    split_by_time(torch.zeros(1, 100), torch.zeros(1, 50), (0.4, 0.2, 0.4), correlated=False)
    with pytest.raises(InputError, match="the select block of B has 9 of 45"):
        split_by_time(torch.zeros(1, 100), torch.zeros(1, 45), (0.4, 0.2, 0.4), correlated=False)


def test_thinned_samples_are_evenly_spaced() -> None:
    block = Block(torch.arange(200).view(2, 100), torch.arange(30).view(2, 15), correlated=True).thinned(40)
    assert block.a.tolist() == [list(range(0, 100, 5)), list(range(100, 200, 5))]
    assert block.b.shape == (2, 15)


# --- the choice --------------------------------------------------------------------------------------------------


def spoil(which: int) -> Callable[..., tuple[Block, ...]]:
    """The split, with samples in one block that were not there."""

    def split(*arguments: Any) -> tuple[Block, ...]:
        blocks = list(split_by_time(*arguments))
        blocks[which] = replace(blocks[which], a=0.9 * blocks[which].a.flip(1), b=blocks[which].b + 0.1)
        return tuple(blocks)

    return split


def test_no_choice_looks_at_the_evaluation_samples(
    wells: Wells, auto: ns.Difference, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = auto
    monkeypatch.setattr(difference, "split_by_time", spoil(2))
    poisoned = climbed(wells)
    assert poisoned.chosen == honest.chosen
    assert [r.description for r in poisoned.rungs] == [r.description for r in honest.rungs]
    assert poisoned.state.keys() == honest.state.keys()
    assert all(torch.equal(poisoned.state[k], honest.state[k]) for k in honest.state)
    for one, other in zip(poisoned.rungs, honest.rungs, strict=True):
        assert all(np.array_equal(*both) for both in zip(one.pilot.works, other.pilot.works, strict=True))
    assert poisoned.metrics == honest.metrics
    assert poisoned.delta_f.delta_f != honest.delta_f.delta_f  # the poison was there


def test_the_choice_does_look_at_the_other_blocks(wells: Wells, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = climbed(wells, "map")
    monkeypatch.setattr(difference, "split_by_time", spoil(0))
    fitted = climbed(wells, "map")
    assert not torch.equal(fitted.state["map.mean_in"], honest.state["map.mean_in"])
    monkeypatch.setattr(difference, "split_by_time", spoil(1))
    selected = climbed(wells, "map")
    assert not np.array_equal(selected.rungs[0].pilot.works.forward, honest.rungs[0].pilot.works.forward)


def test_identical_states_need_no_transport(wells: Wells) -> None:
    twins = (wells[0], wells[0])
    result = climbed(twins)
    assert result.chosen == "plain"
    assert result.delta_f.delta_f == pytest.approx(0, abs=1e-12)
    assert result.verdict.level == "trusted"
    assert "Plain BAR is already good here (overlap 1.00" in result.verdict.text
    assert "no transport is needed" in result.verdict.text
    assert not any("no overlap" in r.note for r in result.rungs)


def test_states_that_are_close_get_plain_bar_and_are_told_so(wells: Wells) -> None:
    near = AnharmonicWell(
        [0.12, -0.2, 0.3], stiffness=[1.0, 1.5, 0.8], quartic=[0.1, 0.0, 0.05], skew=[0.5, -0.3, 0.4], coupling=0.3
    )
    result = climbed((wells[0], near), method="plain")
    assert result.verdict.level == "trusted"
    assert "already good" in result.verdict.text


def test_states_apart_get_a_transport_that_pays(wells: Wells) -> None:
    a, b = wells
    far = AnharmonicWell(
        (b.center + 2).tolist(), stiffness=b.stiffness.tolist(), quartic=b.quartic.tolist(), skew=b.skew.tolist(),
        coupling=b.coupling,
    )  # fmt: skip
    result = climbed((a, far))
    assert result.chosen != "plain"
    plain, error = result.estimators["plain_bar"].std_error, result.delta_f.std_error
    assert error is not None
    assert plain is None or error < plain / 2
    assert "already good" not in result.verdict.text


def test_every_method_reports_the_rungs_below_it(wells: Wells) -> None:
    for method, names in {"plain": ["plain"], "map": ["plain", "map"], "feat": ["plain", "map", "feat"]}.items():
        result = climbed(wells, method)
        assert [r.name for r in result.rungs] == names
        assert (result.chosen, result.method) == (method, method)
        assert all(r.block == ("all" if method == "plain" else "evaluate") for r in result.rungs)


def test_a_map_must_beat_bar_of_all_samples(wells: Wells) -> None:
    """Of 40 % of the samples a map has to have less than 0.4 of plain's variance, cost and margin aside."""
    plain, mapped = (rung.pilot for rung in climbed(wells, "map").rungs)
    assert (plain.reach, mapped.reach) == (pytest.approx(2.5, rel=0.02), 1.0)
    error = plain.estimate.std_error
    assert error is not None
    assert plain.merit == pytest.approx(error**2 / plain.reach * plain.cost)
    assert plain.promise == pytest.approx(error**2 / plain.reach * plain.carrying)


def test_annealing_fits_nothing_and_tries_two_lengths(wells: Wells) -> None:
    said: list[str] = []
    result = climbed(wells, "annealed", say=said.append)
    exact = wells[0].log_z - wells[1].log_z
    estimate = result.delta_f
    assert [r.name for r in result.rungs] == ["plain", "annealed"]  # no map below it
    assert estimate.delta_f is not None
    assert estimate.std_error is not None
    assert abs(estimate.delta_f - exact) < 4 * estimate.std_error < 0.6
    lengths = {line.split("annealed (")[1].split()[0] for line in said if line.startswith("annealed (")}
    assert lengths == {"3", "12"}  # of LITTLE, and four times as many
    assert any(name.startswith("annealed.") for name in result.state)


def test_plain_asked_for_by_name_is_bar_of_all_samples(wells: Wells) -> None:
    """What pays for samples that nothing was fitted on would be a poor baseline."""
    x_a, x_b = (w.sample(500, generator=torch.Generator().manual_seed(3)) for w in wells)
    whole = ns.free_energy(*wells, x_a, x_b, method="plain").delta_f
    a, b = wells
    by_hand = bar((b.energy(x_a) - a.energy(x_a)).numpy(), (a.energy(x_b) - b.energy(x_b)).numpy())
    assert whole.n == (500, 500)
    assert whole.delta_f == pytest.approx(by_hand.delta_f, abs=1e-10)
    part = ns.free_energy(*wells, x_a, x_b, method="map").estimators["plain_bar"]
    assert part.n == (200, 200)  # beside a map, on the frames that it carries
    assert whole.std_error is not None
    assert part.std_error is not None
    assert whole.std_error < 0.8 * part.std_error


def test_auto_reports_every_rung_and_climbs_only_the_chosen(auto: ns.Difference) -> None:
    names = [r.name for r in auto.rungs]
    assert names == list(RUNGS[: len(names)])
    for rung in auto.rungs:
        whole = "all" if auto.chosen == "plain" == rung.name else "evaluate"
        assert rung.block == (whole if rung.name in ("plain", "map", auto.chosen) else "select")


def test_auto_stops_where_works_have_no_variance(wells: Wells) -> None:
    twins = climbed((wells[0], wells[0]))
    assert [r.name for r in twins.rungs] == ["plain", "map"]


def test_auto_stops_after_two_rungs_that_do_not_pay(wells: Wells) -> None:
    softer = AnharmonicWell(
        [0.1, -0.2, 0.3], stiffness=[1.1, 1.5, 0.8], quartic=[0.1, 0.0, 0.05], skew=[0.5, -0.3, 0.4], coupling=0.3
    )
    near = climbed((wells[0], softer))
    assert [r.name for r in near.rungs] == ["plain", "map", "fields"]
    assert near.chosen == "plain"


def test_a_method_without_a_rung_is_refused(wells: Wells) -> None:
    with pytest.raises(InputError, match="fields has nothing to offer"):
        climbed(wells, "fields", structure=Structure({"map": VECTOR_RUNGS["map"]}))


# --- the bill ----------------------------------------------------------------------------------------------------


class Metered:
    """A target that counts on its own."""

    def __init__(self, target: AnharmonicWell) -> None:
        self.target, self.event_shape = target, target.event_shape
        self.energies = self.gradients = 0

    def energy(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            self.gradients += len(x)
        else:
            self.energies += len(x)
        return self.target.energy(x)


def test_every_evaluation_is_on_the_bill(wells: Wells, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = 0
    forward = ResidualFields.forward

    def counted(self: ResidualFields, t: Tensor, x: Tensor) -> Evaluated:
        nonlocal networks
        networks += len(x)
        return forward(self, t, x)

    at = Langevin._at

    def counted_steps(self: Langevin, t: float, x: Tensor) -> Walkers:
        nonlocal networks
        networks += 0 if isinstance(self.fields, ResidualFields) else len(x)  # analytic fields are no network
        return at(self, t, x)

    monkeypatch.setattr(ResidualFields, "forward", counted)
    monkeypatch.setattr(Langevin, "_at", counted_steps)
    metered = (Metered(wells[0]), Metered(wells[1]))
    result = ns.free_energy(*metered, *draws(wells), method="feat", effort=LITTLE, endstate_evaluations=(70, 30))
    for state, meter, endstates in zip(("state_a", "state_b"), metered, (70, 30), strict=True):
        bill = result.evaluations[state]
        # A gradient for each of 240 samples to fit, and 200 energies about them, tell whether they belong to the state;
        # the energies of 16 samples, whether it gives numbers.
        assert bill["endstates"] == {"energy": 216, "gradient": endstates + 240}
        assert sum(bill[stage]["energy"] for stage in bill) == meter.energies
        assert sum(bill[stage]["gradient"] for stage in bill) == meter.gradients + endstates
        assert min(sum(bill[stage].values()) for stage in ("training", "sampling")) > 0
    assert sum(result.evaluations["networks"].values()) == networks > 0


def test_the_bills_of_the_rungs_add_up(auto: ns.Difference) -> None:
    for state in ("state_a", "state_b"):
        for stage in ("training", "sampling"):
            for kind in ("energy", "gradient"):
                each = [r.evaluations[state][stage][kind] for r in auto.rungs]
                assert sum(each) == auto.evaluations[state][stage][kind]
    for stage in ("training", "sampling"):
        assert sum(r.evaluations["networks"][stage] for r in auto.rungs) == auto.evaluations["networks"][stage]


def test_plain_and_mapped_works_cost_an_energy_of_either_state_each(wells: Wells) -> None:
    result = climbed(wells, "map")
    for rung in result.rungs:
        n = rung.works.forward.size + rung.works.reverse.size
        assert n == 2 * 240
        for state in ("state_a", "state_b"):
            assert rung.evaluations[state]["sampling"] == {"energy": n, "gradient": 0}


def test_the_dearer_of_two_states_weighs_on_the_choice(wells: Wells) -> None:
    cheap = climbed(wells, "map")
    dear = climbed(wells, "map", effort=replace(LITTLE, prices=Prices(1.0, 30.0, 1.0)))
    ratio = dear.rungs[0].pilot.cost / cheap.rungs[0].pilot.cost
    assert ratio == pytest.approx(31 / 2)


# --- results -----------------------------------------------------------------------------------------------------


def test_the_seed_settles_the_result(wells: Wells, auto: ns.Difference) -> None:
    again, other = climbed(wells), climbed(wells, seed=1)
    assert again.delta_f == auto.delta_f
    assert all(torch.equal(again.state[k], auto.state[k]) for k in auto.state)
    assert again.evaluations == auto.evaluations
    walked = {
        name: next(r for r in result.rungs if r.name == "fields") for name, result in (("one", auto), ("other", other))
    }
    assert not np.array_equal(walked["one"].works.forward, walked["other"].works.forward)


def test_streams_of_a_rung_do_not_depend_on_the_rungs_beside_it(wells: Wells, auto: ns.Difference) -> None:
    alone = climbed(wells, "fields")
    beside = next(r for r in auto.rungs if r.name == "fields")
    assert np.array_equal(alone.rung.pilot.works.forward, beside.pilot.works.forward)


def test_correlated_samples_give_works_by_chain(wells: Wells) -> None:
    a, b = draws(wells)
    chains = ns.free_energy(*wells, a.view(4, 150, 3), b.view(3, 200, 3), method="map", effort=LITTLE)
    assert chains.rung.works.forward.shape == (4, 60)
    assert chains.rung.works.reverse.shape == (3, 80)
    truth = wells[0].log_z - wells[1].log_z
    assert chains.delta_f.std_error is not None
    assert chains.delta_f.std_error < 0.1
    assert abs((chains.delta_f.delta_f or math.inf) - truth) < 4 * chains.delta_f.std_error
    assert abs((chains.delta_f.delta_f or math.inf) + truth) > 4 * chains.delta_f.std_error  # the sign is seen


def test_counts_may_differ(wells: Wells) -> None:
    a, b = draws(wells, 900, 300)
    result = ns.free_energy(*wells, a, b, method="map", effort=LITTLE)
    assert result.delta_f.n == (360, 120)
    truth = wells[0].log_z - wells[1].log_z
    assert result.delta_f.std_error is not None
    assert abs((result.delta_f.delta_f or math.inf) - truth) < 4 * result.delta_f.std_error < 0.4


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        (lambda a, b: (a[:, :2], b), r"samples of A must be \(n, \*event\)"),
        (lambda a, b: (a, b[0]), "samples of B"),
        (lambda a, b: (a, b.view(2, 300, 3)), "got one of each"),
        (lambda a, b: (a, torch.where(torch.arange(600)[:, None] == 7, torch.nan, b)), r"samples of B.*\[7, 0\]"),
        (lambda a, b: (a[:40], b), "select block of A has 8 of 40"),
    ],
)
def test_samples_that_make_no_sense_are_refused(
    wells: Wells, spoiled: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        ns.free_energy(*wells, *spoiled(*draws(wells)), method="plain")


def test_targets_and_methods_that_make_no_sense_are_refused(wells: Wells) -> None:
    a, b = draws(wells)
    with pytest.raises(InputError, match="one event shape"):
        ns.free_energy(wells[0], Gaussian(torch.zeros(2), torch.ones(2)), a, b)
    with pytest.raises(InputError, match="method must be one of"):
        ns.free_energy(*wells, a, b, method="best")  # pyright: ignore[reportArgumentType]


# --- the verdict -------------------------------------------------------------------------------------------------


def found(error: float | None, overlap: float, *codes: str) -> FreeEnergy:
    value = None if error is None else 1.0
    flags = tuple(Flag(code, "…") for code in codes)
    return FreeEnergy(value, error, None, (9, 9), (0.5, 0.5), flags, "BAR", overlap)


def test_a_verdict_says_what_the_numbers_say() -> None:
    good, poor, none = found(0.02, 0.8), found(0.2, 0.03, "poor_overlap"), found(None, 0.0, "no_overlap")
    assert judge(good, poor, "map", ()).level == "trusted"
    assert "a variance 100 times smaller" in judge(good, poor, "map", ()).text
    assert judge(none, none, "plain", none.flags).level == "not trusted"
    assert judge(poor, poor, "plain", poor.flags).level == "not trusted"
    assert "finds no overlap" in judge(good, none, "map", ()).text
    doubtful = judge(good, poor, "map", (Flag("slow_coordinate", "…"),))
    assert doubtful.level == "caution"
    assert "sound, but the sampling behind it is flagged (slow_coordinate)" in doubtful.text
    assert judge(good, poor, "map", (Flag("crossed_bounds", "…"),)).level == "not trusted"
