"""A small network that learns what fields of moving angles leave over."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.networks.mlp import _linear, _zero_linear

__all__ = ["TorusResidual"]


class TorusResidual(nn.Module):
    r"""Fields of some angles plus a learned remainder: $b + \sigma\,r_b(t, \theta)$ and $s + r_s(t, \theta)/\sigma$.

    Inputs are $\cos k\theta$, $\sin k\theta$, t, $\cos \pi k t$ and $\sin \pi k t$, so remainders have the period 2π in
    every angle. They start at zero: untrained, the network is its base. Other coordinates are neither seen nor moved.

    | symbol | argument | |
    |---|---|---|
    | b, s | `base` | fields with a velocity |
    | $\theta$ | `index` | which coordinates move, `(k,)` |
    | $\sigma$ | `scale` | `(k,)`: widths of the path, in which remainders are measured |
    | k | `harmonics` | 1 … `harmonics` |
    | | `width`, `depth` | of the trunk |

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Example:
        >>> base = lambda t, x: Evaluated(torch.ones_like(x), -x.sin())
        >>> g = torch.Generator().manual_seed(0)
        >>> fields = TorusResidual(base, torch.tensor([1]), scale=torch.ones(1), generator=g)
        >>> fields(torch.zeros(1), torch.zeros(1, 2)).velocity
        tensor([[1., 1.]], grad_fn=<AddBackward0>)
    """

    index: Tensor
    scale: Tensor

    def __init__(
        self,
        base: Fields,
        index: Tensor,
        *,
        scale: Float[Tensor, " k"],
        width: int = 128,
        depth: int = 3,
        harmonics: int = 2,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if len(index) != len(scale) or not bool((scale > 0).all()):
            raise InputError(f"every angle has a positive scale: got {scale.tolist()} for {len(index)} angles")
        self.base, self.harmonics, self.evaluations = base, harmonics, 0
        self.register_buffer("index", index)
        self.register_buffer("scale", scale)
        sizes = [2 * harmonics * (len(index) + 1) + 1, *[width] * depth]
        layers = [_linear(i, o, generator) for i, o in pairwise(sizes)]
        self.trunk = nn.Sequential(*(module for layer in layers for module in (layer, nn.SiLU())))
        self.velocity_head, self.score_head = _zero_linear(width, len(index)), _zero_linear(width, len(index))

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields: the base's plus the remainder."""
        self.evaluations += len(x)
        base, scale = self.base(t, x), self.scale.to(x)
        if base.velocity is None:
            raise InputError("the base of a residual network must have a velocity: got None; use zeros")
        hidden = self.trunk(self._features(t, x).to(self.velocity_head.weight.dtype))
        velocity, score = self.velocity_head(hidden).to(x) * scale, self.score_head(hidden).to(x) / scale
        return Evaluated(base.velocity + self._embedded(velocity, x), base.score + self._embedded(score, x))

    def _features(self, t: Tensor, x: Tensor) -> Tensor:
        time = t.to(x)[:, None]
        turns = torch.cat([x[:, self.index], math.pi * time], 1)
        multiples = [k * turns for k in range(1, self.harmonics + 1)]
        return torch.cat([time, *(f for m in multiples for f in (m.cos(), m.sin()))], 1)

    def _embedded(self, values: Tensor, x: Tensor) -> Tensor:
        return torch.zeros_like(x).index_copy(1, self.index, values)
