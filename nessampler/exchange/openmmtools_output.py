"""openmmtools: the protocol work that a nonequilibrium integrator has accumulated, in kT.

Cycling protocols write one `.npy` a cycle and direction, `get_protocol_work(dimensionless=True)` every so many steps;
the counter is not reset between the directions, so a run's work is the last value minus the first. An array
`(cycles, points)` holds one run a row.
"""

from __future__ import annotations

from dataclasses import replace

from nessampler.exchange import arrays
from nessampler.exchange.columns import Direction
from nessampler.exchange.series import Series, last_minus_first
from nessampler.exchange.sources import Source

__all__ = ["read"]


def read(source: Source, column: str | None, direction: Direction) -> Series:
    """The works of one cycle, or of one a row.

    Raises:
        InputError: what `arrays.read` refuses, or fewer than two points along a run.
    """
    series = last_minus_first(arrays.read(source, column, direction), source.name)
    return replace(series, unit="kT", how="protocol work, last minus first value")
