"""`nessampler new`: a problem of one's own, from a commented template."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nessampler.commands._progress import as_it_is

__all__ = ["new"]


class Kind(StrEnum):
    """The templates."""

    density = "density"
    difference = "difference"
    molecule = "molecule"


NEXT = {
    Kind.density: "[target] and [base]",
    Kind.difference: "[state_a] and [state_b]",
    Kind.molecule: "structure and force_field of both states, and temperature; put your PDB file beside it",
}


def new(
    name: Annotated[Path, typer.Argument(help="The folder to make; its last part is the system's name.")],
    kind: Annotated[Kind, typer.Option(help="The template.")] = Kind.difference,
    source: Annotated[
        str | None, typer.Option("--from", metavar="SYSTEM", help="Copy this system instead of a template.")
    ] = None,
) -> None:
    """Make the folder of a new system; nothing is overwritten."""
    from nessampler.runs.catalogue import names
    from nessampler.runs.templates import create, source_of

    files = create(name, source_of(source, kind.value))
    say = partial(as_it_is, Console())
    say(f"{name} has {', '.join(files)}")
    edit = NEXT[kind] if source is None else "what differs, and [reference], which holds for the original only"
    say(f"Edit {name / 'system.toml'}: {edit}.")
    place = f"./{name}" if str(name) in names() else name  # a name of the catalogue would be looked up there
    say(f"Then:  nessampler show {place}\n       nessampler run {place} --preset smoke")
