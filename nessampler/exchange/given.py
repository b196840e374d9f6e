"""Works as a source gives them, and what it says of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nessampler.errors import InputError
from nessampler.estimators.free_energy import GAS_CONSTANT

__all__ = ["LARGEST", "UNITS", "GivenWorks", "kt_in"]

UNITS = ("kT", *GAS_CONSTANT)
LARGEST = 1e100
"""kT: a finite work beyond it is no energy, and its third power would overflow."""


@dataclass(frozen=True)
class GivenWorks:
    """Works of one direction as read, before their unit is settled.

    Attributes:
        values: `(n,)` independent works, or `(chains, draws)` correlated ones.
        unit: "kT", "kJ/mol" or "kcal/mol"; None where the source does not say.
        temperature: kelvin, None where the source does not say.
        source: the file or pattern they came from.
        how: how they were had, in words.
    """

    values: np.ndarray
    unit: str | None
    temperature: float | None
    source: str
    how: str = ""

    def settled(self, unit: str | None, temperature: float | None) -> GivenWorks:
        """The same with what the user says about unit and temperature, which must not contradict the source.

        Raises:
            InputError: no unit known, an unknown one, or one that contradicts the source; likewise a temperature.

        >>> GivenWorks(np.ones(2), "kJ/mol", None, "w.xvg").settled("kT", None)
        Traceback (most recent call last):
            ...
        nessampler.errors.InputError: w.xvg says its works are in kJ/mol: got unit kT; leave the unit out
        """
        if unit is not None and unit not in UNITS:
            raise InputError(
                f"works are in {', '.join(UNITS[:-1])} or {UNITS[-1]}: got unit {unit!r}; name one of these"
            )
        if self.unit is not None and unit not in (None, self.unit):
            raise InputError(f"{self.source} says its works are in {self.unit}: got unit {unit}; leave the unit out")
        if unit is None and self.unit is None:
            raise InputError(
                f"works need a unit, and {self.source} names none: add --unit {UNITS[0]}, {UNITS[1]} or {UNITS[2]}"
            )
        if temperature is not None and self.temperature not in (None, temperature):
            raise InputError(
                f"{self.source} was made at {self.temperature:g} K: got {temperature:g} K; leave the temperature out"
            )
        return replace(self, unit=unit or self.unit, temperature=self.temperature or temperature)


def kt_in(unit: str, temperature: float | None) -> float:
    """One kT in `unit`, at a temperature in kelvin, which kT itself needs not.

    Raises:
        InputError: an unknown unit, a temperature that is missing or not positive.

    >>> round(kt_in("kJ/mol", 300), 4), kt_in("kT", None)
    (2.4943, 1.0)
    """
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"a temperature is positive, in kelvin: got {temperature}")
    if unit == "kT":
        return 1.0
    if unit not in GAS_CONSTANT:
        raise InputError(f"works are in {', '.join(UNITS[:-1])} or {UNITS[-1]}: got unit {unit!r}; name one of these")
    if temperature is None:
        raise InputError(f'works in {unit} need a temperature to become kT, such as --temperature "300 K"')
    return GAS_CONSTANT[unit] * temperature
