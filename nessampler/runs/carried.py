"""Samples of either state that the chosen rung carried to the other: as groups of a file, and as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nessampler import plots
from nessampler.plots import Carried
from nessampler.runs.observed import Observed
from nessampler.runs.page import Panel, captioned

__all__ = ["carried_from_groups", "carried_groups", "carried_panels"]


def carried_groups(at_a: Carried, at_b: Carried) -> dict[str, dict[str, Any]]:
    """As groups `carried_a` and `carried_b` of a netCDF file, named by the state arrived at.

    >>> there = Carried({"x": np.ones((1, 2))}, np.zeros(2))
    >>> {name: group["log_weight"][1].tolist() for name, group in carried_groups(there, there).items()}
    {'carried_a': [0.0, 0.0], 'carried_b': [0.0, 0.0]}
    """
    return {
        f"carried_{letter}": {
            "observed": (("draw", "quantity"), np.stack([np.ravel(v) for v in there.series.values()], -1)),
            "quantity": (("quantity",), np.array(list(there.series), dtype=object)),
            "log_weight": (("draw",), there.log_weight),
        }
        for letter, there in (("a", at_a), ("b", at_b))
    }


def carried_from_groups(groups: Mapping[str, Any]) -> tuple[Carried, Carried] | None:
    """What `carried_groups` wrote, from the datasets of a file by group; None where it wrote nothing.

    >>> carried_from_groups({}) is None
    True
    """
    if not {"carried_a", "carried_b"} <= set(groups):
        return None
    found = [groups[f"carried_{letter}"] for letter in "ab"]
    at_a, at_b = (
        Carried(
            {str(name): one["observed"].values[None, :, k] for k, name in enumerate(one["quantity"].values)},
            one["log_weight"].values,
        )
        for one in found
    )
    return at_a, at_b


def carried_panels(observed: Observed | None, carried: tuple[Carried, Carried] | None) -> list[Panel]:
    """Whether what is carried covers what is there: the backbone in the plane, where there is one, and histograms.

    Args:
        observed: samples of both states.
        carried: those carried to A, from B, and to B, from A.

    Example:
        >>> carried_panels(None, None)
        []
    """
    if observed is None or carried is None:
        return []
    panels, table = [], plots.carried_table(*carried)
    counted = f"Effective samples: {carried[0].counted} at A, {carried[1].counted} at B."
    if observed.torsions and (backbone := plots.carried_ramachandran(*carried)) is not None:
        caption = (
            "What the chosen rung made of samples of the other state, weighted by exp(−work). Each should look like "
            f"the samples of the state in whose place it stands above; a basin that is missing was not carried there. "
            f"{counted}"
        )
        panels.append(captioned("Backbone torsions, carried", backbone, caption, table))
    each = plots.carried_samples(observed.a, observed.b, *carried, observed.unit)
    if each is not None:
        caption = (
            "Samples of each state (grey), and those of the other that the chosen rung carried there, weighted by "
            "exp(−work). The two should agree; where only grey is seen, nothing arrives, and works of that direction "
            f"know nothing of it. {counted}"
        )
        panels.append(captioned("Carried samples", each, caption, table))
    return panels
