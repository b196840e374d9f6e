"""`nessampler compare`: finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nessampler.commands._progress import as_it_is

__all__ = ["compare"]

FORMATS = (".html", ".csv", ".md", ".json", ".png", ".svg")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Directories of finished runs.")],
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Also write a file, by its ending a page, table or figure: " + ", ".join(FORMATS) + "."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Compare different systems, or one at different temperatures.")
    ] = False,
) -> None:
    """Do runs of one problem agree, and what did each cost?"""
    from nessampler.errors import InputError
    from nessampler.runs.comparison import compare_runs
    from nessampler.runs.comparison_files import write_comparison
    from nessampler.runs.comparison_words import render

    for file in out or ():
        if file.suffix.lower() not in FORMATS:
            raise InputError(f"--out must end in one of {', '.join(FORMATS)}: got {file}")
    found = compare_runs(runs, force=force)
    console = Console()
    render(found, console)
    for file in out or ():
        write_comparison(found, file)
        as_it_is(console, f"written: {file}")
