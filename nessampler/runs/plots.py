"""Figures of a finished run, drawn with matplotlib's object-oriented interface (no pyplot, no display).

Each figure carries its alternative text as its artist label: `figure.get_label()`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from nessampler.errors import InputError
from nessampler.runs import _words as words
from nessampler.runs._words import Real

__all__ = [
    "FORWARD",
    "REVERSE",
    "RUNG_COLOURS",
    "STYLE",
    "ConvergenceCurve",
    "Works",
    "convergence",
    "cost",
    "estimates",
    "training_curves",
    "work_histograms",
]

Works = Mapping[str, tuple[Float[np.ndarray, "_chains _draws"], Float[np.ndarray, "_chains _draws"]]]

INK = "#222222"
GREY = "#767676"
FORWARD = "#0072B2"  # blue and vermilion of Okabe and Ito: apart for every common colour vision
REVERSE = "#D55E00"
RUNG_COLOURS = {"plain": "#6B6B6B", "map": "#009E73", "switching": "#7B3294", "feat": "#C98A00"}
STAGE_COLOURS = {"endstates": "#BFC7CF", "training": "#5C9BD1", "sampling": "#123B66"}
WIDTH = 6.0  # inches: 11 points are legible on paper, on a screen and, at six tenths of the size, on a phone
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.facecolor": "white",
    "axes.labelcolor": INK,
    "axes.labelsize": 12,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so figures are the same everywhere
    "font.size": 11,
    "grid.color": "#E3E3E3",
    "legend.fontsize": 11,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "nessampler",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 11,
    "ytick.color": INK,
    "ytick.labelsize": 11,
}


class ConvergenceCurve(NamedTuple):
    """Estimates from growing parts of the data, from its start (forward) and from its end (backward)."""

    fractions: Float[np.ndarray, " _parts"]
    forward: Float[np.ndarray, " _parts"]
    errors: Float[np.ndarray, " _parts"]
    backward: Float[np.ndarray, " _parts"]


@rc_context(STYLE)
def work_histograms(works: Works, delta_f: Mapping[str, Any]) -> Figure:
    """Forward work and negated reverse work of each rung, with ΔF where Crooks' theorem makes them cross.

        p_F(W) / p_R(-W) = exp(W - ΔF)

    Densities are normalised by all walkers, also those off the axis, so the crossing stays where it belongs. The axis
    covers the bulk of both distributions and ΔF; what lies beyond it (infinite works too) is counted in words.

    Args:
        works: per rung the forward and the reverse work in kT, each (chains, draws); +inf is allowed, NaN is not.
        delta_f: the result's `delta_f`: `value` and `ci95` in kT, None where not available.

    Returns:
        One panel per rung, stacked.

    Raises:
        InputError: a work is NaN or -inf.

    References:
        Entropy production fluctuation theorem and the nonequilibrium work relation for free energy differences,
        1999, arXiv:cond-mat/9901352, eq. 7.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> works = {"map": (rng.normal(0.5, 1, (4, 100)), rng.normal(0.5, 1, (4, 100)))}
        >>> work_histograms(works, {"value": 0.0, "ci95": [-0.1, 0.1]}).get_label()
        'Histograms of forward work and negated reverse work in kT for the rung map; ΔF = 0.000 kT is marked.'
    """
    rows = max(1, len(works))
    figure = Figure(figsize=(WIDTH, 0.9 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for panel, (name, (forward, reverse)) in zip(panels, works.items(), strict=False):
        _crooks_panel(panel, name, _checked(forward, name), -_checked(reverse, name), delta_f)
    if not works:
        _say(panels[0], "no works were kept")
    panels[-1].set_xlabel("work / kT")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.2)
    value = delta_f.get("value")
    marked = f"; ΔF = {value:.3f} kT is marked" if value is not None else ""
    rungs = f"the rung{'' if len(works) == 1 else 's'} {words.listing(list(works))}" if works else "no rung"
    figure.set_label(f"Histograms of forward work and negated reverse work in kT for {rungs}{marked}.")
    return figure


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
    rows = _estimate_rows(result)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.42 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    low, high = _estimate_window(result, rows)
    _reference_band(axes, result.get("reference"))
    for height, row in enumerate(reversed(rows)):
        _estimate_row(axes, row, height, low, high)
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
    axes.set_xlabel("ΔF / kT")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=3, handlelength=1.6, columnspacing=1.2)
    spoken = "; ".join(f"{row.name} {row.number}" for row in rows)
    reference = words.reference_line(result)
    figure.set_label(
        f"ΔF in kT by rung and estimator: {spoken}{'. Reference: ' + reference if reference else ''}."
        if rows
        else "No estimate of ΔF is available."
    )
    return figure


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


@rc_context(STYLE)
def cost(result: Mapping[str, Any]) -> Figure:
    """Energy and gradient evaluations by stage, one panel per state: a cheap and a dear force field are not summed.

    End-state simulation is shared by all rungs and has a bar of its own.

    Args:
        result: a run's result; `evaluations` of the whole run and of each rung.

    Example:
        >>> counts = {"training": {"energy": 0, "gradient": 0}, "sampling": {"energy": 2000, "gradient": 0}}
        >>> result = {"rungs": [{"name": "map", "evaluations": {"state_a": counts, "state_b": counts}}]}
        >>> cost(result).get_label()
        'Energy and gradient evaluations by stage. A: map 2k. B: map 2k.'
    """
    states = ("state_a", "state_b")
    bars = {state: _cost_bars(result, state) for state in states}
    height = 1.5 + sum(0.55 + 0.36 * len(bars[state]) for state in states)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ratios = [1 + len(bars[state]) for state in states]
    panels = figure.subplots(len(states), 1, squeeze=False, height_ratios=ratios)[:, 0]
    spoken = []
    for panel, state in zip(panels, states, strict=True):
        name = words.state_label(result, state)
        _cost_panel(panel, _label(name, 50), bars[state])
        said = ", ".join(f"{bar} {words.count(sum(stages.values()))}" for bar, stages in bars[state].items())
        spoken.append(f"{name}: {said or 'not counted'}.")
    panels[-1].set_xlabel("evaluations (energies + gradients)")
    handles = [Patch(color=colour, label=words.STAGES[stage]) for stage, colour in STAGE_COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.2)
    figure.set_label("Energy and gradient evaluations by stage. " + " ".join(spoken))
    return figure


@rc_context(STYLE)
def training_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Every number logged during training against the step; the loss first, at most six panels.

    Args:
        metrics: one mapping per logged step, with `step` and numbers; may be empty.

    Example:
        >>> training_curves([{"step": 0, "loss": 2.0}, {"step": 10, "loss": 0.5}]).get_label()
        'Training over 2 logged steps: loss from 2 to 0.5.'
    """
    names = _metric_names(metrics)[:6]
    rows = max(1, len(names))
    figure = Figure(figsize=(WIDTH, 0.8 + 1.6 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, squeeze=False, sharex=True)[:, 0]
    if not names:
        _say(panels[0], "nothing was trained")
        figure.set_label("Nothing was trained in this run.")
        return figure
    steps = np.array([_number(row.get("step", index)) for index, row in enumerate(metrics)])
    spoken = []
    for panel, name in zip(panels, names, strict=True):
        values = np.array([_number(row.get(name)) for row in metrics])
        known = np.isfinite(values)
        panel.plot(steps[known], values[known], color=FORWARD, linewidth=1.4, marker="o" if known.sum() < 30 else "")
        if (values[known] > 0).all() and values[known].max() > 30 * values[known].min():
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
        panel.set_title(_label(name.replace("_", " ")))
        panel.grid()
        spoken.append(f"{name} from {values[known][0]:.4g} to {values[known][-1]:.4g}")
    panels[-1].set_xlabel("training step")
    figure.set_label(f"Training over {len(metrics)} logged steps: {', '.join(spoken)}.")
    return figure


# --- work histograms ---------------------------------------------------------------------------------------------


def _checked(work: np.ndarray, name: str) -> np.ndarray:
    flat = np.asarray(work, dtype=float).ravel()
    if np.isnan(flat).any() or np.isneginf(flat).any():
        raise InputError(
            f"works must be numbers or +inf: the rung {name!r} holds {int(np.isnan(flat).sum())} NaN and "
            f"{int(np.isneginf(flat).sum())} -inf; find the step and the energy term that made them."
        )
    return flat


def _crooks_panel(
    axes: Axes, name: str, forward: np.ndarray, negated_reverse: np.ndarray, delta_f: Mapping[str, Any]
) -> None:
    anchors = [x for x in (delta_f.get("value"), *(delta_f.get("ci95") or ())) if x is not None]
    low, high = _window((forward, negated_reverse), anchors)
    edges = _edges((forward, negated_reverse), low, high, delta_f.get("value"))
    curves = (
        (forward, FORWARD, "-", "forward, W"),
        (negated_reverse, REVERSE, "--", "reverse, −W"),
    )
    for work, colour, line, label in curves:
        heights = np.histogram(work[np.isfinite(work)], edges)[0] / max(1, work.size) / (edges[1] - edges[0])
        axes.stairs(heights, edges, color=colour, alpha=0.22, fill=True)
        axes.stairs(heights, edges, color=colour, linestyle=line, linewidth=1.6, label=label)
    _mark_delta_f(axes, delta_f)
    axes.set_xlim(low, high)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(_label(name), fontweight="bold", color=RUNG_COLOURS.get(name, INK))
    axes.set_title(_outside(forward, negated_reverse, low, high), loc="right", fontsize=9, color="#555555")
    if not (np.isfinite(forward).any() or np.isfinite(negated_reverse).any()):
        _say(axes, "no finite work")


def _mark_delta_f(axes: Axes, delta_f: Mapping[str, Any]) -> None:
    value, ends = delta_f.get("value"), delta_f.get("ci95")
    if ends and None not in ends:
        axes.axvspan(ends[0], ends[1], color="#9A9A9A", alpha=0.35, linewidth=0)
    if value is not None:
        axes.axvline(value, color=INK, linewidth=1.4, label=f"ΔF = {words.plus_minus(delta_f)} kT")


def _window(samples: Sequence[np.ndarray], anchors: Sequence[Real]) -> tuple[Real, Real]:
    """The bulk of each sample and the anchors; one wild walker must not flatten the picture."""
    ends = list(anchors)
    for sample in samples:
        finite = sample[np.isfinite(sample)]
        if finite.size:
            low, first, middle, third, high = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
            reach = 3.5 * (third - first)
            ends += [max(low, middle - reach), min(high, middle + reach)]
    if not ends:
        return -1.0, 1.0
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _edges(samples: Sequence[np.ndarray], low: Real, high: Real, crossing: Real | None) -> np.ndarray:
    """Bins of the finer Freedman–Diaconis width, within what the eye can use; one edge lies where the curves cross."""
    counts = [20.0]
    for sample in samples:
        inside = sample[(sample >= low) & (sample <= high)]
        if inside.size > 1:
            spread = float(np.subtract(*np.quantile(inside, [0.75, 0.25])))
            if spread > 0:
                counts.append((high - low) / (2 * spread * inside.size ** (-1 / 3)))
    bins = int(min(70.0, max(counts)))
    width = (high - low) / bins
    shift = 0.0 if crossing is None else (crossing - low) % width
    return low + shift - width + width * np.arange(bins + 2)


def _outside(forward: np.ndarray, negated_reverse: np.ndarray, low: Real, high: Real) -> str:
    phrases = []
    for word, work in (("forward", forward), ("reverse", negated_reverse)):
        away = int(((work < low) | (work > high)).sum())
        if away:
            infinite = int(np.isinf(work).sum())
            phrases.append(f"{away:,} of {work.size:,} {word}{f' ({infinite:,} infinite)' if infinite else ''}")
    return f"off axis: {', '.join(phrases)}" if phrases else ""


# --- estimates ---------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    name: str
    number: str
    colour: str
    value: Real | None = None
    ends: tuple[Real, Real] | None = None
    bounds: tuple[Real | None, Real | None] = (None, None)
    limits: tuple[Real | None, Real | None] = (None, None)
    chosen: bool = False
    pilot: bool = False


def _estimate_rows(result: Mapping[str, Any]) -> list[_Row]:
    rows = []
    for rung in words.rungs(result):
        name = str(rung.get("name"))
        label = ", ".join(filter(None, [name, words.status(rung)]))
        row = _estimate(label, rung.get("delta_f"), RUNG_COLOURS.get(name, INK), rung.get("bounds"))
        rows.append(row._replace(chosen=bool(rung.get("chosen")), pilot=words.is_pilot(rung)))
    for key, estimate in words.estimators(result).items():
        colour = {"jarzynski_forward": FORWARD, "jarzynski_reverse": REVERSE}.get(key, "#6B6B6B")
        rows.append(_estimate(words.ESTIMATORS.get(key, key), estimate, colour))
    for name, bounds in (
        ("bounds", result.get("bounds")),
        ("bounds, weighted", words.get(result, "bounds", "importance_weighted")),
    ):
        lower, upper = words.get(bounds, "lower"), words.get(bounds, "upper")
        if (lower, upper) != (None, None):
            number = f"{words.fixed(lower)} to {words.fixed(upper)}"
            rows.append(_estimate(name, None, GREY, bounds)._replace(number=number))
    return rows


def _estimate(
    name: str, quantity: Mapping[str, Any] | None, colour: str, bounds: Mapping[str, Any] | None = None
) -> _Row:
    value, error, ends = (words.get(quantity, key) for key in ("value", "std_error", "ci95"))
    if (not ends or None in ends) and None not in (value, error):
        ends = (value - 1.96 * error, value + 1.96 * error)
    return _Row(
        _label(name, 30),
        words.plus_minus(quantity) if value is not None else "not available",
        colour,
        value,
        (ends[0], ends[1]) if ends and None not in ends else None,
        (words.get(bounds, "lower"), words.get(bounds, "upper")),
        (words.get(bounds, "lower_limit"), words.get(bounds, "upper_limit")),
    )


def _estimate_window(result: Mapping[str, Any], rows: Sequence[_Row]) -> tuple[Real, Real]:
    """Wide enough for the answer and the reference; others only as far as six times that."""
    reference = result.get("reference") or {}
    core = [reference[key] for key in ("value",) if reference.get(key) is not None]
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
    axes.axvline(value, color="#8A7F00", linewidth=1.2, label=f"reference {words.plus_minus(reference)}")


def _estimate_row(axes: Axes, row: _Row, height: int, low: Real, high: Real) -> None:
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


# --- cost --------------------------------------------------------------------------------------------------------


def _cost_bars(result: Mapping[str, Any], state: str) -> dict[str, dict[str, int]]:
    """Per bar the evaluations of each stage: the shared end states once, then each rung's own."""
    bars: dict[str, dict[str, int]] = {}
    shared = words.calls(result.get("evaluations"), state, "endstates")
    if shared:
        bars["end states"] = {"endstates": shared}
    for rung in words.rungs(result):
        counts = {stage: words.calls(rung.get("evaluations"), state, stage) for stage in ("training", "sampling")}
        if any(n is not None for n in counts.values()):
            bars[_label(str(rung.get("name")), 20)] = {stage: n or 0 for stage, n in counts.items()}
    return bars


def _cost_panel(axes: Axes, title: str, bars: Mapping[str, Mapping[str, int]]) -> None:
    axes.set_title(title, fontweight="bold")
    if not bars:
        _say(axes, "not counted")
        return
    for height, stages in enumerate(bars.values()):
        left = 0
        for stage, n in stages.items():
            axes.barh(height, n, left=left, height=0.62, color=STAGE_COLOURS[stage])
            left += n
        axes.annotate(words.count(left), (left, height), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1.12 * max(1, *(sum(stages.values()) for stages in bars.values())))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: words.count(n)))
    axes.grid(axis="x")


# --- small things ------------------------------------------------------------------------------------------------


def _metric_names(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for row in metrics:
        names |= dict.fromkeys(key for key, value in row.items() if key != "step" and math.isfinite(_number(value)))
    return sorted(names, key=lambda name: name != "loss")


def _label(text: str, width: int = 40) -> str:
    """Short, and never read as mathematics."""
    return words.shorten(text, width).replace("$", r"\$")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else math.nan


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#555555")
    axes.set_xticks([])
    axes.set_yticks([])
