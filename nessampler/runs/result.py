"""`result.json`: the finished run as plain data, every number finite or null with a flag that says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nessampler.estimators import Flag, FreeEnergy
from nessampler.methods.difference import Difference, RungResult
from nessampler.runs import _plain as plain
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.prepared import Prepared
from nessampler.runs.units import parse

__all__ = ["to_dict"]


def to_dict(
    config: DifferenceConfig, prepared: Prepared, result: Difference, seconds: Mapping[str, float], version: str
) -> dict:
    """The contents of `result.json`. Only what lies under `seconds` may differ between two runs with one seed."""
    temperature = None if config.temperature is None else parse(config.temperature, "K")
    reference = None if config.reference is None else config.reference.model_dump()
    rung = result.rung
    table = {
        **plain.heading(config, version),
        "labels": {"state_a": config.state_a.label, "state_b": config.state_b.label},
        "temperature": temperature,
        "delta_f": _estimate(result.delta_f),
        "delta_f_kcal_per_mol": None
        if temperature is None
        else _estimate(result.delta_f.to("kcal/mol", temperature=temperature)),
        "rung": result.chosen,
        "verdict": result.verdict._asdict(),
        "rungs": [_rung(r, result.chosen) for r in result.rungs],
        "estimators": {name: _estimate(e) | {"flags": plain.flags(e.flags)} for name, e in result.estimators.items()},
        "bounds": plain.bounds(result.bounds),
        "ess": plain.pair(rung.estimate.ess),
        "overlap": rung.estimate.overlap,
        "pareto_k": plain.pair(rung.pareto_k),
        "evaluations": result.evaluations,
        "seconds": {**result.seconds, **seconds},
        "endstates": prepared.endstates,
        "reference": reference,
        "z_score": plain.z_score(result.delta_f.delta_f, result.delta_f.std_error, reference),
        "flags": plain.flags((*result.flags, *_absences(config, result, reference), *_gaps(rung))),
    }
    return plain.finite(table)


def _rung(rung: RungResult, chosen: str) -> dict[str, Any]:
    return {
        "name": rung.name,
        "description": rung.description,
        "chosen": rung.name == chosen,
        "block": rung.block,
        "delta_f": _estimate(rung.estimate),
        "overlap": rung.estimate.overlap,
        "ess": plain.pair(rung.estimate.ess),
        "pareto_k": plain.pair(rung.pareto_k),
        "bounds": plain.bounds(rung.bounds),
        "evaluations": rung.evaluations,
        "pilot": {"std_error": rung.pilot.estimate.std_error, "cost": rung.pilot.cost, "note": rung.note},
        "seconds": rung.seconds,
        "flags": plain.flags((*rung.estimate.flags, *_gaps(rung))),
    }


def _estimate(estimate: FreeEnergy) -> dict[str, Any]:
    return {
        "value": estimate.delta_f,
        "std_error": estimate.std_error,
        "ci95": None if estimate.ci95 is None else list(estimate.ci95),
        "unit": estimate.unit,
    }


def _absences(config: DifferenceConfig, result: Difference, reference: Mapping[str, Any] | None) -> list[Flag]:
    """A flag for every key of the whole run that is null for a reason the estimators have not given."""
    absent = []
    if config.temperature is None:
        absent.append(Flag("no_temperature", "the system names no temperature, so ΔF is known in kT alone"))
    if reference is None:
        absent.append(Flag("no_reference", "no reference value is known for these settings, so there is no z-score"))
    elif (
        result.delta_f.std_error is not None and max(result.delta_f.std_error, reference["std_error"]) <= plain.ROUNDING
    ):
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
