"""What one file holds, and how several files make the works of one direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nessampler.errors import InputError

__all__ = ["Series", "joined", "last_minus_first"]


@dataclass(frozen=True)
class Series:
    """Numbers of one file.

    Attributes:
        values: `(n,)`, or `(chains, draws)`.
        unit: their unit, None where the file does not say.
        temperature: kelvin, None where the file does not say.
        how: how they were had, in words.
        kind: "works" that are independent unless they are chains; "chain", draws of one simulation in time order;
            "run", the single work of a switching simulation.
        points: written along a run; runs of one direction have the same number, or one was cut off.
    """

    values: np.ndarray
    unit: str | None = None
    temperature: float | None = None
    how: str = ""
    kind: Literal["works", "chain", "run"] = "works"
    points: int | None = None


def last_minus_first(series: Series, source: str) -> Series:
    """The works of runs from the work accumulated along each: one a file, or one a row.

    Raises:
        InputError: fewer than two points along a run.

    >>> last_minus_first(Series(np.array([[1.0, 2.0, 5.0], [0.0, 1.0, 3.0]])), "w.npy").values
    array([4., 3.])
    """
    along = np.atleast_2d(series.values)
    if along.shape[1] < 2:
        raise InputError(f"accumulated work has two points or more along a run: {source} has {along.shape[1]}")
    how = f"last minus first value of {series.how}" if series.how else "last minus first value"
    with np.errstate(invalid="ignore"):
        return replace(series, values=along[:, -1] - along[:, 0], how=how, kind="run", points=along.shape[1])


def joined(found: Sequence[Series], names: Sequence[str]) -> Series:
    """The works of all files as those of one direction: works one after another, chains side by side.

    Raises:
        InputError: files that differ in unit, temperature or kind, or chains and runs of different lengths.
    """
    first = found[0]
    for other, name in zip(found, names, strict=True):
        for what in ("unit", "temperature", "kind"):
            if getattr(other, what) != getattr(first, what):
                raise InputError(
                    f"files of one direction are alike: {name} has {what} {getattr(other, what)}, {names[0]} "
                    f"{getattr(first, what)}; give them apart"
                )
    counts = [series.points or 0 for series in found]
    if min(counts) < max(counts):
        short, long = (names[counts.index(count)] for count in (min(counts), max(counts)))
        raise InputError(
            f"runs of one direction are equally long: {short} has {min(counts)} points, {long} has {max(counts)}; a "
            "run that was cut off has no work yet, so finish it"
        )
    if first.kind == "chain" or any(series.values.ndim == 2 for series in found):
        chains = [np.atleast_2d(series.values) for series in found]
        lengths = {chain.shape[1] for chain in chains}
        if len(lengths) > 1:
            raise InputError(
                f"chains are of one length: {len(found)} files have from {min(lengths)} to {max(lengths)} draws; "
                "cut them to one length"
            )
        return replace(first, values=np.concatenate(chains))
    return replace(first, values=np.concatenate([series.values for series in found]))
