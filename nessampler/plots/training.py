"""What was logged during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from nessampler.plots.style import FORWARD, GREY, INK, REVERSE, STYLE, WIDTH, label, number, say
from nessampler.plots.table import Table

__all__ = ["training_curves", "training_table"]


@rc_context(STYLE)
def training_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Every number logged during training against the step; the loss first, at most six panels.

    Args:
        metrics: one mapping per logged step, with `step`, numbers, and `network` where there are several; may be empty.

    Example:
        >>> training_curves([{"step": 0, "loss": 2.0}, {"step": 10, "loss": 0.5}]).get_label()
        'Training over 2 logged steps: loss from 2 to 0.5.'
    """
    names = _metric_names(metrics)[:6]
    rows = max(1, len(names))
    figure = Figure(figsize=(WIDTH, 0.8 + 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    if not names:
        say(panels[0], "nothing was trained")
        figure.set_label("Nothing was trained in this run.")
        return figure
    steps = np.array([number(row.get("step", index)) for index, row in enumerate(metrics)])
    trained = np.array([str(row.get("network", "")) for row in metrics])
    networks = list(dict.fromkeys(trained.tolist()))
    spoken = []
    for panel, name in zip(panels, names, strict=True):
        values = np.array([number(row.get(name)) for row in metrics])
        known = np.isfinite(values)
        marker = "o" if known.sum() < 30 else ""
        for network, colour in zip(networks, cycle((FORWARD, REVERSE, GREY, INK))):
            mine = known & (trained == network)
            panel.plot(steps[mine], values[mine], color=colour, linewidth=1.4, marker=marker, label=network)
        if (values[known] > 0).all() and values[known].max() > 30 * values[known].min():
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_title(label(name.replace("_", " ")))
        panel.grid()
        spoken.append(f"{name} from {values[known][0]:.4g} to {values[known][-1]:.4g}")
    panels[-1].set_xlabel("training step")
    if len(networks) > 1:
        panels[0].legend(frameon=False)
    figure.set_label(f"Training over {len(metrics)} logged steps: {', '.join(spoken)}.")
    return figure


def training_table(metrics: Sequence[Mapping[str, Any]]) -> Table:
    """What was logged, one row per logged step.

    Example:
        >>> training_table([{"step": 0, "loss": 2.0}, {"step": 10, "loss": 0.5, "ess": 0.3}])
        {'step': [0, 10], 'loss': [2.0, 0.5], 'ess': [None, 0.3]}
    """
    names = dict.fromkeys(key for row in metrics for key in row)
    return {name: [row.get(name) for row in metrics] for name in names}


def _metric_names(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for row in metrics:
        names |= dict.fromkeys(
            key for key, value in row.items() if key not in ("step", "network") and math.isfinite(number(value))
        )
    return sorted(names, key=lambda name: name != "loss")
