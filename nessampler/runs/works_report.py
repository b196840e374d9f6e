"""The report of works from elsewhere: ΔF and its verdict, the works, their quality, estimates and convergence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from nessampler import _words as words
from nessampler.plots import ConvergenceCurve
from nessampler.runs.difference_answer import difference_answer, interval_facts
from nessampler.runs.difference_panels import convergence_panel, estimates_panel, quality_panel, works_panel
from nessampler.runs.difference_tables import bounds_table, estimator_table
from nessampler.runs.given_works import GIVEN
from nessampler.runs.page import DataTable, Panel, Report

__all__ = ["compose"]

WAYS = {"forward": "A → B", "reverse": "B → A"}


def compose(
    result: Mapping[str, Any], forward: Float[np.ndarray, "*samples"], reverse: Float[np.ndarray, "*samples"] | None
) -> Report:
    """The report of works that others did; `page.write_files` makes files of it.

    Args:
        result: the contents of `result.json`.
        forward, reverse: works in kT; None where there are none of that direction.

    Raises:
        InputError: a work is NaN or -inf.

    Example:
        >>> result = {"kind": "works", "delta_f": {"value": 1.0, "std_error": 0.1}}
        >>> report = compose(result, np.ones(9), None)
        >>> report.answer.value, [panel.title for panel in report.panels]
        ('1.00 ± 0.10 kT', ['Work distributions', 'Quality', 'Estimates'])
    """
    answer = difference_answer(result, " and ".join(_directions(result)), list(_facts(result)))
    tables = [estimator_table(result), bounds_table(result), _source_table(result), _check_table(result)]
    return Report(result, answer, list(_panels(result, forward, reverse)), tables)


def _panels(result: Mapping[str, Any], forward: np.ndarray, reverse: np.ndarray | None) -> Iterator[Panel]:
    yield works_panel({f"{GIVEN} works": (forward, reverse)}, result, noun="")
    yield quality_panel(result)
    yield estimates_panel(result)
    curve = _curve(result.get("convergence"))
    if curve is not None:
        yield convergence_panel(curve)


def _curve(stored: Mapping[str, Any] | None) -> ConvergenceCurve | None:
    """As it was judged; None where a part of the works gave no estimate."""
    if stored is None:
        return None
    columns = [
        stored["fractions"],
        [point["value"] for point in stored["forward"]],
        [point["std_error"] for point in stored["forward"]],
        [point["value"] for point in stored["backward"]],
    ]
    if any(value is None for column in columns for value in column):
        return None
    return ConvergenceCurve(*(np.array(column, dtype=float) for column in columns))


# --- words and tables --------------------------------------------------------------------------------------------


def _sources(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = {way: words.get(result, "sources", way) for way in WAYS}
    return {way: source for way, source in found.items() if source}


def _directions(result: Mapping[str, Any]) -> list[str]:
    return [WAYS[way] for way in _sources(result)] or [WAYS["forward"]]


def _facts(result: Mapping[str, Any]) -> Iterator[str]:
    yield from interval_facts(result)
    for way, source in _sources(result).items():
        how = f", {source['how']}" if source.get("how") else ""
        yield f"{WAYS[way]}: {words.exact(source.get('works'))} works from {source.get('source')}{how}."


def _source_table(result: Mapping[str, Any]) -> DataTable:
    rows = [
        [
            WAYS[way],
            words.exact(source.get("works")),
            "independent" if source.get("chains") is None else words.exact(source["chains"]),
            str(source.get("unit")),
            words.fixed(words.get(result, "ess", way), 3),
            words.fixed(words.get(result, "pareto_k", way)),
            str(source.get("source")),
        ]
        for way, source in _sources(result).items()
    ]
    return DataTable("Works", ["direction", "works", "chains", "unit", "ESS", "Pareto k", "source"], rows)


def _check_table(result: Mapping[str, Any]) -> DataTable:
    crooks, curve = result.get("crooks"), result.get("convergence")
    rows = []
    if words.get(crooks, "slope") is not None:
        slope = words.plus_minus({"value": crooks["slope"], "std_error": crooks["std_error"]})  # pyright: ignore
        rows.append(["slope of Crooks' relation", slope, "1 where forward and reverse works belong together"])
    if result.get("overlap") is not None:
        rows.append(["overlap", words.fixed(result["overlap"]), "below 0.06 BAR is unreliable"])
    if curve and 0.5 in curve["fractions"]:
        half = curve["fractions"].index(0.5)
        meaning = "kT; further apart than their errors allow, the works change with time"
        for name, way in (("first half of the works", "forward"), ("last half of the works", "backward")):
            rows.append([f"ΔF from the {name}", words.plus_minus(curve[way][half]), meaning])
    return DataTable("Checks", ["check", "value", "what it should be"], rows)
