"""ΔF from growing parts of the samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure

from nessampler.errors import InputError
from nessampler.plots.style import GREY, INK, STYLE, WIDTH

__all__ = ["ConvergenceCurve", "convergence"]


class ConvergenceCurve(NamedTuple):
    """Estimates from growing parts of the data, from its start (forward) and from its end (backward)."""

    fractions: Float[np.ndarray, " _parts"]
    forward: Float[np.ndarray, " _parts"]
    errors: Float[np.ndarray, " _parts"]
    backward: Float[np.ndarray, " _parts"]


@rc_context(STYLE)
def convergence(
    fractions: Float[np.ndarray, " _parts"],
    forward: Float[np.ndarray, " _parts"],
    errors: Float[np.ndarray, " _parts"],
    backward: Float[np.ndarray, " _parts"],
) -> Figure:
    """ΔF from growing parts of the data, taken from its start and from its end.

    Two curves that meet within the error well before the whole of the data say that the samples are equilibrated.

    Args:
        fractions: part of the data used, in (0, 1].
        forward: ΔF in kT from the first part of the data.
        errors: its standard errors in kT.
        backward: ΔF in kT from the last part.

    Raises:
        InputError: the four arrays differ in length.

    References:
        Guidelines for the analysis of free energy calculations, 2015, doi:10.1007/s10822-015-9840-9, section 4.

    Example:
        >>> parts = np.array([0.5, 1.0])
        >>> convergence(parts, np.array([1.1, 1.0]), np.array([0.2, 0.1]), np.array([0.9, 1.0])).get_label()
        'ΔF in kT against the part of the data used: 1.100 from the first and 0.900 from the last 50 %, 1.000 from all.'
    """
    columns = [np.asarray(column, dtype=float).ravel() for column in (fractions, forward, errors, backward)]
    if len({column.size for column in columns}) != 1:
        raise InputError(
            "`fractions`, `forward`, `errors` and `backward` must have one length: got "
            f"{[column.size for column in columns]}; give one entry per part of the data."
        )
    parts, first, error, last = columns
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    percent = 100 * parts
    band = axes.fill_between(percent, first - 1.96 * error, first + 1.96 * error, color="#D5D9DD", linewidth=0)
    band.set_label("95 % interval")
    axes.plot(percent, first, color=INK, marker="o", markersize=5, label="from the start")
    axes.plot(percent, last, color=GREY, marker="s", markersize=5, linestyle="--", label="from the end")
    axes.set_xlim(0, 103)
    axes.set_xlabel("part of the samples used / %")
    axes.set_ylabel("ΔF / kT")
    axes.grid()
    figure.legend(loc="outside upper left", ncols=3)
    spoken = "no data"
    if parts.size:
        middle = int(np.argmin(np.abs(parts - 0.5)))
        spoken = (
            f"{first[middle]:.3f} from the first and {last[middle]:.3f} from the last {percent[middle]:.0f} %, "
            f"{first[-1]:.3f} from all"
        )
    figure.set_label(f"ΔF in kT against the part of the data used: {spoken}.")
    return figure
