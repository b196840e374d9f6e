"""A schedule run at another pace."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.interpolants.schedule import Coefficients, Schedule

__all__ = ["Retimed"]


@dataclass(frozen=True)
class Retimed:
    r"""$\alpha(\tau(t))$, $\beta(\tau(t))$, $\gamma(\tau(t))$ with τ linear between the times of equidistant knots.

    Args:
        schedule: what is retimed.
        times: $\tau(0), \tau(1/m), \dots, \tau(1)$, increasing from 0 to 1, such as `equal_length_times` finds.

    Raises:
        InputError: times that do not increase from 0 to 1.

    Example:
        >>> from nessampler.interpolants import Linear
        >>> late = Retimed(Linear(), (0.0, 0.2, 1.0))
        >>> late(torch.tensor(0.5)).beta, late(torch.tensor(0.25)).beta_rate
        (tensor(0.2000), tensor(0.4000))
    """

    schedule: Schedule
    times: tuple[float, ...]

    def __post_init__(self) -> None:
        t = self.times
        if len(t) < 2 or t[0] != 0 or t[-1] != 1 or any(b <= a for a, b in pairwise(t)):
            raise InputError(f"times must increase from 0 to 1: got {t[:3]} … {t[-1:]}")

    def __call__(self, t: Float[Tensor, " *n"]) -> Coefficients:
        """At times in [0, 1]."""
        knots = torch.tensor(self.times, dtype=torch.float64).to(t)
        pieces = len(knots) - 1
        left = (t * pieces).long().clamp(max=pieces - 1)
        rate = (knots[left + 1] - knots[left]) * pieces
        at = self.schedule(torch.lerp(knots[left], knots[left + 1], t * pieces - left))  # exact at knots
        return Coefficients(
            at.alpha, at.beta, at.gamma_square, rate * at.alpha_rate, rate * at.beta_rate, rate * at.gamma_product
        )
