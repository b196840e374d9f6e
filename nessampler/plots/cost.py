"""What the rungs of a difference cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nessampler import _words as words
from nessampler.plots.style import STAGE_COLOURS, STYLE, WIDTH, label, say
from nessampler.plots.table import Table, rows

__all__ = ["attempt_cost", "attempt_cost_table", "cost", "cost_table"]

SHARED_STAGES = ("base", "chains")
STAGES_OF_ATTEMPTS = ("pilot", "training", "sampling", "reverse", "checks")


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
        _cost_panel(panel, label(name, 50), bars[state])
        said = ", ".join(f"{bar} {words.count(sum(stages.values()))}" for bar, stages in bars[state].items())
        spoken.append(f"{name}: {said or 'not counted'}.")
    panels[-1].set_xlabel("evaluations (energies + gradients)")
    handles = [Patch(color=STAGE_COLOURS[stage], label=text) for stage, text in words.STAGES.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.2)
    figure.set_label("Energy and gradient evaluations by stage. " + " ".join(spoken))
    return figure


@rc_context(STYLE)
def attempt_cost(result: Mapping[str, Any]) -> Figure:
    """Energy and gradient evaluations of the target by attempt and stage; base and long chains are shared by all.

    Args:
        result: a density's result; `evaluations` of the whole run and of each attempt.

    Example:
        >>> counts = {"target": {"sampling": {"energy": 0, "gradient": 2000}}}
        >>> attempt_cost({"attempts": [{"name": "ais", "evaluations": counts}]}).get_label()
        'Energy and gradient evaluations of the target: ais 2k.'
    """
    bars = _attempt_bars(result)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.4 * max(1, len(bars))), layout="constrained")
    axes = figure.subplots()
    _cost_panel(axes, "", bars)
    axes.set_xlabel("evaluations of the target (energies + gradients)")
    stages = [stage for stage in words.DENSITY_STAGES if any(row.get(stage) for row in bars.values())]
    handles = [Patch(color=STAGE_COLOURS[stage], label=words.DENSITY_STAGES[stage]) for stage in stages]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, handlelength=1.2)
    said = ", ".join(f"{bar} {words.count(sum(counts.values()))}" for bar, counts in bars.items())
    figure.set_label(f"Energy and gradient evaluations of the target: {said or 'not counted'}.")
    return figure


def cost_table(result: Mapping[str, Any]) -> Table:
    """State, rung or end states, stage, and evaluations.

    Example:
        >>> from nessampler.plots import as_csv
        >>> counts = {"training": {"energy": 0, "gradient": 100}, "sampling": {"energy": 2000, "gradient": 0}}
        >>> print(as_csv(cost_table({"rungs": [{"name": "map", "evaluations": {"state_a": counts}}]})), end="")
        state,what,stage,evaluations
        state_a,map,training,100
        state_a,map,sampling,2000
    """
    entries = [(state, _cost_bars(result, state)) for state in ("state_a", "state_b")]
    return rows(
        ["state", "what", "stage", "evaluations"],
        [(s, bar, stage, n) for s, bars in entries for bar, stages in bars.items() for stage, n in stages.items()],
    )


def attempt_cost_table(result: Mapping[str, Any]) -> Table:
    """Attempt, base or chains, stage, and evaluations of the target.

    Example:
        >>> counts = {"target": {"pilot": {"energy": 0, "gradient": 500}, "sampling": {"energy": 10, "gradient": 2000}}}
        >>> table = attempt_cost_table({"attempts": [{"name": "ais", "evaluations": counts}]})
        >>> dict(zip(table["stage"], table["evaluations"], strict=True))
        {'pilot': 500, 'training': 0, 'sampling': 2010, 'reverse': 0, 'checks': 0}
    """
    bars = _attempt_bars(result)
    return rows(
        ["what", "stage", "evaluations"],
        [(bar, stage, n) for bar, stages in bars.items() for stage, n in stages.items()],
    )


def _attempt_bars(result: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Per bar the evaluations of each stage: a fitted base and long chains once, then each attempt's own."""
    bars: dict[str, dict[str, int]] = {}
    for stage in SHARED_STAGES:
        spent = words.calls(result.get("evaluations"), "target", stage)
        if spent:
            bars[words.DENSITY_STAGES[stage]] = {stage: spent}
    for attempt in words.attempts(result):
        counts = {stage: words.calls(attempt.get("evaluations"), "target", stage) or 0 for stage in STAGES_OF_ATTEMPTS}
        bars[label(str(attempt.get("name")), 20)] = counts
    return bars


def _cost_bars(result: Mapping[str, Any], state: str) -> dict[str, dict[str, int]]:
    """Per bar the evaluations of each stage: the shared end states once, then each rung's own."""
    bars: dict[str, dict[str, int]] = {}
    shared = words.calls(result.get("evaluations"), state, "endstates")
    if shared:
        bars["end states"] = {"endstates": shared}
    for rung in words.rungs(result):
        counts = {stage: words.calls(rung.get("evaluations"), state, stage) for stage in ("training", "sampling")}
        if any(n is not None for n in counts.values()):
            bars[label(str(rung.get("name")), 20)] = {stage: n or 0 for stage, n in counts.items()}
    return bars


def _cost_panel(axes: Axes, title: str, bars: Mapping[str, Mapping[str, int]]) -> None:
    axes.set_title(title, fontweight="bold")
    if not bars:
        say(axes, "not counted")
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
