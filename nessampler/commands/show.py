"""`nessampler show`: one system, what it asks, what is known of it, what it costs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["show"]


def show(
    system: Annotated[str, typer.Argument(help="A name from `nessampler list`, a folder, or a system.toml.")],
    preset: Annotated[str | None, typer.Option(help="Every setting of this one; by default what differs.")] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON on standard output.")] = False,
) -> None:
    """Show a system: its states or its density, settings by preset, files, reference and costs."""
    from json import dumps

    from nessampler.runs import catalogue
    from nessampler.runs.description import described, page

    found = described(catalogue.find(system), preset)
    if json:
        sys.stdout.write(dumps(found, indent=2, ensure_ascii=False) + "\n")
    else:
        console = Console()
        for part in page(found):
            console.print(part)
