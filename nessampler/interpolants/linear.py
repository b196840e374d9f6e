"""The linear interpolant: both ends come and go at constant speed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.interpolants._noise import check_noise, inverse_of, spread, unspread
from nessampler.interpolants.gamma import SquareRoot
from nessampler.interpolants.schedule import Coefficients, Gamma

__all__ = ["Linear", "LinearInterpolant"]


@dataclass(frozen=True)
class Linear:
    r"""$\alpha = 1 - t$, $\beta = t$.

    Example:
        >>> Linear()(torch.tensor(0.25)).alpha
        tensor(0.7500)
    """

    gamma: Gamma = field(default_factory=SquareRoot)

    def __call__(self, t: Float[Tensor, " *n"]) -> Coefficients:
        """At times in [0, 1]."""
        square, product = self.gamma(t)
        return Coefficients(1 - t, t, square, -torch.ones_like(t), torch.ones_like(t), product)


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
        check_noise(self.noise)
        if not 0 < self.strength < float("inf"):
            raise InputError(f"strength must be positive: got {self.strength}; 1.0 suits most ends")

    @property
    def schedule(self) -> Linear:
        """Its factors as a function of time."""
        return Linear(SquareRoot(self.strength))

    def gamma(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\sqrt{c\,t(1-t)}$."""
        return (self.strength * t * (1 - t)).sqrt()

    def gamma_rate(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\dot\gamma(t) = c\,(1 - 2t) / 2\gamma(t)$; infinite at the ends."""
        return 0.5 * self.strength * (1 - 2 * t) / self.gamma(t)

    def ends(self, t: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """$(1 - t, t)$."""
        return 1 - t, t

    def position(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$I_t$."""
        time = t.unsqueeze(-1)
        return (1 - time) * x_a + time * x_b + self.gamma(t).unsqueeze(-1) * spread(self.noise, z)

    def velocity(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        r"""$dI_t/dt = x_b - x_a + \dot\gamma L z$, for t inside (0, 1)."""
        return x_b - x_a + self.gamma_rate(t).unsqueeze(-1) * spread(self.noise, z)

    def noise_score(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$-L^{-T} z$, zero along coordinates without noise."""
        return -unspread(self._inverse, z)

    @cached_property
    def _inverse(self) -> Tensor:
        return inverse_of(self.noise)
