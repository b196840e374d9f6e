"""The rung `annealed`: switching without a map and without a drift, the baseline that needs nothing fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.transport import Transport

__all__ = ["annealed"]

LENGTHS = (1, 4)  # times the switching steps of an effort: pilots tell which pays, as they do for other rungs


def annealed(stage: Stage, switching: Callable[[int], Transport]) -> Iterator[Candidate]:
    """Trajectories of a few steps, and of four times as many.

    Args:
        switching: from a number of steps to the transport, tuned; billed to this rung.
    """
    for length in LENGTHS:
        with stage.ledger.charge("annealed", "training"):
            made = switching(length * stage.effort.switching_steps)
        state = {name.replace("switching", "annealed"): value for name, value in made.state.items()}
        yield replace(made, name="annealed", state=state), None
