"""A rung of the ladder in a cell of a difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nessampler.bench.ends import prepared_ends
from nessampler.bench.outcome import Outcome, cost_of, with_ends
from nessampler.bench.torsions import torsion_metrics
from nessampler.bench.workers import Tell
from nessampler.methods.difference import Difference, free_energy
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.difference import effort_of
from nessampler.runs.end_observations import carried_of

__all__ = ["climbed"]


def climbed(
    config: DifferenceConfig,
    folder: Path,
    method: str,
    where: Path,
    origin: Mapping[str, Any],
    tell: Tell = lambda *_: None,
) -> Outcome:
    """What the ladder finds, with all that it spent."""
    prepared = prepared_ends(config, folder, where, origin, tell)
    try:
        found = free_energy(
            prepared.target_a,
            prepared.target_b,
            prepared.samples_a,
            prepared.samples_b,
            method=method,  # pyright: ignore[reportArgumentType]
            coordinates=prepared.coordinates,
            seed=config.run.seed,
            effort=effort_of(config),
            endstate_evaluations=prepared.evaluations,
            endstate_flags=prepared.flags,
        )
        torsions = torsion_metrics(prepared.observed(), carried_of(found, prepared)) if config.molecular else {}
    finally:
        prepared.close()
    # All of it: a rung stands on the map below it, whose fitting and choice are part of its price.
    spent = found.evaluations
    return Outcome(
        found.delta_f,
        found.chosen,
        cost_of(config, with_ends(spent, prepared)),
        sum(spent["networks"].values()),
        _metrics(found) | torsions,
        tuple(dict.fromkeys(f.code for f in found.flags)),
        found.verdict.level,
    )


def _metrics(found: Difference) -> dict[str, float | None]:
    rung, (low, high) = found.rung, found.bounds.tightest_limits
    forward, reverse = rung.estimate.ess
    return {
        "overlap": rung.estimate.overlap,
        "ess_forward": forward,
        "ess_reverse": reverse,
        "effective_draws": forward * rung.estimate.n[0],
        "lower_limit": low,
        "upper_limit": high,
        "pilot_share": found.pilot_share,
    }
