"""Action matching: the gradient field that carries one density to the next, from samples alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.objectives.rollout import Rollout, quadrature

__all__ = ["ActionMatchingObjective", "Potential"]


class Potential(Protocol):
    r"""A network whose velocity is a gradient, $b = \nabla\phi$."""

    @property
    def potential(self) -> Callable[[Tensor, Tensor], Tensor]:
        r"""$\phi(t, x)$, `(t: (n,), x)` to `(n,)`."""
        ...

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        r"""$\nabla\phi(t, x)$, differentiable in the parameters."""
        ...


class ActionMatchingObjective(nn.Module):
    r"""The action of a potential over weighted walkers of $\rho_t \propto e^{-U_t}$:

    $$\int_0^T E_{\rho_t}\big[\tfrac12|\nabla\phi|^2 + \partial_t\phi\big]\,dt
      + E_{\rho_0}[\phi_0] - E_{\rho_T}[\phi_T]
      = \int_0^T\Big(E_{\rho_t}\big[\tfrac12|\nabla\phi|^2\big] - \int\phi\,\partial_t\rho_t\,dx\Big)dt$$

    Its minimiser obeys $\partial_t\rho_t + \nabla\cdot(\rho_t\nabla\phi) = 0$. Needs neither a divergence nor
    $\partial_t U$, but walkers that follow $\rho_t$: weights are used, self-normalised, so the batch should have many
    effective samples. All terms but $|\nabla\phi|^2$ are summed by parts between neighbouring times,

    $$\sum_k E_{\rho_k}[\phi(t_{k+1/2})] - E_{\rho_{k+1}}[\phi(t_{k+1/2})],$$

    which equals the trapezoidal rule to second order, yet leaves no function of time alone that could lower the loss
    without limit, and subtracts the same walkers from each other. The kinetic term takes the trapezoidal rule.

    Args:
        network: with `potential(t, x)` and its gradient as forward, such as `PotentialNetwork`.

    References:
        Neklyudov et al., Action Matching: Learning Stochastic Dynamics from Samples, 2022, arXiv:2210.06662;
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Rollout) -> Float[Tensor, ""]:
        """The loss of a batch of weighted walkers grouped by time."""
        log_weight = torch.where(batch.alive, batch.log_weight, -torch.inf)
        weights = torch.softmax(log_weight, 1)
        known = {"score": batch.score.flatten(0, 1)} if getattr(self.network, "reads_score", False) else {}
        gradient = self.network(batch.flat_times, batch.flat_x, **known)
        square = gradient.square().flatten(1).sum(1, dtype=torch.float64).view(weights.shape)
        kinetic = (quadrature(batch.times).to(weights) * 0.5 * (weights * square).sum(1)).sum()
        between = (0.5 * (batch.times[1:] + batch.times[:-1])).to(batch.x).repeat_interleave(batch.x.shape[1])
        before, after = (self._potential(between, x.flatten(0, 1), weights[1:]) for x in (batch.x[:-1], batch.x[1:]))
        return kinetic + (weights[:-1] * before - weights[1:] * after).sum()

    def _potential(self, t: Tensor, x: Tensor, like: Tensor) -> Tensor:
        value = self.network.potential(t, x)  # pyright: ignore
        return value.to(torch.float64).view(like.shape)
