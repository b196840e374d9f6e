"""netCDF: `works.nc` of a run, or any file with a variable of works."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from nessampler.errors import InputError
from nessampler.exchange.arrays import as_series
from nessampler.exchange.columns import Direction, choose
from nessampler.exchange.given import UNITS
from nessampler.exchange.series import Series
from nessampler.exchange.sources import Source

__all__ = ["has_both_directions", "read"]

Variable = tuple[np.ndarray, str | None]


def read(source: Source, column: str | None, direction: Direction) -> Series:
    """The works in a variable; of a run's `works.nc` those of the rung `column` in this direction.

    A variable's attribute `units` says its unit. A name is that in the group `forward` or `reverse`, where there is
    one, with or without the prefix `work_`; else a path such as `group/variable`.

    Raises:
        InputError: a file that is cut off, or no such variable.
    """
    variables = _load(source)
    own = {
        name.removeprefix(f"{direction}/"): value
        for name, value in variables.items()
        if name.startswith(f"{direction}/")
    }
    shown = own or variables
    works = {name.removeprefix("work_"): value for name, value in shown.items() if not name.startswith("log_weight")}
    if column is not None:
        column = column.removeprefix("work_")
    names = list(works)
    if not names:
        raise InputError(f"{source.name} holds no variable of works")
    name = names[choose(names, column, source.name, direction)]
    values, unit = works[name]
    return as_series(values, f"{source.name}, variable {name}", f"variable {name}", unit if unit in UNITS else None)


def has_both_directions(source: Source) -> bool:
    """Whether there are groups `forward` and `reverse`, as in the `works.nc` of a run."""
    groups = {name.split("/")[0] for name in _load(source) if "/" in name}
    return {"forward", "reverse"} <= groups


def _load(source: Source) -> dict[str, Variable]:
    import xarray

    try:
        if source.content.startswith(b"CDF"):
            with xarray.open_dataset(io.BytesIO(source.content), engine="scipy") as classic:
                return dict(_variables(classic.load(), ""))
        import h5netcdf

        with h5netcdf.File(io.BytesIO(source.content), "r") as file:
            groups = ["", *_groups(file, "")]
        found: dict[str, Variable] = {}
        for group in groups:
            opened = xarray.open_dataset(io.BytesIO(source.content), engine="h5netcdf", group=group or None)
            with opened as dataset:
                found.update(_variables(dataset.load(), group))
        return found
    except InputError:
        raise
    except Exception as error:  # whatever HDF5 makes of a file that is cut off
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{source.name} is not a whole netCDF file ({reason}); write it again") from error


def _groups(group: Any, path: str) -> Iterator[str]:
    for name, inner in group.groups.items():
        own = f"{path}/{name}" if path else name
        yield own
        yield from _groups(inner, own)


def _variables(dataset: Any, group: str) -> Iterator[tuple[str, Variable]]:
    for name, variable in dataset.data_vars.items():
        if variable.dtype.kind in "iuf" and variable.ndim in (1, 2):
            # A run writes independent works as one chain, and says so.
            independent = len(variable) == 1 and variable.attrs.get("correlated") == 0
            values = variable.values[0] if independent else variable.values
            yield (f"{group}/{name}" if group else str(name)), (values, variable.attrs.get("units"))
