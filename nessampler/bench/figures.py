"""Error against evaluations, a panel for each system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from nessampler.bench.tables import Summary, count

__all__ = ["error_against_evaluations"]

COLUMNS = 4
APART = 2.0  # ratio from which two labels have room
MARKERS = "osD^vP*Xph<>"


def error_against_evaluations(found: Sequence[Summary], path: Path) -> Path:
    """Validated errors of all methods as PNG, those of several budgets joined by lines.

    Dotted is where the best of a system would be that just spent more or less, $N^{-1/2}$.
    """
    systems = list(dict.fromkeys(s.system for s in found))
    methods = list(dict.fromkeys(s.method for s in found))
    columns = min(COLUMNS, len(systems))
    rows = math.ceil(len(systems) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns + 1.2, 2.9 * rows), squeeze=False, layout="constrained"
    )
    handles = {}
    for axis, system in zip(axes.flat, systems, strict=False):
        own = [s for s in found if s.system == system and s.validated]
        for k, method in enumerate(methods):
            points = sorted((s.evaluations, s.validated) for s in own if s.method == method)
            if points:
                style = f"{MARKERS[k % len(MARKERS)]}-"
                (handles[method],) = axis.plot(*zip(*points, strict=True), style, color=f"C{k}")
        if own:
            best = min(own, key=lambda s: (s.validated or math.inf) ** 2 * s.evaluations)
            spent = sorted(s.evaluations for s in own)
            ends = [0.7 * spent[0], 1.4 * spent[-1]]
            assert best.validated is not None
            axis.plot(ends, [best.validated * math.sqrt(best.evaluations / n) for n in ends], ":", color="#767676")
            axis.set(xscale="log", yscale="log")
            _mark(axis, spent[0], spent[-1])
            axis.grid(alpha=0.3)
        else:
            axis.set(xticks=[], yticks=[])
            axis.text(0.5, 0.5, "no answer", ha="center", va="center", color="#767676", transform=axis.transAxes)
        axis.set_title(system)
    for axis in list(axes.flat)[len(systems) :]:
        axis.set_axis_off()
    figure.supxlabel("evaluations of energies and gradients")
    figure.supylabel("validated standard error (kT)")
    figure.legend(handles.values(), handles.keys(), loc="outside right upper")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _mark(axis: Axes, least: float, most: float) -> None:
    """The ends of what was spent: a logarithmic axis that spans less than a decade has too many labels, or none."""
    ends = [least, most] if most > APART * least else [math.sqrt(least * most)]
    axis.set_xticks(ends, [count(n) for n in ends])
    axis.xaxis.set_minor_locator(NullLocator())
