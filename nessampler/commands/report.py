"""`nessampler report`: the report of a finished run, drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="The directory of a finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="Where report.html and figures/ go; by default the run's directory.")
    ] = None,
) -> None:
    """Draw the report and the figures of a finished run again, from its files alone."""
    from nessampler.errors import InputError
    from nessampler.runs.finished import compose_again, open_finished
    from nessampler.runs.page import write_files

    finished = open_finished(run)
    composed = compose_again(finished)
    where = out or finished.path
    try:
        where.mkdir(parents=True, exist_ok=True)
        page, figures = write_files(composed, where)
    except OSError as error:
        raise InputError(
            f"the report needs a directory that can be written: {where} is not ({error.strerror}); choose another --out"
        ) from error
    console = Console()
    console.print(f"{page}\n{len(composed.panels)} figures in {figures}", highlight=False, soft_wrap=True)
