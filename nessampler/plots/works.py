"""Works of both directions, which cross at ΔF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler.errors import InputError
from nessampler.plots.histogram import edges, outside, window
from nessampler.plots.style import FORWARD, INK, REVERSE, RUNG_COLOURS, STYLE, WIDTH, label, say
from nessampler.plots.table import Table, rows

__all__ = ["Works", "crooks_panel", "work_histograms", "works_table"]

Works = Mapping[str, tuple[Float[np.ndarray, "_chains _draws"], Float[np.ndarray, "_chains _draws"] | None]]
"""Forward and reverse works by rung; None where one direction is all there is."""


@rc_context(STYLE)
def work_histograms(works: Works, delta_f: Mapping[str, Any], noun: str = "the rung") -> Figure:
    """Forward work and negated reverse work of each rung, with ΔF where Crooks' theorem makes them cross.

        p_F(W) / p_R(-W) = exp(W - ΔF)

    Densities are normalised by all walkers, also those off the axis, so the crossing stays where it belongs. The axis
    covers the bulk of both distributions and ΔF; what lies beyond it (infinite works too) is counted in words.

    Without reverse works the forward ones are drawn again, weighted by exp(-W): that is what the reverse works would
    be, and what the exponential average rests on.

    Args:
        works: per rung the forward and the reverse work in kT, each (chains, draws); +inf is allowed, NaN is not.
        delta_f: the result's `delta_f`: `value` and `ci95` in kT, None where not available.
        noun: what the works are of, for the alternative text.

    Returns:
        One panel per rung, stacked.

    Raises:
        InputError: a work is NaN or -inf.

    References:
        Entropy production fluctuation theorem and the nonequilibrium work relation for free energy differences,
        1999, arXiv:cond-mat/9901352, eq. 7.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> works = {"map": (rng.normal(0.5, 1, (4, 100)), rng.normal(0.5, 1, (4, 100)))}
        >>> work_histograms(works, {"value": 0.0, "ci95": [-0.1, 0.1]}).get_label()
        'Histograms of forward work and negated reverse work in kT for the rung map; ΔF = 0.000 kT is marked.'
    """
    rows = max(1, len(works))
    figure = Figure(figsize=(WIDTH, 0.9 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for panel, (name, (forward, reverse)) in zip(panels, works.items(), strict=False):
        crooks_panel(panel, name, forward, reverse, delta_f)
    if not works:
        say(panels[0], "no works were kept")
    panels[-1].set_xlabel("work / kT")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)
    value = delta_f.get("value")
    marked = f"; ΔF = {value:.3f} kT is marked" if value is not None else ""
    rungs = f"{noun}{'' if len(works) == 1 else 's'} {words.listing(list(works))}" if works else "no rung"
    both = any(reverse is not None for _, reverse in works.values()) or not works
    shown = "forward work and negated reverse work" if both else "forward work, plain and weighted by exp(−W),"
    figure.set_label(f"Histograms of {shown} in kT for {rungs}{marked}.")
    return figure


def works_table(works: Works) -> Table:
    """One row per work: rung, direction, chain, draw, kT.

    Example:
        >>> from nessampler.plots import as_csv
        >>> print(as_csv(works_table({"map": (np.array([[1.0, 2.0]]), np.array([[-0.5]]))})), end="")
        rung,direction,chain,draw,work_kT
        map,forward,0,0,1.0
        map,forward,0,1,2.0
        map,reverse,0,0,-0.5
    """
    return rows(
        ["rung", "direction", "chain", "draw", "work_kT"],
        [
            (name, way, chain, draw, float(work))
            for name, pair in works.items()
            for way, values in zip(("forward", "reverse"), pair, strict=True)
            if values is not None
            for (chain, draw), work in np.ndenumerate(np.atleast_2d(values))
        ],
    )


def crooks_panel(
    axes: Axes, name: str, forward: np.ndarray, reverse: np.ndarray | None, delta_f: Mapping[str, Any]
) -> None:
    """Forward work and negated reverse work of one rung, which cross at ΔF."""
    forward = _checked(forward, name)
    if reverse is None:
        again = _Curve(forward, "--", "weighted by exp(−W)", _boltzmann(forward), INK)
    else:
        again = _Curve(-_checked(reverse, name), "--", "reverse, −W", None, REVERSE)
    _crooks_panel(axes, name, _Curve(forward, "-", "forward, W", None, FORWARD), again, delta_f)


class _Curve(NamedTuple):
    work: np.ndarray
    line: str
    text: str
    weight: np.ndarray | None
    colour: str

    def heights(self, bins: np.ndarray) -> np.ndarray:
        """The density, normalised by all works, those off the bins included."""
        finite, width = np.isfinite(self.work), bins[1] - bins[0]
        if self.weight is None:
            return np.histogram(self.work[finite], bins)[0] / max(1, self.work.size) / width
        return np.histogram(self.work[finite], bins, weights=self.weight[finite])[0] / width


def _boltzmann(work: np.ndarray) -> np.ndarray:
    """exp(−W), adding up to 1."""
    if not np.isfinite(work).any():
        return np.zeros(work.size)
    weight = np.exp(work[np.isfinite(work)].min() - work)
    return weight / weight.sum()


def _checked(work: np.ndarray, name: str) -> np.ndarray:
    flat = np.asarray(work, dtype=float).ravel()
    if np.isnan(flat).any() or np.isneginf(flat).any():
        raise InputError(
            f"works must be numbers or +inf: the rung {name!r} holds {int(np.isnan(flat).sum())} NaN and "
            f"{int(np.isneginf(flat).sum())} -inf; find the step and the energy term that made them."
        )
    return flat


def _crooks_panel(axes: Axes, name: str, forward: _Curve, other: _Curve, delta_f: Mapping[str, Any]) -> None:
    anchors = [x for x in (delta_f.get("value"), *(delta_f.get("ci95") or ())) if x is not None]
    if other.weight is not None:
        heavy = other.weight > 0
        anchors.append(float(other.weight[heavy] @ other.work[heavy]))  # they may lie in the tail of the works
    low, high = window((forward.work, other.work), anchors)
    bins = edges((forward.work, other.work), low, high, delta_f.get("value"))
    for curve in (forward, other):
        heights = curve.heights(bins)
        axes.stairs(heights, bins, color=curve.colour, alpha=0.22, fill=True)
        axes.stairs(heights, bins, color=curve.colour, linestyle=curve.line, linewidth=1.6, label=curve.text)
    _mark_delta_f(axes, delta_f)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(label(name), fontweight="bold", color=RUNG_COLOURS.get(name, INK))
    reverse = other.work if other.weight is None else np.empty(0)
    axes.set_title(outside(forward.work, reverse, low, high), loc="right", fontsize=9, color="#555555")
    if not (np.isfinite(forward.work).any() or np.isfinite(other.work).any()):
        say(axes, "no finite work")


def _mark_delta_f(axes: Axes, delta_f: Mapping[str, Any]) -> None:
    value, ends = delta_f.get("value"), delta_f.get("ci95")
    if ends and None not in ends:
        axes.axvspan(ends[0], ends[1], color="#9A9A9A", alpha=0.35, linewidth=0)
    if value is not None:
        axes.axvline(value, color=INK, linewidth=1.4, label=f"ΔF = {words.plus_minus(delta_f)} kT")
