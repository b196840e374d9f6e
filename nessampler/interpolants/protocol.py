"""What an interpolant answers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

__all__ = ["Interpolant"]


@runtime_checkable
class Interpolant(Protocol):
    r"""$I_t$ from $x_a$ at t = 0 to $x_b$ at t = 1 with latent noise $z$, and what velocity and score are regressed on.

    One that also has `ends(t)`, the factors $(\alpha, \beta)$ of $x_a$ and $x_b$ in $I_t$, can be matched to the scores
    of independent ends.

    Example:
        >>> import torch
        >>> from nessampler.interpolants import LinearInterpolant
        >>> interpolant = LinearInterpolant(torch.ones(2))
        >>> a, b, z = torch.zeros(1, 2), torch.ones(1, 2), torch.randn(1, 2, generator=torch.Generator().manual_seed(0))
        >>> isinstance(interpolant, Interpolant), interpolant.position(torch.ones(1), a, b, z)
        (True, tensor([[1., 1.]]))
    """

    def gamma(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""Strength $\gamma(t)$ of the noise; 0 at an end that is reached exactly."""
        ...

    def position(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$I_t$."""
        ...

    def velocity(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$dI_t/dt$."""
        ...

    def noise_score(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$\gamma(t)$ times the score of $I_t$ given both ends."""
        ...
