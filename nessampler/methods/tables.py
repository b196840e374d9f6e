"""Results as data frames, one row for everything that was tried, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from nessampler.estimators import Flag

if TYPE_CHECKING:
    from pandas import DataFrame

    from nessampler.methods.density.result import Sampled
    from nessampler.methods.difference import Difference

__all__ = ["attempts_frame", "flag_lines", "html", "rungs_frame"]


def rungs_frame(result: Difference) -> DataFrame:
    """One row per rung, indexed by its name; free energies in kT, missing numbers NaN."""
    rows = []
    for rung in result.rungs:
        estimate = rung.estimate
        rows.append(
            {
                "rung": rung.name,
                "chosen": rung.name == result.chosen,
                "block": rung.block,
                "delta_f": estimate.delta_f,
                "std_error": estimate.std_error,
                **_interval(estimate.ci95),
                "overlap": estimate.overlap,
                **_both("ess", estimate.ess),
                **_both("pareto_k", rung.pareto_k),
                "evaluations_a": _total(rung.evaluations["state_a"], without="endstates"),
                "evaluations_b": _total(rung.evaluations["state_b"], without="endstates"),
                "evaluations_network": sum(rung.evaluations["networks"].values()),
                "seconds": rung.seconds,
                "flags": _codes(estimate.flags),
                "note": rung.note,
            }
        )
    return _frame(rows, "rung")


def attempts_frame(result: Sampled) -> DataFrame:
    """One row per attempt, indexed by its name; missing numbers NaN."""
    rows = []
    for attempt in result.attempts:
        estimate = attempt.log_z
        rows.append(
            {
                "attempt": attempt.name,
                "chosen": attempt.name == result.chosen,
                "log_z": estimate.value,
                "std_error": estimate.std_error,
                **_interval(estimate.ci95),
                "systematic": estimate.systematic,
                "walkers": estimate.n,
                "ess": estimate.ess,
                "ess_reverse": None if attempt.reverse is None else attempt.reverse.ess,
                "pareto_k": estimate.pareto_k,
                "evaluations": _total(attempt.evaluations["target"]),
                "evaluations_field": sum(attempt.evaluations["field"].values()),
                "seconds": sum(attempt.seconds.values()),
                "flags": _codes(estimate.flags),
                "note": attempt.note,
            }
        )
    return _frame(rows, "attempt")


def flag_lines(flags: Iterable[Flag], known: Iterable[Flag]) -> str:
    """Lines for the flags that are not among those already told."""
    told = {(flag.code, flag.message) for flag in known}
    return "".join(f"\n  {flag.code}: {flag.message}" for flag in flags if (flag.code, flag.message) not in told)


def html(text: str, frame: DataFrame) -> str:
    """What `print` shows, and the table, for a notebook."""
    table = frame.drop(columns="note").to_html(float_format=lambda x: f"{x:.4g}", na_rep="", border=0)
    return f"<pre>{escape(text)}</pre>{table}"


def _frame(rows: list[dict[str, Any]], index: str) -> DataFrame:
    import pandas  # takes half a second to import

    frame = pandas.DataFrame(rows).set_index(index)
    words = {"chosen", "block", "flags", "note"}
    return frame.astype({name: float for name in frame if name not in words and frame[name].dtype == object})


def _interval(ci95: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = ci95 or (None, None)
    return {"ci95_low": low, "ci95_high": high}


def _both(name: str, pair: tuple[float | None, ...]) -> dict[str, float | None]:
    return {f"{name}_forward": pair[0], f"{name}_reverse": pair[1]}


def _total(stages: Mapping[str, Mapping[str, int]], without: str = "") -> int:
    return sum(sum(kinds.values()) for stage, kinds in stages.items() if stage != without)


def _codes(flags: Iterable[Flag]) -> str:
    return ", ".join(dict.fromkeys(flag.code for flag in flags))
