"""One quantity as several runs found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler.plots.estimates import chart, estimate_row
from nessampler.plots.style import METHOD_COLOURS, RUNG_COLOURS, STYLE
from nessampler.plots.table import Table, rows

__all__ = ["comparison", "comparison_table"]

OTHER = "#123B66"


@rc_context(STYLE)
def comparison(runs: Sequence[Mapping[str, Any]], reference: Mapping[str, Any] | None, quantity: str) -> Figure:
    """What each run found with its 95 % interval, the reference as a band.

    Args:
        runs: of each its `label`, `estimate` (`value`, `std_error`, `ci95`) and the `chosen` rung or attempt.
        reference: `value` and `std_error`, None where none is known.
        quantity: name and unit of the axis.

    Example:
        >>> runs = [{"label": "a", "chosen": "map", "estimate": {"value": 1.0, "std_error": 0.1}}]
        >>> comparison(runs, None, "ΔF / kT").get_label()
        'ΔF / kT by run: a (map) 1.00 ± 0.10.'
    """
    colours = RUNG_COLOURS | METHOD_COLOURS
    drawn = [
        estimate_row(str(run["label"]), run["estimate"], colours.get(str(run["chosen"]), OTHER))._replace(chosen=True)
        for run in runs
    ]
    figure = chart(drawn, reference, quantity)
    spoken = "; ".join(f"{run['label']} ({run['chosen']}) {words.plus_minus(run['estimate'])}" for run in runs)
    beside = f". Reference: {words.known(reference)}" if reference else ""
    figure.set_label(f"{quantity} by run: {spoken}{beside}.")
    return figure


def comparison_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Run, chosen rung or attempt, value, error and 95 % interval.

    Example:
        >>> from nessampler.plots import as_csv
        >>> runs = [{"label": "a", "chosen": "map", "estimate": {"value": 1.0, "std_error": 0.1, "ci95": [0.8, 1.2]}}]
        >>> print(as_csv(comparison_table(runs)), end="")
        run,chosen,value,std_error,low,high
        a,map,1.0,0.1,0.8,1.2
    """
    return rows(
        ["run", "chosen", "value", "std_error", "low", "high"],
        [
            (
                run["label"],
                run["chosen"],
                *(words.get(run["estimate"], key) for key in ("value", "std_error")),
                *(words.get(run["estimate"], "ci95") or (None, None)),
            )
            for run in runs
        ],
    )
