"""What samples of two states look like: backbone torsions in the plane, and one histogram per quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler.plots.style import FORWARD, REVERSE, STYLE, WIDTH, label
from nessampler.plots.table import Table, rows

__all__ = ["Series", "end_states", "end_states_table", "ramachandran"]

Series = Mapping[str, Float[np.ndarray, "_chains _draws"]]
"""Samples of one state by the name of the quantity; torsions in degrees, from −180 to 180."""

MOST = 12


@rc_context(STYLE)
def ramachandran(
    state_a: Series, state_b: Series, labels: tuple[str, str], weights: tuple[np.ndarray, np.ndarray] | None = None
) -> Figure | None:
    r"""Histograms of $\varphi$ and $\psi$ in both states; None unless there is one torsion of either kind.

    Args:
        state_a, state_b: torsions in degrees; names begin with phi and psi.
        labels: of the states.
        weights: of the samples, adding up to 1; by default all weigh the same.

    Example:
        >>> turned = {"phi": np.full((1, 9), -80.0), "psi": np.full((1, 9), 160.0)}
        >>> ramachandran(turned, turned, ("A", "B")).get_label()
        'Ramachandran histograms. A: most often near φ = -82°, ψ = 158°. B: most often near φ = -82°, ψ = 158°.'
    """
    found = [name for kind in ("phi", "psi") for name in state_a if name.startswith(kind)]
    if len(found) != 2 or any(name not in state_b for name in found):  # not one residue's backbone
        return None
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    sizes = [np.size(state[found[0]]) for state in (state_a, state_b)]
    spoken, bins = [], _circle(min(sizes if weights is None else [1 / np.square(w).sum() for w in weights]))
    for axes, state, name, weight in zip(panels, (state_a, state_b), labels, weights or (None, None), strict=True):
        phi, psi = (np.ravel(state[torsion]) for torsion in found)
        counts, _, _ = np.histogram2d(phi, psi, bins=[bins, bins], weights=weight)
        # One image instead of 3,600 cells that a browser would have to draw one by one.
        axes.pcolormesh(bins, bins, np.ma.masked_equal(counts.T, 0), cmap="viridis", rasterized=True)
        axes.set(xlabel="φ / degrees", xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))
        axes.set_title(label(name, 24))
        axes.set_aspect("equal")
        axes.grid()
        row, column = np.unravel_index(int(counts.argmax()), counts.shape)
        middle = 0.5 * (bins[1:] + bins[:-1])
        spoken.append(f"{name}: most often near φ = {middle[row]:.0f}°, ψ = {middle[column]:.0f}°")
    panels[0].set_ylabel("ψ / degrees")
    figure.set_label(f"Ramachandran histograms. {'. '.join(spoken)}.")
    return figure


@rc_context(STYLE)
def end_states(state_a: Series, state_b: Series, labels: tuple[str, str], unit: str = "") -> Figure | None:
    """One histogram per quantity with both states in it, twelve at most; None if there is no quantity.

    Args:
        state_a, state_b: samples by name; other names than both have are left out.
        labels: of the states.
        unit: "degrees" for torsions, which lie on a circle; else of all quantities, or empty.

    Example:
        >>> samples = {"phi": np.zeros((2, 10)), "psi": np.full((2, 10), 90.0)}
        >>> end_states(samples, samples, ("A", "B"), "degrees").get_label()
        'Histograms of 2 quantities in A and B: phi 0 (A), 0 (B); psi 90 (A), 90 (B), centres in degrees.'
    """
    names = [name for name in state_a if name in state_b][:MOST]
    if not names:
        return None
    columns = min(3, len(names))
    height = -(-len(names) // columns)
    figure = Figure(figsize=(WIDTH, 0.7 + 1.7 * height), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, names, strict=False):
        _both(axes, name, np.ravel(state_a[name]), np.ravel(state_b[name]), labels, unit)
    handles, said = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, said, loc="outside upper left", ncols=2, handlelength=1.4)
    medians = "; ".join(
        ", ".join(
            [
                f"{short_name(name)} {median_of(state_a[name], unit)} ({labels[0]})",
                f"{median_of(state_b[name], unit)} ({labels[1]})",
            ]
        )
        for name in names
    )
    what = f"{len(names)} quantit{'y' if len(names) == 1 else 'ies'}"
    figure.set_label(
        f"Histograms of {what} in {words.listing(list(labels))}: {medians}, centres{' in ' + unit if unit else ''}."
    )
    return figure


def end_states_table(state_a: Series, state_b: Series, names: Sequence[str] | None = None) -> Table:
    """State, chain, draw, and one column per quantity.

    Example:
        >>> from nessampler.plots import as_csv
        >>> print(as_csv(end_states_table({"phi": np.array([[-80.0]])}, {"phi": np.array([[60.0]])})), end="")
        state,chain,draw,phi
        A,0,0,-80.0
        B,0,0,60.0
    """
    shown = [name for name in state_a if name in state_b and (names is None or name in names)]
    entries = []
    for letter, state in (("A", state_a), ("B", state_b)):
        columns = [np.atleast_2d(state[name]) for name in shown]
        for chain, draw in np.ndindex(columns[0].shape if columns else (0, 0)):
            entries.append((letter, chain, draw, *(float(values[chain, draw]) for values in columns)))
    return rows(["state", "chain", "draw", *shown], entries)


def _both(axes: Axes, name: str, a: np.ndarray, b: np.ndarray, labels: tuple[str, str], unit: str) -> None:
    bins = bins_of([a, b], unit, min(a.size, b.size))
    if unit == "degrees":
        axes.set_xticks(range(-180, 181, 180))
    for values, text, colour, line in ((a, labels[0], FORWARD, "-"), (b, labels[1], REVERSE, "--")):
        heights = np.histogram(values, bins)[0] / max(1, values.size)
        axes.stairs(heights, bins, color=colour, linestyle=line, linewidth=1.5, label=label(text, 24))
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(label(short_name(name), 26), fontsize=9)
    axes.tick_params(axis="x", labelsize=9)


def bins_of(samples: Sequence[np.ndarray], unit: str, effective: float) -> np.ndarray:
    """Edges that suit all of the samples, of which so many are effective in the poorest."""
    if unit == "degrees":
        return _circle(effective)
    low, high = np.quantile(np.concatenate(list(samples)), [0.002, 0.998])
    return np.linspace(low, high if high > low else low + 1.0, 31 if effective >= 300 else 21)


def _circle(samples: float) -> np.ndarray:
    """As many bins as the samples can fill."""
    return np.linspace(-180, 180, 1 + (24 if samples < 300 else 36 if samples < 2000 else 60))


def short_name(name: str) -> str:
    """Of a torsion that has a name, that and its residue; of another its atoms, each residue said once.

    An atom whose name is the only one of its kind in the molecule comes without a residue.

    >>> short_name("phi(ALA2:C-ALA3:N-ALA3:CA-ALA3:C)"), short_name("psi(ALA2:N-CA-ALA2:C-NME3:N)")
    ('phi ALA3', 'psi ALA2')
    >>> short_name("phi(C-N-CA-C)"), short_name("energy"), short_name("torsion(ACE1:H1-CH3-ACE1:C-ALA2:N)")
    ('phi', 'energy', 'ACE1:H1-CH3-C-ALA2:N')
    """
    kind, _, inside = name.partition("(")
    atoms = [atom.rpartition(":") for atom in inside.rstrip(")").split("-")]
    if kind == "torsion" and inside:
        said, shown = "", []
        for residue, _, atom in atoms:
            shown.append(f"{residue}:{atom}" if residue not in ("", said) else atom)
            said = residue or said
        return "-".join(shown)
    own = atoms[1:] if kind == "phi" else atoms[:-1]  # φ is C-N-CA-C, whose C before, and ψ N-CA-C-N, whose N after
    residue = next((residue for residue, *_ in own if residue), "")
    return f"{kind} {residue}".rstrip()


def median_of(values: np.ndarray, unit: str, weight: np.ndarray | None = None) -> str:
    """Of a circle the middle is where the mean vector points."""
    flat = np.ravel(values)
    share = np.full(flat.size, 1 / max(1, flat.size)) if weight is None else weight
    if unit == "degrees":
        return f"{np.degrees(np.angle((share * np.exp(1j * np.radians(flat))).sum())):.0f}"
    if weight is None:
        return f"{np.median(flat):.3g}"
    order = np.argsort(flat)
    return f"{flat[order][np.searchsorted(np.cumsum(share[order]), 0.5).clip(max=flat.size - 1)]:.3g}"
