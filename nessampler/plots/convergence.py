"""ΔF from growing parts of the samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nessampler import diagnostics
from nessampler.errors import InputError
from nessampler.plots.style import GREY, INK, STYLE, WIDTH
from nessampler.plots.table import Table

PARTS = 10

__all__ = ["ConvergenceCurve", "convergence", "convergence_curve", "convergence_panel", "convergence_table"]


class ConvergenceCurve(NamedTuple):
    """Estimates from growing parts of the data, from its start (forward) and from its end (backward).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> curve = convergence_curve(1 + rng.normal(size=400), rng.normal(size=400))  # exact: 1/2
        >>> bool(curve.forward[-1] == curve.backward[-1]), bool(abs(curve.forward[-1] - 0.5) < 4 * curve.errors[-1])
        (True, True)
    """

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
    parts, first, _, last = columns
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    convergence_panel(axes, ConvergenceCurve(*columns))
    figure.legend(loc="outside upper left", ncols=3)
    spoken = "no data"
    if parts.size:
        middle = int(np.argmin(np.abs(parts - 0.5)))
        spoken = (
            f"{first[middle]:.3f} from the first and {last[middle]:.3f} from the last {100 * parts[middle]:.0f} %, "
            f"{first[-1]:.3f} from all"
        )
    figure.set_label(f"ΔF in kT against the part of the data used: {spoken}.")
    return figure


def convergence_curve(
    work_forward: Float[np.ndarray, "*samples"], work_reverse: Float[np.ndarray, "*samples"]
) -> ConvergenceCurve | None:
    """BAR from growing parts of works; None where parts are too short to overlap, so that there is no curve to draw.

    >>> rng = np.random.default_rng(0)
    >>> convergence_curve(1 + rng.normal(size=400), rng.normal(size=400)).fractions[:3].tolist()
    [0.1, 0.2, 0.3]
    """
    draws = min(work_forward.shape[-1], work_reverse.shape[-1])
    if draws < 4:
        return None
    found = diagnostics.convergence(work_forward, work_reverse, fractions=min(PARTS, draws // 2))
    columns = (
        [e.delta_f for e in found.forward],
        [e.std_error for e in found.forward],
        [e.delta_f for e in found.backward],
    )
    first, error, last = (np.array([np.nan if v is None else v for v in column]) for column in columns)
    if not np.isfinite([first, error, last]).all():
        return None
    return ConvergenceCurve(np.array(found.fractions), first, error, last)


def convergence_table(curve: ConvergenceCurve) -> Table:
    """Part of the data, ΔF from its start with its error, and from its end.

    Example:
        >>> from nessampler.plots import as_csv
        >>> parts = np.array([0.5, 1.0])
        >>> curve = ConvergenceCurve(parts, np.array([1.1, 1.0]), np.array([0.2, 0.1]), np.array([0.9, 1.0]))
        >>> print(as_csv(convergence_table(curve)), end="")
        fraction,from_start_kT,std_error_kT,from_end_kT
        0.5,1.1,0.2,0.9
        1.0,1.0,0.1,1.0
    """
    return {
        "fraction": curve.fractions.tolist(),
        "from_start_kT": curve.forward.tolist(),
        "std_error_kT": curve.errors.tolist(),
        "from_end_kT": curve.backward.tolist(),
    }


def convergence_panel(axes: Axes, curve: ConvergenceCurve) -> None:
    """Both curves and the band of the first one."""
    parts, first, error, last = curve
    percent = 100 * parts
    band = axes.fill_between(percent, first - 1.96 * error, first + 1.96 * error, color="#D5D9DD", linewidth=0)
    band.set_label("95 % interval")
    axes.plot(percent, first, color=INK, marker="o", markersize=5, label="from the start")
    axes.plot(percent, last, color=GREY, marker="s", markersize=5, linestyle="--", label="from the end")
    axes.set_xlim(0, 103)
    axes.set_xlabel("part of the samples used / %")
    axes.set_ylabel("ΔF / kT")
    axes.grid()
