"""A grid of cells, each a file once it is finished."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nessampler._files import write_atomically
from nessampler.bench.origin import check_origin, origin_of
from nessampler.bench.peers import MissingPeerError
from nessampler.bench.preparations import Preparation, forgive, next_preparation, put_on_record, why_not
from nessampler.bench.problem import digest_of
from nessampler.bench.row import Row
from nessampler.bench.workers import Ended, Say, Tell, in_a_process
from nessampler.errors import InputError
from nessampler.runs import catalogue
from nessampler.runs.config import Config, DensityConfig, load, resolve

__all__ = ["Cell", "Grid", "run_grid"]

GIVEN_UP, CAP = "given up", "cap_minutes"


@dataclass(frozen=True)
class Cell:
    """One method on one system from one seed."""

    system: str
    method: str
    seed: int

    @property
    def file(self) -> str:
        """Where its row lies.

        >>> Cell("gmm-40", "ais", 0).file, Cell("../of-my-own/wells", "map", 1).file
        ('gmm-40--ais--0.json', 'of-my-own_wells--map--1.json')
        """
        system = re.sub(r"[^\w.+-]+", "_", self.system).lstrip("._")
        return f"{system}--{self.method}--{self.seed}.json"


@dataclass(frozen=True)
class Grid:
    """What is run.

    Attributes:
        systems, methods, seeds: every combination is a cell.
        budget: evaluations for a cell; None for the sizes of the preset.
        budgets: of systems that have one of their own.
        preset, settings: as of `nessampler run`.
        cap: minutes after which a cell is given up, and likewise what is prepared before it; None for never. It is then
            on record as given up.

    Example:
        >>> grid = Grid(systems=["funnel-10"], methods=["ais", "smc"], seeds=2, budget=100_000)
        >>> [(cell.method, cell.seed) for cell in grid.cells()]
        [('ais', 0), ('smc', 0), ('ais', 1), ('smc', 1)]
        >>> grid.budget_of("funnel-10")
        100000
    """

    systems: Sequence[str]
    methods: Sequence[str]
    seeds: int
    budget: int | None = None
    preset: str | None = None
    settings: Sequence[str] = ()
    cap: float | None = None
    budgets: Mapping[str, int] = field(default_factory=dict)

    def budget_of(self, system: str) -> int | None:
        """Its own, or that of all."""
        return self.budgets.get(system, self.budget)

    def cells(self) -> Iterator[Cell]:
        """Seed by seed, so that every method has been seen before any is seen twice."""
        for seed in range(self.seeds):
            for system in self.systems:
                for method in self.methods:
                    yield Cell(system, method, seed)


def run_grid(
    grid: Grid, out: Path, *, finished: bool = False, say: Say = lambda _: None, tell: Tell = lambda *_: None
) -> list[Row]:
    """The rows of all cells; those whose file is in `out` are not run again, unless given up under a smaller cap.

    Every cell has a process of its own, so that one that is killed, or runs out of memory, costs itself only. So has
    what is prepared for several cells: trials that size them, end states of molecules. Where that fails, or is given
    up, its record in `out/unprepared` stands for all cells that need it, those that were given up before included: they
    have no value.

    Args:
        finished: run nothing, and leave out what has no file.
        say: told what is run, a line each.
        tell: told how far preparations are.

    Raises:
        InputError: an unknown system or method; two systems that would be kept as one; files of another budget,
            version, preset, settings or problem; nothing finished where only that is asked for.
        MissingPeerError: a package that is not installed; what was finished is kept.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> grid = Grid(["anharmonic-wells"], ["plain"], seeds=1, cap=0.0)  # no time at all
        >>> with TemporaryDirectory() as out:
        ...     (row,) = run_grid(grid, Path(out))
        ...     again = run_grid(grid, Path(out))  # read from its file
        >>> row.system, row.value, row.note, again == [row]
        ('anharmonic-wells', None, 'given up after 0 minutes', True)
    """
    configs = {system: _config(grid, system, 0) for system in grid.systems}  # all refused before any is run
    _check_apart(grid, configs)
    folder = out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    origins = {system: _origin(grid, system, config) for system, config in configs.items()}
    rows, cells = [], list(grid.cells())
    for n, cell in enumerate(cells):
        file, config, origin = folder / cell.file, configs[cell.system], origins[cell.system]
        if not finished and _to_run(file, grid.cap):
            say(f"{n + 1} of {len(cells)}: {cell.system}, {cell.method}, seed {cell.seed}")
            lost = _unprepared(grid, cell, out, origin, say, tell)
            if lost is None:
                row = _of(grid, cell, config, in_a_process(partial(_row, grid, cell, out), grid.cap))
                text = json.dumps(replace(row, origin=origin).to_cell(), indent=1)
                write_atomically(file, lambda path, text=text: path.write_text(text, encoding="utf-8"))
                say(f"    {_short(row)}")
            else:
                say(f"    {lost}")
        # One rule for what was run and for what is read: a record may be younger than a cell that was given up.
        lost = _on_record(grid, cell, out, origin) if _to_run(file, None) else None
        if lost is not None:
            rows.append(replace(_without(grid, cell, config, 0.0, lost), origin=origin))
        elif file.exists():
            rows.append(_read(file, grid.budget_of(cell.system), origin, config))
    if not rows:
        raise InputError(
            f"a table needs a finished cell: {folder} has none of these systems and methods; run them first"
        )
    return rows


def _check_apart(grid: Grid, configs: Mapping[str, Config]) -> None:
    """Cells go by the path of a system, and what is prepared for them by its `name`: no two may share either."""
    names, files = {}, {}
    for system in grid.systems:
        name, file = configs[system].name, Cell(system, "METHOD", 0).file.removesuffix("--0.json")
        if name in names:
            raise InputError(
                f"systems of one bench differ in `name`: {names[name]} and {system} are both {name!r}; list a system "
                "once, or give one of two its own name"
            )
        if file in files:
            raise InputError(
                f"systems of one bench differ in the files of their cells: those of {files[file]} and of {system} are "
                f"both cells/{file}--SEED.json; rename a folder, or bench one of them into another --out"
            )
        names[name] = files[file] = system


def _config(grid: Grid, system: str, seed: int) -> Config:
    path = catalogue.find(system)
    return resolve(load(path), run={"seed": seed}, preset=grid.preset, settings=_settings(grid), source=str(path))


def _settings(grid: Grid) -> list[str]:
    return [s for s in grid.settings if s.partition("=")[0].split(".")[0] != "run"]


def _origin(grid: Grid, system: str, config: Config) -> dict[str, Any]:
    return origin_of(config.run.preset, _settings(grid), digest_of(config, catalogue.find(system).parent))


def _unprepared(grid: Grid, cell: Cell, out: Path, origin: Mapping[str, Any], say: Say, tell: Tell) -> str | None:
    """Why a cell cannot be run, after all that it needs was made or tried."""
    budget = grid.budget_of(cell.system)
    while (needed := _needed(grid, cell, out, origin)) is not None:
        if lost := why_not(needed, out, grid.cap, budget, origin):
            return lost
        say(f"    {needed.what}")
        ended = in_a_process(partial(_prepare, grid, cell, out), grid.cap, tell)
        if ended.given_up or ended.failure:
            put_on_record(needed, ended, out, grid.cap, budget, origin)
        else:
            forgive(needed, out)
    return None


def _on_record(grid: Grid, cell: Cell, out: Path, origin: Mapping[str, Any]) -> str | None:
    """Why a cell could not be run when it was tried."""
    needed = _needed(grid, cell, out, origin)
    return None if needed is None else why_not(needed, out, 0.0, grid.budget_of(cell.system), origin)


def _needed(grid: Grid, cell: Cell, out: Path, origin: Mapping[str, Any]) -> Preparation | None:
    config, folder = _config(grid, cell.system, cell.seed), catalogue.find(cell.system).parent
    return next_preparation(config, folder, cell.method, grid.budget_of(cell.system), out, origin)


def _prepare(grid: Grid, cell: Cell, out: Path, tell: Tell) -> str:
    needed = _needed(grid, cell, out, _origin(grid, cell.system, _config(grid, cell.system, cell.seed)))
    assert needed is not None  # or no process would have been asked for it
    needed.make(tell)
    return needed.what


def _row(grid: Grid, cell: Cell, out: Path, _: Tell) -> Row:
    from nessampler.bench.density_cell import density_row
    from nessampler.bench.difference_cell import difference_row

    config, budget = _config(grid, cell.system, cell.seed), grid.budget_of(cell.system)
    folder, origin = catalogue.find(cell.system).parent, _origin(grid, cell.system, config)
    if isinstance(config, DensityConfig):
        return density_row(config, folder, cell.method, budget, out / "trials", origin)
    return difference_row(config, folder, cell.method, budget, out, origin)


def _of(grid: Grid, cell: Cell, config: Config, ended: Ended) -> Row:
    """The row of a cell, however it ended."""
    if isinstance(ended.answer, MissingPeerError):
        raise ended.answer
    if ended.given_up:
        row = _without(grid, cell, config, ended.seconds, f"{GIVEN_UP} after {grid.cap:g} minutes")
        return replace(row, metrics={CAP: grid.cap})
    return _without(grid, cell, config, ended.seconds, ended.failure) if ended.failure else ended.answer


def _to_run(file: Path, cap: float | None) -> bool:
    """Whether a cell was never run, or given up and may take longer now."""
    if not file.exists():
        return True
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        before = table["metrics"].get(CAP) if table["note"].startswith(GIVEN_UP) else None
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError):
        return False  # which reading it says by name
    return before is not None and (cap is None or cap > before)


def _without(grid: Grid, cell: Cell, config: Config, seconds: float, note: str) -> Row:
    """On record, without a result."""
    own = config.model_copy(update={"run": config.run.model_copy(update={"seed": cell.seed})})
    return Row.of_cell(
        own,
        cell.method,
        grid.budget_of(cell.system),
        chosen=cell.method,
        value=None,
        std_error=None,
        evaluations=0,
        fields=0,
        seconds=seconds,
        cpu_seconds=0.0,
        note=note,
    )


def _read(file: Path, budget: int | None, origin: Mapping[str, Any], config: Config) -> Row:
    try:
        row = Row.of(json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise InputError(f"a finished cell is a JSON file of this bench: {file} is none; remove it") from error
    if row.budget != budget:
        raise InputError(
            f"cells of one folder share a budget: {file} has {row.budget}, asked for is {budget}; choose another --out"
        )
    check_origin(row.origin, origin, file)
    known = config.reference
    value, error = (None, None) if known is None else (known.value, known.std_error)
    return replace(row, reference=value, reference_error=error)


def _short(row: Row) -> str:
    if row.value is None or row.std_error is None:
        return row.note or "no value"
    z = "" if row.z is None else f", {row.z:+.1f} from the reference"
    return (
        f"{row.value:.4f} ± {row.std_error:.4f}{z}; {row.evaluations / 1e6:.2f} M evaluations, {row.cpu_seconds:.0f} s"
    )
