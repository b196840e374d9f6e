"""AMBER: the work along a steered simulation, one file a run.

`jar = 1` writes four columns to DUMPAVE (restraint, actual value, force, work), the nfe and ncsu modules five (time,
variable, handle position, spring constant, work); the last one is the work done so far, in kcal/mol.
"""

from __future__ import annotations

from dataclasses import replace

from nessampler.errors import InputError
from nessampler.exchange.columns import Direction, choose
from nessampler.exchange.series import Series, last_minus_first
from nessampler.exchange.sources import Source
from nessampler.exchange.text import read_table

__all__ = ["read"]


def read(source: Source, column: str | None, direction: Direction) -> Series:
    """The work of one steered simulation.

    Raises:
        InputError: not a table of four columns or more, or a cell that is not a number.
    """
    table = read_table(source)
    if len(table.names) < 4 and column is None:
        raise InputError(
            f"AMBER writes the work of steered MD in the last of four columns or more: {source.name} has "
            f"{len(table.names)}; name the column with --column, or leave --format out for works one a line"
        )
    place = len(table.names) - 1 if column is None else choose(table.names, column, source.name, direction)
    series = last_minus_first(Series(table.column(place), "kcal/mol"), source.name)
    return replace(series, how="last work of each file")
