"""Works from elsewhere as plain data: the `result.json` of `nessampler estimate`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nessampler.diagnostics import Convergence
from nessampler.estimators import Flag, FreeEnergy
from nessampler.exchange import GivenWorks, WorksEstimate
from nessampler.runs import _plain as plain

__all__ = ["to_dict"]


def to_dict(
    found: WorksEstimate,
    forward: GivenWorks,
    reverse: GivenWorks | None,
    version: str,
    seed: int = 0,
    command: str | None = None,
) -> dict[str, Any]:
    """The contents of `result.json`: every number finite, or null with a flag that says why.

    Args:
        found: what the works say.
        forward, reverse: as they were read.
        version: of this package.
        seed: of the bootstraps.
        command: the command line that judges these works again, where there is one.
    """
    both = found.works[1] is not None
    pareto = {name: estimate.pareto_k for name, estimate in found.estimators.items()}
    ess = found.delta_f.ess if both else (*found.delta_f.ess, None)
    crooks = found.crooks
    table = {
        "title": "Works from elsewhere",
        "kind": "works",
        "seed": seed,
        "version": version,
        "versions": plain.versions("numpy", "scipy"),
        "command": command,
        "temperature": found.temperature,
        "sources": {"forward": _source(forward, found.works[0]), "reverse": _source(reverse, found.works[1])},
        "delta_f": _estimate(found.delta_f),
        "delta_f_kcal_per_mol": None
        if found.temperature is None
        else _estimate(found.delta_f.to("kcal/mol", temperature=found.temperature)),
        "verdict": found.verdict._asdict(),
        "estimators": {name: _estimate(e) | {"flags": plain.flags(e.flags)} for name, e in found.estimators.items()},
        "bounds": plain.bounds(found.bounds),
        "ess": plain.pair(ess),
        "overlap": found.delta_f.overlap,
        "pareto_k": plain.pair((pareto.get("jarzynski_forward"), pareto.get("jarzynski_reverse"))),
        "crooks": None if crooks is None else {"slope": crooks.slope, "std_error": crooks.std_error, "z": crooks.z},
        "convergence": _curve(found.convergence),
        "flags": plain.flags((*found.flags, *_absences(found, both))),
    }
    return plain.finite(table)


def _source(given: GivenWorks | None, works: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    return {
        "source": given.source,
        "how": given.how,
        "unit": given.unit,
        "works": works.size,
        "chains": len(works) if works.ndim == 2 else None,
    }


def _estimate(estimate: FreeEnergy) -> dict[str, Any]:
    return {
        "value": estimate.delta_f,
        "std_error": estimate.std_error,
        "ci95": None if estimate.ci95 is None else list(estimate.ci95),
        "unit": estimate.unit,
    }


def _curve(found: Convergence | None) -> dict[str, Any] | None:
    if found is None:
        return None
    ways: dict[str, Iterable[FreeEnergy]] = {"forward": found.forward, "backward": found.backward}
    points = {
        way: [{"value": e.delta_f, "std_error": e.std_error} for e in estimates] for way, estimates in ways.items()
    }
    return {"fractions": list(found.fractions), **points}


def _absences(found: WorksEstimate, both: bool) -> list[Flag]:
    """A flag for every key that is null for a reason which the estimators have not given."""
    absent = []
    if found.temperature is None:
        absent.append(Flag("no_temperature", "no temperature was given, so ΔF is known in kT alone"))
    if not both:
        absent.append(
            Flag("one_direction", "without reverse works there is no BAR, overlap, lower bound or Crooks slope")
        )
    elif found.crooks is None or found.crooks.slope is None:
        absent.append(
            Flag("no_crooks_slope", "works that are separated or all alike define no slope of Crooks' relation")
        )
    if found.convergence is None:
        absent.append(Flag("no_convergence", "too few works for curves of convergence"))
    if any(e.pareto_k is None for name, e in found.estimators.items() if name.startswith("jarzynski")):
        absent.append(
            Flag("no_pareto_k", "too few works, or works too alike, to fit a tail: Pareto k is null where that is so")
        )
    bounds = found.bounds
    wanted = (bounds.upper, bounds.lower) if both else (bounds.upper,)
    if None in wanted:
        absent.append(Flag("no_bound", "works of +inf leave no second-law bound on their side"))
    return absent
