"""Quantities written as text: "300 K", "2 fs", "1 / ps"."""

from __future__ import annotations

import math
import re

from nessampler.errors import InputError

__all__ = ["parse"]

# What each unit is worth in the first of its family.
_FAMILIES = (
    {"K": 1.0, "kelvin": 1.0},
    {"ps": 1.0, "fs": 1e-3, "ns": 1e3},
    {"1/ps": 1.0, "1/fs": 1e3, "1/ns": 1e-3},
    {"Da": 1.0, "amu": 1.0, "dalton": 1.0},
)
_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


def parse(text: str, unit: str) -> float:
    """The number of `unit` in a quantity such as "2 fs".

    Raises:
        InputError: no number, no unit, or a unit of another kind.

    Example:
        >>> parse("2 fs", "ps"), parse("1 / ps", "1/ps")
        (0.002, 1.0)
    """
    family = next(f for f in _FAMILIES if unit in f)
    match = _NUMBER.match(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f'a quantity is a number and a unit in quotes, such as "2 {unit}": got {text!r}')
    number, written = float(match[1]), match[2].replace(" ", "")
    if written.startswith("/"):
        written = "1" + written
    if written not in family or not math.isfinite(number):
        raise InputError(f"the unit must be one of {', '.join(family)}: got {text!r}")
    return number * family[written] / family[unit]
