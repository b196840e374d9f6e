"""Figures that every ΔF comes with, whoever did the works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nessampler import plots
from nessampler.plots import ConvergenceCurve, Works
from nessampler.runs.page import Panel, captioned

__all__ = ["convergence_panel", "estimates_panel", "quality_panel", "works_panel"]


def works_panel(works: Works, result: Mapping[str, Any], noun: str = "the rung") -> Panel:
    """Works of both directions, which cross at ΔF; of one direction, what the exponential average rests on.

    Args:
        works: by rung.
        result: the contents of `result.json`.
        noun: what the works are of.

    Example:
        >>> import numpy as np
        >>> works_panel({"plain": (np.zeros(4), np.zeros(4))}, {"delta_f": {"value": 0.0}}).title
        'Work distributions'
    """
    one_way = bool(works) and all(reverse is None for _, reverse in works.values())
    caption = (
        "Work of going from A to B, and the same works weighted by exp(−W), on which the average rests: reverse works "
        "would be distributed like these, with the other sign. Where they lie at the edge of what was seen, or are "
        "few, the average is not to be relied on (line: ΔF; band: 95 % interval)."
        if one_way
        else "Work of going from A to B, and minus the work of coming back. The more the two overlap, the more certain "
        "the answer; they cross at ΔF (line; band: 95 % interval of the "
        f"{'chosen rung' if noun == 'the rung' else 'answer'})."
    )
    figure = plots.work_histograms(works, result.get("delta_f") or {}, noun)
    return captioned("Work distributions", figure, caption, plots.works_table(works))


def quality_panel(result: Mapping[str, Any]) -> Panel:
    """Overlap, effective samples and tails of the works, see `plots.quality`.

    >>> quality_panel({"kind": "works", "ess": {"forward": 0.5}}).caption
    'Effective part of samples; ...'
    """
    overlap = "Overlap of forward and reverse works; below 0.06 BAR is unreliable (shaded). "
    both = result.get("kind") != "works" or result.get("overlap") is not None
    return captioned(
        "Quality",
        plots.quality(result),
        f"{overlap if both else ''}Effective part of samples; of few an exponential average is unreliable, as it is "
        "where Pareto k, the tail of exp(−work) in that direction, lies above 0.7 (shaded).",
        plots.quality_table(result),
    )


def estimates_panel(result: Mapping[str, Any]) -> Panel:
    """Every estimate beside bounds and reference, see `plots.estimates`.

    >>> estimates_panel({"estimators": {"bar": {"value": 1.0, "std_error": 0.1}}}).alt
    'ΔF in kT by estimator: BAR 1.00 ± 0.10.'
    """
    by = "rung and by estimator" if result.get("rungs") else "estimator"
    marks = (
        "Diamond: the chosen rung. Open circle: pilot samples only." if result.get("rungs") else "Diamond: the answer."
    )
    return captioned(
        "Estimates",
        plots.estimates(result),
        f"ΔF by {by} with 95 % intervals. {marks} Brackets: bounds that hold on average whatever was learned, dotted "
        "out to where sampling error puts them. Arrow: beyond the axis.",
        plots.estimates_table(result),
    )


def convergence_panel(curve: ConvergenceCurve) -> Panel:
    """ΔF from growing parts of the samples, see `plots.convergence`.

    >>> import numpy as np
    >>> convergence_panel(ConvergenceCurve(*(np.array([0.5, 1.0]) for _ in range(4)))).title
    'Convergence'
    """
    caption = "ΔF from growing parts of the samples. The two curves should meet well before all are used."
    return captioned("Convergence", plots.convergence(*curve), caption, plots.convergence_table(curve))
