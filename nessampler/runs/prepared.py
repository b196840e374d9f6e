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
    """Two targets with samples of both ends, what these cost, and what is known about them.

    `observed` is what is looked at in the samples; `observe` the same in others of A and of B, `(chains, draws,
    *event)`, in the coordinates of `samples_a` and `samples_b`.
    """

    target_a: Target
    target_b: Target
    samples_a: Tensor
    samples_b: Tensor
    coordinates: Transform | None = None
    evaluations: tuple[Tally, Tally] = (Tally(), Tally())
    flags: Sequence[Flag] = ()
    endstates: dict[str, dict[str, Any]] = field(default_factory=dict)
    observed: Callable[[], Observed | None] = lambda: None
    observe: Callable[[Tensor, Tensor], Observed | None] = lambda a, b: None
    close: Callable[[], None] = lambda: None
