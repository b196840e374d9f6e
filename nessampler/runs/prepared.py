"""What a problem must supply before transports are fitted: targets, samples, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.runs.config import AnalyticState, DifferenceConfig, TargetState
from nessampler.runs.density_targets import build_target
from nessampler.runs.page import Panel
from nessampler.targets import AnharmonicWell, Tally, Target

__all__ = ["Prepared", "check_analytic"]


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


def check_analytic(config: DifferenceConfig, folder: Path = Path()) -> tuple[Any, Any]:
    """The targets of both states, wells or densities by name: what can be wrong with them is found here."""
    a, b = (_target(s, folder, n) for n, s in (("state_a", config.state_a), ("state_b", config.state_b)))
    if a.event_shape != b.event_shape:
        hint = (
            "give both `center` the same length"
            if isinstance(a, AnharmonicWell)
            else "name two densities of the same variables"
        )
        raise InputError(f"both states must have the same coordinates: A has {_shape(a)}, B has {_shape(b)}; {hint}")
    return a, b


def _target(state: object, folder: Path, name: str) -> Target:
    if isinstance(state, TargetState):
        return build_target(state.target.name, state.target.parameters, folder, source=f"{name}.target")
    assert isinstance(state, AnalyticState)
    return AnharmonicWell(
        state.center, stiffness=state.stiffness, quartic=state.quartic, skew=state.skew, coupling=state.coupling
    )


def _shape(target: Target) -> str:
    return " × ".join(map(str, target.event_shape))
