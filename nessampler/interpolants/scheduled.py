"""Any schedule, any shape of the noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from nessampler.interpolants._noise import check_noise, inverse_of, spread, unspread
from nessampler.interpolants.schedule import Schedule

__all__ = ["ScheduledInterpolant"]


@dataclass(frozen=True)
class ScheduledInterpolant:
    r"""$I_t = \alpha(t)\, x_a + \beta(t)\, x_b + \gamma(t)\, L z$.

    | symbol | argument | |
    |---|---|---|
    | $\alpha, \beta, \gamma$ | `schedule` | `Linear`, `Trigonometric`, `EncodingDecoding`, or any function of time |
    | $L$ | `noise` | scales `(d,)`, or a factor `(d, d)` of the covariance $L L^T$; zero rows carry no noise |

    Raises:
        InputError: noise of another shape, or a negative scale.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 4 (spatially linear interpolants).

    Example:
        >>> import torch
        >>> from nessampler.interpolants import Trigonometric
        >>> interpolant = ScheduledInterpolant(Trigonometric(), torch.ones(1))
        >>> interpolant.position(torch.tensor([0.5]), torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1, 1))
        tensor([[1.4142]])
    """

    schedule: Schedule
    noise: Float[Tensor, " d"] | Float[Tensor, "d d"]

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def gamma(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\gamma(t)$."""
        return self.schedule(t).gamma

    def gamma_rate(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\dot\gamma(t)$, for t inside (0, 1)."""
        return self.schedule(t).gamma_rate

    def ends(self, t: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        r"""$(\alpha, \beta)$."""
        at = self.schedule(t)
        return at.alpha, at.beta

    def position(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$I_t$."""
        at = self.schedule(t.unsqueeze(-1))
        return at.alpha * x_a + at.beta * x_b + at.gamma * spread(self.noise, z)

    def velocity(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$dI_t/dt$, for t inside (0, 1)."""
        at = self.schedule(t.unsqueeze(-1))
        return at.alpha_rate * x_a + at.beta_rate * x_b + at.gamma_rate * spread(self.noise, z)

    def noise_score(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$-L^{-T} z$, zero along coordinates without noise."""
        return -unspread(self._inverse, z)

    @cached_property
    def _inverse(self) -> Tensor:
        return inverse_of(self.noise)
