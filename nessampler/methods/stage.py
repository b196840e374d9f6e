"""What a rung is given, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.distributions.transforms import Transform

from nessampler.estimators import FreeEnergy
from nessampler.kernels import Map
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import Block, Ends, generator_for
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.ledger import CountsEvaluations, Ledger
from nessampler.methods.transport import Transport, Works
from nessampler.targets import Tally

__all__ = ["Advance", "Candidate", "Pilot", "Report", "Rung", "Say", "Stage"]

Say = Callable[[str], None]
Advance = Callable[[int, int, str], None]
"""Told what is done, of how much, and of what."""
Report = Callable[..., None]
"""Told current numbers by name, such as `loss`; None for one that is not known."""

Candidate = tuple[Transport, CountsEvaluations | None]
"""A transport ready to run, and the fields or network whose evaluations are billed, if there are any."""


@dataclass(frozen=True)
class Pilot:
    """A transport as the select block saw it.

    Attributes:
        cost: of the whole rung, what its other candidates cost included, with works on the evaluate block.
        carrying: the part of it that these works alone will cost.
        share: of the select block that the works are of: a rung that is only scouted sees a part of it.
        reach: samples that will carry the estimate, in sizes of the evaluate block: more where nothing was fitted.
    """

    transport: Transport
    works: Works
    estimate: FreeEnergy
    cost: float
    carrying: float
    network: CountsEvaluations | None = None
    share: float = 1.0
    reach: float = 1.0

    @property
    def merit(self) -> float:
        """Variance x cost; +inf where the pilot found no overlap."""
        return self._variance * self.cost

    @property
    def promise(self) -> float:
        """Variance x what works on the evaluate block will cost: what decides between candidates already paid for."""
        return self._variance * self.carrying

    @property
    def _variance(self) -> float:
        """As it would be on the whole select block, for a rung that has the evaluate block alone in the end."""
        error = self.estimate.std_error
        return math.inf if error is None else self.share * error**2 / self.reach


@dataclass
class Stage:
    """Where a rung is built: all it may look at, and where it writes down what it costs.

    Attributes:
        ends, fit, select: the states in common coordinates, and the two blocks that may be looked at.
        effort, ledger: what to spend, and whom to charge.
        seed: streams of random numbers derive from it.
        say: told what is going on, one line at a time.
        progress, report: told how far it is, and the numbers as they stand.
        checkpoint: where training may leave its state.
        metrics: rows of training curves, see `log`.
        below: the pilots of the rungs below, by name.
    """

    ends: Ends
    fit: Block
    select: Block
    effort: Effort
    ledger: Ledger
    seed: int = 0
    say: Say = lambda _: None
    progress: Advance = lambda done, total, what: None
    report: Report = lambda **_: None
    checkpoint: Path | None = None
    metrics: list[dict] = field(default_factory=list)
    below: dict[str, Pilot] = field(default_factory=dict)

    @property
    def tuning(self) -> Block:
        """Samples that tell step sizes and diffusions: a thin part of select, which no fit has seen."""
        return self.select.thinned(self.effort.tuning_samples)

    def tuned(self, candidates: Iterable[Transport], what: str) -> Transport:
        """Of a few diffusions the one with the smallest BAR error of tuning walkers, frozen from there on."""
        pilot, generator = self.tuning, generator_for(self.seed, f"tune {what}")
        return min(candidates, key=lambda candidate: candidate.pilot_error(pilot, generator=generator))

    def watched(self, what: str) -> Callable[[int, int], None]:
        """Tells how far a part of this is."""
        return lambda done, total: self.progress(done, total, what)

    def log(self, network: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the training curve of a network; a run may train several."""
        self.metrics.extend({"network": network, **row} for row in rows)

    def without_effect(self, on: str, *names: str) -> None:
        """Tells which settings of the learned rung were given, and do nothing for this kind of network."""
        training, plain = self.effort.feat, Training()
        found = {name: getattr(training, name) for name in names if getattr(training, name) != getattr(plain, name)}
        for name, value in found.items():
            given = f"interpolation ({value.said})" if isinstance(value, Interpolation) else f"{name}={value}"
            self.say(f"feat: {given} is without effect on {on}")

    @property
    def tallies(self) -> list[Tally]:
        """What both targets were asked in the present stage of the ledger, for checkpoints of training."""
        return [counted.tally() for counted in self.ends.counted]

    @property
    def mapping(self) -> Transform:
        """The chosen map, on which the rungs above stand."""
        kernel = self.below["map"].transport.kernel
        assert isinstance(kernel, Map)
        return kernel.transform


Rung = Callable[[Stage], Iterator[Candidate]]
"""Yields candidates one after the other; each is piloted before the next is made, and the most promising one stays."""

Rungs = Mapping[str, Rung]
