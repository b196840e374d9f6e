"""Staged MBAR in a cell of a difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nessampler.bench.ends import prepared_ends
from nessampler.bench.outcome import Outcome, cost_of, with_ends
from nessampler.methods.ends import generator_for
from nessampler.methods.staged import Staged
from nessampler.methods.staged_within import staged_within
from nessampler.methods.verdict import judge_states
from nessampler.runs.config import DifferenceConfig

__all__ = ["staged_outcome"]


def staged_outcome(
    config: DifferenceConfig, folder: Path, budget: int, where: Path, origin: Mapping[str, Any]
) -> Outcome:
    """MBAR over chains at states of a path, for what the samples that they start from leave of a budget.

    Raises:
        InputError: they leave too little.
    """
    prepared = prepared_ends(config, folder, where, origin)
    taken = {
        f"state_{name}": {"endstates": {"energy": tally.energy, "gradient": tally.gradient}}
        for name, tally in zip("ab", prepared.evaluations, strict=True)
    }
    taken = with_ends(taken, prepared)
    try:
        made = staged_within(
            prepared.target_a,
            prepared.target_b,
            prepared.samples_a,
            prepared.samples_b,
            evaluations=budget - cost_of(config, taken),
            prices=(config.state_a.relative_cost, config.state_b.relative_cost),
            generator=generator_for(config.run.seed, "staged"),
        )
    finally:
        prepared.close()
    spent = {
        f"state_{name}": {"sampling": {"energy": tally.energy, "gradient": tally.gradient}}
        for name, tally in zip("ab", made.spent, strict=True)
    }
    start, estimate = cost_of(config, taken), made.found.multistate
    return Outcome(
        estimate,
        "staged",
        start + cost_of(config, spent),
        0,
        {"overlap": estimate.overlap, "rhat": max(made.found.r_hats), "start_share": start / budget}
        | _others(made.found),
        tuple(dict.fromkeys(f.code for f in made.flags)),
        judge_states(estimate, made.flags).level,
    )


def _others(found: Staged) -> dict[str, float | None]:
    """The same samples by the other estimators."""
    by = {"staged_bar": found.ratio, "staged_fep": found.perturbation, "integration": found.integration}
    values = {name: e.delta_f for name, e in by.items()}
    return values | {f"{name}_error": e.std_error for name, e in by.items()}
