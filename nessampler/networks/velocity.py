"""A velocity whose divergence costs no more than itself."""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.networks.mlp import _fill_uniform, _linear, _zero_linear

__all__ = ["VelocityNetwork"]


class VelocityNetwork(nn.Module):
    r"""$b(t, x) = \sigma\, W_3\, a(W_2\, a(W_1 u + c(t)))$ with $u = (x - \mu)/\sigma$, and its exact divergence.

    Two hidden layers of SiLU units a. Their Jacobian is a product of three matrices and two diagonals, so its trace is
    a bilinear form in the slopes $a'_1, a'_2$ of the units, with one matrix for all walkers:

    $$\nabla\cdot b = \sum_{jk} a'_{2,j}\, \big(W_2 \circ (W_1 W_3)^T\big)_{jk}\, a'_{1,k}$$

    No backward pass, no random probe, and a cost that does not grow with the dimension. The last layer starts at zero.
    Circular coordinates do not move; the units see their cosine and sine.

    | symbol | argument | |
    |---|---|---|
    | $\mu, \sigma$ | `center`, `scale` | `(d,)` |
    | | `circular` | `(d,)`: which coordinates are angles |
    | | `width` | units in each hidden layer |
    | | `frequencies` | $c(t)$ is linear in t, $\cos\pi k t$ and $\sin\pi k t$ for $k = 1 \dots$ `frequencies` |
    | | `generator` | of the initial weights |

    Attributes:
        evaluations: walkers evaluated since construction.

    Raises:
        InputError: shapes that differ, a scale that is not positive, a width below one.

    References:
        Elfwing, Uchibe & Doya, Sigmoid-weighted linear units, 2017, arXiv:1702.03118 (SiLU).

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> network = VelocityNetwork(torch.zeros(2), torch.ones(2), generator=g)
        >>> velocity, divergence = network.velocity_and_divergence(torch.zeros(3), torch.ones(3, 2))
        >>> velocity.shape, divergence.tolist()
        (torch.Size([3, 2]), [0.0, 0.0, 0.0])
    """

    center: Tensor
    scale: Tensor
    circular: Tensor

    def __init__(
        self,
        center: Float[Tensor, " d"],
        scale: Float[Tensor, " d"],
        *,
        circular: Bool[Tensor, " d"] | None = None,
        width: int = 256,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        circular = torch.zeros(len(center), dtype=torch.bool) if circular is None else circular.cpu()
        if not center.shape == scale.shape == circular.shape or center.ndim != 1:
            shapes = [tuple(v.shape) for v in (center, scale, circular)]
            raise InputError(f"center, scale and circular must have one entry per coordinate: got shapes {shapes}")
        if not bool((scale[~circular] > 0).all()) or min(width, frequencies) < 1:
            raise InputError(
                "scale must be positive, width and frequencies 1 at least: got a least scale of "
                f"{float(scale[~circular].min())}, {width} and {frequencies}; use standard deviations"
            )
        self.frequencies, self.evaluations = frequencies, 0
        self.register_buffer("center", center.clone())
        self.register_buffer("scale", scale.clone())
        self.register_buffer("circular", circular.clone())
        moving, angles = int((~circular).sum()), int(circular.sum())
        self.first = cast(nn.Linear, nn.utils.skip_init(nn.Linear, moving, width, bias=False))
        with torch.no_grad():
            bound = math.sqrt(3 / max(1, moving + 2 * angles))
            _fill_uniform(self.first.weight, bound, generator)
        self.context = _linear(2 * angles + 1 + 2 * frequencies, width, generator)
        self.second = _linear(width, width, generator)
        self.last = _zero_linear(width, moving)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The velocity alone, as in training."""
        _, second = self._hidden(t, x)
        return self._embed(self.last(nn.functional.silu(second)), x)

    def velocity_and_divergence(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        """Both, from one pass."""
        first, second = self._hidden(t, x)
        velocity = self._embed(self.last(nn.functional.silu(second)), x)
        coupling = self.second.weight * (self.first.weight @ self.last.weight).T
        divergence = ((_slope(second) @ coupling) * _slope(first)).sum(-1)
        return velocity, divergence.to(x)

    def _hidden(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What goes into the units of both layers."""
        self.evaluations += len(x)
        dtype, angle = self.last.weight.dtype, x[:, self.circular]
        u = ((x - self.center.to(x)) / self.scale.to(x))[:, ~self.circular]
        k = torch.arange(1, self.frequencies + 1, dtype=x.dtype, device=x.device)
        time = t.to(x).unsqueeze(-1)
        context = torch.cat(
            [angle.cos(), angle.sin(), time, (math.pi * time * k).cos(), (math.pi * time * k).sin()], -1
        )
        first = self.first(u.to(dtype)) + self.context(context.to(dtype))
        return first, self.second(nn.functional.silu(first))

    def _embed(self, moved: Tensor, x: Tensor) -> Tensor:
        if not bool(self.circular.any()):
            return moved.to(x) * self.scale.to(x)
        full = torch.zeros_like(x)
        full[:, ~self.circular] = moved.to(x) * self.scale.to(x)[~self.circular]
        return full


def _slope(value: Tensor) -> Tensor:
    """Of SiLU."""
    gate = torch.sigmoid(value)
    return gate * (1 + value * (1 - gate))
