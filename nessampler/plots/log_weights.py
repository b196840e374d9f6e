"""Log-weights of both directions, which cross at log Z."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler.plots.histogram import edges, outside, window
from nessampler.plots.style import FORWARD, GREY, INK, METHOD_COLOURS, REVERSE, STYLE, WIDTH, label, say
from nessampler.plots.table import Table, rows

__all__ = ["Weights", "log_weight_histograms", "log_weights_table", "mirrored_panel"]


class Weights(NamedTuple):
    r"""What single walkers say of log Z: $\log Z_0 + \log w$ forward, $\log Z_0 - \log w$ reverse.

    Example:
        >>> log_z_of_base, log_weight = 2.0, np.array([-0.5, 0.5])
        >>> Weights(log_z_of_base + log_weight).forward  # no walkers were carried back
        array([1.5, 2.5])
    """

    forward: Float[np.ndarray, " _n"]
    reverse: Float[np.ndarray, " _m"] | None = None


@rc_context(STYLE)
def log_weight_histograms(weights: Mapping[str, Weights], log_z: Mapping[str, Any]) -> Figure:
    """Forward log-weights upwards and, where walkers were carried back, reverse ones downwards; they cross at log Z.

        p_R(l) / p_F(l) = exp(l - log Z)

    Densities are normalised by all walkers, also those off the axis.

    Args:
        weights: per attempt.
        log_z: the result's `log_z`: `value` and `ci95`, None where not available.

    References:
        Entropy production fluctuation theorem and the nonequilibrium work relation for free energy differences,
        1999, arXiv:cond-mat/9901352.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> weights = {"ais": Weights(rng.normal(-0.5, 1, 100))}
        >>> log_weight_histograms(weights, {"value": 0.0, "ci95": [-0.1, 0.1]}).get_label()
        'Histograms of log-weights for ais, forward only; log Z = 0.000 is marked.'
    """
    rows = max(1, len(weights))
    figure = Figure(figsize=(WIDTH, 0.9 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for panel, (name, pair) in zip(panels, weights.items(), strict=False):
        mirrored_panel(panel, name, pair, log_z)
    if not weights:
        say(panels[0], "no independent weights were kept")
    panels[-1].set_xlabel("log weight, base included")
    handles, labels = max((p.get_legend_handles_labels() for p in panels), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)
    value = log_z.get("value")
    marked = f"; log Z = {value:.3f} is marked" if value is not None else ""
    both = any(pair.reverse is not None for pair in weights.values())
    names = f"for {words.listing(list(weights))}, {'forward and reverse' if both else 'forward only'}"
    figure.set_label(f"Histograms of log-weights {names if weights else 'are missing'}{marked}.")
    return figure


def log_weights_table(weights: Mapping[str, Weights]) -> Table:
    """One row per walker: attempt, direction, and what it says of log Z.

    Example:
        >>> log_weights_table({"ais": Weights(np.array([1.5, 2.5]), np.array([2.0]))})
        {'attempt': ['ais', 'ais', 'ais'], 'direction': ['forward', 'forward', 'reverse'], 'log_z': [1.5, 2.5, 2.0]}
    """
    return rows(
        ["attempt", "direction", "log_z"],
        [
            (name, way, float(value))
            for name, pair in weights.items()
            for way, values in zip(("forward", "reverse"), pair, strict=True)
            if values is not None
            for value in values
        ],
    )


def mirrored_panel(axes: Axes, name: str, pair: Weights, log_z: Mapping[str, Any]) -> None:
    """Forward log-weights of one attempt upwards, reverse ones downwards."""
    forward, reverse = pair
    backward = np.empty(0) if reverse is None else reverse
    anchors = [x for x in (log_z.get("value"), *(log_z.get("ci95") or ())) if x is not None]
    low, high = window((forward, backward), anchors)
    bins = edges((forward, backward), low, high, log_z.get("value"))
    for sample, side, colour, text in ((forward, 1, FORWARD, "forward"), (backward, -1, REVERSE, "reverse, downwards")):
        if sample.size == 0:
            continue
        heights = side * np.histogram(sample[np.isfinite(sample)], bins)[0] / sample.size / (bins[1] - bins[0])
        axes.stairs(heights, bins, color=colour, alpha=0.22, fill=True)
        axes.stairs(heights, bins, color=colour, linewidth=1.6, label=text)
    value, ends = log_z.get("value"), log_z.get("ci95")
    if ends:
        axes.axvspan(ends[0], ends[1], color="#9A9A9A", alpha=0.35, linewidth=0)
    if value is not None:
        axes.axvline(value, color=INK, linewidth=1.4, label=f"log Z = {words.plus_minus(log_z)}")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(label(name), fontweight="bold", color=METHOD_COLOURS.get(name, INK))
    axes.set_title(outside(forward, backward, low, high), loc="right", fontsize=9, color="#555555")
    if not np.isfinite(forward).any():
        say(axes, "every weight vanishes")
