"""What happened to the walkers on their way from the base to the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure

from nessampler.plots.style import FORWARD, INK, METHOD_COLOURS, REVERSE, STYLE, WIDTH, label, say
from nessampler.plots.table import Table, rows

__all__ = ["Curve", "along_path", "along_path_table"]

COLOURS = {**METHOD_COLOURS, "forward": FORWARD, "reverse": REVERSE}

Curve = tuple[Float[np.ndarray, " _k"], Float[np.ndarray, " _k"]]


@rc_context(STYLE)
def along_path(
    quantities: Mapping[str, Mapping[str, Curve]], ends: tuple[str, str] = ("the base", "the target")
) -> Figure:
    """One panel per quantity, one curve per attempt or direction, over the time of the path.

    Args:
        quantities: by title, then by attempt: times and values. Fractions are drawn between 0 and 1 (R² may fall
            below, and is then drawn at 0); log Z, whose title begins so, and energies in kT, whose title ends so, on
            axes of their own.
        ends: of the path, in words.

    Example:
        >>> t = np.linspace(0, 1, 3)
        >>> along_path({"ESS": {"ais": (t, 1 - 0.5 * t)}}).get_label()
        'Along the path from t = 0 to 1: ESS of ais ends at 0.50.'
    """
    shown = {title: curves for title, curves in quantities.items() if curves}
    rows = max(1, len(shown))
    figure = Figure(figsize=(WIDTH, 1.0 + 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    if not shown:
        say(panels[0], "nothing was recorded along the path")
        figure.set_label("Nothing was recorded along the path.")
        return figure
    spoken, named = [], {}
    for panel, (title, curves) in zip(panels, shown.items(), strict=True):
        for name, (times, values) in curves.items():
            colour = COLOURS.get(name, INK)
            marker = "o" if len(times) < 40 else ""
            drawn = values if _is_energy(title) else np.clip(values, 0, None)
            (line,) = panel.plot(times, drawn, color=colour, linewidth=1.6, marker=marker, markersize=4)
            named.setdefault(label(name), line)
            spoken.append(f"{title} of {name} ends at {_last(values)}")
        panel.set_title(label(title))
        if not _is_energy(title):
            panel.set_ylim(0, 1.04)
        panel.set_xlim(-0.01, 1.01)
        panel.grid()
    panels[-1].set_xlabel(f"t: 0 at {ends[0]}, 1 at {ends[1]}")
    figure.legend(named.values(), named.keys(), loc="outside upper left", ncols=4, handlelength=1.6)
    figure.set_label(f"Along the path from t = 0 to 1: {'; '.join(spoken)}.")
    return figure


def along_path_table(quantities: Mapping[str, Mapping[str, Curve]]) -> Table:
    """One row per quantity, attempt and time.

    Example:
        >>> along_path_table({"ESS": {"ais": (np.array([0.0, 1.0]), np.array([1.0, 0.5]))}})
        {'quantity': ['ESS', 'ESS'], 'attempt': ['ais', 'ais'], 't': [0.0, 1.0], 'value': [1.0, 0.5]}
    """
    return rows(
        ["quantity", "attempt", "t", "value"],
        [
            (title, name, float(t), float(value))
            for title, curves in quantities.items()
            for name, (times, values) in curves.items()
            for t, value in zip(times, values, strict=True)
        ],
    )


def _is_energy(title: str) -> bool:
    return title.startswith("log Z") or title.endswith("/ kT")


def _last(values: Sequence[float] | np.ndarray) -> str:
    known = [v for v in values if np.isfinite(v)]
    return f"{known[-1]:.2f}" if known else "no number"
