"""What several cells need and one process makes for all: sizes by trials, end states of molecules."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nessampler._files import write_atomically
from nessampler.bench.origin import check_origin
from nessampler.bench.workers import Ended, Tell
from nessampler.errors import InputError
from nessampler.runs.config import Config, DensityConfig

__all__ = ["Preparation", "forgive", "next_preparation", "put_on_record", "why_not"]

FOLDER = "unprepared"


@dataclass(frozen=True)
class Preparation:
    """Something that is made before a cell, and not in its minutes.

    Attributes:
        what: is made, as progress names it.
        file: which it leaves.
        make: it, telling how far it is.
    """

    what: str
    file: Path
    make: Callable[[Tell], object]


def next_preparation(
    config: Config, folder: Path, method: str, budget: int | None, out: Path, origin: Mapping[str, Any]
) -> Preparation | None:
    """The first thing that a cell needs and that is not there; what comes later may depend on it.

    Raises:
        InputError: what is there is of another origin.
    """
    from nessampler.bench.density_cell import density_preparation
    from nessampler.bench.difference_cell import difference_preparation

    if isinstance(config, DensityConfig):
        return density_preparation(config, folder, budget, out / "trials", origin)
    return difference_preparation(config, folder, method, budget, out, origin)


def put_on_record(
    needed: Preparation, ended: Ended, out: Path, cap: float | None, budget: int | None, origin: Mapping[str, Any]
) -> None:
    """Why something could not be made, for all cells that need it, in this command and in later ones."""
    text = json.dumps(
        {
            "what": needed.what,
            "failure": ended.failure,
            "cap_minutes": cap if ended.given_up else None,
            "seconds": ended.seconds,
            "budget": budget,
            "origin": dict(origin),
        },
        indent=1,
    )
    file = _record(needed, out)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def why_not(
    needed: Preparation, out: Path, cap: float | None, budget: int | None, origin: Mapping[str, Any]
) -> str | None:
    """What is on record against it; None where it may be tried: never was, at this budget, or not for so long.

    Raises:
        InputError: a record of another origin, or a file that is none.
    """
    file = _record(needed, out)
    if not file.exists():
        return None
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
        before, failure, asked, of = (table[name] for name in ("cap_minutes", "failure", "budget", "origin"))
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise InputError(f"a record of this bench is a JSON file: {file} is none; remove it") from error
    check_origin(of, origin, file)
    if asked != budget or (before is not None and (cap is None or cap > before)):
        return None
    if before is not None:
        return f"not prepared: {needed.what} given up after {before:g} minutes; a larger --cap goes on with it"
    return f"not prepared: {needed.what} failed: {failure}; remove {file} to try again"


def forgive(needed: Preparation, out: Path) -> None:
    """It is there now: nothing is on record against it."""
    _record(needed, out).unlink(missing_ok=True)


def _record(needed: Preparation, out: Path) -> Path:
    """At the place, below a folder of its own, of the file that is missing."""
    return out / FOLDER / needed.file.relative_to(out)
