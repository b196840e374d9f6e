"""The works on the way between two states: as groups of a file, and as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nessampler import plots
from nessampler.plots import WorksAlong
from nessampler.runs.page import Panel, captioned

__all__ = ["along_from_groups", "along_groups", "along_panel"]

GROUP = "along_path"
WAYS = ("forward", "reverse")


def along_groups(along: Mapping[str, WorksAlong]) -> dict[str, dict[str, Any]]:
    """As a group of a netCDF file: `t_forward`, `ess_forward`, `mean_work_forward`, `delta_f_forward`, and of reverse.

    >>> along_groups({})
    {}
    """
    units = {"mean_work": "kT", "delta_f": "kT"}
    found = {
        f"{'t' if name == 'times' else name}_{way}": ((f"step_{way}",), values, {"units": units.get(name, "1")})
        for way, curves in along.items()
        for name, values in curves._asdict().items()
    }
    return {GROUP: found} if found else {}


def along_from_groups(groups: Mapping[str, Any]) -> dict[str, WorksAlong]:
    """What `along_groups` wrote, from the datasets of a file by group; empty where there is nothing.

    >>> along_from_groups({})
    {}
    """
    group = groups.get(GROUP, {})
    return {
        way: WorksAlong(*(group[f"{name}_{way}"].values for name in ("t", "ess", "mean_work", "delta_f")))
        for way in WAYS
        if f"t_{way}" in group
    }


def along_panel(along: Mapping[str, WorksAlong]) -> Panel:
    """Where on its way the chosen rung loses effective samples.

    Args:
        along: by direction.

    Example:
        >>> import numpy as np
        >>> t = np.linspace(0, 1, 3)
        >>> along_panel({"forward": WorksAlong(t, 1 - 0.5 * t, 2 * t, 1.5 * t)}).title
        'Along the path'
    """
    caption = (
        "The chosen rung on its way, forward from A and reverse from B: effective part of the works so far, their mean "
        "and what of it is dissipated, ⟨W⟩ − ΔF. Where the dissipated work climbs, the transport does not keep up, and "
        "effective samples are lost."
    )
    return captioned("Along the path", plots.works_along_path(along), caption, plots.works_along_table(along))
