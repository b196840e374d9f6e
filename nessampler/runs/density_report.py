"""The report of a density: log Z and its verdict first, then weights, path, samples, attempts and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nessampler import _words as words
from nessampler import plots
from nessampler.plots.lattice import spoken_averages
from nessampler.runs.density_evidence import Evidence
from nessampler.runs.page import Answer, DataTable, Panel, Report, captioned

__all__ = ["compose"]

STAGE_NAMES = {**words.DENSITY_STAGES, "total": "whole run"}


def compose(result: Mapping[str, Any], evidence: Evidence, *, config: str | None = None) -> Report:
    """The report of a density; `page.write_report` and `page.save_figures` make files of it.

    Args:
        result: the contents of `result.json`.
        evidence: the arrays behind the figures.
        config: the resolved configuration as text.

    Example:
        >>> report = compose({"log_z": {"value": 1.0, "std_error": 0.1}}, Evidence())
        >>> report.answer.value, [panel.title for panel in report.panels]
        ('1.00 ± 0.10', ['Log-weights', 'Quality', 'Along the path', 'Estimates', 'Cost'])
    """
    return Report(result, _answer(result), list(_panels(result, evidence)), _tables(result), config)


# --- figures -----------------------------------------------------------------------------------------------------


def _panels(result: Mapping[str, Any], evidence: Evidence) -> Iterator[Panel]:
    yield captioned(
        "Log-weights",
        plots.log_weight_histograms(evidence.weights, result.get("log_z") or {}),
        "What each walker alone says of log Z, the log Z of the base included. The narrower, the more walkers "
        "count. Downwards: walkers carried back from samples of the target. Upwards and downwards must overlap, "
        "and cross at log Z (line; band: 95 % interval); a hump on one side only is a part of the target that "
        "the forward walkers do not reach.",
        plots.log_weights_table(evidence.weights),
    )
    yield from _sample_panels(evidence)
    yield captioned(
        "Quality",
        plots.quality(result),
        "Effective part of the walkers, forward and carried back. Pareto k, the tail of the weights: above 0.7 "
        "(shaded) the estimate is unreliable.",
        plots.quality_table(result),
    )
    yield captioned(
        "Along the path",
        plots.along_path(evidence.path),
        "ESS of the weights so far, and log Z of the density reached so far. Held-out R²: how much of the path's rate "
        "of change the solved drift explains, on walkers it was not fitted to; where it is low, weights spread. "
        "Acceptance of Metropolis moves.",
        plots.along_path_table(evidence.path),
    )
    yield captioned(
        "Estimates",
        plots.log_z_estimates(result),
        "log Z by attempt with 95 % intervals. Diamond: the reported one. Brackets: bounds that hold on average "
        "however bad the transport, dotted out to where sampling error puts them. Arrow: beyond the axis.",
        plots.estimates_table(result),
    )
    yield captioned(
        "Cost",
        plots.attempt_cost(result),
        "Evaluations of the target by attempt and stage. A pilot's is paid once: further draws cost sampling only.",
        plots.attempt_cost_table(result),
    )
    if evidence.metrics:
        caption = "What was logged during training. It decides how many walkers count, never the answer."
        table = plots.training_table(evidence.metrics)
        yield captioned("Training", plots.training_curves(evidence.metrics), caption, table)


def _sample_panels(evidence: Evidence) -> Iterator[Panel]:
    if evidence.samples is not None:
        caption = "Weighted walkers (blue) as draws in the plane and as histograms."
        if evidence.samples.exact is not None:
            caption += " Grey: exact draws of the target; a mode that only they have was lost."
        table = plots.marginals_table(evidence.samples)
        yield captioned("Samples", plots.marginals(evidence.samples), caption, table)
    if evidence.lattice is not None:
        caption = (
            f"{spoken_averages(evidence.lattice)}. The action is even, so both signs must weigh the same: ⟨M⟩ is 0 "
            "within its error, or walkers of one sign were lost."
        )
        table = plots.magnetisation_table(evidence.lattice)
        yield captioned("Magnetisation", plots.magnetisation(evidence.lattice), caption, table)
        caption = "Along the axes of the lattice, with 95 % intervals."
        table = plots.two_point_table(evidence.lattice)
        yield captioned("Two-point function", plots.two_point(evidence.lattice), caption, table)


# --- words and tables --------------------------------------------------------------------------------------------


def _answer(table: Mapping[str, Any]) -> Answer:
    log_z = table.get("log_z")
    known = words.get(log_z, "value") is not None
    level = words.get(table, "verdict", "level") or "not judged"
    described = [f"{words.exact(table['dimension'])} dimensions"] if table.get("dimension") else []
    described += [f"base or path know {table['knowledge']}"] if table.get("knowledge") else []
    return Answer(
        subject="log Z and samples",
        line="; ".join(described),
        quantity="log Z",
        unknown="log Z",
        value=words.plus_minus(log_z) if known else None,
        converted=None,
        at=None,
        level=level,
        text=words.get(table, "verdict", "text"),
        facts=list(_facts(table)),
    )


def _facts(table: Mapping[str, Any]) -> Iterator[str]:
    if words.get(table, "log_z", "ci95"):
        yield f"95 % interval: {words.interval(table['log_z'])}."
    attempt = words.chosen(table)
    if attempt is not None:
        description = f" ({attempt['description']})" if attempt.get("description") else ""
        yield f"Reported attempt: {attempt.get('name')}{description}."
        yield _effective(attempt)
    reference = words.reference_line(table, "")
    if reference:
        yield f"Reference: {reference}."
    if table.get("knowledge"):
        yield f"Base or path were told of {table['knowledge']}: do not compare with results that found it out."


def _effective(attempt: Mapping[str, Any]) -> str:
    ess, n = words.effective(attempt.get("ess")), words.exact(attempt.get("walkers"))
    if attempt.get("name") == "smc":
        return (
            f"Effective sample size of the last weights {ess}, after resampling: it says nothing about modes that were "
            "lost on the way."
        )
    if attempt.get("name") == "pt":
        return f"Effective sample size {ess} of {n} draws of the target, which are correlated and have no weights."
    return f"Effective sample size {ess} of {n} fresh walkers, without resampling."


def _tables(table: Mapping[str, Any]) -> list[DataTable]:
    return [_attempt_table(table), _bounds_table(table), _cost_table(table), _time_table(table), _quality_table(table)]


def _attempt_table(table: Mapping[str, Any]) -> DataTable:
    rows = [
        [
            ", ".join(filter(None, [str(attempt.get("name")), words.status(attempt)])),
            words.plus_minus(attempt.get("log_z")),
            words.interval(attempt.get("log_z")),
            words.effective(attempt.get("ess")),
            words.fixed(words.get(attempt, "ess", "reverse"), 3),
            words.fixed(attempt.get("pareto_k")),
            words.count(words.calls(attempt.get("evaluations"), "target", *words.DENSITY_STAGES)),
            words.duration(attempt.get("seconds")),
            "; ".join(filter(None, [attempt.get("description"), attempt.get("note")])),
        ]
        for attempt in words.attempts(table)
    ]
    columns = ["attempt", "log Z", "95 % interval", "ESS", "reverse ESS", "Pareto k", "evaluations", "time"]
    note = (
        "ESS: effective part of the walkers, with its bootstrap error. Pareto k: tail of the weights; above 0.7 the "
        "estimate is unreliable. Evaluations: energies and gradients of the target, pilot and training included."
    )
    marked = next((i for i, attempt in enumerate(words.attempts(table)) if attempt.get("chosen")), None)
    return DataTable("Attempts", [*columns, "what it is"], rows, note, marked)


def _bounds_table(table: Mapping[str, Any]) -> DataTable:
    ends, rows = ("lower_limit", "lower", "upper", "upper_limit"), []
    for attempt in words.attempts(table):
        bounds = attempt.get("bounds")
        weighted = words.get(bounds, "importance_weighted")
        kinds = [("", bounds), (f", importance-weighted, groups of {words.group_sizes(weighted)}", weighted)]
        rows += [
            [f"{attempt.get('name')}{kind}", *(words.fixed(found.get(end), 3) for end in ends)]
            for kind, found in kinds
            if found
        ]
    columns = ["bounds", "lower limit", "lower bound", "upper bound", "upper limit"]
    note = (
        "Lower: from walkers on their way to the target (ELBO). Upper: from walkers carried back from samples of the "
        f"target (EUBO); these samples: {table.get('target_samples')}. The limits allow for sampling error."
    )
    return DataTable("Bounds on log Z", columns, rows, note)


def _cost_table(table: Mapping[str, Any]) -> DataTable:
    rows, sources = [], [(str(a.get("name")), a.get("evaluations") or {}) for a in words.attempts(table)]
    for about, evaluations in (*sources, ("whole run", table.get("evaluations") or {})):
        for subject in ("target", "base"):
            for stage, counts in (words.get(evaluations, subject) or {}).items():
                if any(counts.values()):
                    numbers = [words.exact(counts.get(kind)) for kind in ("energy", "gradient")]
                    rows.append([f"{about}: {subject}, {words.DENSITY_STAGES.get(stage, stage)}", *numbers])
        for stage, n in (words.get(evaluations, "field") or {}).items():
            if n:
                rows.append(
                    [f"{about}: drift, {words.DENSITY_STAGES.get(stage, stage)}", words.exact(n), words.MISSING]
                )
    return DataTable("Evaluations", ["what, and when", "energies or fields", "gradients"], rows)


def _time_table(table: Mapping[str, Any]) -> DataTable:
    times = table.get("seconds") or {}
    rows = [[name, words.duration(times[stage])] for stage, name in STAGE_NAMES.items() if times.get(stage) is not None]
    rows += [
        [f"attempt {attempt.get('name')}", words.duration(attempt.get("seconds"))]
        for attempt in words.attempts(table)
        if attempt.get("seconds") is not None
    ]
    return DataTable("Time", ["stage", "time"], rows)


def _quality_table(table: Mapping[str, Any]) -> DataTable:
    quality = table.get("quality") or {}
    times = quality.get("times") or []
    columns = {name: quality.get(name) or [] for name in ("r_squared", "acceptance", "step_size")}
    lead = {name: len(times) - len(values) for name, values in columns.items()}
    rows = [
        [f"{t:.4g}", *(_entry(values, k - lead[name]) for name, values in columns.items())] for k, t in enumerate(times)
    ]
    return DataTable("Along the path", ["t", "held-out R²", "acceptance", "step size"], rows)


def _entry(values: list, k: int) -> str:
    return words.fixed(values[k], 3) if 0 <= k < len(values) else words.MISSING
