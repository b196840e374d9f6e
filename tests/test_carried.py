"""Samples that a rung carried to the other end: where they are, what they weigh, and how they are shown."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import synthetic_runs
import torch
import xarray
from command_line import nessampler
from torch.distributions.transforms import AffineTransform, IndependentTransform

from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort
from nessampler.methods.trip import MOST_ARRIVED
from nessampler.runs.carried import carried_from_groups, carried_groups, carried_panels
from nessampler.runs.observed import end_state_panels
from nessampler.runs.page import rendered
from nessampler.targets import Gaussian

MEANS = torch.tensor([[0.0, 0.0], [1.5, -1.0]]).double()
SCALES = torch.tensor([[1.0, 1.0], [0.5, 1.5]]).double()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def estimated(method: str, n: int = 1600) -> Difference:
    """Two Gaussians, looked at in coordinates that are not their own."""
    a, b = (Gaussian(mean, scale) for mean, scale in zip(MEANS, SCALES, strict=True))
    samples = [t.sample(n, generator=generator(k)).double() for k, t in enumerate((a, b))]
    squeezed = IndependentTransform(AffineTransform(torch.tensor([3.0, -1.0]).double(), 2.0), 1)
    effort = Effort(switching_steps=4, fields_steps=8, tuning_samples=60)
    return free_energy(a, b, *samples, method=method, coordinates=squeezed, effort=effort)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("method", ["map", "fields", "switching"])
def test_carried_samples_are_weighted_samples_of_the_other_end(method: str) -> None:
    result = estimated(method)
    assert result.rung.trips is not None
    for trip, end in zip(result.rung.trips, (1, 0), strict=True):
        assert trip.arrived is not None
        x, log_weight = trip.arrived
        assert torch.equal(log_weight, torch.as_tensor(-trip.work))  # few enough that all are kept, in order
        weight = torch.softmax(log_weight, 0)[:, None]
        mean = (weight * x).sum(0)
        spread = (weight * (x - mean) ** 2).sum(0).sqrt()
        error = (weight.square() * (x - mean) ** 2).sum(0).sqrt()
        assert bool(((mean - MEANS[end]).abs() < 4 * error).all())
        assert float(error.max()) < 0.3
        assert bool((spread / SCALES[end] - 1).abs().max() < 0.3)
        assert bool(((mean - MEANS[1 - end]).abs() > 4 * error).any())  # negative control: they are not where they were


def test_only_the_chosen_rung_keeps_them_and_at_most_two_thousand() -> None:
    result = estimated("map", n=6000)
    assert {r.name for r in result.rungs if r.trips is not None and r.trips[0].arrived is not None} == {"map"}
    trip = result.rung.trips[0]  # pyright: ignore[reportOptionalSubscript]
    assert trip.arrived is not None
    assert len(trip.arrived.x) == MOST_ARRIVED < trip.work.size
    index = torch.linspace(0, trip.work.size - 1, MOST_ARRIVED, dtype=torch.float64).round().long().numpy()
    assert np.array_equal(trip.arrived.log_weight.numpy(), -trip.work[index])


def test_the_figures_come_back_from_the_file(tmp_path: Path) -> None:
    observed, carried = synthetic_runs.torsions(), synthetic_runs.carried()
    panels = [*end_state_panels(observed, synthetic_runs.LABELS), *carried_panels(observed, carried)]
    groups = observed.groups() | carried_groups(*carried)
    straight, again = synthetic_runs.both_ways(tmp_path / "run", groups, panels=panels)
    assert rendered(again) == rendered(straight)
    assert [panel.title for panel in again.panels][-2:] == ["Backbone torsions, carried", "Carried samples"]
    assert [panel.table for panel in again.panels] == [panel.table for panel in straight.panels]


def test_a_run_keeps_and_draws_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert nessampler("run", "anharmonic-wells", "--preset", "smoke", "--method", "map", "--out", out).code == 0
    stored = carried_from_groups(
        {f"carried_{k}": xarray.open_dataset(out / "works.nc", group=f"carried_{k}") for k in "ab"}
    )
    assert stored is not None
    works = {way: xarray.open_dataset(out / "works.nc", group=way)["work_map"].values for way in ("forward", "reverse")}
    assert np.array_equal(stored[1].log_weight, -works["forward"].ravel())
    assert np.array_equal(stored[0].log_weight, -works["reverse"].ravel())
    assert len(list((out / "figures").glob("*-carried-samples.*"))) == 3
    assert nessampler("report", out, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "report.html").read_bytes() == (out / "report.html").read_bytes()


def test_where_nothing_is_moved_nothing_is_shown(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert nessampler("run", "anharmonic-wells", "--preset", "smoke", "--method", "plain", "--out", out).code == 0
    assert not list((out / "figures").glob("*carried*"))


def test_torsions_that_are_carried_lie_in_the_region_of_the_state_they_arrive_in(tmp_path: Path) -> None:
    """Region B is seen turned into that of A: what arrives there is turned back before it is shown."""
    pytest.importorskip("openmm")
    out = tmp_path / "run"
    ended = nessampler("run", "alanine-basins", "--preset", "smoke", "--method", "map", "--out", out)
    assert ended.code == 0, ended.err
    phi = {}
    for letter in "ab":
        group = xarray.open_dataset(out / "works.nc", group=f"carried_{letter}")
        index = next(k for k, name in enumerate(group["quantity"].values) if str(name).startswith("phi"))
        phi[letter] = np.radians(group["observed"].values[:, index]) % (2 * math.pi)
        assert group["log_weight"].values.size > 5
    assert (phi["a"] < 2.15).all()
    assert (phi["b"] > 2.15).all()
    assert list((out / "figures").glob("*-backbone-torsions-carried.svg"))
