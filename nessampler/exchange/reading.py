"""From files of any known format to the works of one or both directions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nessampler.errors import InputError
from nessampler.exchange import amber, arrays, gromacs, netcdf, openmmtools_output, text
from nessampler.exchange.columns import Direction, bare_name
from nessampler.exchange.given import GivenWorks
from nessampler.exchange.series import Series, joined, last_minus_first
from nessampler.exchange.sources import STDIN, Source, open_sources

__all__ = ["FORMATS", "in_chains", "read_both_directions", "read_works"]

Reader = Callable[[Source, str | None, Direction], Series]
FORMATS: dict[str, Reader] = {
    "text": text.read,
    "numpy": arrays.read,
    "netcdf": netcdf.read,
    "gromacs": gromacs.read,
    "amber": amber.read,
    "openmmtools": openmmtools_output.read,
}
_BEGINNINGS = {b"\x93NUMPY": "numpy", b"PK\x03\x04": "numpy", b"CDF": "netcdf", b"\x89HDF": "netcdf"}
_SUFFIXES = {".npy": "numpy", ".npz": "numpy", ".nc": "netcdf", ".nc4": "netcdf", ".xvg": "gromacs"}


def read_works(
    name: str,
    *,
    direction: Direction = "forward",
    format: str | None = None,
    column: str | None = None,
    accumulated: bool = False,
) -> GivenWorks:
    """The works of one direction, from a file, a pattern such as `"runs/*.xvg"`, or "-" for standard input.

    Several files give their works one after another in natural order; where a file is one run, one work each.

    Args:
        direction: "forward" for A → B, "reverse" for B → A: which column is meant, and which way λ moves.
        format: one of `FORMATS`; by default recognised.
        column: name or number (from 1) of the column, array or variable.
        accumulated: values are the work accumulated along a run, of which the last minus the first counts.

    Raises:
        InputError: files that are missing, empty, cut off or of another kind; a column that cannot be told.

    >>> from tempfile import TemporaryDirectory
    >>> from pathlib import Path
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "works.csv")
    ...     _ = path.write_text("run,work (kJ/mol)\\n1,2.5\\n2,3.5\\n")
    ...     read_works(str(path), column="work").values
    array([2.5, 3.5])
    """
    return _read(open_sources(name), name, direction, format, column, accumulated)


def read_both_directions(
    forward: str,
    reverse: str | None = None,
    *,
    format: str | None = None,
    column: str | None = None,
    reverse_column: str | None = None,
    accumulated: bool = False,
) -> tuple[GivenWorks, GivenWorks | None]:
    """The works of both directions; the reverse ones are None where there are none.

    A `column` is that of both files, unless `reverse_column` names another; not of GROMACS files, where each direction
    has columns of its own.

    Both directions may stand in one file: as columns or arrays of which both are named or are called `forward` and
    `reverse`, or as groups of these names, as in the `works.nc` of a run.

    Raises:
        InputError: as `read_works`; standard input for both.

    >>> from tempfile import TemporaryDirectory
    >>> from pathlib import Path
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "works.csv")
    ...     _ = path.write_text("forward,reverse\\n3,-1\\n4,-2\\n")
    ...     forward, reverse = read_both_directions(str(path))
    >>> forward.values, reverse.values
    (array([3., 4.]), array([-1., -2.]))
    """
    if forward == reverse == STDIN:
        raise InputError("standard input can be read once: give one direction as -, the other as a file")
    sources = open_sources(forward)
    other = None if reverse is None else open_sources(reverse)
    if other is None and (reverse_column is not None or (column is None or _kind(sources[0], format) == "netcdf")):
        other = sources if reverse_column is not None or _holds_both(sources, format) else None
        reverse_column = column if reverse_column is None and other is not None else reverse_column
        reverse = forward
    elif other is not None and reverse_column is None and _kind(other[0], format) != "gromacs":
        reverse_column = column  # files of both directions look alike; ΔH of GROMACS lead elsewhere
    if other is None:
        return _read(sources, forward, "forward", format, column, accumulated), None
    given = _read(sources, forward, "forward", format, column, accumulated, opposite=other[0])
    return given, _read(other, str(reverse), "reverse", format, reverse_column, accumulated, opposite=sources[0])


def in_chains(values: np.ndarray, chains: int) -> np.ndarray:
    """Works `(n,)` that are time series one after another, as `(chains, draws)`.

    Raises:
        InputError: a number of chains that does not divide the works, or leaves fewer than two draws.

    >>> in_chains(np.arange(6.0), 2).shape
    (2, 3)
    """
    if values.ndim != 1:
        raise InputError(f"the works come as {len(values)} chains already: leave the number of chains out")
    if chains < 1 or values.size % chains or values.size // chains < 2:
        raise InputError(
            f"chains are of one length, two draws or more: {values.size} works do not make {chains} chains"
        )
    return values.reshape(chains, -1)


def _read(
    sources: list[Source],
    name: str,
    direction: Direction,
    format: str | None,
    column: str | None,
    accumulated: bool,
    opposite: Source | None = None,
) -> GivenWorks:
    found = []
    for source in sources:
        kind = _kind(source, format)
        if kind == "gromacs":
            state = gromacs.read_xvg(opposite).state if opposite and _kind(opposite, format) == kind else None
            series = gromacs.read(source, column, direction, state)
        else:
            series = FORMATS[kind](source, column, direction)
        if accumulated and series.kind != "run":
            series = last_minus_first(series, source.name)
        found.append(series)
    whole = joined(found, [source.name for source in sources])
    values = np.atleast_2d(whole.values) if whole.kind == "chain" else whole.values
    title = sources[0].name if len(sources) == 1 else f"{len(sources)} files {name}"
    return GivenWorks(values, whole.unit, whole.temperature, title, whole.how)


def _kind(source: Source, format: str | None) -> str:
    if format is not None:
        if format not in FORMATS:
            raise InputError(f"formats are {', '.join(FORMATS)}: got {format!r}")
        return format
    for beginning, kind in _BEGINNINGS.items():
        if source.content.startswith(beginning):
            return kind
    if source.suffix in _SUFFIXES:
        return _SUFFIXES[source.suffix]
    head = source.content[:4000]
    return "gromacs" if b"\n@" in head and b"xaxis" in head else "text"


def _holds_both(sources: list[Source], format: str | None) -> bool:
    if len(sources) > 1:
        return False
    kind = _kind(sources[0], format)
    if kind == "netcdf":
        return netcdf.has_both_directions(sources[0])
    if kind not in ("numpy", "text"):
        return False
    names = arrays.names(sources[0]) if kind == "numpy" else text.read_table(sources[0]).names
    bare = [bare_name(name) for name in names if name]
    return {"forward", "reverse"} <= set(bare)
