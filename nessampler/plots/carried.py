"""Samples of one state carried to the other, over those of the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler.plots.end_states import Series, bins_of, median_of, ramachandran, short_name
from nessampler.plots.style import FORWARD, GREY, REVERSE, STYLE, WIDTH, label
from nessampler.plots.table import Table, rows

__all__ = ["Carried", "carried_ramachandran", "carried_samples", "carried_table"]

MOST = 6


class Carried(NamedTuple):
    """Samples where they arrived.

    Example:
        >>> there = Carried({"x": np.zeros((1, 3))}, np.array([0.0, 0.0, -np.inf]))
        >>> there.weight.tolist(), there.counted
        ([0.5, 0.5, 0.0], '2 of 3')

    Attributes:
        series: by the name of the quantity; torsions in degrees.
        log_weight: minus the work of each, in kT: weighted, they are distributed like the samples of this state.
    """

    series: Series
    log_weight: Float[np.ndarray, " draws"]

    @property
    def weight(self) -> Float[np.ndarray, " draws"]:
        """Adding up to 1."""
        weight = np.exp(self.log_weight - self.log_weight.max())
        return weight / weight.sum()

    @property
    def effective(self) -> float:
        r"""Effective number, $1 / \sum_i w_i^2$."""
        return float(1 / np.square(self.weight).sum())

    @property
    def counted(self) -> str:
        """Effective of all, in words."""
        return f"{words.exact(self.effective)} of {words.exact(len(self.log_weight))}"


@rc_context(STYLE)
def carried_samples(state_a: Series, state_b: Series, at_a: Carried, at_b: Carried, unit: str = "") -> Figure | None:
    """On the left samples of A and what was carried there from B, on the right the other way round, one quantity a row.

    Args:
        state_a, state_b: samples by name.
        at_a, at_b: what was carried to A, from B, and to B, from A.
        unit: "degrees" for torsions, which lie on a circle.

    Returns:
        None if there is no quantity that all four have.

    Example:
        >>> psi = {"psi": np.full((1, 10), 90.0)}
        >>> there = Carried(psi, np.zeros(10))
        >>> carried_samples(psi, psi, there, there, "degrees").get_label()
        'Histograms of samples and, weighted, of those carried there: psi at A 90 and 90, at B 90 and 90, centres in
        degrees. Effective: 10 of 10 at A, 10 of 10 at B.'
    """
    every = (state_a, state_b, at_a.series, at_b.series)
    names = [name for name in state_a if all(name in series for series in every)][:MOST]
    if not names:
        return None
    figure = Figure(figsize=(WIDTH, 1.0 + 1.6 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 2, squeeze=False, sharex="row")
    spoken = []
    for name, pair in zip(names, grid, strict=True):
        bins = bins_of([np.ravel(s[name]) for s in every], unit, min(at_a.effective, at_b.effective))
        for axes, state, there, colour in zip(pair, every[:2], (at_a, at_b), (REVERSE, FORWARD), strict=True):
            _pair(axes, np.ravel(state[name]), np.ravel(there.series[name]), there.weight, bins, colour)
            if unit == "degrees":
                axes.set_xticks(range(-180, 181, 90))
        for axes, letter in zip(pair, "AB", strict=True):
            axes.set_title(f"{label(short_name(name), 24)} at {letter}", fontsize=9)
        centres = [median_of(state_a[name], unit), _centre(at_a, name, unit)]
        centres += [median_of(state_b[name], unit), _centre(at_b, name, unit)]
        spoken.append("{} at A {} and {}, at B {} and {}".format(short_name(name), *centres))
    _legend(figure, grid)
    figure.set_label(
        f"Histograms of samples and, weighted, of those carried there: {'; '.join(spoken)}, centres"
        f"{' in ' + unit if unit else ''}. Effective: {at_a.counted} at A, {at_b.counted} at B."
    )
    return figure


def carried_ramachandran(at_a: Carried, at_b: Carried) -> Figure | None:
    """The backbone of what was carried, weighted; None unless there is one torsion of either kind.

    >>> turned = {"phi": np.full((1, 9), -80.0), "psi": np.full((1, 9), 160.0)}
    >>> there = Carried(turned, np.zeros(9))
    >>> carried_ramachandran(there, there).get_label()
    'Ramachandran histograms. B carried to A: most often near φ = -82°, ψ = 158°. A carried to B: most often near ...'
    """
    titles = ("B carried to A", "A carried to B")
    return ramachandran(at_a.series, at_b.series, titles, weights=(at_a.weight, at_b.weight))


def carried_table(at_a: Carried, at_b: Carried) -> Table:
    """State arrived at, log-weight, and one column per quantity.

    >>> carried_table(Carried({"x": np.ones((1, 1))}, np.zeros(1)), Carried({"x": np.ones((1, 1))}, np.zeros(1)))
    {'arrived_at': ['A', 'B'], 'log_weight': [0.0, 0.0], 'x': [1.0, 1.0]}
    """
    names = [name for name in at_a.series if name in at_b.series]
    entries = []
    for letter, there in (("A", at_a), ("B", at_b)):
        columns = [np.ravel(there.series[name]) for name in names]
        entries += [
            (letter, float(weight), *(float(column[k]) for column in columns))
            for k, weight in enumerate(there.log_weight)
        ]
    return rows(["arrived_at", "log_weight", *names], entries)


def _pair(
    axes: Axes, samples: np.ndarray, there: np.ndarray, weight: np.ndarray, bins: np.ndarray, colour: str
) -> None:
    heights = np.histogram(samples, bins)[0] / max(1, samples.size)
    axes.stairs(heights, bins, color=GREY, alpha=0.35, fill=True, label="sampled there")
    come = "B, carried to A" if colour == REVERSE else "A, carried to B"
    line = "--" if colour == REVERSE else "-"
    drawn = np.histogram(there, bins, weights=weight)[0]
    axes.stairs(drawn, bins, color=colour, linestyle=line, linewidth=1.6, label=come)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", labelsize=9)


def _legend(figure: Figure, grid: np.ndarray) -> None:
    handles = {}
    for axes in grid[0]:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=3, handlelength=1.4)


def _centre(there: Carried, name: str, unit: str) -> str:
    return median_of(np.ravel(there.series[name]), unit, there.weight)
