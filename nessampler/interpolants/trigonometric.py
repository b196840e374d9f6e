"""Cosine and sine: two ends of equal variance keep it on the way, without any noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.interpolants.gamma import SquareRoot
from nessampler.interpolants.schedule import Coefficients, Gamma

__all__ = ["Trigonometric"]


@dataclass(frozen=True)
class Trigonometric:
    r"""$\alpha = \cos\tfrac{\pi t}{2}$, $\beta = \sin\tfrac{\pi t}{2}$, so that $\alpha^2 + \beta^2 = 1$.

    Means sum to more than either on the way, so coordinates are best centred.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 4.

    Example:
        >>> Trigonometric()(torch.tensor(1 / 3)).beta
        tensor(0.5000)
    """

    gamma: Gamma = field(default_factory=SquareRoot)

    def __call__(self, t: Float[Tensor, " *n"]) -> Coefficients:
        """At times in [0, 1]."""
        angle, speed = 0.5 * math.pi * t, 0.5 * math.pi
        cosine, sine = torch.cos(angle), torch.sin(angle)
        return Coefficients(cosine, sine, self.gamma(t)[0], -speed * sine, speed * cosine, self.gamma(t)[1])
