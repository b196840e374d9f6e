"""Stochastic interpolants: a random path between a sample of one state and a sample of another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["Interpolant", "LinearInterpolant"]


@runtime_checkable
class Interpolant(Protocol):
    """$I_t$ from $x_a$ at t = 0 to $x_b$ at t = 1 with latent noise $z$, and what velocity and score are regressed on.

    A trigonometric or one-sided interpolant is another class with these four methods.
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


@dataclass(frozen=True)
class LinearInterpolant:
    r"""The two-sided linear interpolant, with noise that vanishes at both ends.

    $$I_t = (1 - t)\, x_a + t\, x_b + \gamma(t)\, L z, \qquad \gamma(t)^2 = c\, t (1 - t), \qquad z \sim N(0, 1)$$

    The velocity and score of the law of $I_t$ are $E[\dot I_t | I_t = x]$ and $-E[L^{-T} z | I_t = x] / \gamma(t)$.
    Since $\dot\gamma$ diverges at the ends, a velocity is regressed on pairs $\pm z$, where that cancels.

    | symbol | argument | |
    |---|---|---|
    | $L$ | `noise` | scales `(d,)`, or a factor `(d, d)` of the covariance $L L^T$; zero rows carry no noise |
    | $c$ | `strength` | positive; $c = 2$ makes the variance linear in t if $LL^T$ is the mean of the ends' |

    Raises:
        InputError: noise of another shape, a negative scale, or a strength that is not positive.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 2.

    Example:
        >>> interpolant = LinearInterpolant(torch.ones(1), strength=1.0)
        >>> interpolant.position(torch.tensor([0.5]), torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1))
        tensor([[1.]])
    """

    noise: Float[Tensor, " d"] | Float[Tensor, "d d"]
    strength: float = 1.0

    def __post_init__(self) -> None:
        shape = tuple(self.noise.shape)
        if len(shape) not in (1, 2) or len(set(shape)) != 1:
            raise InputError(f"noise must be scales (d,) or a factor (d, d): got shape {shape}")
        if not bool(torch.isfinite(self.noise).all()) or (len(shape) == 1 and bool((self.noise < 0).any())):
            raise InputError(f"noise must be finite, scales not negative: got {self.noise.flatten()[:4].tolist()} …")
        if not 0 < self.strength < float("inf"):
            raise InputError(f"strength must be positive: got {self.strength}; 1.0 suits most ends")

    def gamma(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\sqrt{c\,t(1-t)}$."""
        return (self.strength * t * (1 - t)).sqrt()

    def gamma_rate(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\dot\gamma(t) = c\,(1 - 2t) / 2\gamma(t)$; infinite at the ends."""
        return 0.5 * self.strength * (1 - 2 * t) / self.gamma(t)

    def position(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$I_t$."""
        time = t.unsqueeze(-1)
        return (1 - time) * x_a + time * x_b + self.gamma(t).unsqueeze(-1) * self._spread(z)

    def velocity(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        r"""$dI_t/dt = x_b - x_a + \dot\gamma L z$, for t inside (0, 1)."""
        return x_b - x_a + self.gamma_rate(t).unsqueeze(-1) * self._spread(z)

    def noise_score(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$-L^{-T} z$, zero along coordinates without noise."""
        inverse = self._inverse.to(z)
        return -z * inverse if inverse.ndim == 1 else -z @ inverse

    @cached_property
    def _inverse(self) -> Tensor:
        if self.noise.ndim == 2:
            return torch.linalg.pinv(self.noise)
        return torch.where(self.noise > 0, 1 / torch.where(self.noise > 0, self.noise, 1.0), 0.0)

    def _spread(self, z: Tensor) -> Tensor:
        noise = self.noise.to(z)
        return z * noise if noise.ndim == 1 else z @ noise.T
