"""The variance of the works of a flow between two ends: what the error of a free-energy difference is made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.kernels.flow import Flow
from nessampler.targets import Target, energy_and_score

__all__ = ["EndBatch", "WorkVariance"]


class EndBatch(NamedTuple):
    """Samples of both ends, and their energies there."""

    x_a: Float[Tensor, " n *event"]
    x_b: Float[Tensor, " m *event"]
    energy_a: Float[Tensor, " n"]
    energy_b: Float[Tensor, " m"]


class WorkVariance(nn.Module):
    r"""$\mathrm{var}\, W_F + \mathrm{var}\, W_R$ of the flow $\dot x = b(t, x)$, forward from A and back from B:

    $$W_F = U_B(x_1) - U_A(x_0) - \int_0^1 \nabla\cdot b\,dt, \qquad
      W_R = U_A(x_0) - U_B(x_1) + \int_0^1 \nabla\cdot b\,dt$$

    Zero where the flow carries one density into the other. The variances do not feel a constant in the works, so that
    nothing is gained by a log-determinant that the discrete steps get wrong by a constant: the mean works, whose sum is
    a symmetrised Kullback–Leibler divergence, fall below zero for such a flow. Backwards the same rule is run with the
    sign of time changed, the exact inverse up to its order. A batch costs one gradient of the other end per sample.

    | argument | |
    |---|---|
    | `network` | `velocity_and_divergence(t: (n,), x)` |
    | `start`, `end` | A and B, differentiable by `energy_and_score` |
    | `times` | of the steps, from 0 to 1 |
    | `order` | of the Runge–Kutta rule |

    Raises:
        InputError: fewer than two samples of an end in a batch.

    References:
        Richter et al., VarGrad: A Low-Variance Gradient Estimator for Variational Inference, 2020, arXiv:2010.10436
        (variances of log-weights as losses); Jarzynski, Targeted free energy perturbation, 2002, Phys. Rev. E 65,
        046122 (the works).

    Example:
        >>> from nessampler.networks.lattice import LatticeNetwork
        >>> from nessampler.targets.phi4 import FreeField
        >>> one = FreeField.massive(4, mass_squared=1.0)
        >>> still = LatticeNetwork((4, 4), (1.0,), (1.0,), torch.ones(1, 1), torch.tensor([0.0, 1.0]))
        >>> x = one.sample(3, generator=torch.Generator().manual_seed(0))
        >>> float(WorkVariance(still, one, one, [0.0, 1.0])(EndBatch(x, x, one.energy(x), one.energy(x))))
        0.0
    """

    def __init__(
        self, network: nn.Module, start: Target, end: Target, times: Sequence[float], *, order: int = 4
    ) -> None:
        super().__init__()
        self.network, self.start, self.end, self.times = network, start, end, tuple(times)
        self._flow = Flow(self._field, order)

    def forward(self, batch: EndBatch) -> Float[Tensor, ""]:
        """The loss of a batch."""
        forward, reverse = self.works(batch)
        if min(len(forward), len(reverse)) < 2:
            raise InputError(f"a variance needs two samples of each end: got {len(forward)} and {len(reverse)}")
        return forward.var() + reverse.var()

    def works(self, batch: EndBatch) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
        """Of every sample, float64."""
        ahead, grown = self._carried(batch.x_a, self.times)
        back, shrunk = self._carried(batch.x_b, self.times[::-1])
        return (
            _Energy.apply(ahead, self.end) - batch.energy_a - grown,  # pyright: ignore[reportOperatorIssue]
            _Energy.apply(back, self.start) - batch.energy_b - shrunk,  # pyright: ignore[reportOperatorIssue]
        )

    def _carried(self, x: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        log_det = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for t0, t1 in pairwise(times):
            x, change = self._flow.advance(t0, t1, x)
            log_det = log_det + change
        return x, log_det

    def _field(self, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.velocity_and_divergence(torch.full((len(x),), t, dtype=x.dtype, device=x.device), x)  # pyright: ignore


class _Energy(torch.autograd.Function):
    """A target's energy with its own score as gradient: one evaluation, and none again on the way back."""

    @staticmethod
    def forward(ctx, x: Tensor, target: Target) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        energy, score = energy_and_score(target, x)
        ctx.save_for_backward(score)
        return energy.to(torch.float64)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (score,) = ctx.saved_tensors
        return -score * gradient.to(score).view(-1, *[1] * (score.ndim - 1)), None
