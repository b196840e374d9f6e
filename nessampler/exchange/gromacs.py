r"""GROMACS: dH/dλ of switching simulations, ΔH of simulations at one λ, and any column of a `.xvg` file.

A switching simulation changes λ evenly from one end to the other; its work is

    W = ∫ dH/dλ dλ,     λ from 0 to 1 forward, from 1 to 0 reverse

by the trapezoidal rule over the points written, so that the reverse work is what it costs to go back. (pmx integrates
the reverse curve from 0 to 1 instead: its works have the other sign.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from nessampler.errors import InputError
from nessampler.exchange.columns import Direction, choose, named_unit
from nessampler.exchange.series import Series
from nessampler.exchange.sources import Source
from nessampler.exchange.text import Table, read_table

__all__ = ["Xvg", "read", "read_xvg"]

_LAMBDA = r"(?:\\xl\\f\{\}|\\lambda|\\8l\\4)"
_SLOPE = re.compile(r"dH/d" + _LAMBDA)
_DIFFERENCE = re.compile(r"(?:\\xD\\f\{\}|\\Delta)H\s+" + _LAMBDA + r"\s+(?:to\s+)?\(?([^()]*)\)?")
_FIXED = re.compile(_LAMBDA + r"(?:\s+state\s+\d+:.*)?\s*=\s*\(?([-\d.,\s]+)\)?\s*$")
_TEMPERATURE = re.compile(r"T\s*=\s*([\d.]+)\s*\(K\)")
_START = re.compile(r"([-\d.]+)\s*$")

State = tuple[float, ...]


@dataclass(frozen=True)
class Xvg:
    """A `.xvg` file with what its header says.

    Attributes:
        table: the columns, named by their legends; the first is the time.
        temperature: kelvin.
        state: λ, or its components, where the simulation stayed at one; None where λ moves.
        slopes: places of dH/dλ.
        differences: places of ΔH to other states, by their λ.
        unit: of the vertical axis, None where its label names none.
    """

    table: Table
    temperature: float | None
    state: State | None
    slopes: tuple[int, ...]
    differences: dict[State, int]
    unit: str | None


def read_xvg(source: Source) -> Xvg:
    """Read a `.xvg` file.

    Raises:
        InputError: no rows, rows of different lengths, or more legends than columns.
    """
    table = read_table(source)
    legends: dict[int, str] = {}
    subtitle, axis = "", ""
    for line in source.text().splitlines():
        match = re.match(r'@\s*(?:s(\d+)\s+legend|(subtitle)|(yaxis)\s+label)\s+"(.*)"', line.strip())
        if match is None:
            continue
        if match[1] is not None:
            legends[int(match[1]) + 1] = match[4]
        subtitle = match[4] if match[2] else subtitle
        axis = match[4] if match[3] else axis
    width = len(table.names)
    if legends and max(legends) >= width:
        raise InputError(f"{source.name} has {len(legends)} legends for {width - 1} columns beside the time")
    if width == 2 and not legends and _SLOPE.search(axis):
        legends = {1: axis}  # of a single curve GROMACS writes no legend
    names = tuple("time" if place == 0 else legends.get(place) for place in range(width))
    temperature, fixed = _TEMPERATURE.search(subtitle), _FIXED.search(subtitle)
    differences = {_state(found[1]): place for place, text in legends.items() if (found := _DIFFERENCE.search(text))}
    slopes = tuple(p for p, text in legends.items() if _SLOPE.match(text) and not _DIFFERENCE.match(text))
    return Xvg(
        Table(source.name, names, table.rows, table.lines),
        float(temperature[1]) if temperature else None,
        _state(fixed[1]) if fixed else None,
        slopes,
        differences,
        "kJ/mol" if "(kJ/mol" in axis else None,
    )


def read(source: Source, column: str | None, direction: Direction, opposite: State | None = None) -> Series:
    """The works in a `.xvg` file: one of a switching simulation, a time series of one at a fixed λ.

    Args:
        column: a legend or a number, where another column is meant; its rows are works.
        opposite: λ at which the other direction was sampled, which tells one ΔH from the others.

    Raises:
        InputError: a column that cannot be told, λ that starts at the other end, or a cell that is not a number.
    """
    xvg = read_xvg(source)
    if column is not None:
        place = choose(xvg.table.names, column, source.name, direction)
        name = xvg.table.names[place] or str(place + 1)
        unit = named_unit(name) or xvg.unit or ("kJ/mol" if _DIFFERENCE.search(name) else None)
        kind = "chain" if xvg.state is not None else "works"
        return Series(xvg.table.column(place), unit, xvg.temperature, f"column {name}", kind)
    if "Thermodynamic state" in xvg.table.names:
        raise InputError(
            f"{source.name} is of an expanded ensemble, which wanders between states: its works have no direction; "
            "alchemlyb reads it"
        )
    if xvg.state is not None:
        return _differences(xvg, opposite, direction)
    if len(xvg.slopes) == 1:
        return _switched(xvg, direction)
    if xvg.slopes:
        raise InputError(
            f"{source.name} has {len(xvg.slopes)} columns of dH/dλ, whose λ need not move together: run with "
            "separate-dvdl for one of them, or integrate them yourself and give the works"
        )
    if not xvg.unit:
        raise InputError(
            f"the header of {source.name} does not say what its columns are: name the one of works, --column"
        )
    place = choose(xvg.table.names, None, source.name, direction, range(1, len(xvg.table.names)))
    unit = named_unit(xvg.table.names[place] or "") or xvg.unit
    return Series(xvg.table.column(place), unit, xvg.temperature)


def _switched(xvg: Xvg, direction: Direction) -> Series:
    place = xvg.slopes[0]
    slope, name = xvg.table.column(place), xvg.table.source
    if len(slope) < 2:
        raise InputError(f"dH/dλ is integrated over two points or more: {name} has {len(slope)}")
    start, end = (0.0, 1.0) if direction == "forward" else (1.0, 0.0)
    said = _START.search(xvg.table.names[place] or "")
    if said and float(said[1]) != start:
        raise InputError(
            f"{direction} simulations start at λ = {start:g}: {name} starts at {float(said[1]):g}; forward is from 0 "
            "to 1, reverse from 1 to 0"
        )
    time = xvg.table.column(0)
    if not (np.diff(time) > 0).all():
        raise InputError(f"time must rise from row to row: in {name} it does not; join its parts without overlap")
    at = start + (end - start) * (time - time[0]) / (time[-1] - time[0])
    work = float(np.trapezoid(slope, at))
    return Series(np.array([work]), "kJ/mol", xvg.temperature, "∫ dH/dλ dλ of each file", "run", len(slope))


def _differences(xvg: Xvg, opposite: State | None, direction: Direction) -> Series:
    name, own = xvg.table.source, xvg.state
    others = {state: place for state, place in xvg.differences.items() if state != own}
    if not others:
        raise InputError(
            f"{name} stayed at λ = {_text(own)} and has no ΔH to another λ: write them with foreign lambdas, or give "
            "switching simulations"
        )
    wanted = opposite if opposite in others else next(iter(others)) if len(others) == 1 else None
    if wanted is None:
        option = "--column" if direction == "forward" else "--reverse-column"
        known = ", ".join(f"{place + 1} to {_text(state)}" for state, place in list(others.items())[:6])
        raise InputError(f"{name} has ΔH to {len(others)} other λ: name a column with {option} ({known}, …)")
    how = f"ΔH from λ = {_text(own)} to {_text(wanted)}"
    return Series(xvg.table.column(others[wanted]), "kJ/mol", xvg.temperature, how, "chain")


def _state(text: str) -> State:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return ()


def _text(state: State | None) -> str:
    return ", ".join(f"{part:g}" for part in state or ())
