"""What a bench keeps of a system is of one problem, whatever the words of its file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from nessampler.bench.ends import prepared_ends
from nessampler.bench.grid import Cell, Grid, run_grid
from nessampler.bench.origin import origin_of
from nessampler.bench.problem import digest_of
from nessampler.bench.row import Row
from nessampler.bench.trial import trial
from nessampler.errors import InputError
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve

WELLS = "anharmonic-wells"


def copied(system: str, to: Path) -> Path:
    """The folder of a system of one's own."""
    return Path(shutil.copytree(catalogue.find(system).parent, to / "mine"))


def edited(folder: Path, old: str, new: str) -> None:
    file = folder / "system.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def digest(folder: Path, **asked) -> str:
    return digest_of(resolve(load(folder / "system.toml"), **asked), folder)


def test_words_seeds_and_budgets_are_no_part_of_a_problem(tmp_path):
    folder = copied(WELLS, tmp_path)
    before = digest(folder)
    table = load(folder / "system.toml")
    edited(folder, f'title = "{table["title"]}"', 'title = "Wells"  # two of them')
    edited(folder, f'label = "{table["state_a"]["label"]}"', 'label = "the left one"')
    edited(folder, f"value = {table['reference']['value']}", "value = 17.0")
    assert digest(folder, run={"seed": 5, "method": "map"}) == before
    assert digest(folder, settings=["md.timestep=2 fs"]) == before  # the default
    funnel = catalogue.find("funnel-10").parent
    assert digest(funnel, settings=["sampling.budget=20000", "run.device=cuda"]) == digest(funnel)


class Later(DifferenceConfig):
    """As a later version has it, with a key that files do not know yet."""

    novelty: float = 0.5


def test_a_new_key_with_a_default_changes_no_problem():
    config = resolve(load(catalogue.find(WELLS)))
    later = Later.model_validate(config.model_dump())
    assert "novelty" in later.model_dump()
    assert digest_of(later, Path()) == digest_of(config, Path())
    assert digest_of(later.model_copy(update={"novelty": 0.6}), Path()) != digest_of(config, Path())


@pytest.mark.parametrize(
    "setting", ["state_a.coupling=0.7", "state_b.relative_cost=2.0", "samples.a=700", "ladder.fields_steps=63"]
)
def test_what_is_computed_is_part_of_a_problem(setting):
    folder = catalogue.find(WELLS).parent
    assert digest(folder, settings=[setting]) != digest(folder)


def test_files_that_a_system_names_are_part_of_the_problem(tmp_path):
    folder = copied("logistic", tmp_path)
    before = digest(folder)
    (folder / "README.md").write_text("other words", encoding="utf-8")
    assert digest(folder) == before
    data = folder / "ionosphere.csv"
    data.write_text(data.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")
    assert digest(folder) != before


def test_cells_of_a_system_that_was_edited_are_refused(tmp_path):
    folder, out = copied(WELLS, tmp_path), tmp_path / "out"
    grid = Grid([str(folder)], ["plain"], 1, 1000, cap=0.0)
    (out / "cells").mkdir(parents=True)
    file = out / "cells" / Cell(str(folder), "plain", 0).file
    assert file.parent == out / "cells"
    before = digest(folder)
    row = Row(WELLS, "difference", "plain", 0, 1000, "plain", 0.1, 0.1, None, None, 900.0, 0, 1.0, 1.0)

    def stored(**origin) -> None:
        file.write_text(json.dumps(replace(row, origin=origin_of("quick") | origin).to_cell()), encoding="utf-8")

    stored(problem=before)
    (found,) = run_grid(grid, out)
    assert found.origin["problem"] == before
    edited(folder, "coupling = 0.5", "coupling = 0.6")
    message = f"is of one problem: .* is of {before}, the system is {digest(folder)} now, .* choose another --out"
    with pytest.raises(InputError, match=message):
        run_grid(grid, out)
    stored()  # as of older versions
    assert run_grid(grid, out)[0].value == 0.1


def test_systems_that_would_be_kept_as_one_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a/b", "a_b"):
        shutil.copytree(catalogue.find(WELLS).parent, tmp_path / path)
    for systems, (one, other) in {
        ("a/b", "funnel-10", "a_b"): ("a/b", "a_b"),
        (WELLS, "a_b"): (WELLS, "a_b"),
        (WELLS, WELLS): (WELLS, WELLS),
    }.items():
        told = f"systems of one bench differ in `name`: {one} and {other} are both '{WELLS}'; list a system once, or "
        with pytest.raises(InputError, match=told):
            run_grid(Grid(systems, ["plain"], 1, 1000, cap=0.0), tmp_path / "out")
    edited(tmp_path / "a_b", f'name = "{WELLS}"', 'name = "others"')
    told = "files of their cells: those of a/b and of a_b are both cells/a_b--METHOD--SEED.json; rename a folder, or "
    with pytest.raises(InputError, match=told):
        run_grid(Grid(["a/b", "a_b"], ["plain"], 1, 1000, cap=0.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "a_b").rename(tmp_path / "c")
    rows = run_grid(Grid(["a/b", "c"], ["plain"], 1, None, preset="smoke", cap=0.0), tmp_path / "out")
    assert [row.system for row in rows] == [WELLS, "others"]


def test_trials_and_end_states_of_another_problem_are_refused(tmp_path):
    mine, other = origin_of("quick", problem="1234"), origin_of("quick", problem="5678")
    trial(tmp_path / "a.json", mine, lambda: {"each": 1.0})
    with pytest.raises(InputError, match="is of 1234, the system is 5678 now"):
        trial(tmp_path / "a.json", other, lambda: {"each": 1.0})
    trial(tmp_path / "old.json", origin_of("quick"), lambda: {"each": 1.0})
    assert trial(tmp_path / "old.json", other, lambda: {"each": 2.0}) == {"each": 1.0}


def test_end_states_have_their_problem_on_record_before_the_first_frame(monkeypatch, tmp_path):
    pytest.importorskip("openmm")
    seen: list[bool] = []

    def sampled(config, folder, where, tell) -> None:
        seen.append((where / "asked.json").exists())
        (where / "endstates").mkdir(exist_ok=True)

    monkeypatch.setattr("nessampler.runs.molecular_problem.prepare_molecular", sampled)
    path = catalogue.find("alanine-solvation")
    config = resolve(load(path), source=str(path))
    assert isinstance(config, DifferenceConfig)
    mine, other = origin_of("quick", problem="1234"), origin_of("quick", problem="5678")
    for _ in range(2):
        prepared_ends(config, path.parent, tmp_path / "ends", mine)
    assert seen == [True, True]
    with pytest.raises(InputError, match="is of 1234, the system is 5678 now"):
        prepared_ends(config, path.parent, tmp_path / "ends", other)
    (tmp_path / "old" / "endstates").mkdir(parents=True)  # frames of an older version
    prepared_ends(config, path.parent, tmp_path / "old", other)
    assert seen == [True, True, False]
