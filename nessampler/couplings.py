"""Which sample of A goes with which of B."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["Align", "Coupling", "Independent", "OptimalTransport", "squared_distances"]

Coupling = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(x_a: (n, d), x_b: (n, d)) -> the same samples in another order, row by row a pair."""

Align = Callable[[Tensor, Tensor], Tensor]
"""(x_a: (n, d), x_b: (n, d)) -> x_b, each row turned, shifted or relabelled towards its partner."""


@dataclass(frozen=True)
class Independent:
    """Pairs as they come: the density of a pair is the product of the ends'.

    Args:
        align: moves each $x_b$ within its symmetry class towards its partner; None leaves it. Pairs are then no longer
            independent.

    Example:
        >>> a, b = torch.zeros(1, 1), torch.tensor([[3.0]])
        >>> Independent()(a, b)[1], Independent(align=lambda a, b: b.remainder(2.0))(a, b)[1]
        (tensor([[3.]]), tensor([[1.]]))
    """

    align: Align | None = None

    def __call__(self, x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """The pairs."""
        return x_a, x_b if self.align is None else self.align(x_a, x_b)


@dataclass(frozen=True)
class OptimalTransport:
    r"""The permutation of a batch with the least total cost, $\min_\pi \sum_i c(x_a^i, x_b^{\pi(i)})$.

    Every sample of the batch is used once, so both marginals are those of the batch, exactly. Straighter paths make
    quieter regressions: of velocity and denoiser only, since the ends' scores say nothing about coupled pairs.
    Solved on the CPU in $O(n^3)$.

    Args:
        cost: $(x_a, x_b) \mapsto$ `(n, n)`, by default squared distances; of whitened coordinates, for scales that
            differ.
        align: applied to the pairs found.

    Raises:
        InputError: batches of different sizes, or costs that are not finite.

    References:
        Pooladian et al., Multisample flow matching: straightening flows with minibatch couplings, 2023,
        arXiv:2304.14772; Tong et al., Improving and generalizing flow-based generative models with minibatch optimal
        transport, 2023, arXiv:2302.00482.

    Example:
        >>> a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.2], [0.1]])
        >>> OptimalTransport()(a, b)[1].flatten()
        tensor([0.1000, 1.2000])
    """

    cost: Callable[[Tensor, Tensor], Tensor] | None = None
    align: Align | None = None

    def __call__(self, x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """The pairs."""
        if len(x_a) != len(x_b):
            raise InputError(f"a batch has as many samples of A as of B: got {len(x_a)} and {len(x_b)}")
        cost = (self.cost or squared_distances)(x_a, x_b)
        if not bool(torch.isfinite(cost).all()):
            raise InputError("costs of pairs must be finite: some are not; look for samples that are not finite")
        order = torch.as_tensor(linear_sum_assignment(cost.cpu().numpy())[1], device=x_b.device)
        return Independent(self.align)(x_a, x_b[order])


def squared_distances(x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Between all rows.

    Example:
        >>> squared_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
        tensor([[25.]], dtype=torch.float64)
    """
    a, b = x_a.flatten(1).to(torch.float64), x_b.flatten(1).to(torch.float64)
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
