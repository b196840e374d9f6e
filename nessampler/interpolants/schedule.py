"""How much of each end, and of the noise, there is at a time."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Coefficients", "Gamma", "Schedule"]


class Coefficients(NamedTuple):
    r"""$\alpha, \beta, \gamma^2$ of $I_t = \alpha x_a + \beta x_b + \gamma L z$ and their rates of change, shaped as t.

    The noise enters covariances as $\gamma^2$ and $\gamma\dot\gamma$, which stay finite where $\dot\gamma$ does not.

    Attributes:
        alpha, beta: of the two ends.
        gamma_square: $\gamma^2$.
        alpha_rate, beta_rate: $\dot\alpha, \dot\beta$.
        gamma_product: $\gamma\dot\gamma$, half the rate of $\gamma^2$.

    Example:
        >>> from nessampler.interpolants import Linear
        >>> found = Linear()(torch.tensor([0.0, 0.5]))
        >>> found.beta, found.gamma, found.gamma_rate  # the rate diverges at 0, where there is no noise yet
        (tensor([0.0000, 0.5000]), tensor([0.0000, 0.5000]), tensor([0., 0.]))
    """

    alpha: Tensor
    beta: Tensor
    gamma_square: Tensor
    alpha_rate: Tensor
    beta_rate: Tensor
    gamma_product: Tensor

    @property
    def gamma(self) -> Tensor:
        r"""$\gamma$."""
        return self.gamma_square.sqrt()

    @property
    def gamma_rate(self) -> Tensor:
        r"""$\dot\gamma$; 0 where there is no noise, whatever its limit."""
        gamma = self.gamma
        return torch.where(gamma > 0, self.gamma_product / torch.where(gamma > 0, gamma, 1.0), 0.0)

    def to(self, like: Tensor) -> Coefficients:
        """In the dtype and on the device of a tensor."""
        return Coefficients(*(v.to(like) for v in self))


class Schedule(Protocol):
    """A function of time, such as `Linear()`; $(1, 0, 0)$ at t = 0 and $(0, 1, 0)$ at t = 1.

    Example:
        >>> def quadratic(t):  # the second end comes late, without noise
        ...     one, zero = torch.ones_like(t), torch.zeros_like(t)
        ...     return Coefficients(one - t**2, t**2, zero, -2 * t, 2 * t, zero)
        >>> schedule: Schedule = quadratic
        >>> schedule(torch.tensor(0.5)).beta, schedule(torch.tensor(1.0)).beta
        (tensor(0.2500), tensor(1.))
    """

    def __call__(self, t: Float[Tensor, " *n"]) -> Coefficients:
        """At times in [0, 1]."""
        ...


class Gamma(Protocol):
    """A strength of the noise, such as `SquareRoot(1.0)`.

    Example:
        >>> from nessampler.interpolants import SquareRoot
        >>> gamma: Gamma = SquareRoot(4.0)
        >>> square, product = gamma(torch.tensor(0.25))  # c t (1 - t), and half its rate
        >>> square, product
        (tensor(0.7500), tensor(1.))
    """

    def __call__(self, t: Float[Tensor, " *n"]) -> tuple[Float[Tensor, " *n"], Float[Tensor, " *n"]]:
        r"""$\gamma^2$ and $\gamma\dot\gamma$ at times in [0, 1]."""
        ...
