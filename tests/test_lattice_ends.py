"""Magnetisation and two-point function of two lattice states: their values, their errors, and how they are shown."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import synthetic_runs
import torch
import xarray
from command_line import nessampler

from nessampler.runs.difference_evidence import DifferenceEvidence
from nessampler.runs.lattice_ends import lattice_ends_of, lattice_of
from nessampler.runs.page import rendered
from nessampler.runs.prepared import Prepared
from nessampler.targets import Gaussian
from nessampler.targets.phi4 import FreeField, Phi4, mode_multiplicity
from nessampler.targets.umbrella import Umbrella


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_observables_of_a_free_field_are_the_exact_ones() -> None:
    field = FreeField.massive(6, mass_squared=0.5)
    found = lattice_of(field.sample(4000, generator=generator()), 2)
    modes = mode_multiplicity(field.event_shape) / field.precision
    exact = float(modes.sum()) / 36  # G(0), a mean over modes of 1 / K
    mean, error = found.two_point
    assert mean.shape == (4,)
    assert abs(mean[0] - exact) < 4 * error[0]
    assert 0 < error[0] < 0.02 * exact
    square = 1 / float(field.precision[0, 0]) / 36  # M is the mode of no momentum
    assert abs(found.averages[0][2] - square) < 4 * found.averages[1][2]
    assert abs(found.averages[0][0]) < 4 * found.averages[1][0]
    assert found.weight.sum() == pytest.approx(1)


def test_the_two_point_function_is_the_average_over_pairs() -> None:
    x = torch.randn(50, 4, 4, generator=generator(), dtype=torch.float64)
    for r in range(3):
        direct = torch.stack([(x * x.roll(-r, axis)).mean((1, 2)) for axis in (1, 2)]).mean(0)
        assert lattice_of(x, 2).two_point[0][r] == pytest.approx(float(direct.mean()))
        assert lattice_of(x, 2).two_point[1][r] == pytest.approx(float(direct.std()) / 50**0.5)


def test_the_memory_of_chains_widens_the_errors() -> None:
    fresh = torch.randn(8, 400, 4, 4, generator=generator(), dtype=torch.float64)
    slow = fresh.clone()
    for k in range(1, 400):
        slow[:, k] = 0.9 * slow[:, k - 1] + 0.19**0.5 * fresh[:, k]
    correlated, shuffled = lattice_of(slow, 2), lattice_of(slow.flatten(0, 1), 2)
    ratio = correlated.averages[1][0] / shuffled.averages[1][0]
    assert 3 < ratio < 6  # sqrt(19) without end


def test_only_fields_on_a_lattice_have_them_under_umbrellas_too() -> None:
    magnet, x = Phi4(4, quartic=0.8), torch.randn(30, 4, 4, generator=generator(), dtype=torch.float64)
    window = Umbrella(magnet, stiffness=5.0, center=0.3)
    found = lattice_ends_of(Prepared(magnet, window, x, x + 0.3))
    assert found is not None
    assert found[1].averages[0][0] - found[0].averages[0][0] == pytest.approx(0.3)
    plain = Gaussian(torch.zeros(2), torch.ones(2))
    assert lattice_ends_of(Prepared(plain, plain, x[:, :2, 0], x[:, :2, 0])) is None


def test_the_figures_come_back_from_the_file(tmp_path: Path) -> None:
    evidence = DifferenceEvidence(lattice=synthetic_runs.lattice_ends())
    panels = evidence.panels(synthetic_runs.LABELS)
    straight, again = synthetic_runs.both_ways(tmp_path / "run", evidence.groups(), panels=panels)
    assert rendered(again) == rendered(straight)
    assert [panel.title for panel in again.panels][-2:] == ["Magnetisation of the end states", "Two-point functions"]
    assert [panel.table for panel in again.panels] == [panel.table for panel in straight.panels]


@pytest.mark.parametrize("system", ["phi4-couplings", "phi4-umbrellas"])
def test_runs_between_lattices_keep_and_draw_them(system: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert nessampler("run", system, "--preset", "smoke", "--method", "map", "--out", out).code == 0
    frames = json.loads((out / "result.json").read_text(encoding="utf-8"))["endstates"]["state_a"]["frames"]
    stored = [xarray.open_dataset(out / "works.nc", group=f"lattice_{letter}") for letter in "ab"]
    for group in stored:
        assert group["magnetisation"].size == frames
        assert float(group["magnetisation"].mean()) == pytest.approx(float(group["average"][0]))
        assert group["two_point"].size == group["two_point_error"].size == 9
        assert (group["two_point_error"].values > 0).all()
    apart = float(stored[1]["average"][0] - stored[0]["average"][0])
    assert (apart > 0.3) == (system == "phi4-umbrellas")
    rows = list(csv.DictReader(next((out / "figures").glob("*-two-point-functions.csv")).open(encoding="utf-8")))
    shown = [float(row["two_point"]) for row in rows if row["state"] == "B"]
    assert np.array_equal(shown, stored[1]["two_point"].values)
    assert nessampler("report", out, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "report.html").read_bytes() == (out / "report.html").read_bytes()
