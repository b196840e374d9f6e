"""Magnetisation and two-point function of a lattice field."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nessampler import _words as words
from nessampler.plots.samples import effective_bins
from nessampler.plots.style import FORWARD, GREY, INK, REVERSE, STYLE, WIDTH
from nessampler.plots.table import Table, rows

__all__ = [
    "Lattice",
    "magnetisation",
    "magnetisation_table",
    "spoken_averages",
    "spoken_two_point",
    "two_point",
    "two_point_table",
]


class Lattice(NamedTuple):
    r"""Observables of weighted fields.

    Attributes:
        magnetisation: $M$ of every walker.
        weight: of every walker, adding up to 1.
        averages: $\langle M \rangle$, $\langle |M| \rangle$, $\langle M^2 \rangle$ and their standard errors.
        two_point: $G(r)$ and its standard error, for r = 0, 1, ….

    Example:
        >>> m, weight = np.array([1.0, -0.5]), np.array([0.25, 0.75])
        >>> mean = np.array([weight @ m, weight @ np.abs(m), weight @ m**2])
        >>> found = Lattice(m, weight, (mean, np.full(3, 0.1)), (np.array([1.0, 0.5]), np.full(2, 0.1)))
        >>> found.averages[0]
        array([-0.125 ,  0.625 ,  0.4375])
    """

    magnetisation: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    averages: tuple[Float[np.ndarray, " averages"], Float[np.ndarray, " averages"]]
    two_point: tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"]]


@rc_context(STYLE)
def magnetisation(lattice: Lattice) -> Figure:
    r"""Weighted histogram of the magnetisation per site, with its mean.

    Example:
        >>> m, weight = np.linspace(-1, 1, 50), np.full(50, 0.02)
        >>> magnetisation(Lattice(m, weight, (np.ones(3), np.full(3, 0.1)), (np.ones(2), np.ones(2)))).get_label()
        'Weighted histogram of the magnetisation: ⟨M⟩ = 1.00 ± 0.10, ⟨|M|⟩ = 1.00 ± 0.10, ⟨M²⟩ = 1.00 ± 0.10.'
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    reach = 1.05 * float(np.abs(lattice.magnetisation).max())
    bins = [float(edge) for edge in np.linspace(-reach, reach, effective_bins(lattice.weight) + 1)]
    heights = np.histogram(lattice.magnetisation, bins, weights=lattice.weight, density=True)[0]
    axes.stairs(heights, bins, color=FORWARD, alpha=0.25, fill=True)
    axes.stairs(heights, bins, color=FORWARD, linewidth=1.6)
    axes.axvline(float(lattice.averages[0][0]), color=INK, linewidth=1.2)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("magnetisation per site, M")
    figure.set_label(f"Weighted histogram of the magnetisation: {spoken_averages(lattice)}.")
    return figure


@rc_context(STYLE)
def two_point(lattice: Lattice) -> Figure:
    r"""$G(r) = \langle \varphi(0)\, \varphi(r) \rangle$ along the axes with 95 % intervals.

    Example:
        >>> found = Lattice(np.ones(2), np.full(2, 0.5), (np.ones(3), np.ones(3)), (np.array([1, 0.5]), np.ones(2)))
        >>> two_point(found).get_label()
        'Two-point function: 1.0 ± 1.0 at distance 0, 0.5 ± 1.0 at 1.'
    """
    mean, error = lattice.two_point
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    distance = np.arange(len(mean))
    axes.errorbar(distance, mean, 1.96 * error, color=REVERSE, ecolor=GREY, marker="o", markersize=4, capsize=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("distance r / sites")
    axes.set_ylabel("G(r) = ⟨φ(0) φ(r)⟩")
    axes.set_ylim(bottom=min(0.0, float((mean - 2 * error).min())))
    axes.grid()
    figure.set_label(f"Two-point function: {spoken_two_point(lattice)}.")
    return figure


def spoken_averages(lattice: Lattice) -> str:
    """The averages with their errors."""
    values, errors = lattice.averages
    return ", ".join(
        f"{name} = {words.plus_minus({'value': value, 'std_error': error})}"
        for name, value, error in zip(("⟨M⟩", "⟨|M|⟩", "⟨M²⟩"), values, errors, strict=True)
    )


def spoken_two_point(lattice: Lattice) -> str:
    """The two-point function at no distance and at the largest, with errors."""
    mean, error = lattice.two_point
    first, last = (words.plus_minus({"value": mean[k], "std_error": error[k]}) for k in (0, -1))
    return f"{first} at distance 0, {last} at {len(mean) - 1}"


def magnetisation_table(lattice: Lattice) -> Table:
    """Magnetisation and weight of every walker.

    Example:
        >>> found = Lattice(np.ones(2), np.full(2, 0.5), (np.ones(3), np.ones(3)), (np.array([1, 0.5]), np.ones(2)))
        >>> magnetisation_table(found)
        {'magnetisation': [1.0, 1.0], 'weight': [0.5, 0.5]}
    """
    return {"magnetisation": lattice.magnetisation.tolist(), "weight": lattice.weight.tolist()}


def two_point_table(lattice: Lattice) -> Table:
    """Distance, mean and standard error.

    Example:
        >>> found = Lattice(np.ones(2), np.full(2, 0.5), (np.ones(3), np.ones(3)), (np.array([1, 0.5]), np.ones(2)))
        >>> two_point_table(found)
        {'distance': [0, 1], 'two_point': [1.0, 0.5], 'std_error': [1.0, 1.0]}
    """
    mean, error = lattice.two_point
    return rows(
        ["distance", "two_point", "std_error"], zip(range(len(mean)), mean.tolist(), error.tolist(), strict=True)
    )
