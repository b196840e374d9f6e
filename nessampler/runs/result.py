"""`result.json`: the finished run as plain data, every number finite or null with a flag that says why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nessampler.estimators import Bounds, Flag, FreeEnergy
from nessampler.methods.difference import Difference, RungResult
from nessampler.runs.config import Config
from nessampler.runs.prepared import Prepared
from nessampler.runs.units import parse

__all__ = ["to_dict"]


def to_dict(config: Config, prepared: Prepared, result: Difference, seconds: Mapping[str, float], version: str) -> dict:
    """The contents of `result.json`. Only what lies under `seconds` may differ between two runs with one seed."""
    temperature = None if config.temperature is None else parse(config.temperature, "K")
    reference = None if config.reference is None else config.reference.model_dump()
    rung = result.rung
    table = {
        "system": config.name,
        "title": config.title,
        "kind": config.kind,
        "method": config.run.method,
        "preset": config.run.preset,
        "seed": config.run.seed,
        "version": version,
        "labels": {"state_a": config.state_a.label, "state_b": config.state_b.label},
        "temperature": temperature,
        "delta_f": _estimate(result.delta_f),
        "delta_f_kcal_per_mol": None
        if temperature is None
        else _estimate(result.delta_f.to("kcal/mol", temperature=temperature)),
        "rung": result.chosen,
        "verdict": result.verdict._asdict(),
        "rungs": [_rung(r, result.chosen) for r in result.rungs],
        "estimators": {name: _estimate(e) | {"flags": _flags(e.flags)} for name, e in result.estimators.items()},
        "bounds": _bounds(result.bounds),
        "ess": _pair(rung.estimate.ess),
        "overlap": rung.estimate.overlap,
        "pareto_k": _pair(rung.pareto_k),
        "evaluations": result.evaluations,
        "seconds": {**result.seconds, **seconds},
        "endstates": prepared.endstates,
        "reference": reference,
        "z_score": _z_score(result.delta_f, reference),
        "flags": _flags((*result.flags, *_absences(config, result, reference), *_gaps(rung))),
    }
    return _finite(table)


def _rung(rung: RungResult, chosen: str) -> dict[str, Any]:
    return {
        "name": rung.name,
        "description": rung.description,
        "chosen": rung.name == chosen,
        "block": rung.block,
        "delta_f": _estimate(rung.estimate),
        "overlap": rung.estimate.overlap,
        "ess": _pair(rung.estimate.ess),
        "pareto_k": _pair(rung.pareto_k),
        "bounds": _bounds(rung.bounds),
        "evaluations": rung.evaluations,
        "pilot": {"std_error": rung.pilot.estimate.std_error, "cost": rung.pilot.cost, "note": rung.note},
        "seconds": rung.seconds,
        "flags": _flags((*rung.estimate.flags, *_gaps(rung))),
    }


def _estimate(estimate: FreeEnergy) -> dict[str, Any]:
    return {
        "value": estimate.delta_f,
        "std_error": estimate.std_error,
        "ci95": None if estimate.ci95 is None else list(estimate.ci95),
        "unit": estimate.unit,
    }


def _bounds(bounds: Bounds) -> dict[str, Any]:
    return {
        "lower": bounds.lower,
        "upper": bounds.upper,
        "lower_limit": bounds.lower_limit,
        "upper_limit": bounds.upper_limit,
        "importance_weighted": {
            "lower": bounds.importance_weighted_lower,
            "upper": bounds.importance_weighted_upper,
            "lower_limit": bounds.importance_weighted_lower_limit,
            "upper_limit": bounds.importance_weighted_upper_limit,
            "group_size": list(bounds.group_size),
        },
    }


def _pair(values: tuple) -> dict[str, Any]:
    return {"forward": values[0], "reverse": values[1]}


def _flags(flags: tuple[Flag, ...]) -> list[dict[str, str]]:
    return [{"code": f.code, "message": f.message} for f in flags]


def _z_score(estimate: FreeEnergy, reference: Mapping[str, Any] | None) -> float | None:
    if reference is None or estimate.delta_f is None or estimate.std_error is None:
        return None
    error = math.hypot(estimate.std_error, reference["std_error"])
    return (estimate.delta_f - reference["value"]) / error if error > 0 else None


def _absences(config: Config, result: Difference, reference: Mapping[str, Any] | None) -> list[Flag]:
    """A flag for every key of the whole run that is null for a reason the estimators have not given."""
    absent = []
    if config.temperature is None:
        absent.append(Flag("no_temperature", "the system names no temperature, so ΔF is known in kT alone"))
    if reference is None:
        absent.append(Flag("no_reference", "no reference value is known for these settings, so there is no z-score"))
    elif result.delta_f.std_error == 0 == reference["std_error"]:
        absent.append(Flag("no_z_score", "neither the result nor the reference has an error, so there is no z-score"))
    return absent


def _gaps(rung: RungResult) -> list[Flag]:
    """The same for a rung."""
    bounds, gaps = rung.bounds, []
    if None in rung.pareto_k:
        gaps.append(
            Flag("no_pareto_k", "too few works, or works too alike, to fit a tail: Pareto k is null where that is so")
        )
    if None in (bounds.lower, bounds.upper):
        gaps.append(Flag("no_bound", "works of +inf leave no second-law bound on their side"))
    elif None in (*bounds.tightest_limits, bounds.lower_limit, bounds.upper_limit):
        gaps.append(Flag("no_bound_limit", "too few independent works to give a bound its confidence limit"))
    if None in (bounds.importance_weighted_lower, bounds.importance_weighted_upper):
        gaps.append(Flag("no_weighted_bound", "a group without finite works leaves no importance-weighted bound"))
    return gaps


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
