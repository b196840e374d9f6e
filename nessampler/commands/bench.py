"""`nessampler bench`: methods side by side at equal budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from nessampler.commands._progress import Progress, as_it_is
from nessampler.errors import InputError

__all__ = ["bench"]


def bench(
    suite: Annotated[str, typer.Argument(help="density or difference.")],
    systems: Annotated[list[str] | None, typer.Option("--systems", help="Of the suite's, or any; repeatable.")] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--methods", help="Of the suite's, or peers; repeatable.")
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(help="Evaluations for a cell; by default the suite's, 0 for the presets' sizes; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ….")] = 3,
    preset: Annotated[str | None, typer.Option(help="smoke, quick or full.")] = None,
    cap: Annotated[
        float,
        typer.Option(
            help="Minutes after which a cell is given up, and on record as such; what is prepared for several cells, "
            "trials that size them and end states of molecules, has as many of its own."
        ),
    ] = 30.0,
    out: Annotated[Path | None, typer.Option(help="By default runs/bench-SUITE.")] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="Run nothing: tables of the cells that are there.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of every system.")
    ] = None,
) -> None:
    """Run a grid of systems, methods and seeds at equal budgets; finished cells are not run again."""
    from nessampler.bench.figures import error_against_evaluations
    from nessampler.bench.grid import Grid, run_grid
    from nessampler.bench.suites import SUITES
    from nessampler.bench.tables import summaries, to_csv, to_markdown

    if suite not in SUITES:
        raise InputError(f"a suite is one of {', '.join(SUITES)}: got {suite!r}")
    chosen = SUITES[suite]
    _check(methods, (*chosen.methods, *chosen.peers))
    asked = dict.fromkeys(budget or (None,))

    def grid(budget: int | None) -> Grid:
        return Grid(
            systems=tuple(systems or chosen.systems),
            methods=tuple(methods or chosen.methods),
            seeds=seeds,
            budget=chosen.budget if budget is None else budget or None,
            preset=preset,
            settings=tuple(settings or ()),
            cap=cap,
            budgets=chosen.budgets if budget is None else {},
        )

    where = out or Path("runs") / f"bench-{suite}"
    errors = Console(stderr=True)
    tables, found = [], []
    for budget_of_all in asked:
        folder = where if len(asked) == 1 else where / f"budget-{budget_of_all}"
        try:
            with Progress(errors) as progress:
                rows = run_grid(grid(budget_of_all), folder, finished=finished, say=progress.say, tell=progress.advance)
        except KeyboardInterrupt:
            as_it_is(errors, f"\ninterrupted; finished cells are kept in {where}. To go on: the same command")
            raise SystemExit(130) from None
        (folder / "cells.csv").write_text(to_csv(rows), encoding="utf-8")
        (folder / "summary.md").write_text(to_markdown(rows), encoding="utf-8")
        tables.append(to_markdown(rows, brief=True))
        found += summaries(rows)
    error_against_evaluations(found, where / "errors.png")
    for budget_of_all, table in zip(asked, tables, strict=True):
        Console().print(Markdown(table if len(asked) == 1 else f"## {_sizes(budget_of_all)}\n\n{table}"))
    as_it_is(errors, f"tables and figure: {where}")


def _sizes(budget: int | None) -> str:
    return f"{budget:,} evaluations" if budget else "the presets' sizes"


def _check(methods: list[str] | None, known: tuple[str, ...]) -> None:
    unknown = [m for m in methods or () if m not in known]
    if unknown:
        raise InputError(f"methods of this suite are {', '.join(known)}: got {', '.join(unknown)}")
