"""Overlap, effective samples and tails of the weights, beside the values from which on they are sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from nessampler import _words as words
from nessampler.plots.style import FORWARD, GREY, INK, REVERSE, STYLE, WIDTH, label, number, say
from nessampler.plots.table import Table, rows

__all__ = ["quality", "quality_table"]

LEAST_OVERLAP = 0.06
LARGEST_K = 0.7
SMALLEST_ESS = 1e-4


class _Entry(NamedTuple):
    name: str
    chosen: bool
    overlap: float | None
    ess: tuple[float | None, float | None]
    pareto_k: tuple[float | None, float | None]


@rc_context(STYLE)
def quality(result: Mapping[str, Any]) -> Figure:
    r"""Overlap, effective part of the samples, and Pareto k of the weights, per rung or attempt and direction.

    Overlap below 0.06 makes BAR unreliable, a Pareto k above 0.7 the exponential average of that direction: both lines
    are drawn, and the unsound side is shaded.

    Args:
        result: a run's result, a difference's or a density's.

    References:
        Vehtari et al., Pareto smoothed importance sampling, 2024, arXiv:1507.02646 (0.7).

    Example:
        >>> entry = {"name": "map", "overlap": 0.4, "ess": {"forward": 0.2, "reverse": 0.1}}
        >>> quality({"rungs": [entry | {"pareto_k": {"forward": 0.5, "reverse": 0.8}}]}).get_label()
        'Quality of the works: map: overlap 0.40, ESS 0.20 / 0.10, Pareto k 0.50 / 0.80 (above 0.7).'
    """
    entries = _entries(result)
    with_overlap = any(entry.overlap is not None for entry in entries)
    columns = 2 + with_overlap
    figure = Figure(figsize=(WIDTH, 1.4 + 0.42 * max(1, len(entries))), layout="constrained")
    panels = list(figure.subplots(1, columns, squeeze=False, sharey=True)[0])
    if not entries:
        say(panels[0], "nothing was estimated")
    if with_overlap:
        _overlap(panels[0], entries)
    _directed(panels[-2], [entry.ess for entry in entries])
    _ess_axis(panels[-2], entries)
    _directed(panels[-1], [entry.pareto_k for entry in entries])
    _tail_axis(panels[-1], entries)
    panels[0].set_yticks(range(len(entries)), [label(entry.name, 24) for entry in entries])
    panels[0].set_ylim(max(1, len(entries)) - 0.5, -0.5)
    for text, entry in zip(panels[0].get_yticklabels(), entries, strict=False):
        text.set_fontweight("bold" if entry.chosen else "normal")
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)
    kind = "weights" if words.attempts(result) else "works"
    figure.set_label(f"Quality of the {kind}: {'; '.join(map(_spoken, entries)) or 'nothing was estimated'}.")
    return figure


def quality_table(result: Mapping[str, Any]) -> Table:
    """Rung or attempt, direction, overlap, ESS and Pareto k.

    Example:
        >>> from nessampler.plots import as_csv
        >>> entry = {"name": "map", "overlap": 0.4, "ess": {"forward": 0.2, "reverse": 0.1}}
        >>> print(as_csv(quality_table({"rungs": [entry | {"pareto_k": {"forward": 0.5, "reverse": 0.8}}]})), end="")
        name,direction,overlap,ess,pareto_k
        map,forward,0.4,0.2,0.5
        map,reverse,0.4,0.1,0.8
    """
    return rows(
        ["name", "direction", "overlap", "ess", "pareto_k"],
        [
            (entry.name, way, entry.overlap, entry.ess[k], entry.pareto_k[k])
            for entry in _entries(result)
            for k, way in enumerate(("forward", "reverse"))
        ],
    )


def _entries(result: Mapping[str, Any]) -> list[_Entry]:
    return [
        _Entry(
            f"{found.get('name')}{' (pilot)' if words.is_pilot(found) else ''}",
            bool(found.get("chosen")),
            found.get("overlap"),
            _pair(found.get("ess")),
            _pair(found.get("pareto_k")),
        )
        for found in (*words.rungs(result), *words.attempts(result), *_given(result))
    ]


def _given(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Works from elsewhere are of no rung: the result itself says what they are worth."""
    return [{**result, "name": "given works"}] if result.get("kind") == "works" else []


def _pair(value: Any) -> tuple[float | None, float | None]:
    """Forward and reverse; a density has one tail only, that of its forward weights."""
    return (value.get("forward"), value.get("reverse")) if isinstance(value, Mapping) else (value, None)


def _overlap(axes: Axes, entries: Sequence[_Entry]) -> None:
    for height, entry in enumerate(entries):
        if entry.overlap is not None:
            axes.barh(height, entry.overlap, height=0.45, color=INK if entry.chosen else GREY)
    axes.set_xlim(0, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.axvspan(0, LEAST_OVERLAP, color="#F3D9D6", linewidth=0, zorder=0)
    axes.set_title("overlap")


def _directed(axes: Axes, pairs: Sequence[tuple[float | None, float | None]]) -> None:
    for k, (colour, marker, shift, text) in enumerate(
        ((FORWARD, "o", -0.12, "forward"), (REVERSE, "s", 0.12, "reverse"))
    ):
        known = [(number(pair[k]), height + shift) for height, pair in enumerate(pairs) if pair[k] is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color=colour, marker=marker, linestyle="", label=text, markersize=7)


def _ess_axis(axes: Axes, entries: Sequence[_Entry]) -> None:
    known = [value for entry in entries for value in entry.ess if value is not None and value > 0]
    least = max(SMALLEST_ESS, min([0.1, *known]) / 1.6)
    axes.set_xscale("log")
    axes.set_xlim(least, 1.3)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title("ESS")


def _tail_axis(axes: Axes, entries: Sequence[_Entry]) -> None:
    known = [value for entry in entries for value in entry.pareto_k if value is not None]
    low, high = min([0.0, *known]) - 0.15, max([1.0, *known]) + 0.15
    axes.axvspan(LARGEST_K, high, color="#F3D9D6", linewidth=0, zorder=0)
    axes.axvline(LARGEST_K, color=INK, linewidth=1.2, linestyle="--")
    axes.set_xlim(low, high)
    axes.set_xticks([0, LARGEST_K, *range(2, int(high) + 1)])
    axes.set_title("Pareto k")


def _spoken(entry: _Entry) -> str:
    overlap = "" if entry.overlap is None else f"overlap {entry.overlap:.2f}, "
    ess = words.directions({"forward": entry.ess[0], "reverse": entry.ess[1]})
    tail = words.directions({"forward": entry.pareto_k[0], "reverse": entry.pareto_k[1]})
    heavy = any(k is not None and k > LARGEST_K for k in entry.pareto_k)
    name = f"{entry.name}, chosen" if entry.chosen else entry.name
    return f"{name}: {overlap}ESS {ess}, Pareto k {tail}{' (above 0.7)' if heavy else ''}"
