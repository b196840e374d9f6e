"""The regression whose minimiser is the velocity that carries one end's density to the other's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nessampler.objectives.interpolant import PairBatch

__all__ = ["FlowMatching"]


class FlowMatching(nn.Module):
    r"""$E\,|b(t, I_t) - (x_b - x_a)|^2_{1/\sigma^2}$ on straight lines $I_t = (1 - t)\, x_a + t\, x_b$.

    Its minimiser $b = E[x_b - x_a \mid I_t]$ transports the law of $x_a$ into that of $x_b$, whichever way samples are
    paired. The noise of a batch is not used.

    Args:
        velocity: in training; a function of `(t, x)`.
        scale: $\sigma$, `(d,)`, so that stiff coordinates count alike.
        moving: coordinates that count, by default all.

    References:
        Lipman et al., Flow matching for generative modeling, 2022, arXiv:2210.02747, eq. 9; Tong et al., Improving and
        generalizing flow-based generative models with minibatch optimal transport, 2023, arXiv:2302.00482, section 3.2.

    Example:
        >>> x, t = torch.zeros(2, 1), torch.tensor([0.2, 0.7])
        >>> loss = FlowMatching(lambda t, x: torch.zeros_like(x), torch.ones(1))
        >>> float(loss(PairBatch(x, x + 2, None, None, t, x)))
        4.0
    """

    def __init__(
        self,
        velocity: Callable[[Tensor, Tensor], Tensor],
        scale: Float[Tensor, " d"],
        moving: Bool[Tensor, " d"] | None = None,
    ) -> None:
        super().__init__()
        self.velocity, self.scale = velocity, scale
        self.moving = torch.ones(len(scale), dtype=torch.bool, device=scale.device) if moving is None else moving

    def forward(self, batch: PairBatch) -> Float[Tensor, ""]:
        """The loss of a batch, the mean over coordinates."""
        t = batch.t.unsqueeze(-1)
        x = (1 - t) * batch.x_a + t * batch.x_b
        miss = (self.velocity(batch.t, x) - (batch.x_b - batch.x_a)) / self.scale.to(x)
        return miss[:, self.moving].square().mean()
