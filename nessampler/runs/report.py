"""The report of a difference, which a chemist reads after a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nessampler import _words as words
from nessampler import plots
from nessampler._words import plain_words
from nessampler.plots import ConvergenceCurve, Works, WorksAlong
from nessampler.runs.along import along_panel
from nessampler.runs.difference_answer import difference_answer, interval_facts
from nessampler.runs.difference_panels import convergence_panel, estimates_panel, quality_panel, works_panel
from nessampler.runs.difference_tables import bounds_table, estimator_table, molar, molar_heading
from nessampler.runs.page import DataTable, Panel, Report, captioned

__all__ = ["Panel", "compose"]

STAGE_NAMES = {**words.STAGES, "total": "whole run"}


def compose(
    result: Mapping[str, Any],
    works: Works,
    *,
    metrics: Sequence[Mapping[str, Any]] = (),
    convergence: ConvergenceCurve | None = None,
    along: Mapping[str, WorksAlong] | None = None,
    panels: Iterable[Panel] = (),
    config: str | None = None,
) -> Report:
    """The report of a difference; `page.write_report` and `page.save_figures` make files of it.

    Args:
        result: the contents of `result.json`.
        works: per rung the forward and the reverse work in kT.
        metrics: the training log, one mapping per logged step.
        convergence: ΔF against the part of the samples used.
        along: by direction, the works of the chosen rung on the way; none where it has no way.
        panels: further figures, shown after ours.
        config: the resolved configuration as text.

    Raises:
        InputError: a work is NaN or -inf.

    Example:
        >>> result = {"title": "two wells", "delta_f": {"value": 1.0, "std_error": 0.1, "ci95": [0.8, 1.2]}}
        >>> report = compose(result, {})
        >>> report.answer.value, [panel.title for panel in report.panels]
        ('1.00 ± 0.10 kT', ['Work distributions', 'Quality', 'Estimates', 'Cost'])
    """
    shown = [*_own_panels(result, works, metrics, convergence, along), *panels]
    labels = words.state_labels(result)
    answer = difference_answer(result, f"A: {labels[0]} → B: {labels[1]}", list(_facts(result)))
    return Report(result, answer, shown, _tables(result), config)


# --- figures -----------------------------------------------------------------------------------------------------


def _own_panels(
    result: Mapping[str, Any],
    works: Works,
    metrics: Sequence[Mapping[str, Any]],
    convergence: ConvergenceCurve | None,
    along: Mapping[str, WorksAlong] | None,
) -> list[Panel]:
    panels = [works_panel(works, result), quality_panel(result), estimates_panel(result)]
    if convergence is not None:
        panels.append(convergence_panel(convergence))
    if along:
        panels.append(along_panel(along))
    caption = (
        "Energy and gradient evaluations of each state, on an axis of its own because one may be far dearer than the "
        "other. End-state simulation is shared by all rungs."
    )
    panels.append(captioned("Cost", plots.cost(result), caption, plots.cost_table(result)))
    if metrics:
        caption = "What was logged during training. It decides how many samples count, never the answer."
        panels.append(captioned("Training", plots.training_curves(metrics), caption, plots.training_table(metrics)))
    return panels


# --- words and tables --------------------------------------------------------------------------------------------


def _facts(result: Mapping[str, Any]) -> Iterator[str]:
    yield from interval_facts(result)
    rung = words.chosen(result)
    name, description = words.get(rung, "name") or result.get("rung"), words.get(rung, "description")
    if name:
        yield f"Chosen rung: {name}{f' ({description})' if description else ''}."
    reference = words.reference_line(result)
    if reference:
        yield f"Reference: {reference}."


def _tables(result: Mapping[str, Any]) -> list[DataTable]:
    return [
        _rung_table(result),
        _pilot_table(result),
        estimator_table(result),
        bounds_table(result),
        _cost_table(result),
        _time_table(result),
        _endstate_table(result),
    ]


def _rung_table(result: Mapping[str, Any]) -> DataTable:
    scale = words.kcal_factor(result)
    rows = [
        [
            ", ".join(filter(None, [str(rung.get("name")), words.status(rung)])),
            words.plus_minus(rung.get("delta_f")),
            *molar(rung.get("delta_f"), scale),
            words.interval(rung.get("delta_f")),
            words.fixed(rung.get("overlap")),
            words.directions(rung.get("ess")),
            words.directions(rung.get("pareto_k")),
            str(rung.get("description") or ""),
        ]
        for rung in words.rungs(result)
    ]
    quality = ["overlap", "ESS", "Pareto k", "what it is"]
    columns = ["rung", "ΔF / kT", *molar_heading(scale), "95 % interval / kT", *quality]
    note = (
        "ESS: effective part of the samples, forward / reverse. Pareto k: tail of exp(−work), forward / reverse; above "
        "0.7 the Jarzynski average of that direction is unreliable. Overlap: below 0.06 BAR is unreliable."
    )
    marked = next((index for index, rung in enumerate(words.rungs(result)) if rung.get("chosen")), None)
    return DataTable("Rungs", columns, rows, note, marked)


def _pilot_table(result: Mapping[str, Any]) -> DataTable:
    rows = [
        [
            str(rung.get("name")),
            words.status(rung) or "climbed",
            words.fixed(words.get(rung, "pilot", "std_error"), 3),
            words.count(words.get(rung, "pilot", "cost")),
            str(words.get(rung, "pilot", "note") or ""),
        ]
        for rung in words.rungs(result)
        if rung.get("pilot")
    ]
    columns = ["rung", "outcome", "error / kT", "cost", "why"]
    return DataTable(
        "The choice of the rung", columns, rows, "Judged on pilot samples that play no part in the answer."
    )


def _cost_table(result: Mapping[str, Any]) -> DataTable:
    states = ("state_a", "state_b")
    sources: list[tuple[str, Mapping[str, Any]]] = [
        (f"rung {rung.get('name')}", rung.get("evaluations") or {}) for rung in words.rungs(result)
    ]
    sources.append(("whole run", result.get("evaluations") or {}))
    rows = []
    for about, evaluations in sources:
        # End states belong to the run: a rung that lists them lists the same ones again.
        stages = words.STAGES if about == "whole run" else ("training", "sampling")
        for stage in stages:
            numbers = [
                words.get(evaluations, state, stage, kind) for state in states for kind in ("energy", "gradient")
            ]
            numbers.append(words.get(evaluations, "networks", stage))
            if any(number is not None for number in numbers):
                rows.append([f"{about}: {words.STAGES[stage]}", *(words.exact(number) for number in numbers)])
    labels = [words.shorten(words.state_label(result, state), 24) for state in states]
    columns = ["stage", *(f"{label}: {kind}" for label in labels for kind in ("energies", "gradients")), "networks"]
    return DataTable("Evaluations", columns, rows)


def _time_table(result: Mapping[str, Any]) -> DataTable:
    times = result.get("seconds") or {}
    rows = [[name, words.duration(times[stage])] for stage, name in STAGE_NAMES.items() if times.get(stage) is not None]
    rows += [
        [f"rung {rung.get('name')}", words.duration(rung.get("seconds"))]
        for rung in words.rungs(result)
        if rung.get("seconds") is not None
    ]
    return DataTable("Time", ["stage", "time"], rows)


def _endstate_table(result: Mapping[str, Any]) -> DataTable:
    states: Mapping[str, Mapping[str, Any]] = result.get("endstates") or {}
    keys = list(dict.fromkeys(key for state in states.values() for key in state))
    labels = [words.shorten(words.state_label(result, state)) for state in states]
    rows = [[key.replace("_", " "), *(plain_words(state.get(key)) for state in states.values())] for key in keys]
    return DataTable("End states", ["samples", *labels], rows)
