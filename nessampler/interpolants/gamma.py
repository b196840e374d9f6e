r"""Strengths $\gamma(t)$ of the latent noise, zero at both ends."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["NoNoise", "Quadratic", "SineSquared", "SquareRoot"]

Pair = tuple[Float[Tensor, " *n"], Float[Tensor, " *n"]]


@dataclass(frozen=True)
class SquareRoot:
    r"""$\gamma = \sqrt{c\,t(1-t)}$, that of a Brownian bridge: smooths at once, and $\dot\gamma$ diverges at the ends.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 3.4.

    Example:
        >>> SquareRoot(2.0)(torch.tensor(0.5))
        (tensor(0.5000), tensor(0.))
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        _check(self.strength)

    def __call__(self, t: Float[Tensor, " *n"]) -> Pair:
        r"""$c\,t(1-t)$ and $\tfrac12 c\,(1-2t)$."""
        return self.strength * t * (1 - t), 0.5 * self.strength * (1 - 2 * t)


@dataclass(frozen=True)
class Quadratic:
    r"""$\gamma = \sqrt c\, t(1-t)$: smooth, so that $\dot\gamma$ is bounded, and quieter near the ends.

    Example:
        >>> Quadratic(16.0)(torch.tensor(0.5))
        (tensor(1.), tensor(0.))
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        _check(self.strength)

    def __call__(self, t: Float[Tensor, " *n"]) -> Pair:
        r"""$c\,t^2(1-t)^2$ and $c\,t(1-t)(1-2t)$."""
        bridge = t * (1 - t)
        return self.strength * bridge.square(), self.strength * bridge * (1 - 2 * t)


@dataclass(frozen=True)
class SineSquared:
    r"""$\gamma = \sqrt c\, \sin^2 \pi t$: no noise, and none on its way, at either end.

    Example:
        >>> SineSquared()(torch.tensor(0.5))[0]
        tensor(1.)
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        _check(self.strength)

    def __call__(self, t: Float[Tensor, " *n"]) -> Pair:
        r"""$c \sin^4 \pi t$ and $2\pi c \sin^3 \pi t \cos \pi t$."""
        sine = torch.sin(math.pi * t)
        return self.strength * sine**4, 2 * math.pi * self.strength * sine**3 * torch.cos(math.pi * t)


@dataclass(frozen=True)
class NoNoise:
    r"""$\gamma = 0$: a path from a base that is Gaussian itself, or with no score of its own.

    Example:
        >>> NoNoise()(torch.tensor(0.5))
        (tensor(0.), tensor(0.))
    """

    def __call__(self, t: Float[Tensor, " *n"]) -> Pair:
        """Zeros."""
        return torch.zeros_like(t), torch.zeros_like(t)


def _check(strength: float) -> None:
    if not 0 < strength < float("inf"):
        raise InputError(f"strength must be positive: got {strength}; 1.0 suits most ends, `NoNoise()` is without")
