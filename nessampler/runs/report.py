"""The report of a difference, which a chemist reads after a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nessampler import _words as words
from nessampler import plots
from nessampler._words import plain_words
from nessampler.plots import ConvergenceCurve, Works
from nessampler.runs.page import Answer, DataTable, Panel, Report, captioned

__all__ = ["Panel", "compose"]

STAGE_NAMES = {**words.STAGES, "total": "whole run"}


def compose(
    result: Mapping[str, Any],
    works: Works,
    *,
    metrics: Sequence[Mapping[str, Any]] = (),
    convergence: ConvergenceCurve | None = None,
    panels: Iterable[Panel] = (),
    config: str | None = None,
) -> Report:
    """The report of a difference; `page.write_report` and `page.save_figures` make files of it.

    Args:
        result: the contents of `result.json`.
        works: per rung the forward and the reverse work in kT.
        metrics: the training log, one mapping per logged step.
        convergence: ΔF against the part of the samples used.
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
    shown = [*_own_panels(result, works, metrics, convergence), *panels]
    return Report(result, _answer(result), shown, _tables(result), config)


# --- figures -----------------------------------------------------------------------------------------------------


def _own_panels(
    result: Mapping[str, Any],
    works: Works,
    metrics: Sequence[Mapping[str, Any]],
    convergence: ConvergenceCurve | None,
) -> list[Panel]:
    panels = [
        captioned(
            "Work distributions",
            plots.work_histograms(works, result.get("delta_f") or {}),
            "Work of going from A to B, and minus the work of coming back. The more the two overlap, the more certain "
            "the answer; they cross at ΔF (line; band: 95 % interval of the chosen rung).",
            plots.works_table(works),
        ),
        captioned(
            "Quality",
            plots.quality(result),
            "Overlap of forward and reverse works; below 0.06 BAR is unreliable (shaded). Effective part of samples; "
            "of few an exponential average is unreliable, as it is where Pareto k, the tail of exp(−work) in that "
            "direction, lies above 0.7 (shaded).",
            plots.quality_table(result),
        ),
        captioned(
            "Estimates",
            plots.estimates(result),
            "ΔF by rung and by estimator with 95 % intervals. Diamond: the chosen rung. Open circle: pilot samples "
            "only. Brackets: bounds that hold on average whatever was learned, dotted out to where sampling error "
            "puts them. Arrow: beyond the axis.",
            plots.estimates_table(result),
        ),
    ]
    if convergence is not None:
        figure = plots.convergence(*convergence)
        caption = "ΔF from growing parts of the samples. The two curves should meet well before all are used."
        panels.append(captioned("Convergence", figure, caption, plots.convergence_table(convergence)))
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


def _answer(result: Mapping[str, Any]) -> Answer:
    delta_f, molar = result.get("delta_f"), result.get("delta_f_kcal_per_mol")
    temperature = result.get("temperature")
    level = words.get(result, "verdict", "level") or "not judged"
    labels = [words.state_label(result, state) for state in ("state_a", "state_b")]
    return Answer(
        subject="free energy difference",
        line=f"A: {labels[0]} → B: {labels[1]}",
        quantity="ΔF = F<sub>B</sub> − F<sub>A</sub>",
        unknown="ΔF",
        value=f"{words.plus_minus(delta_f)} kT" if words.get(delta_f, "value") is not None else None,
        converted=f"{words.plus_minus(molar)} kcal/mol" if words.get(molar, "value") is not None else None,
        at=f"{temperature:g}\N{NO-BREAK SPACE}K" if temperature is not None else None,
        level=level,
        text=words.get(result, "verdict", "text"),
        facts=list(_facts(result)),
    )


def _facts(result: Mapping[str, Any]) -> Iterator[str]:
    delta_f, molar = result.get("delta_f"), result.get("delta_f_kcal_per_mol")
    if words.get(delta_f, "ci95"):
        also = f", or {words.interval(molar)} kcal/mol" if words.get(molar, "ci95") else ""
        yield f"95 % interval: {words.interval(delta_f)} kT{also}."
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
        _estimator_table(result),
        _bounds_table(result),
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
            *_molar(rung.get("delta_f"), scale),
            words.interval(rung.get("delta_f")),
            words.fixed(rung.get("overlap")),
            words.directions(rung.get("ess")),
            words.directions(rung.get("pareto_k")),
            str(rung.get("description") or ""),
        ]
        for rung in words.rungs(result)
    ]
    quality = ["overlap", "ESS", "Pareto k", "what it is"]
    columns = ["rung", "ΔF / kT", *_molar_heading(scale), "95 % interval / kT", *quality]
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


def _estimator_table(result: Mapping[str, Any]) -> DataTable:
    scale = words.kcal_factor(result)
    rows = [
        [
            words.ESTIMATORS.get(name, name),
            words.plus_minus(estimate),
            *_molar(estimate, scale),
            words.interval(estimate),
            words.listing([str(flag.get("code")).replace("_", " ") for flag in words.get(estimate, "flags") or []]),
        ]
        for name, estimate in words.estimators(result).items()
    ]
    columns = ["estimator", "ΔF / kT", *_molar_heading(scale), "95 % interval / kT", "flags"]
    return DataTable("Estimators", columns, rows)


def _molar(quantity: Mapping[str, Any] | None, scale: words.Real | None) -> list[str]:
    return [] if scale is None else [words.plus_minus(quantity, scale)]


def _molar_heading(scale: words.Real | None) -> list[str]:
    return [] if scale is None else ["ΔF / kcal/mol"]


def _bounds_table(result: Mapping[str, Any]) -> DataTable:
    kinds = [("rigorous", result.get("bounds"))]
    weighted = words.get(result, "bounds", "importance_weighted")
    kinds.append((f"importance-weighted, groups of {words.group_sizes(weighted)}", weighted))
    ends = ("lower_limit", "lower", "upper", "upper_limit")
    rows = [[name, *(words.fixed(bounds.get(end), 3) for end in ends)] for name, bounds in kinds if bounds]
    columns = ["bounds", "lower limit", "lower bound", "upper bound", "upper limit"]
    return DataTable("Bounds on ΔF in kT", columns, rows, "The limits allow for the sampling error of the bounds.")


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
