"""One end is dissolved in noise before the other takes shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.interpolants.gamma import SineSquared
from nessampler.interpolants.schedule import Coefficients

__all__ = ["EncodingDecoding"]


@dataclass(frozen=True)
class EncodingDecoding:
    r"""$\alpha = \cos^2\pi t$ before $t = \tfrac12$, $\beta = \cos^2\pi t$ after it, $\gamma = \sqrt c\,\sin^2\pi t$.

    $I_{1/2} = \sqrt c\,L z$ is pure noise, so the two halves are two one-sided interpolants back to back: fields of
    one end know nothing of the other, and no pair of modes is mixed.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 4.

    Example:
        >>> EncodingDecoding()(torch.tensor([0.0, 0.25, 1.0])).beta
        tensor([0., 0., 1.])
    """

    strength: float = 1.0

    def __call__(self, t: Float[Tensor, " *n"]) -> Coefficients:
        """At times in [0, 1]."""
        square, product = SineSquared(self.strength)(t)
        cosine, rate = torch.cos(math.pi * t).square(), -math.pi * torch.sin(2 * math.pi * t)
        first, zero = t < 0.5, torch.zeros_like(t)
        alpha, alpha_rate = torch.where(first, cosine, zero), torch.where(first, rate, zero)
        beta, beta_rate = torch.where(first, zero, cosine), torch.where(first, zero, rate)
        return Coefficients(alpha, beta, square, alpha_rate, beta_rate, product)
