"""What a problem must supply before transports are fitted: targets, samples, coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.estimators import Flag
from nessampler.runs.observed import Observed
from nessampler.targets import Tally, Target

__all__ = ["Prepared"]


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
    observed: Callable[[], Observed | None] = lambda: None
    close: Callable[[], None] = lambda: None
