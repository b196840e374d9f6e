"""Tables in text: comma, semicolon, tab or white space between columns, with or without a line of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nessampler.errors import InputError
from nessampler.exchange.columns import Direction, choose, named_unit
from nessampler.exchange.series import Series
from nessampler.exchange.sources import Source

__all__ = ["Table", "number", "read", "read_table"]

COMMENTS = "#@;%&"
_NUMBER = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?|inf|infinity|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Cells as text, with the line each row stands on.

    Attributes:
        names: of the columns, None where a column has none.
        rows: the cells, as many in each row as there are names.
        lines: line number of each row, from 1.
    """

    source: str
    names: tuple[str | None, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def numeric(self) -> list[int]:
        """Places of the columns whose first cell is a number."""
        return [place for place, cell in enumerate(self.rows[0]) if number(cell) is not None]

    def column(self, place: int) -> np.ndarray:
        """One column as numbers; cells left blank at its end are not part of it.

        Raises:
            InputError: a cell that is not a number, with its line.
        """
        cells = [row[place] for row in self.rows]
        while cells and not cells[-1]:
            cells.pop()
        values = [number(cell) for cell in cells]
        if None in values:
            at = values.index(None)
            raise InputError(
                f"{self.source} line {self.lines[at]}: column {self.names[place] or place + 1} must hold a number: "
                f"got {cells[at][:40]!r}"
            )
        return np.array(values, dtype=np.float64)


def number(cell: str) -> float | None:
    """A number in decimal notation, with Fortran's exponents; None if it is not one.

    >>> number("1.5D+02"), number("-inf"), number("1_000"), number("1,5")
    (150.0, -inf, None, None)
    """
    if not _NUMBER.fullmatch(cell):
        return None
    return float(cell) if cell.lower().lstrip("+-").startswith(("inf", "nan")) else float(re.sub("[dD]", "e", cell))


def read(source: Source, column: str | None, direction: Direction) -> Series:
    """The works in a table of text.

    Raises:
        InputError: not a table, no such column, or a cell that is not a number.
    """
    table = read_table(source)
    place = choose(table.names, column, source.name, direction, table.numeric())
    name = table.names[place]
    how = f"column {name or place + 1}" if len(table.names) > 1 else ""
    return Series(table.column(place), named_unit(name or ""), None, how)


def read_table(source: Source) -> Table:
    """Rows of cells; a line of names, or names in a comment as PLUMED and AMBER write them, name the columns.

    Raises:
        InputError: no rows, or rows of different lengths.
    """
    lines = source.text().splitlines()
    kept = [(at, line) for at, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] not in COMMENTS]
    if not kept:
        raise InputError(f"{source.name} has no line of numbers: two works or more are needed")
    split = _splitter(kept[-1][1])
    rows = [(at, split(line)) for at, line in kept]
    header = rows[0][1] if not any(number(cell) is not None for cell in rows[0][1]) and len(rows) > 1 else None
    body = rows if header is None else rows[1:]
    width = len(body[0][1])
    for at, cells in body:
        if len(cells) != width:
            raise InputError(f"{source.name} line {at}: {len(cells)} columns where the first row has {width}")
    names = header if header is not None else _names_in_comments(lines[: body[0][0] - 1], width)
    if header is not None and len(header) != width:
        header = names = [" ".join(header)] if width == 1 else _with_units(header)
    if header is not None and len(header) != width:
        raise InputError(f"{source.name} names {len(header)} columns and has {width}: one name for each is needed")
    return Table(
        source.name,
        tuple(name or None for name in names) if names else (None,) * width,
        tuple(tuple(cells) for _, cells in body),
        tuple(at for at, _ in body),
    )


def _splitter(line: str):
    for delimiter in (";", "\t", ","):
        if delimiter in line:
            return lambda text: [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter))]
    return lambda text: text.split()


def _with_units(words: Sequence[str]) -> list[str]:
    """Names between white space, of which units in brackets are part."""
    names: list[str] = []
    for word in words:
        if names and word.startswith(("(", "[")):
            names[-1] += f" {word}"
        else:
            names.append(word)
    return names


def _names_in_comments(lines: Sequence[str], width: int) -> list[str] | None:
    """Names from the last comment that has as many as there are columns."""
    for line in reversed(lines):
        bare = line.strip().lstrip("#!; ").removeprefix("FIELDS ")
        for names in ([part.strip() for part in bare.split(",")], _with_units(bare.split())):
            if len(names) == width and not any(number(name) is not None for name in names):
                return names
    return None
