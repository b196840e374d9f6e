"""Every estimate of ΔF beside the bounds and the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nessampler import _words as words
from nessampler._words import Real
from nessampler.plots.style import FORWARD, GREY, INK, METHOD_COLOURS, REVERSE, RUNG_COLOURS, STYLE, WIDTH, label
from nessampler.plots.table import Table, rows

__all__ = ["estimates", "estimates_table", "log_z_estimates"]


@rc_context(STYLE)
def estimates(result: Mapping[str, Any]) -> Figure:
    """ΔF of every rung and estimator with its 95 % interval, the rigorous bounds as brackets, the reference as a band.

    The axis keeps to where the answer lies; what is off it is drawn as an arrow at the edge, its number stands beside.

    Args:
        result: a run's result, energies in kT.

    Example:
        >>> result = {"rungs": [{"name": "map", "chosen": True, "delta_f": {"value": 1.0, "std_error": 0.1}}]}
        >>> estimates(result).get_label()
        'ΔF in kT by rung and estimator: map, chosen 1.00 ± 0.10.'
    """
    shown = _estimate_rows(result)
    figure = chart(shown, result.get("reference"), "ΔF / kT")
    spoken = "; ".join(f"{row.name} {row.number}" for row in shown)
    reference = words.reference_line(result)
    by = "rung and estimator" if words.rungs(result) else "estimator"
    figure.set_label(
        f"ΔF in kT by {by}: {spoken}{'. Reference: ' + reference if reference else ''}."
        if shown
        else "No estimate of ΔF is available."
    )
    return figure


@rc_context(STYLE)
def log_z_estimates(result: Mapping[str, Any]) -> Figure:
    """log Z of every attempt with its 95 % interval and its bounds, the reference as a band.

    Args:
        result: a density's result.

    Example:
        >>> result = {"attempts": [{"name": "ais", "chosen": True, "log_z": {"value": 1.0, "std_error": 0.1}}]}
        >>> log_z_estimates(result).get_label()
        'log Z by attempt: ais, chosen 1.00 ± 0.10.'
    """
    shown = _attempt_rows(result)
    figure = chart(shown, result.get("reference"), "log Z")
    spoken = "; ".join(f"{row.name} {row.number}" for row in shown)
    reference = words.reference_line(result, "")
    figure.set_label(
        f"log Z by attempt: {spoken}{'. Reference: ' + reference if reference else ''}."
        if shown
        else "No estimate of log Z is available."
    )
    return figure


def estimates_table(result: Mapping[str, Any]) -> Table:
    """Every estimate of a difference (kT) or of log Z: its name, value, 95 % interval, bounds and their limits.

    Example:
        >>> result = {"rungs": [{"name": "map", "chosen": True, "delta_f": {"value": 1.0, "std_error": 0.1}}]}
        >>> table = estimates_table(result)
        >>> table["name"], table["value"], table["low"]  # the interval is 1.96 errors to either side
        (['map, chosen'], [1.0], [0.804])
    """
    shown = _attempt_rows(result) if words.attempts(result) else _estimate_rows(result)
    return rows(
        ["name", "value", "low", "high", "lower_bound", "upper_bound", "lower_limit", "upper_limit"],
        [(row.name, row.value, *(row.ends or (None, None)), *row.bounds, *row.limits) for row in shown],
    )


def chart(rows: Sequence[Row], reference: Mapping[str, Any] | None, quantity: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.3 + 0.42 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    low, high = _estimate_window(reference, rows)
    _reference_band(axes, reference)
    for height, row in enumerate(reversed(rows)):
        _draw_row(axes, row, height, low, high)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.tick_params(axis="y", length=0, pad=9)
    for text, row in zip(axes.get_yticklabels(), reversed(rows), strict=True):
        text.set_fontweight("bold" if row.chosen else "normal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(range(len(rows)), [row.number for row in reversed(rows)])
    numbers.tick_params(axis="y", length=0, pad=9)
    numbers.spines["right"].set_visible(False)
    axes.set_xlabel(quantity)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.6, columnspacing=1.2)
    return figure


class Row(NamedTuple):
    name: str
    number: str
    colour: str
    value: Real | None = None
    ends: tuple[Real, Real] | None = None
    bounds: tuple[Real | None, Real | None] = (None, None)
    limits: tuple[Real | None, Real | None] = (None, None)
    chosen: bool = False
    pilot: bool = False


def _estimate_rows(result: Mapping[str, Any]) -> list[Row]:
    rows = []
    for rung in words.rungs(result):
        name = str(rung.get("name"))
        label = ", ".join(filter(None, [name, words.status(rung)]))
        row = estimate_row(label, rung.get("delta_f"), RUNG_COLOURS.get(name, INK), rung.get("bounds"))
        rows.append(row._replace(chosen=bool(rung.get("chosen")), pilot=words.is_pilot(rung)))
    for index, (key, estimate) in enumerate(words.estimators(result).items()):
        colour = {"jarzynski_forward": FORWARD, "jarzynski_reverse": REVERSE}.get(key, "#6B6B6B")
        answer = index == 0 and result.get("kind") == "works"
        rows.append(estimate_row(words.estimator_name(result, key), estimate, colour)._replace(chosen=answer))
    return rows + _bound_rows(result)


def _attempt_rows(result: Mapping[str, Any]) -> list[Row]:
    found = []
    for attempt in words.attempts(result):
        name = str(attempt.get("name"))
        said = ", ".join(filter(None, [name, words.status(attempt)]))
        row = estimate_row(said, attempt.get("log_z"), METHOD_COLOURS.get(name, INK), attempt.get("bounds"))
        found.append(row._replace(chosen=bool(attempt.get("chosen"))))
    return found + _bound_rows(result)


def _bound_rows(result: Mapping[str, Any]) -> list[Row]:
    rows = []
    for name, bounds in (
        ("bounds", result.get("bounds")),
        ("bounds, weighted", words.get(result, "bounds", "importance_weighted")),
    ):
        lower, upper = words.get(bounds, "lower"), words.get(bounds, "upper")
        if (lower, upper) != (None, None):
            places = words.bound_places(bounds)
            number = f"{words.fixed(lower, places)} to {words.fixed(upper, places)}"
            rows.append(estimate_row(name, None, GREY, bounds)._replace(number=number))
    return rows


def estimate_row(
    name: str, quantity: Mapping[str, Any] | None, colour: str, bounds: Mapping[str, Any] | None = None
) -> Row:
    value, error, ends = (words.get(quantity, key) for key in ("value", "std_error", "ci95"))
    if (not ends or None in ends) and None not in (value, error):
        ends = (value - 1.96 * error, value + 1.96 * error)
    return Row(
        label(name, 30),
        words.plus_minus(quantity) if value is not None else "not available",
        colour,
        value,
        (ends[0], ends[1]) if ends and None not in ends else None,
        (words.get(bounds, "lower"), words.get(bounds, "upper")),
        (words.get(bounds, "lower_limit"), words.get(bounds, "upper_limit")),
    )


def _estimate_window(reference: Mapping[str, Any] | None, rows: Sequence[Row]) -> tuple[Real, Real]:
    """Wide enough for the answer and the reference; others only as far as six times that."""
    known = words.get(reference, "value")
    core = [] if known is None else [known]
    leading = [row for row in rows if row.chosen] or [row for row in rows if row.value is not None]
    for row in leading:
        core += [x for x in (row.value, *(row.ends or ())) if x is not None]
    every = [x for row in rows for x in (row.value, *(row.ends or ()), *row.bounds, *row.limits) if x is not None]
    if not core:
        core = every or [-1.0, 1.0]
    low, high = min(core), max(core)
    reach = 6 * (high - low) or 1.0
    inside = [x for x in every if low - reach <= x <= high + reach]
    low, high = min(low, *inside, low), max(high, *inside, high)
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _reference_band(axes: Axes, reference: Mapping[str, Any] | None) -> None:
    value, error = words.get(reference, "value"), words.get(reference, "std_error")
    if value is None:
        return
    if error:
        axes.axvspan(value - 1.96 * error, value + 1.96 * error, color="#F0E442", alpha=0.55, linewidth=0)
    axes.axvline(value, color="#8A7F00", linewidth=1.2, label=f"reference {words.known(reference)}")


def _draw_row(axes: Axes, row: Row, height: int, low: Real, high: Real) -> None:
    for (x, edge), side in zip(zip(row.bounds, row.limits, strict=True), (-1, 1), strict=True):
        _bracket(axes, x, edge, height, side, (low, high))
    if row.bounds[0] is not None and row.bounds[1] is not None:
        axes.plot([max(low, row.bounds[0]), min(high, row.bounds[1])], [height] * 2, color=GREY, linewidth=0.8)
    if row.value is None:
        return
    if not low <= row.value <= high:
        side = -1 if row.value < low else 1
        axes.plot(low if side < 0 else high, height, marker="<" if side < 0 else ">", color=row.colour, clip_on=False)
        return
    if row.ends:
        axes.plot([max(low, row.ends[0]), min(high, row.ends[1])], [height] * 2, color=row.colour, linewidth=3)
    axes.plot(
        row.value,
        height,
        marker="D" if row.chosen else "o",
        markersize=10 if row.chosen else 7,
        color=row.colour,
        markerfacecolor="white" if row.pilot else row.colour,
        markeredgewidth=1.6,
        zorder=3,
    )


def _bracket(axes: Axes, x: Real | None, limit: Real | None, height: int, side: int, window: tuple[Real, Real]) -> None:
    """A bracket that opens towards the inside, and a dotted line out to the limit that allows for sampling error."""
    low, high = window
    if x is None:
        return
    if not low <= x <= high:
        marker = "<" if x < low else ">"
        axes.plot(low if x < low else high, height, marker=marker, color=GREY, markersize=5, clip_on=False)
        return
    foot = x - side * 0.012 * (high - low)
    axes.plot([foot, x, x, foot], [height + 0.26, height + 0.26, height - 0.26, height - 0.26], color=GREY, lw=1.4)
    if limit is not None:
        axes.plot([x, min(high, max(low, limit))], [height] * 2, color=GREY, linestyle=":", linewidth=1.4)
