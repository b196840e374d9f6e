"""What training is for: the spread of works of held-out samples, by which the best weights are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.methods.ends import Block, generator_for
from nessampler.methods.stage import Stage
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath
from nessampler.targets import Target, carry

__all__ = ["CARRIED", "CHECKS", "WITHOUT_OVERLAP", "Watch", "watch"]

CARRIED = 128  # samples of each end or, evenly thinned, up to twice as many; an energy where each arrives, every time
CHECKS = 6  # in a training, and one before it
STEPS = 64  # at most: a check need not be as fine as the rung, whose every step evaluates the fields
FEWEST = 3  # checks without a new best before a training stops: where the noise of steps rules, errors differ little
TWENTIETHS = 20  # of a training, in which patience is counted
WITHOUT_OVERLAP = 1e3  # kT: beyond any error that BAR states


class Watch(NamedTuple):
    """What `training.fit` is told of it: by what to judge, None for the held-out loss, how often, when to stop."""

    judge: Callable[[], float] | None
    every: int
    patience: int


def watch(stage: Stage, transport: Transport | None) -> Watch:
    r"""How a training on this stage is watched: by held-out works, or by its held-out loss if the effort says so.

    A few samples of the select block are carried both ways along the averaged weights, the same samples with the same
    noise at every check, and BAR's standard error of their works decides: what the ladder itself goes by. Where works
    share nothing it is $10^3$ kT plus the median dissipation, $\mathrm{med}\,W_F + \mathrm{med}\,W_R$, so that a
    transport which gets nearer is better. The energies are charged to whom the training is.

    Args:
        transport: carries samples with the fields in training, at any diffusion;
            None leaves it to the loss.
    """
    training = stage.effort.feat
    if transport is None or training.stopping == "loss":
        return Watch(None, max(1, training.steps // TWENTIETHS), training.patience)
    block = stage.select.thinned(CARRIED)
    transport = _knowing_where_it_starts(replace(transport, times=_some(transport.times)), block)

    def error() -> float:
        works = transport.works(block, generator=generator_for(stage.seed, "held-out works"))
        found = transport.estimate(works, seed=stage.seed).std_error
        if found is not None:
            return found
        return WITHOUT_OVERLAP + float(np.median(works.forward) + np.median(works.reverse))

    patience = max(FEWEST, -(-training.patience * CHECKS // TWENTIETHS))
    return Watch(error, max(1, -(-training.steps // CHECKS)), patience)


def _some(times: tuple[float, ...]) -> tuple[float, ...]:
    """Every so many of them, with both ends.

    >>> _some(tuple(range(129))) == tuple(range(0, 129, 2)), _some((0.0, 0.3, 1.0))
    (True, (0.0, 0.3, 1.0))
    """
    last = len(times) - 1
    steps = min(STEPS, last)
    return tuple(times[round(k * last / steps)] for k in range(steps + 1))


def _knowing_where_it_starts(transport: Transport, block: Block) -> Transport:
    """Energies of the samples themselves are the same at every check."""
    samples = ((transport.encode_a, block.flat_a), (transport.encode_b, block.flat_b))
    known = (x if encode is None else carry(encode, x) for encode, x in samples)
    ends = (transport.path.start, transport.path.end)
    return replace(transport, path=EndpointPath(*(_Known(end, x) for end, x in zip(ends, known, strict=True))))


class _Known:
    """A target that is asked for the energies of some walkers once, now: a resumed training costs no more."""

    def __init__(self, target: Target, x: Float[Tensor, " n *event"]) -> None:
        self.event_shape, self._target, self._x = target.event_shape, target, x
        with torch.no_grad():
            self._energy = target.energy(x)

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """In kT."""
        return self._energy if torch.equal(x, self._x) else self._target.energy(x)
