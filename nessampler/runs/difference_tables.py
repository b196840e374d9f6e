"""Tables of numbers that every ΔF comes with, whoever did the works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nessampler import _words as words
from nessampler.runs.page import DataTable

__all__ = ["bounds_table", "estimator_table", "molar", "molar_heading"]


def estimator_table(result: Mapping[str, Any]) -> DataTable:
    """Every estimate with its interval and its flags.

    >>> estimator_table({"estimators": {"bar": {"value": 1.0, "std_error": 0.1}}}).rows
    [['BAR', '1.00 ± 0.10', '—', '']]
    """
    scale = words.kcal_factor(result)
    rows = [
        [
            words.estimator_name(result, name),
            words.plus_minus(estimate),
            *molar(estimate, scale),
            words.interval(estimate),
            words.listing([str(flag.get("code")).replace("_", " ") for flag in words.get(estimate, "flags") or []]),
        ]
        for name, estimate in words.estimators(result).items()
    ]
    columns = ["estimator", "ΔF / kT", *molar_heading(scale), "95 % interval / kT", "flags"]
    return DataTable("Estimators", columns, rows)


def bounds_table(result: Mapping[str, Any]) -> DataTable:
    """Second-law bounds and their limits.

    >>> bounds_table({"bounds": {"lower": 0.5, "upper": 1.5}}).rows
    [['rigorous', '—', '0.500', '1.500', '—']]
    """
    kinds = [("rigorous", result.get("bounds"))]
    weighted = words.get(result, "bounds", "importance_weighted")
    kinds.append((f"importance-weighted, groups of {words.group_sizes(weighted)}", weighted))
    ends = ("lower_limit", "lower", "upper", "upper_limit")
    rows = [[name, *(words.fixed(bounds.get(end), 3) for end in ends)] for name, bounds in kinds if bounds]
    columns = ["bounds", "lower limit", "lower bound", "upper bound", "upper limit"]
    return DataTable("Bounds on ΔF in kT", columns, rows, "The limits allow for the sampling error of the bounds.")


def molar(quantity: Mapping[str, Any] | None, scale: words.Real | None) -> list[str]:
    """The cell in kcal/mol, where there is such a column.

    >>> molar({"value": 1.0, "std_error": 0.1}, 0.6), molar(None, None)
    (['0.600 ± 0.060'], [])
    """
    return [] if scale is None else [words.plus_minus(quantity, scale)]


def molar_heading(scale: words.Real | None) -> list[str]:
    """The heading of that column.

    >>> molar_heading(0.6)
    ['ΔF / kcal/mol']
    """
    return [] if scale is None else ["ΔF / kcal/mol"]
