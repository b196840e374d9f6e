"""`nessampler estimate`: the verdict on works that others produced."""

from __future__ import annotations

import json as serial
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from nessampler.exchange import WorksEstimate

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
    out: Annotated[
        Path | None, typer.Option(help="Folder for result.json, works.nc, report.html and figures/.")
    ] = None,
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
    options = {
        "unit": unit,
        "temperature": temperature,
        "column": column,
        "reverse-column": reverse_column,
        "format": format,
        "accumulated": accumulated,
        "chains": chains,
        "reverse-negated": reverse_negated,
        "seed": seed,
    }
    result = to_dict(found, forward, reverse, version("nessampler"), seed, _command(works, options))
    text = serial.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        if folder is not None:
            _write(folder, text, found)
    finally:  # whatever becomes of the files, the answer is told
        if json:
            sys.stdout.write(text)
        render(result, None if folder is None else str(folder), Console(stderr=json))


def _command(works: Sequence[str], options: Mapping[str, str | int | None]) -> str:
    """The command line that judges these works again."""
    said = ["nessampler", "estimate", *works]
    for name, value in options.items():
        if value is not None and value is not False:
            said += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(said)


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


def _write(folder: Path, text: str, found: WorksEstimate) -> None:
    """The answer first, then the works, then what is drawn from both: a disk that fills up takes the last first."""
    from nessampler._files import write_atomically
    from nessampler.errors import InputError
    from nessampler.runs.finished import compose_again, open_finished
    from nessampler.runs.given_works import given_groups
    from nessampler.runs.netcdf import packed
    from nessampler.runs.page import write_files

    try:
        write_atomically(folder / "result.json", lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--out must be a folder that can be written: {folder} is not ({error.strerror})") from error
    try:
        works = packed(given_groups(*found.works))
        write_atomically(folder / "works.nc", lambda path: path.write_bytes(works))
        write_files(compose_again(open_finished(folder)), folder)
    except OSError as error:
        drawn = f"draw it with nessampler report {folder}" if (folder / "works.nc").exists() else "choose another --out"
        raise InputError(
            f"{folder} holds the result, but its report could not be written ({error.strerror}); make room and {drawn}"
        ) from error
