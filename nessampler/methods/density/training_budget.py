"""How much training a share of a budget pays for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.kernels import Kernel
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.nets import roll_out

__all__ = ["TrainingPrice", "TrainingSizes"]

PRICED = 8  # walkers that tell what one costs
PILOT_PART = 0.25  # of what training may cost, for its first and its last pilot run
FEWEST_PILOTS, FEWEST_STEPS, FEWEST_WALKERS = 64, 10, 32


@dataclass(frozen=True)
class TrainingSizes:
    """Gradient steps, walkers of a rollout, those of them that enter a loss, and of the pilot runs that judge."""

    steps: int
    walkers: int
    batch: int
    pilots: int


@dataclass(frozen=True)
class TrainingPrice:
    """Evaluations of the target that a training asks for.

    Attributes:
        move: of a walker and a step, in rollouts and pilot runs.
        loss: of a walker at one time, in a loss: the fields of a drift may follow the path's own gradient.

    Example:
        >>> price, most = TrainingPrice(5.0, loss=0.0), TrainingSizes(steps=1000, walkers=256, batch=64, pilots=512)
        >>> price.within(1_000_000, most, rollout_steps=32, pilot_steps=32)
        TrainingSizes(steps=180, walkers=256, batch=64, pilots=512)
        >>> price.within(50_000, most, rollout_steps=32, pilot_steps=32)
        TrainingSizes(steps=10, walkers=128, batch=64, pilots=64)
    """

    move: float
    loss: float

    @classmethod
    def of(
        cls,
        path: CountedPath,
        network: nn.Module,
        objective: nn.Module,
        kernel: Callable[[nn.Module], Kernel],
        x: Float[Tensor, " n *event"],
        *,
        generator: torch.Generator,
    ) -> TrainingPrice:
        """By a few walkers, three times and one loss, which are on the path's account."""
        times, x = (0.0, 0.5, 1.0), x[:PRICED]
        before = path.tally.total
        made = roll_out(kernel(network), path, times, x, generator=generator)
        rolled = path.tally.total
        objective(made)
        return cls((rolled - before) / (len(x) * (len(times) - 1)), (path.tally.total - rolled) / (len(x) * len(times)))

    def within(
        self,
        evaluations: float,
        most: TrainingSizes,
        *,
        rollout_steps: int,
        pilot_steps: int,
        refresh: int = 10,
        every: int = 100,
    ) -> TrainingSizes:
        """As much as the evaluations pay for: fewer pilot walkers and then fewer steps, at last smaller rollouts.

        Args:
            evaluations: of all training.
            most: that is asked for.
            rollout_steps, pilot_steps: of a rollout, and of a pilot run.
            refresh, every: gradient steps between rollouts, and between pilot runs, see `train_nets`.
        """
        run, walkers = self.move * pilot_steps, most.walkers
        pilots = min(most.pilots, max(FEWEST_PILOTS, int(PILOT_PART * evaluations / (2 * run))))

        def cost(n: int, walkers: int) -> float:
            judged = pilots * run * (1 + math.ceil(n / every))
            rolled = walkers * self.move * rollout_steps * math.ceil(n / refresh)
            return judged + rolled + min(most.batch, walkers) * self.loss * (rollout_steps + 1) * n

        while walkers > FEWEST_WALKERS and cost(FEWEST_STEPS, walkers) > evaluations:
            walkers = max(walkers // 2, FEWEST_WALKERS)
        affordable = (n for n in range(most.steps, FEWEST_STEPS, -1) if cost(n, walkers) <= evaluations)
        steps = next(affordable, min(most.steps, FEWEST_STEPS))
        return TrainingSizes(steps, walkers, min(most.batch, walkers), pilots)
