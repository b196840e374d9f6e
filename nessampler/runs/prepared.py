"""What a problem must supply before transports are fitted: targets, samples, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.methods.ends import generator_for
from nessampler.runs.config import AnalyticState, DifferenceConfig
from nessampler.runs.page import Panel
from nessampler.targets import AnharmonicWell, Tally, Target

__all__ = ["Prepared", "check_analytic", "prepare_analytic"]


@dataclass(frozen=True)
class Prepared:
    """Two targets with samples of both ends, what these cost, and what is known about them."""

    target_a: Target
    target_b: Target
    samples_a: Tensor
    samples_b: Tensor
    coordinates: Transform | None = None
    evaluations: tuple[Tally, Tally] = (Tally(), Tally())
    flags: Sequence[Flag] = ()
    endstates: dict[str, dict[str, Any]] = field(default_factory=dict)
    panels: Callable[[], list[Panel]] = list
    close: Callable[[], None] = lambda: None


def check_analytic(config: DifferenceConfig) -> tuple[AnharmonicWell, AnharmonicWell]:
    """The wells of both states: what can be wrong with them is found here."""
    a, b = _well(config.state_a), _well(config.state_b)
    if a.event_shape != b.event_shape:
        raise InputError(
            "both states must have the same number of coordinates: "
            f"A has {a.event_shape.numel()}, B has {b.event_shape.numel()}; give both `center` the same length"
        )
    return a, b


def prepare_analytic(config: DifferenceConfig) -> Prepared:
    """Two wells with independent, exact samples."""
    wells = check_analytic(config)
    draws = [
        well.sample(n, generator=generator_for(config.run.seed, f"samples {name}"))
        for well, n, name in zip(wells, (config.samples.a, config.samples.b), "ab", strict=True)
    ]
    device = torch.device(config.run.device)
    endstates = {
        state: {"replicas": 1, "frames": len(x), "equilibration_frames": 0, "statistical_inefficiency": 1.0}
        for state, x in zip(("state_a", "state_b"), draws, strict=True)
    }
    return Prepared(wells[0], wells[1], draws[0].to(device), draws[1].to(device), endstates=endstates)


def _well(state: Any) -> AnharmonicWell:
    assert isinstance(state, AnalyticState)
    return AnharmonicWell(
        state.center, stiffness=state.stiffness, quartic=state.quartic, skew=state.skew, coupling=state.coupling
    )
