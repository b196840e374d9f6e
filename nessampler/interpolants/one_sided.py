"""From noise to a state: the base is Gaussian, so the noise itself is the first end."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.interpolants._noise import check_noise, inverse_of, spread, unspread
from nessampler.interpolants.gamma import NoNoise
from nessampler.interpolants.linear import Linear
from nessampler.interpolants.schedule import Schedule

__all__ = ["OneSidedInterpolant"]


@dataclass(frozen=True)
class OneSidedInterpolant:
    r"""$I_t = \alpha(t)\,(m + L z) + \beta(t)\, x_b$ with $z \sim N(0, 1)$, the base $N(m, LL^T)$ at t = 0.

    Samples of A are not looked at: z stands for them, and $\gamma = \alpha$. One conditional average gives both fields,

    $$\eta = E[z\,|\,I_t = x], \qquad s = -\frac{L^{-T}\eta}{\alpha}, \qquad
      b = \dot\alpha\,(m + L\eta) + \dot\beta\,\frac{x - \alpha\,(m + L\eta)}{\beta} .$$

    | symbol | argument | |
    |---|---|---|
    | $m$ | `mean` | `(d,)` |
    | $L$ | `noise` | scales `(d,)`, or a factor `(d, d)` of the base's covariance |
    | $\alpha, \beta$ | `schedule` | its own $\gamma$ must be zero: `Linear(NoNoise())`, `Trigonometric(NoNoise())` |

    Raises:
        InputError: noise of another shape than the mean's, a negative scale, or a schedule with noise of its own.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 3.2 (one-sided interpolants).

    Example:
        >>> import torch
        >>> interpolant, one = OneSidedInterpolant(torch.zeros(1), torch.ones(1)), torch.ones(1, 1)
        >>> interpolant.position(torch.tensor([0.25]), one, 2 * one, one)
        tensor([[1.2500]])
    """

    mean: Float[Tensor, " d"]
    noise: Float[Tensor, " d"] | Float[Tensor, "d d"]
    schedule: Schedule = field(default_factory=lambda: Linear(NoNoise()))

    def __post_init__(self) -> None:
        check_noise(self.noise)
        if self.mean.shape != self.noise.shape[:1]:
            raise InputError(
                f"mean and noise of a base must go together: got {tuple(self.mean.shape)} and {tuple(self.noise.shape)}"
            )
        if bool((self.schedule(self.mean.new_tensor([0.25, 0.75])).gamma_square > 0).any()):
            raise InputError("a one-sided schedule has no noise beside its base: use `Linear(NoNoise())` or the like")

    def gamma(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\alpha(t)$: the noise is the base, and 1 at t = 0."""
        return self.schedule(t).alpha

    def gamma_rate(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        r"""$\dot\alpha(t)$."""
        return self.schedule(t).alpha_rate

    def ends(self, t: Float[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        r"""$(\alpha, \beta)$; the score of the base at $m + Lz$ is $-L^{-T}z$."""
        at = self.schedule(t)
        return at.alpha, at.beta

    def first_end(self, z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """The sample of the base that z stands for, and its score."""
        return self.mean.to(z) + spread(self.noise, z), self.noise_score(z)

    def position(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$I_t$; `x_a` is not used."""
        at = self.schedule(t.unsqueeze(-1))
        return at.alpha * (self.mean.to(z) + spread(self.noise, z)) + at.beta * x_b

    def velocity(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$dI_t/dt$; `x_a` is not used."""
        at = self.schedule(t.unsqueeze(-1))
        return at.alpha_rate * (self.mean.to(z) + spread(self.noise, z)) + at.beta_rate * x_b

    def noise_score(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$-L^{-T} z$, the score of the base."""
        return -unspread(self._inverse, z)

    @cached_property
    def _inverse(self) -> Tensor:
        return inverse_of(self.noise)
