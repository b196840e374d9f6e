"""Observables of lattice fields as a group of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nessampler.plots import Lattice

__all__ = ["lattice_from_group", "lattice_group"]

AVERAGES = ("M", "|M|", "M^2")


def lattice_group(lattice: Lattice) -> dict[str, Any]:
    """Magnetisation and weight of every walker, averages and the two-point function with their errors.

    >>> state = Lattice(np.ones(1), np.ones(1), (np.ones(3), np.ones(3)), (np.ones(2), np.ones(2)))
    >>> sorted(lattice_group(state))
    ['average', 'average_error', 'magnetisation', 'observable', 'two_point', 'two_point_error', 'weight']
    """
    return {
        "magnetisation": (("walker",), lattice.magnetisation),
        "weight": (("walker",), lattice.weight),
        "average": (("observable",), lattice.averages[0]),
        "average_error": (("observable",), lattice.averages[1]),
        "observable": (("observable",), np.array(AVERAGES, dtype=object)),
        "two_point": (("distance",), lattice.two_point[0]),
        "two_point_error": (("distance",), lattice.two_point[1]),
    }


def lattice_from_group(stored: Mapping[str, Any]) -> Lattice:
    """What `lattice_group` wrote, from the dataset of its group."""
    group = {str(name): found.values for name, found in stored.items()}
    return Lattice(
        group["magnetisation"],
        group["weight"],
        (group["average"], group["average_error"]),
        (group["two_point"], group["two_point_error"]),
    )
