"""The report of a density: log Z and its verdict first, then weights, path, samples, attempts and costs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nessampler import _words as words
from nessampler import plots
from nessampler.methods.density.result import Attempt, Sampled
from nessampler.plots import Curve, Weights
from nessampler.runs.page import Answer, DataTable, Panel, captioned, save_panels, write_page

__all__ = ["save_figures", "write_report"]

STAGE_NAMES = {**words.DENSITY_STAGES, "total": "whole run"}


def write_report(
    directory: str | os.PathLike[str], table: Mapping[str, Any], result: Sampled, panels: Iterable[Panel] = ()
) -> Path:
    """Write `report.html`, one file that needs nothing else.

    Args:
        directory: the run's.
        table: the contents of `result.json`.
        result: walkers and weights behind it.
        panels: figures of the sampled density, from the room that knows it.
    """
    path = Path(directory) / "report.html"
    return write_page(path, table, _answer(table), [*_own_panels(table, result, list(panels))], _tables(table))


def save_figures(
    directory: str | os.PathLike[str], table: Mapping[str, Any], result: Sampled, panels: Iterable[Panel] = ()
) -> list[Path]:
    """Save the figures of the report as `figures/01-….png` under a directory; arguments as in `write_report`."""
    return save_panels(Path(directory), _own_panels(table, result, list(panels)))


# --- figures -----------------------------------------------------------------------------------------------------


def _own_panels(table: Mapping[str, Any], result: Sampled, samples: list[Panel]) -> list[Panel]:
    panels = [
        captioned(
            "Log-weights",
            plots.log_weight_histograms(_weights(result), table.get("log_z") or {}),
            "What each walker alone says of log Z, the log Z of the base included. The narrower, the more walkers "
            "count. Downwards: walkers carried back from samples of the target. Upwards and downwards must overlap, "
            "and cross at log Z (line; band: 95 % interval); a hump on one side only is a part of the target that "
            "the forward walkers do not reach.",
        ),
        *samples,
        captioned(
            "Along the path",
            plots.along_path(_along(result)),
            "ESS of the weights so far. Held-out R²: how much of the path's rate of change the solved drift explains, "
            "on walkers it was not fitted to; where it is low, weights spread. Acceptance of Metropolis moves.",
        ),
        captioned(
            "Estimates",
            plots.log_z_estimates(table),
            "log Z by attempt with 95 % intervals. Diamond: the reported one. Brackets: bounds that hold on average "
            "however bad the transport, dotted out to where sampling error puts them. Arrow: beyond the axis.",
        ),
        captioned(
            "Cost",
            plots.attempt_cost(table),
            "Evaluations of the target by attempt and stage. A pilot's is paid once: further draws cost sampling only.",
        ),
    ]
    if result.metrics:
        caption = "What was logged during training. It decides how many walkers count, never the answer."
        panels.append(captioned("Training", plots.training_curves(result.metrics), caption))
    return panels


def _weights(result: Sampled) -> dict[str, Weights]:
    """Log-weights of attempts with independent walkers, on the scale of log Z."""
    return {
        attempt.name: Weights(
            _base_log_z(attempt) + attempt.ensemble.log_weight.cpu().numpy(),
            None if attempt.reverse is None else _base_log_z(attempt) - attempt.reverse.log_weight.cpu().numpy(),
        )
        for attempt in result.attempts
        if not attempt.ensemble.resampled
    }


def _base_log_z(attempt: Attempt) -> float:
    if attempt.annealing is not None:
        return attempt.annealing.base_log_z
    return 0.0 if attempt.log_z.value is None else attempt.log_z.value - attempt.ensemble.log_z_ratio


def _along(result: Sampled) -> dict[str, dict[str, Curve]]:
    shown: dict[str, dict[str, Curve]] = {"ESS so far": {}, "held-out R²": {}, "acceptance": {}}
    for attempt in result.attempts:
        history, quality = attempt.ensemble.history, attempt.quality
        if history is not None and history.ess is not None:
            shown["ESS so far"][attempt.name] = _curve(history.times, history.ess.cpu().numpy())
        if quality.r_squared:
            shown["held-out R²"][attempt.name] = _curve(quality.times, quality.r_squared)
        if history is not None and bool(history.acceptance.isfinite().any()):
            shown["acceptance"][attempt.name] = _curve(history.times, history.acceptance.cpu().numpy())
        elif quality.acceptance:
            shown["acceptance"][attempt.name] = _curve(quality.times, quality.acceptance)
    return shown


def _curve(times: Iterable[float], values: Iterable[float]) -> Curve:
    """Pairs; where there is one time more than values, the values belong to the ends of intervals."""
    t, v = np.asarray(list(times), dtype=float), np.asarray(list(values), dtype=float)
    return t[len(t) - len(v) :], v


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
        yield (
            f"Effective sample size {words.effective(attempt.get('ess'))} of {words.exact(attempt.get('walkers'))} "
            "fresh walkers, without resampling."
            if attempt.get("name") != "smc"
            else f"Effective sample size of the last weights {words.effective(attempt.get('ess'))}, after resampling: "
            "it says nothing about modes that were lost on the way."
        )
    reference = words.reference_line(table, "")
    if reference:
        yield f"Reference: {reference}."
    if table.get("knowledge"):
        yield f"Base or path were told of {table['knowledge']}: do not compare with results that found it out."


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
