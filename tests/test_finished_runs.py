"""Finished runs looked at again: their report drawn from files, and several of them side by side."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic_runs
import torch
import xarray
from command_line import nessampler
from rich.cells import cell_len
from rich.console import Console

import nessampler as ns
from nessampler.errors import InputError
from nessampler.runs import density_report
from nessampler.runs.comparison import compare_runs
from nessampler.runs.comparison_files import write_comparison
from nessampler.runs.comparison_words import as_markdown, render
from nessampler.runs.density_evidence import Evidence
from nessampler.runs.finished import compose_again, open_finished
from nessampler.runs.observed import end_state_panels
from nessampler.runs.page import rendered


def made_up(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A difference with one rung chosen, its answer within its error of the same number for every seed."""
    return synthetic_runs.stored(
        folder, synthetic_runs.difference_result(seed) | changes, synthetic_runs.work_groups(seed)
    )


@pytest.fixture(scope="module")
def wells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wells") / "run"
    assert nessampler("run", "anharmonic-wells", "--preset", "smoke", "--method", "plain", "--out", out).code == 0
    return out


# --- the report drawn again --------------------------------------------------------------------------------------


def test_a_run_is_drawn_again_to_the_last_byte_without_torch(wells: Path, tmp_path: Path) -> None:
    again = "import sys; from nessampler.cli import app; app(sys.argv[1:], standalone_mode=False)"
    told = "print(sorted({'torch', 'openmm'} & set(sys.modules)))"
    command = [sys.executable, "-c", f"{again}; {told}", "report", str(wells), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    names = {path.name for path in (wells / "figures").iterdir()}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    assert len(names) >= 15
    for file in ("report.html", *(f"figures/{name}" for name in names)):
        assert (tmp_path / file).read_bytes() == (wells / file).read_bytes(), file


def test_torsions_and_works_of_a_molecule_come_back_from_its_file(tmp_path: Path) -> None:
    observed = synthetic_runs.torsions()
    panels = end_state_panels(observed, synthetic_runs.LABELS)
    straight, again = synthetic_runs.both_ways(tmp_path / "run", observed.groups(), panels=panels)
    assert rendered(again) == rendered(straight)
    assert [panel.title for panel in again.panels][-2:] == ["Backbone torsions of the end states", "Soft torsions"]
    assert [panel.table for panel in again.panels] == [panel.table for panel in straight.panels]


@pytest.mark.parametrize("make", [synthetic_runs.evidence, synthetic_runs.lattice_evidence])
def test_what_a_density_shows_comes_back_from_its_file(make: Callable[[], Evidence], tmp_path: Path) -> None:
    result, evidence = synthetic_runs.density_result(), make()
    metrics = "step,loss\n" + "".join(f"{row['step']},{row['loss']}\n" for row in evidence.metrics)
    folder = synthetic_runs.stored(tmp_path / "run", result, evidence.groups(), metrics)
    straight = density_report.compose(result, evidence, config=synthetic_runs.CONFIG)
    again = compose_again(open_finished(folder / "result.json"))
    assert rendered(again) == rendered(straight)
    assert [panel.table for panel in again.panels] == [panel.table for panel in straight.panels]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "unfinished": (lambda run: (run / "result.json").unlink(), r"--out \S+ --resume"),
    "no directory": (lambda run: run.rename(run.with_name("elsewhere")), "does not exist"),
    "half a result": (lambda run: cut(run / "result.json"), "must be whole"),
    "a foreign result": (lambda run: (run / "result.json").write_text('{"kind": "car"}'), "the result of a run"),
    "a list": (lambda run: (run / "result.json").write_text("[1]"), "the result of a run"),
    "half the works": (lambda run: cut(run / "works.nc"), r"works\.nc must be the file that the run wrote"),
    "no works": (lambda run: (run / "works.nc").unlink(), r"works\.nc must be the file that the run wrote"),
    "text for works": (lambda run: (run / "works.nc").write_text("hello"), r"works\.nc must be the file"),
    "other works": (
        lambda run: xarray.Dataset({"a": ("x", [1.0])}).to_netcdf(run / "works.nc", group="forward", engine="h5netcdf"),
        "holds no works of the rung plain",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_a_finished_run_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    run = made_up(tmp_path / "run")
    open_finished(run)  # negative control: whole, it is read
    spoil, told = DAMAGE[damage]
    spoil(run)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    ended = nessampler("report", run)
    assert ended.code == 2
    assert re.search(told, ended.err)
    assert ended.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


# --- runs side by side -------------------------------------------------------------------------------------------


def test_runs_of_one_truth_agree_and_distances_are_those_of_their_errors(tmp_path: Path) -> None:
    found = compare_runs([made_up(tmp_path / f"run-{seed}", seed) for seed in range(4)])
    values = [run["estimate"]["value"] for run in found.runs]
    assert found.level == "agree"
    assert [run["label"] for run in found.runs] == [f"run-{seed}" for seed in range(4)]
    for i, j in ((0, 1), (3, 2)):
        z = (values[i] - values[j]) / math.hypot(0.05, 0.05)
        assert found.z[i][j] == pytest.approx(z)
        assert found.z[j][i] == pytest.approx(-z)
    mean = sum(values) / 4
    assert found.chi_squared == pytest.approx(sum((v - mean) ** 2 for v in values) / 0.05**2)
    assert found.degrees == 3
    assert found.largest is not None
    assert found.largest[0] == max(abs(z) for row in found.z for z in row if z is not None)


def test_a_run_that_is_off_is_found(tmp_path: Path) -> None:
    runs = [made_up(tmp_path / f"run-{seed}", seed) for seed in range(3)]
    off = synthetic_runs.quantity(synthetic_runs.DELTA_F + 0.5, 0.05)
    runs.append(made_up(tmp_path / "off", 3, delta_f=off))
    found = compare_runs(runs)
    assert found.level == "disagree"
    assert found.largest is not None
    assert "off" in found.largest[1:]


def test_only_runs_of_one_kind_and_system_are_compared(tmp_path: Path) -> None:
    one, same = made_up(tmp_path / "one"), made_up(tmp_path / "same")
    other = made_up(tmp_path / "other", 1, system="another")
    density = synthetic_runs.stored(
        tmp_path / "density", synthetic_runs.density_result(), synthetic_runs.evidence().groups()
    )
    for paths, force, told in (
        ([one], False, "two runs at least"),
        ([one, density], False, "runs of one kind"),
        ([one, density], True, "runs of one kind"),
        ([one, other], False, "add --force"),
    ):
        with pytest.raises(InputError, match=told):
            compare_runs(paths, force=force)
    assert "Not the same system: made-up and another." in compare_runs([one, other], force=True).cautions
    assert any("one seed" in caution for caution in compare_runs([one, same]).cautions)
    assert not any("one seed" in caution for caution in compare_runs([one, other], force=True).cautions)


@pytest.mark.parametrize("width", [80, 120])
def test_the_comparison_fits_the_terminal(width: int, tmp_path: Path) -> None:
    name = "a-run-with-a-name-that-says-everything"
    found = compare_runs([made_up(tmp_path / f"{name}-{seed}", seed) for seed in range(2)])
    stream = io.StringIO()
    render(found, Console(file=stream, width=width))
    text = stream.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    assert "AGREE: " in text
    assert "Reference: -1.300 ± 0.010 (construction)." in text


def test_a_comparison_is_written_as_page_table_numbers_and_figure(tmp_path: Path) -> None:
    runs = [made_up(tmp_path / f"run-{seed}", seed) for seed in range(2)]
    (runs[1] / "config.toml").write_text('[run]\nmethod = "auto"\nseed = 1\n', encoding="utf-8")
    files = [tmp_path / f"side-by-side.{kind}" for kind in ("html", "csv", "md", "json", "png", "svg")]
    ended = nessampler("compare", *runs, *(part for file in files for part in ("--out", file)))
    assert ended.code == 0
    assert "Settings that differ: run.seed = 0, 1." in ended.out
    page, table, text, numbers, png, svg = files
    assert "they agree" in page.read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    found = compare_runs(runs)
    assert [float(row["value"]) for row in rows] == [run["estimate"]["value"] for run in found.runs]
    assert text.read_text(encoding="utf-8") == as_markdown(found)
    assert json.loads(numbers.read_text(encoding="utf-8"))["settings_that_differ"] == {"run.seed": ["0", "1"]}
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()
    with pytest.raises(InputError, match=r"\.html, \.csv"):
        write_comparison(found, tmp_path / "side-by-side.pdf")
    ended = nessampler("compare", *runs, "--out", tmp_path / "side-by-side.pdf")
    assert (ended.code, ended.out) == (2, "")


# --- results plot themselves -------------------------------------------------------------------------------------


def test_a_difference_and_a_density_plot_themselves(wells_1d: tuple[Any, Any]) -> None:
    a, b = wells_1d
    g = torch.Generator().manual_seed(0)
    difference = ns.free_energy(a, b, a.sample(300, generator=g), b.sample(300, generator=g), method="plain")
    figure = difference.plot()
    left, right = figure.axes
    value = difference.delta_f.delta_f
    assert any(list(line.get_xdata()) == [value, value] for line in left.lines)
    assert right.lines[0].get_ydata()[-1] == pytest.approx(value)
    assert "plain" in figure.get_label()

    density = ns.sample(lambda x: -a.energy(x), dim=1, method="ais", effort=ns.DensityEffort(200, 64, 6, 12, 4))
    figure = density.plot()
    value = density.log_z.value
    assert any(list(line.get_xdata()) == [value, value] for line in figure.axes[0].lines)
    assert {line.get_label() for line in figure.axes[1].lines} == {"ESS so far", "acceptance"}
    assert figure.axes[1].lines[0].get_ydata()[-1] == pytest.approx(density.ess)
