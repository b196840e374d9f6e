"""A result at one glance: what `.plot()` of a result draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler.plots.along_path import Curve
from nessampler.plots.convergence import convergence_curve, convergence_panel
from nessampler.plots.log_weights import Weights, mirrored_panel
from nessampler.plots.samples import Samples, marginal
from nessampler.plots.style import FORWARD, INK, REVERSE, STYLE, say
from nessampler.plots.works import crooks_panel

__all__ = ["density_overview", "difference_overview"]

SIZE = (10.0, 3.6)


@rc_context(STYLE)
def difference_overview(
    name: str, forward: np.ndarray, reverse: np.ndarray, delta_f: Mapping[str, Any], description: str = ""
) -> Figure:
    """Works of one rung, which cross at ΔF, beside ΔF from growing parts of them.

    Args:
        name, description: of the rung.
        forward, reverse: works in kT.
        delta_f: `value`, `std_error` and `ci95` in kT, None where there is none.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> figure = difference_overview("map", 0.5 + rng.normal(size=200), 0.5 + rng.normal(size=200), {"value": 0.0})
        >>> [axes.get_xlabel() for axes in figure.axes]
        ['work / kT', 'part of the samples used / %']
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    left, right = figure.subplots(1, 2)
    crooks_panel(left, name, forward, reverse, delta_f)
    left.set_xlabel("work / kT")
    left.legend(loc="upper right", fontsize=9)
    curve = convergence_curve(forward, reverse)
    if curve is None:
        say(right, "too few works overlap to show convergence")
    else:
        convergence_panel(right, curve)
        right.legend(loc="best", fontsize=9)
    told = f" ({description})" if description else ""
    figure.set_label(f"Works of the rung {name}{told} and convergence; ΔF = {words.plus_minus(delta_f)} kT.")
    return figure


@rc_context(STYLE)
def density_overview(
    name: str, weights: Weights | None, along: Mapping[str, Curve], samples: Samples | None, log_z: Mapping[str, Any]
) -> Figure:
    """Log-weights of one attempt, which cross at log Z where walkers went both ways; ESS along the path; a marginal.

    Args:
        name: of the attempt.
        weights: None where walkers depend on one another.
        along: by quantity, over the time of the path.
        samples: None where every weight vanishes.
        log_z: `value`, `std_error` and `ci95`, None where there is none.

    Example:
        >>> weights = Weights(np.random.default_rng(0).normal(size=100))
        >>> figure = density_overview("ais", weights, {"ESS so far": (np.ones(2), np.ones(2))}, None, {"value": 0.5})
        >>> figure.get_label()
        'Log-weights of ais, the path and a marginal; log Z = 0.500 (no error).'
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
    if weights is None:
        say(left, "resampled walkers have\nno weights of their own")
    else:
        mirrored_panel(left, name, weights, log_z)
        left.set_xlabel("log weight, base included")
        left.legend(loc="best", fontsize=9)
    _fractions(middle, along)
    if samples is None:
        say(right, "every weight vanishes")
    else:
        marginal(right, samples, 0)
        right.set_title("samples")
    figure.set_label(f"Log-weights of {name}, the path and a marginal; log Z = {words.plus_minus(log_z)}.")
    return figure


def _fractions(axes: Axes, along: Mapping[str, Curve]) -> None:
    """All that lies between 0 and 1, over the time of the path."""
    shown = {title: curve for title, curve in along.items() if not title.startswith("log Z")}
    if not shown:
        say(axes, "nothing was recorded")
    for (title, (times, values)), colour in zip(shown.items(), (FORWARD, REVERSE, INK), strict=False):
        axes.plot(times, np.clip(values, 0, None), color=colour, linewidth=1.6, label=title)
    if shown:
        axes.set_ylim(0, 1.04)
        axes.grid()
        axes.legend(loc="lower left", fontsize=9)
    axes.set_title("along the path")
    axes.set_xlabel("t: 0 base, 1 target")
