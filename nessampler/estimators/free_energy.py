"""A free-energy difference, its error, and the reasons not to trust it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from nessampler.errors import InputError

__all__ = ["Flag", "FreeEnergy", "estimate", "no_estimate"]

# The molar gas constant per kelvin, exact in the SI of 2019.
GAS_CONSTANT = {"kJ/mol": 8.31446261815324e-3, "kcal/mol": 8.31446261815324e-3 / 4.184}
Z95 = 1.959964


@dataclass(frozen=True)
class Flag:
    """One reason not to trust a number: a code for programs and a message that says what is wrong and what to do.

    >>> Flag("poor_overlap", "overlap 0.021 is below 0.06: use a map, or more works.").code
    'poor_overlap'
    """

    code: str
    message: str


@dataclass(frozen=True)
class FreeEnergy:
    """A free-energy difference with its error and the reasons, if any, not to trust it.

    Attributes:
        delta_f: `F_B - F_A` in `unit`; None where no number would be honest, and then a flag says why.
        std_error: standard error in `unit`.
        ci95: 95 % confidence interval, `delta_f ± 1.96 std_error`.
        n: number of works, forward before reverse.
        ess: Kish's effective fraction of the weights `exp(-work)`, one entry for each in `n`.
        flags: empty for a result that can be trusted.
        estimator: the name of the function that gave it.
        overlap: two-state overlap of forward and reverse works in [0, 1], see `overlap`.
        pareto_k: tail index of the weights, see `pareto_k`.
        unit: "kT", "kJ/mol" or "kcal/mol".

    >>> print(FreeEnergy(-7.094, 0.05, (-7.192, -6.996), (1000, 1000), (0.2, 0.3), (), "BAR"))
    ΔF = -7.094 ± 0.050 kT (95 % interval -7.192 … -6.996; BAR)
    """

    delta_f: float | None
    std_error: float | None
    ci95: tuple[float, float] | None
    n: tuple[int, ...]
    ess: tuple[float, ...]
    flags: tuple[Flag, ...]
    estimator: str
    overlap: float | None = None
    pareto_k: float | None = None
    unit: str = "kT"

    @property
    def trusted(self) -> bool:
        """True if nothing is flagged."""
        return not self.flags

    def to(self, unit: str, temperature: float | None = None) -> FreeEnergy:
        """The same result in "kcal/mol" or "kJ/mol"; `temperature` in kelvin is what kT was measured with.

        Raises:
            InputError: an unknown unit, a result no longer in kT, or a temperature that is missing or not positive.

        >>> FreeEnergy(1.0, 0.1, (0.8, 1.2), (50,), (1.0,), (), "BAR").to("kJ/mol", 300).delta_f
        2.494...
        """
        if unit not in GAS_CONSTANT:
            raise InputError(f'A result converts to "kcal/mol" or "kJ/mol": got unit {unit!r}; name one of the two.')
        if self.unit != "kT":
            raise InputError(f"Conversion starts from kT: this result is in {self.unit}; convert the original result.")
        if temperature is None or not (math.isfinite(temperature) and temperature > 0):
            raise InputError(
                f"A conversion from kT needs a positive temperature in kelvin: got {temperature}; "
                f'write result.to("{unit}", temperature=300.0) with the temperature of the simulation.'
            )
        kt = GAS_CONSTANT[unit] * temperature
        ci95 = None if self.ci95 is None else (self.ci95[0] * kt, self.ci95[1] * kt)
        return replace(
            self, delta_f=_times(self.delta_f, kt), std_error=_times(self.std_error, kt), ci95=ci95, unit=unit
        )

    def widened(self, error: float) -> FreeEnergy:
        """The same value with another, independent error added to its own, such as that of an integrated map.

        >>> FreeEnergy(1.0, 0.03, (0.94, 1.06), (50,), (1.0,), (), "BAR").widened(0.04).std_error
        0.05
        """
        if self.delta_f is None or self.std_error is None or error == 0:
            return self
        total = math.hypot(self.std_error, error)
        return replace(self, std_error=total, ci95=(self.delta_f - Z95 * total, self.delta_f + Z95 * total))

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        warned = "".join(f"\n  {flag.code}: {flag.message}" for flag in self.flags)
        if self.delta_f is None:
            return f"ΔF = none ({self.estimator}){warned}"
        if self.std_error is None or self.ci95 is None:
            return f"ΔF = {self.delta_f:.2f} {self.unit}, error unknown ({self.estimator}){warned}"
        digits = max(2, 1 - math.floor(math.log10(self.std_error))) if self.std_error > 0 else 6
        value, error, low, high = (f"{x:.{digits}f}" for x in (self.delta_f, self.std_error, *self.ci95))
        return f"ΔF = {value} ± {error} {self.unit} (95 % interval {low} … {high}; {self.estimator}){warned}"


def estimate(delta_f: float, variance: float, **rest: Any) -> FreeEnergy:
    """The result of a value and its variance; `rest` are the other attributes."""
    error = math.sqrt(variance)
    return FreeEnergy(float(delta_f), error, (delta_f - Z95 * error, delta_f + Z95 * error), **rest)


def no_estimate(**rest: Any) -> FreeEnergy:
    """The result where no number would be honest; its flags say why."""
    return FreeEnergy(None, None, None, **rest)


def _times(x: float | None, factor: float) -> float | None:
    return None if x is None else x * factor
