"""What a budget of evaluations buys: sizes of pilots, steps and walkers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = [
    "COARSE",
    "DEAREST",
    "FINE",
    "PILOT_SHARE",
    "SCOUTS",
    "TOGETHER",
    "TRAINING_SHARE",
    "Budget",
    "Scatter",
    "variance",
    "walkers_for",
]

SCOUTS = 64  # walkers that tell how much log-weights scatter, and what a walker costs
SCOUT_SHARE = 0.015  # of a budget for one method's scouts
PILOT_SHARE = 0.4  # of a budget for the pilots of a drift
TOGETHER = 0.55  # and for these, tuning and comparing
DEAREST = 0.7  # where fields need more pilots than that share holds
TRAINING_SHARE = 0.3  # and for the training of a network
FEWEST = 256  # walkers, whatever the budget
FORMAL = 1024  # walkers that steps leave a budget at least: fewer say little of their own error
CALM = 0.25  # variance that steps of plain annealing leave of what they can forget
FINE = 0.9  # conditional ESS between the temperatures of SMC
COARSE = 0.5  # conditional ESS of a pilot that is paid from a budget: its times are interpolated
FEWEST_PILOT_STEPS = 12


@dataclass(frozen=True)
class Budget:
    """Evaluations of the target in all, and those of one move.

    Example:
        >>> budget = Budget(1_000_000, move=5)
        >>> budget.drift_pilots(walkers=2048, steps=30)  # 40 % of it would hold as many: taken as they are
        (2048, 30)
        >>> budget.drift_pilots(walkers=8192, steps=30)  # first fewer times, then fewer walkers
        (6666, 12)
        >>> budget.drift_steps(2200)  # so that at least 1,024 walkers can go through them
        97
    """

    evaluations: int
    move: int

    def drift_pilots(self, walkers: int, steps: int, share: float = PILOT_SHARE) -> tuple[int, int]:
        """Walkers and times on which a drift is solved, as asked for or as many as fit."""
        moves = share * self.evaluations / self.move
        steps = max(min(steps, FEWEST_PILOT_STEPS), min(steps, int(moves / walkers)))
        return min(walkers, int(moves / steps)), steps

    def drift_steps(self, steps: int) -> int:
        """Of production."""
        return max(2, min(steps, int((1 - PILOT_SHARE - 0.1) * self.evaluations / (FORMAL * self.move))))

    @property
    def scout_steps(self) -> tuple[int, int]:
        """Of the first walkers of annealing: few, and four times as many."""
        many = max(8, int(0.8 * SCOUT_SHARE * self.evaluations / (SCOUTS * self.move)))
        return many // 4, many

    def most_steps(self, left: float, move: float) -> int:
        """That leave enough walkers."""
        return max(2, int(left / (FORMAL * move)))


@dataclass(frozen=True)
class Scatter:
    r"""Variance of log-weights after K steps, $v_\infty + c / K$.

    What steps forget falls as 1/K; what they never forget, such as modes that the base weighs wrongly, does not.

    Example:
        >>> scatter = Scatter.through((10, 3.0), (40, 1.5))
        >>> round(scatter.floor, 6), round(scatter.slope, 6)
        (1.0, 20.0)
        >>> scatter.best_steps(most=1000), scatter.best_steps(most=50)
        (80, 50)
    """

    floor: float
    slope: float

    @classmethod
    def through(cls, few: tuple[int, float], many: tuple[int, float]) -> Scatter:
        """Two variances, each with its number of steps; of the second a tenth at least is taken to fall, at most it."""
        (k, v), (n, w) = few, many
        slope = min(max((v - w) / (1 / k - 1 / n), 0.1 * w * n), w * n)
        return cls(w - slope / n, slope)

    def at(self, steps: int) -> float:
        """Relative variance of Z by one walker, $e^v - 1$: of log-weights that are normal."""
        return math.expm1(min(self.floor + self.slope / steps, 700.0))

    def best_steps(self, most: int) -> int:
        """As many as leave 1/4 of what they can forget: more would gain little, and cost walkers that tell the error.

        Fewer may look as good to a normal law, $K (e^v - 1)$ being flat, but not to log-weights with tails.
        """
        return max(2, min(most, round(self.slope / CALM)))


def variance(log_weight: Tensor) -> float:
    """Of log-weights that are finite; infinite where hardly any is.

    >>> import torch
    >>> variance(torch.tensor([1.0, 3.0, -torch.inf]))
    2.0
    """
    finite = log_weight[log_weight.isfinite()]
    return float(finite.var()) if len(finite) > 1 else math.inf


def walkers_for(left: float, each: float) -> int:
    """As many as are left, a multiple of eight, the number of islands."""
    return max(FEWEST, 8 * int(left / max(each, 1.0) / 8))
