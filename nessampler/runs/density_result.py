"""`result.json` of a density: every number finite, or null with a flag that says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nessampler.estimators import Flag
from nessampler.estimators.log_z import LogZ
from nessampler.methods.density.result import Attempt, PathQuality, Sampled
from nessampler.runs import _plain as plain
from nessampler.runs.config import DensityConfig
from nessampler.runs.density_problem import PreparedDensity

__all__ = ["to_dict"]


def to_dict(
    config: DensityConfig, prepared: PreparedDensity, result: Sampled, seconds: Mapping[str, float], version: str
) -> dict[str, Any]:
    """The contents of `result.json`. Only what lies under `seconds` may differ between two runs with one seed."""
    reference = None if config.reference is None else config.reference.model_dump()
    chosen = result.attempt
    own = _attempt(chosen, result.chosen)
    table = {
        **plain.heading(config, version),
        "dimension": prepared.problem.target.event_shape.numel(),
        "knowledge": prepared.problem.knowledge,
        "log_z": own["log_z"],
        "chosen": result.chosen,
        "verdict": result.verdict._asdict(),
        "attempts": [_attempt(a, result.chosen) for a in result.attempts],
        **{key: own[key] for key in ("walkers", "ess", "pareto_k", "bounds", "quality")},
        "target_samples": result.origin_of_target_samples or "none",
        "evaluations": _evaluations(result, prepared),
        "seconds": {**_seconds(result.attempts), **result.shared_seconds, "base": prepared.seconds, **seconds},
        "reference": reference,
        "z_score": plain.z_score(result.log_z.value, result.log_z.std_error, reference),
        "flags": _distinct([*result.flags, *_absences(result, reference), *_gaps(chosen)]),
        "config": config.model_dump(mode="json", exclude_none=True),
    }
    return plain.finite(table)


def _attempt(attempt: Attempt, chosen: str) -> dict[str, Any]:
    estimate, reverse = attempt.log_z, attempt.reverse_ess
    return {
        "name": attempt.name,
        "description": attempt.description,
        "chosen": attempt.name == chosen,
        "log_z": _log_z(estimate),
        "walkers": estimate.n,
        "ess": {
            "forward": estimate.ess,
            "forward_error": estimate.ess_error,
            "reverse": None if reverse is None else reverse[0],
            "reverse_error": None if reverse is None else reverse[1],
        },
        "pareto_k": estimate.pareto_k,
        "bounds": None if attempt.bounds is None else plain.bounds(attempt.bounds),
        "quality": _quality(attempt.quality),
        "evaluations": dict(attempt.evaluations),
        "seconds": sum(attempt.seconds.values()),
        "note": attempt.note,
        "diagnostics": dict(attempt.diagnostics),
        "flags": _distinct([*estimate.flags, *_gaps(attempt)]),
    }


def _log_z(estimate: LogZ) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "std_error": estimate.std_error,
        "ci95": None if estimate.ci95 is None else list(estimate.ci95),
        "systematic": estimate.systematic,
    }


def _quality(quality: PathQuality) -> dict[str, list[float]]:
    """One entry per time. Moves belong to intervals: without an entry for the first time they have one fewer."""
    moves = {"acceptance": quality.acceptance, "step_size": quality.step_size}
    settled = {name: values[1:] if values and math.isnan(values[0]) else values for name, values in moves.items()}
    known = {"times": quality.times, "r_squared": quality.r_squared, **settled}
    return {name: list(map(float, values)) for name, values in known.items()}


def _evaluations(result: Sampled, prepared: PreparedDensity) -> dict[str, Any]:
    """All attempts together, and what they share: fitting the base, and long chains."""
    total: dict[str, Any] = {}
    for attempt in result.attempts:
        total = _sum(total, attempt.evaluations)
    for stage, spent in {"base": prepared.evaluations, **result.shared}.items():
        total = _sum(total, {"target": {stage: {"energy": spent.energy, "gradient": spent.gradient}}})
    return total


def _sum(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(a)
    for key, value in b.items():
        if isinstance(value, Mapping):
            both[key] = _sum(both.get(key, {}), value)
        else:
            both[key] = both.get(key, 0) + value
    return both


def _seconds(attempts: Sequence[Attempt]) -> dict[str, float]:
    total: dict[str, float] = {}
    for attempt in attempts:
        for stage, seconds in attempt.seconds.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def _absences(result: Sampled, reference: Mapping[str, Any] | None) -> list[Flag]:
    """A flag for every key of the whole run that is null for a reason the estimators have not given."""
    if reference is None:
        return [Flag("no_reference", "no reference value is known for these settings, so there is no z-score")]
    if result.log_z.std_error == 0 == reference["std_error"]:
        return [Flag("no_z_score", "neither the result nor the reference has an error, so there is no z-score")]
    return []


def _gaps(attempt: Attempt) -> list[Flag]:
    """The same for an attempt."""
    gaps, bounds = [], attempt.bounds
    if attempt.log_z.pareto_k is None:
        gaps.append(Flag("no_pareto_k", "too few weights, or weights too alike, to fit a tail: Pareto k is null"))
    if attempt.name in ("smc", "pt"):
        gaps.append(
            Flag(
                "dependent_walkers",
                "the ESS is of walkers that were resampled or follow one another, not of fresh ones",
            )
        )
    if attempt.reverse is None:
        gaps.append(Flag("no_reverse", "no walkers were carried back from samples of the target: no reverse ESS"))
    if not all(math.isfinite(v) for values in _quality(attempt.quality).values() for v in values):
        gaps.append(
            Flag("no_quality", "at some times along the path a quality could not be measured: it is null there")
        )
    if bounds is None:
        gaps.append(Flag("no_bounds", "without walkers in both directions log Z has no two-sided bounds"))
        return gaps
    weighted = (bounds.importance_weighted_lower, bounds.importance_weighted_upper)
    limits = (*bounds.tightest_limits, bounds.lower_limit, bounds.upper_limit)
    iw_limits = (bounds.importance_weighted_lower_limit, bounds.importance_weighted_upper_limit)
    if None in (bounds.lower, bounds.upper):
        gaps.append(Flag("no_bound", "weights of zero, or no walkers, leave no bound on their side"))
    elif None in limits:
        gaps.append(Flag("no_bound_limit", "too few independent walkers to give a bound its confidence limit"))
    if None in (*weighted, *iw_limits):
        gaps.append(Flag("no_weighted_bound", "too few walkers of weight leave no importance-weighted bound"))
    return gaps


def _distinct(found: Sequence[Flag]) -> list[dict[str, str]]:
    return plain.flags(dict.fromkeys(found))
