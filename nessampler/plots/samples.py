"""Weighted walkers of a density in the plane and as marginals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nessampler.plots.style import FORWARD, STYLE, WIDTH
from nessampler.plots.table import Table, rows

__all__ = ["Samples", "effective_bins", "marginal", "marginals", "marginals_table", "scatter"]

DOTS = 2000
BINS = 60


class Samples(NamedTuple):
    """The first one or two coordinates of what was sampled.

    Attributes:
        x: of weighted walkers.
        weight: of these, adding up to 1.
        draws: unweighted.
        exact: drawn from the target itself, where that can be done.
        dimension: how many coordinates there are in all.

    Example:
        >>> x, weight = np.array([[0.0], [4.0]]), np.array([0.75, 0.25])
        >>> samples = Samples(x, weight, draws=x[[0, 0, 0, 1]], exact=None, dimension=5)
        >>> samples.weight @ samples.x, samples.draws.mean(0)
        (array([1.]), array([1.]))
    """

    x: Float[np.ndarray, "n shown"]
    weight: Float[np.ndarray, " n"]
    draws: Float[np.ndarray, "m shown"]
    exact: Float[np.ndarray, "k shown"] | None
    dimension: int


@rc_context(STYLE)
def marginals(samples: Samples) -> Figure:
    """Draws in the plane above weighted histograms of the first two coordinates; one histogram of a single one.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(400, 2))
        >>> figure = marginals(Samples(x, np.full(400, 1 / 400), x, None, 5))
        >>> figure.get_label()
        'The first 2 of 5 coordinates: x1 = -0.07 ± 1.00, x2 = 0.02 ± 1.00 (weighted mean ± spread).'
    """
    shown = samples.x.shape[1]
    figure = Figure(figsize=(WIDTH, 2.6 + 3.4 * (shown == 2)), layout="constrained")
    grid = figure.add_gridspec(1 + (shown == 2), shown, height_ratios=[3.4, 2.0] if shown == 2 else [1])
    if shown == 2:
        scatter(figure.add_subplot(grid[0, :]), samples)
    for k in range(shown):
        marginal(figure.add_subplot(grid[-1, k]), samples, k)
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.4)
    mean = samples.weight @ samples.x
    spread = np.sqrt(samples.weight @ (samples.x - mean) ** 2)
    said = ", ".join(f"x{k + 1} = {mean[k]:.2f} ± {spread[k]:.2f}" for k in range(shown))
    beside = "" if samples.exact is None else ", beside exact draws"
    figure.set_label(f"The first {shown} of {samples.dimension} coordinates{beside}: {said} (weighted mean ± spread).")
    return figure


def marginals_table(samples: Samples) -> Table:
    """Walkers with their weights, then exact draws, of one weight.

    Example:
        >>> from nessampler.plots import as_csv
        >>> x = np.array([[0.0], [4.0]])
        >>> print(as_csv(marginals_table(Samples(x, np.array([0.75, 0.25]), x, x[:1], dimension=1))), end="")
        source,x1,weight
        walker,0.0,0.75
        walker,4.0,0.25
        exact,0.0,1.0
    """
    names = [f"x{k + 1}" for k in range(samples.x.shape[1])]
    entries = [("walker", *x, w) for x, w in zip(samples.x.tolist(), samples.weight.tolist(), strict=True)]
    if samples.exact is not None:
        entries += [("exact", *x, 1 / len(samples.exact)) for x in samples.exact.tolist()]
    return rows(["source", *names, "weight"], entries)


def scatter(axes: Axes, samples: Samples) -> None:
    """Unweighted draws of two coordinates on top of exact ones."""
    draws = samples.draws[:: max(1, len(samples.draws) // DOTS)]
    everything = draws
    if samples.exact is not None:
        axes.scatter(*samples.exact[:DOTS].T, s=9, color="#B5B5B5", linewidths=0, rasterized=True)
        everything = np.concatenate([draws, samples.exact])
    axes.scatter(*draws.T, s=5, color=FORWARD, alpha=0.5, linewidths=0, rasterized=True)
    low, high = np.quantile(everything, [0.002, 0.998], axis=0)  # heavy tails must not flatten the picture
    margin = 0.08 * (high - low) + 1e-9
    axes.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axes.set_ylim(low[1] - margin[1], high[1] + margin[1])
    axes.set_xlabel("x1")
    axes.set_ylabel("x2")


def marginal(axes: Axes, samples: Samples, k: int) -> None:
    """A weighted histogram of coordinate k, exact draws filled behind it."""
    values, exact = samples.x[:, k], None if samples.exact is None else samples.exact[:, k]
    low, high = np.quantile(values if exact is None else np.concatenate([values, exact]), [0.002, 0.998])
    bins = [
        float(edge) for edge in np.linspace(low, high if high > low else low + 1, effective_bins(samples.weight) + 1)
    ]
    if exact is not None:
        axes.hist(exact, bins, density=True, color="#CFCFCF", label="exact")
    axes.hist(
        values, bins, weights=samples.weight, density=True, histtype="step", color=FORWARD, lw=1.6, label="walkers"
    )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"x{k + 1}")


def effective_bins(weight: np.ndarray) -> int:
    """As many bins as the effective number of walkers can fill."""
    return int(min(BINS, max(10, 2.5 * (1 / np.square(weight).sum()) ** 0.4)))
