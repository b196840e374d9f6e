"""Figures of a molecule's soft torsions."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from nessampler.molecular.internal_coordinates import InternalCoordinates

__all__ = ["ramachandran", "torsion_histograms"]


def ramachandran(
    coordinates: InternalCoordinates, z_a: np.ndarray, z_b: np.ndarray, labels: tuple[str, str]
) -> Figure | None:
    """Histograms of phi and psi in both states from internal coordinates `(n, d)`; None without such torsions."""
    found = [i for name in ("phi", "psi") for i in _soft(coordinates) if coordinates.names[i].startswith(name)]
    if len(found) != 2:  # not one residue's backbone
        return None
    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, values, label in zip(axes, (z_a, z_b), labels, strict=True):
        degrees = np.degrees(values[:, found])
        axis.hist2d(degrees[:, 0], degrees[:, 1], bins=60, range=[[-180, 180]] * 2, cmap="viridis", cmin=1)
        axis.set(title=label, xlabel="φ (degrees)", xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))
        axis.set_aspect("equal")
    axes[0].set_ylabel("ψ (degrees)")
    return figure


def torsion_histograms(
    coordinates: InternalCoordinates, z_a: np.ndarray, z_b: np.ndarray, labels: tuple[str, str]
) -> Figure | None:
    """One histogram per soft torsion, both states in each; None if no torsion is soft."""
    soft, names = _soft(coordinates), coordinates.names
    if not soft:
        return None
    columns = min(3, len(soft))
    rows = -(-len(soft) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat[len(soft) :]:
        axis.set_visible(False)
    bins = np.linspace(-180, 180, 61)
    for axis, index in zip(grid.flat, soft, strict=False):
        for values, label, colour in ((z_a, labels[0], "#0072B2"), (z_b, labels[1], "#D55E00")):
            degrees = (np.degrees(values[:, index]) + 180) % 360 - 180
            axis.hist(degrees, bins=bins, density=True, histtype="step", color=colour, label=label)
        axis.set(title=names[index], xticks=range(-180, 181, 90), yticks=[])
        axis.title.set_fontsize(8)
    grid.flat[0].legend(fontsize=7, frameon=False)
    return figure


def _soft(coordinates: InternalCoordinates) -> list[int]:
    return coordinates.circular.nonzero().flatten().tolist()
