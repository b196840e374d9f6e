"""What a cell of a difference found, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nessampler.estimators import FreeEnergy
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.prepared import Prepared

__all__ = ["Outcome", "cost_of", "with_ends"]


@dataclass(frozen=True)
class Outcome:
    """What a cell found, and spent."""

    estimate: FreeEnergy
    chosen: str
    cost: float
    fields: int
    metrics: dict[str, float | None]
    flags: tuple[str, ...]
    verdict: str = ""


def cost_of(config: DifferenceConfig, spent: Mapping[str, Mapping[str, Mapping[str, int]]]) -> float:
    """Evaluations of both states by stage and kind, each state at its relative cost."""
    prices = {"state_a": config.state_a.relative_cost, "state_b": config.state_b.relative_cost}
    return sum(price * sum(sum(kinds.values()) for kinds in spent[s].values()) for s, price in prices.items())


def with_ends(spent: Mapping[str, Any], prepared: Prepared) -> dict[str, Mapping[str, Mapping[str, int]]]:
    """What was spent, where exact samples, which cost nothing, count one each."""
    table = {}
    for state, samples, target in zip(
        ("state_a", "state_b"),
        (prepared.samples_a, prepared.samples_b),
        (prepared.target_a, prepared.target_b),
        strict=True,
    ):
        exact = hasattr(target, "sample")
        table[state] = dict(spent[state])
        if exact:
            table[state]["exact"] = {"draws": samples.numel() // target.event_shape.numel()}
    return table
