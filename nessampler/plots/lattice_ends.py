"""Magnetisation and two-point function of the fields of two states."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nessampler.plots.lattice import Lattice, magnetisation_table, spoken_averages, spoken_two_point, two_point_table
from nessampler.plots.samples import effective_bins
from nessampler.plots.style import FORWARD, REVERSE, STYLE, WIDTH, label
from nessampler.plots.table import Table

__all__ = ["magnetisations", "magnetisations_table", "two_points", "two_points_table"]

LOOKS = ((FORWARD, "-", "o"), (REVERSE, "--", "s"))


@rc_context(STYLE)
def magnetisations(state_a: Lattice, state_b: Lattice, labels: tuple[str, str]) -> Figure:
    r"""Histograms of the magnetisation per site in both states, with their means.

    Args:
        state_a, state_b: observables of the samples.
        labels: of the states.

    Example:
        >>> m, weight = np.linspace(-1, 1, 50), np.full(50, 0.02)
        >>> state = Lattice(m, weight, (np.ones(3), np.full(3, 0.1)), (np.ones(2), np.ones(2)))
        >>> magnetisations(state, state, ("λ = 0.8", "λ = 1.1")).get_label()
        'Histograms of the magnetisation. λ = 0.8: ⟨M⟩ = 1.00 ± 0.10, ⟨|M|⟩ = ...; λ = 1.1: ⟨M⟩ = 1.00 ± 0.10, ...'
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    states = (state_a, state_b)
    reach = 1.05 * max(float(np.abs(state.magnetisation).max()) for state in states) or 1.0
    count = min(effective_bins(state.weight) for state in states)
    bins = [float(edge) for edge in np.linspace(-reach, reach, count + 1)]
    for state, name, (colour, line, _) in zip(states, labels, LOOKS, strict=True):
        heights = np.histogram(state.magnetisation, bins, weights=state.weight, density=True)[0]
        axes.stairs(heights, bins, color=colour, alpha=0.2, fill=True)
        axes.stairs(heights, bins, color=colour, linestyle=line, linewidth=1.6, label=label(name))
        axes.axvline(float(state.averages[0][0]), color=colour, linestyle=line, linewidth=1.0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("magnetisation per site, M")
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6)
    spoken = "; ".join(f"{name}: {spoken_averages(state)}" for name, state in zip(labels, states, strict=True))
    figure.set_label(f"Histograms of the magnetisation. {spoken}.")
    return figure


@rc_context(STYLE)
def two_points(state_a: Lattice, state_b: Lattice, labels: tuple[str, str]) -> Figure:
    r"""$G(r) = \langle \varphi(0)\, \varphi(r) \rangle$ of both states along the axes, with 95 % intervals.

    Example:
        >>> state = Lattice(np.ones(2), np.full(2, 0.5), (np.ones(3), np.ones(3)), (np.array([1, 0.5]), np.ones(2)))
        >>> two_points(state, state, ("A", "B")).get_label()
        'Two-point functions. A: 1.0 ± 1.0 at distance 0, 0.5 ± 1.0 at 1; B: 1.0 ± 1.0 at distance 0, 0.5 ± 1.0 at 1.'
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots()
    states = (state_a, state_b)
    for state, name, (colour, line, marker) in zip(states, labels, LOOKS, strict=True):
        mean, error = state.two_point
        look = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4, "capsize": 2}
        axes.errorbar(np.arange(len(mean)), mean, 1.96 * error, label=label(name), **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("distance r / sites")
    axes.set_ylabel("G(r) = ⟨φ(0) φ(r)⟩")
    axes.set_ylim(bottom=min(0.0, *(float((mean - 2 * error).min()) for mean, error in (s.two_point for s in states))))
    axes.grid()
    figure.legend(loc="outside upper left", ncols=2, handlelength=1.6)
    spoken = "; ".join(f"{name}: {spoken_two_point(state)}" for name, state in zip(labels, states, strict=True))
    figure.set_label(f"Two-point functions. {spoken}.")
    return figure


def magnetisations_table(state_a: Lattice, state_b: Lattice) -> Table:
    """State, magnetisation and weight of every sample.

    >>> state = Lattice(np.ones(1), np.ones(1), (np.ones(3), np.ones(3)), (np.ones(1), np.ones(1)))
    >>> magnetisations_table(state, state)
    {'state': ['A', 'B'], 'magnetisation': [1.0, 1.0], 'weight': [1.0, 1.0]}
    """
    return _both(magnetisation_table(state_a), magnetisation_table(state_b))


def two_points_table(state_a: Lattice, state_b: Lattice) -> Table:
    """State, distance, mean and standard error.

    >>> state = Lattice(np.ones(1), np.ones(1), (np.ones(3), np.ones(3)), (np.ones(1), np.ones(1)))
    >>> two_points_table(state, state)
    {'state': ['A', 'B'], 'distance': [0, 0], 'two_point': [1.0, 1.0], 'std_error': [1.0, 1.0]}
    """
    return _both(two_point_table(state_a), two_point_table(state_b))


def _both(a: Table, b: Table) -> Table:
    sizes = [len(next(iter(table.values()))) for table in (a, b)]
    states = ["A"] * sizes[0] + ["B"] * sizes[1]
    return {"state": states, **{name: [*a[name], *b[name]] for name in a}}
