"""`nessampler estimate`: the verdict on works that others produced."""

from __future__ import annotations

import json as serial
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["estimate"]


def estimate(
    works: Annotated[
        list[str],
        typer.Argument(
            metavar="FORWARD [REVERSE]",
            help='Works of A → B, and of B → A: a file, a pattern in quotes such as "forward/*.xvg", or - for standard '
            "input.",
        ),
    ],
    unit: Annotated[str | None, typer.Option(help="kT, kJ/mol or kcal/mol, where the file does not say.")] = None,
    temperature: Annotated[str | None, typer.Option(help='Such as "300 K"; needed unless the unit is kT.')] = None,
    column: Annotated[
        str | None, typer.Option(help="Column, array, variable or rung of the works: its name, or its number from 1.")
    ] = None,
    reverse_column: Annotated[
        str | None,
        typer.Option(help="Another one for the reverse works; without REVERSE, in the file of the forward ones."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="text, numpy, netcdf, gromacs, amber or openmmtools; by default recognised, except the last two."
        ),
    ] = None,
    accumulated: Annotated[
        bool,
        typer.Option("--accumulated", help="Values accumulate along a run, whose work is the last minus the first."),
    ] = False,
    chains: Annotated[
        int | None, typer.Option(help="The works are this many time series of equal length, one after another.")
    ] = None,
    reverse_negated: Annotated[
        bool, typer.Option("--reverse-negated", help="Reverse works are stored as -W, as pmx does.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstraps.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for result.json.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print result.json on standard output.")] = False,
) -> None:
    """Judge works that were done elsewhere: ΔF with error, bounds, checks and a verdict.

    Works are what a process costs, so that forward and reverse ones cannot both be negative on average.
    """
    from importlib.metadata import version

    from nessampler.errors import InputError
    from nessampler.exchange import estimate_given, read_both_directions
    from nessampler.runs.summary import render
    from nessampler.runs.units import parse
    from nessampler.runs.works_result import to_dict

    if len(works) > 2:
        pattern = Path(works[0]).with_name(f"*{Path(works[0]).suffix}")
        raise InputError(
            f'works are FORWARD and REVERSE: got {len(works)} files; put a pattern in quotes, as "{pattern}"'
        )
    kelvin = None if temperature is None else parse(temperature, "K")
    folder = None if out is None else _new_folder(out)
    given = read_both_directions(
        works[0],
        works[1] if len(works) == 2 else None,
        format=format,
        column=column,
        reverse_column=reverse_column,
        accumulated=accumulated,
    )
    forward, reverse = (None if one is None else one.settled(unit, kelvin) for one in given)
    assert forward is not None
    found = estimate_given(forward, reverse, reverse_negated=reverse_negated, chains=chains, seed=seed)
    result = to_dict(found, forward, reverse, version("nessampler"), seed)
    text = serial.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if folder is not None:
        _write(folder, text)
    if json:
        sys.stdout.write(text)
    render(result, None if folder is None else str(folder), Console(stderr=json))


def _new_folder(out: Path) -> Path:
    """The folder to write to, made before anything is read, so that a long estimate is not lost."""
    from nessampler.errors import InputError

    if (out / "result.json").exists():
        raise InputError(f"{out} already holds a result: choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written: {out} is not ({error.strerror})") from error
    return out


def _write(folder: Path, text: str) -> None:
    from nessampler._files import write_atomically
    from nessampler.errors import InputError

    try:
        write_atomically(folder / "result.json", lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written: {folder} is not ({error.strerror})") from error
