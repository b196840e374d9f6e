"""What is made once for several cells of a bench, before them and not in their minutes."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nessampler.bench import grid as grid_module
from nessampler.bench.difference_cell import difference_preparation
from nessampler.bench.grid import Cell, Grid, run_grid
from nessampler.bench.origin import origin_of
from nessampler.bench.trial import trial
from nessampler.bench.workers import Ended, in_a_process
from nessampler.errors import InputError
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.targets import Tally

BASE = "funnel-10"  # has a learned base, whose cost a short run finds out


def telling(tell) -> str:
    for n in range(3):
        tell(n, 3, "steps")
    return "done"


def telling_for_ever(tell) -> None:
    while True:
        tell(1, 3, "steps")


def refused(tell) -> None:
    raise InputError("no such thing")


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, float | None]]:
    """Work that processes are asked for, by name, and its minutes. Preparations are made here, unless they have none.

    Cells are not run, and bases cost nothing.
    """
    seen: list[tuple[str, float | None]] = []

    def inline(work, cap=None, tell=lambda *_: None) -> Ended:
        seen.append((work.func.__name__, cap))
        if cap == 0:
            return Ended(None, 0.0, given_up=True)
        if work.func is grid_module._row:
            grid, cell, _ = work.args
            row = grid_module._without(grid, cell, grid_module._config(grid, cell.system, cell.seed), 1.0, "")
            return Ended(replace(row, value=0.0, std_error=0.1), 0.0)
        try:
            return Ended(work(tell), 0.0)
        except InputError as error:
            return Ended(error, 0.0)

    cheap = SimpleNamespace(evaluations=Tally(energy=1000))
    monkeypatch.setattr("nessampler.bench.density_cell.prepare_density", lambda *_: cheap)
    monkeypatch.setattr(grid_module, "in_a_process", inline)
    return seen


def alanine(seed: int = 0) -> tuple[DifferenceConfig, Path]:
    path = catalogue.find("alanine-solvation")
    config = resolve(load(path), run={"seed": seed}, source=str(path))
    assert isinstance(config, DifferenceConfig)
    return config, path.parent


def test_a_process_tells_how_far_it_is_and_then_answers():
    told: list[tuple[int, int, str]] = []
    ended = in_a_process(telling, 5.0, lambda *at: told.append(at))
    assert (ended.answer, ended.given_up, ended.failure) == ("done", False, "")
    assert told == [(0, 3, "steps"), (1, 3, "steps"), (2, 3, "steps")]
    assert in_a_process(refused).failure == "no such thing"


def test_who_tells_without_end_is_given_up_all_the_same():
    started = time.monotonic()
    ended = in_a_process(telling_for_ever, 0.1)
    assert (ended.answer, ended.given_up) == (None, True)
    assert time.monotonic() - started < 30


def test_trials_have_a_process_and_minutes_of_their_own(asked, tmp_path):
    said: list[str] = []
    wells = Grid(["anharmonic-wells"], ["plain", "map"], 2, 20_000, preset="smoke", cap=7.0)
    rows = run_grid(wells, tmp_path, say=said.append)
    assert all(row.value is not None for row in rows)
    assert asked == [(name, 7.0) for name in ("_prepare", "_row", "_prepare", "_row", "_row", "_row")]
    assert said[1].strip() == "sizing anharmonic-wells for plain"
    assert not (tmp_path / "unprepared").exists()


def test_what_was_given_up_is_not_tried_again_by_every_cell_that_needs_it(asked, tmp_path):
    def ran(cap: float) -> list[str]:
        grid = Grid([BASE], ["ais", "smc"], 2, 300_000, preset="smoke", cap=cap)
        before = len(asked)
        notes = {row.note for row in run_grid(grid, tmp_path)}
        assert [name for name, _ in asked[before:]].count("_row") == (0 if cap == 0 else 4)
        return [*notes, *(name for name, _ in asked[before:] if name == "_prepare")]

    note = "not prepared: sizing the base of funnel-10 given up after 0 minutes; a larger --cap goes on with it"
    assert ran(0.0) == [note, "_prepare"]  # once for four cells
    assert ran(0.0) == [note]
    assert not list((tmp_path / "cells").iterdir())
    finished = run_grid(Grid([BASE], ["ais"], 1, 300_000, preset="smoke", cap=9.0), tmp_path, finished=True)
    assert [row.note for row in finished] == [note]
    (record,) = (tmp_path / "unprepared" / "trials").iterdir()
    table = json.loads(record.read_text(encoding="utf-8"))
    assert (table["cap_minutes"], table["budget"], table["origin"]["preset"]) == (0.0, 300_000, "smoke")
    assert "_prepare" in ran(5.0)
    assert not record.exists()
    assert len(list((tmp_path / "cells").iterdir())) == 4


def test_what_failed_says_why_until_its_record_is_removed(asked, monkeypatch, tmp_path):
    def broken(*_) -> None:
        raise InputError("the particles went astray")

    one = Grid([BASE], ["ais", "smc"], 1, 300_000, preset="smoke")
    with monkeypatch.context() as patched:
        patched.setattr("nessampler.bench.density_cell.prepare_density", broken)
        rows = run_grid(one, tmp_path)
    record = tmp_path / "unprepared" / "trials" / f"{BASE}--base.json"
    why = f"not prepared: sizing the base of {BASE} failed: the particles went astray; remove {record} to try again"
    assert [row.note for row in rows] == [why, why]
    assert [row.note for row in run_grid(one, tmp_path)] == [why, why]
    assert [name for name, _ in asked] == ["_prepare"]
    with pytest.raises(InputError, match="has settings none, asked for is"):
        run_grid(Grid([BASE], ["ais"], 1, 300_000, preset="smoke", settings=["sampling.walkers=128"]), tmp_path)
    record.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is none; remove it"):
        run_grid(one, tmp_path)
    record.unlink()
    assert all(row.value is not None for row in run_grid(one, tmp_path))


def test_a_cell_that_was_given_up_and_then_not_prepared_is_told_alike_by_a_run_and_by_what_is_finished(asked, tmp_path):
    def notes(cap: float, finished: bool = False) -> list[str]:
        grid = Grid([BASE], ["ais"], 1, 300_000, preset="smoke", cap=cap)
        return [row.note for row in run_grid(grid, tmp_path, finished=finished)]

    trials = tmp_path / "trials" / f"{BASE}--base.json"
    assert notes(5.0) == [""]
    file = tmp_path / "cells" / Cell(BASE, "ais", 0).file
    table = json.loads(file.read_text(encoding="utf-8"))
    given_up = table | {"value": None, "note": "given up after -1 minutes", "metrics": {"cap_minutes": -1.0}}
    file.write_text(json.dumps(given_up), encoding="utf-8")
    assert notes(-1.0) == notes(5.0, finished=True) == ["given up after -1 minutes"]
    trials.unlink()
    (lost,) = notes(0.0)
    assert lost.startswith(f"not prepared: sizing the base of {BASE} given up after 0 minutes")
    assert notes(0.0, finished=True) == notes(-1.0) == notes(-1.0, finished=True) == [lost]
    assert file.exists()
    assert notes(5.0) == notes(5.0, finished=True) == [""]


def test_what_cannot_size_the_ends_of_staged_costs_its_cells_and_not_the_bench(asked, monkeypatch, tmp_path):
    grid = Grid(["alanine-solvation", "anharmonic-wells"], ["staged"], 2, 100_000, preset="smoke")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "nessampler.runs.molecular_problem", None)  # as without OpenMM
        with pytest.raises(InputError, match="needs a finished cell"):
            run_grid(grid, tmp_path, finished=True)
        rows = run_grid(grid, tmp_path)
        again = run_grid(grid, tmp_path, finished=True)
    record = tmp_path / "unprepared" / "trials" / "alanine-solvation--staged.json"
    lost, other = ([row.note for row in rows if row.system == system] for system in grid.systems)
    assert len(lost) == 2
    assert lost[0] == lost[1]
    assert lost[0].startswith("not prepared: sizing alanine-solvation for staged failed: molecular systems need OpenMM")
    assert lost[0].endswith(f"; remove {record} to try again")
    assert other == ["", ""]
    assert again == rows
    assert [name for name, _ in asked] == ["_prepare", "_row", "_row"]


def test_end_states_of_staged_that_are_of_another_origin_are_refused_all_the_same(tmp_path):
    pytest.importorskip("openmm")
    (config, folder), origin = alanine(), origin_of("quick")
    needed = difference_preparation(config, folder, "staged", 10**6, tmp_path, origin)
    assert needed is not None
    trial(needed.file, origin, lambda: {"seconds": 1.0})
    assert difference_preparation(config, folder, "staged", 10**6, tmp_path, origin) is None
    with pytest.raises(InputError, match="has preset quick, asked for is smoke"):
        difference_preparation(config, folder, "staged", 10**6, tmp_path, origin_of("smoke"))


def test_molecules_are_sized_before_their_end_states_are_sampled_seed_by_seed(tmp_path):
    origin, found = origin_of("quick"), {"smallest": 0.5, "scales": [0.5], "costs": [100.0]}
    (config, folder), (other, _) = alanine(), alanine(seed=1)

    def needed(config: DifferenceConfig, method: str = "map") -> str | None:
        preparation = difference_preparation(config, folder, method, 200, tmp_path, origin)
        return None if preparation is None else preparation.what

    assert needed(config) == needed(other, "plain") == "sizing alanine-solvation"
    assert needed(config, "openmmtools") is None
    trial(tmp_path / "trials" / "alanine-solvation.json", origin, lambda: found)
    assert needed(config) == "end states of alanine-solvation, seed 0"
    trial(tmp_path / "ends" / "alanine-solvation-0-1" / "took.json", origin, lambda: {"seconds": 1.0})
    assert needed(config) is None
    assert needed(config, "auto") is None
    assert needed(other) == "end states of alanine-solvation, seed 1"
    with pytest.raises(InputError, match="has preset quick, asked for is smoke"):
        difference_preparation(config, folder, "map", 200, tmp_path, origin_of("smoke"))


def test_without_a_budget_there_is_nothing_to_size(tmp_path):
    path = catalogue.find("anharmonic-wells")
    config = resolve(load(path), source=str(path))
    assert isinstance(config, DifferenceConfig)
    assert difference_preparation(config, path.parent, "map", None, tmp_path, origin_of("quick")) is None
    (config, folder) = alanine()
    needed = difference_preparation(config, folder, "map", None, tmp_path, origin_of("quick"))
    assert needed is not None
    assert needed.what == "end states of alanine-solvation, seed 0"
