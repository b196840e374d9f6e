"""A small network that learns what closed-form fields leave over."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields

__all__ = ["ResidualFields"]


class ResidualFields(nn.Module):
    r"""Closed-form fields plus a learned remainder: $b + \sigma\, r_b(t, x)$ and $s + r_s(t, x)/\sigma$.

    One trunk with two heads, or a trunk for each head. The heads start at zero, so an untrained network *is* its base.
    Inputs are $(x - \mu)/\sigma$, cosine and sine of circular coordinates, t, and $\cos \pi k t, \sin \pi k t$.
    Circular ones do not move: their remainders are zero. The network computes in the dtype of its own parameters and
    answers in that of x; an `nn.Module` as base is part of the state.

    | symbol | argument | |
    |---|---|---|
    | $b, s$ | `base` | fields with a velocity |
    | $\mu, \sigma$ | `center`, `scale` | `(d,)`: normalise inputs and outputs, so that stiff coordinates count alike |
    | | `circular` | `(d,)`: which coordinates are angles |
    | | `width`, `depth` | of a trunk: `depth` hidden layers |
    | | `trunks` | 1, which velocity and score share, or 2 |
    | $k$ | `frequencies` | $k = 1 \dots$ `frequencies` |
    | | `generator` | of the initial weights |

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: shapes that differ, a scale that is not positive, or trunks other than one or two.

    References:
        Elfwing, Uchibe & Doya, Sigmoid-weighted linear units, 2017, arXiv:1702.03118 (SiLU).

    Example:
        >>> base = lambda t, x: Evaluated(torch.ones_like(x), -x)
        >>> g = torch.Generator().manual_seed(0)
        >>> fields = ResidualFields(base, center=torch.zeros(1), scale=torch.ones(1), generator=g)
        >>> fields(torch.zeros(1), torch.tensor([[2.0]])).score
        tensor([[-2.]], grad_fn=<AddBackward0>)
        >>> fields.evaluations
        1
    """

    center: Tensor
    scale: Tensor
    circular: Tensor

    def __init__(
        self,
        base: Fields,
        *,
        center: Float[Tensor, " d"],
        scale: Float[Tensor, " d"],
        circular: Bool[Tensor, " d"] | None = None,
        width: int = 128,
        depth: int = 3,
        trunks: int = 1,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        circular = torch.zeros(len(center), dtype=torch.bool) if circular is None else circular
        circular = circular.to(center.device)
        if not center.shape == scale.shape == circular.shape or center.ndim != 1:
            shapes = [tuple(v.shape) for v in (center, scale, circular)]
            raise InputError(f"center, scale and circular must have one entry per coordinate: got shapes {shapes}")
        if not bool((scale[~circular] > 0).all()):
            raise InputError(f"scale must be positive: got {float(scale[~circular].min())}; use standard deviations")
        if min(width, depth, frequencies) < 1:
            raise InputError(f"width, depth and frequencies must be 1 at least: got {width}, {depth}, {frequencies}")
        if trunks not in (1, 2):
            raise InputError(f"velocity and score share one trunk or have one each: got trunks={trunks}; use 1 or 2")
        self.base, self.frequencies, self.evaluations = base, frequencies, 0
        self.register_buffer("center", center.clone())
        self.register_buffer("scale", torch.where(circular, 1.0, scale))
        self.register_buffer("circular", circular.clone())
        moving = int((~circular).sum())
        sizes = [len(center) + int(circular.sum()) + 2 * frequencies + 1, *[width] * depth]
        self.trunk = _trunk(sizes, generator)
        self.score_trunk = _trunk(sizes, generator) if trunks == 2 else None
        self.velocity_head, self.score_head = _zero_linear(width, moving), _zero_linear(width, moving)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields: the base's plus the remainder."""
        self.evaluations += len(x)
        base = self.base(t, x)
        if base.velocity is None:
            raise InputError("the base of a residual network must have a velocity: got None; use zeros")
        features, scale = self._features(t, x).to(self.velocity_head.weight.dtype), self.scale.to(x)
        hidden = self.trunk(features)
        of_score = hidden if self.score_trunk is None else self.score_trunk(features)
        velocity, score = self._embed(self.velocity_head(hidden), x), self._embed(self.score_head(of_score), x)
        return Evaluated(base.velocity + velocity * scale, base.score + score / scale)

    def _features(self, t: Tensor, x: Tensor) -> Tensor:
        angle = x[:, self.circular]
        linear = ((x - self.center.to(x)) / self.scale.to(x))[:, ~self.circular]
        k = torch.arange(1, self.frequencies + 1, dtype=x.dtype, device=x.device)
        phase = math.pi * t.to(x).unsqueeze(-1) * k
        return torch.cat([linear, angle.cos(), angle.sin(), t.to(x).unsqueeze(-1), phase.cos(), phase.sin()], -1)

    def _embed(self, moving: Tensor, x: Tensor) -> Tensor:
        if not bool(self.circular.any()):
            return moving.to(x)
        full = torch.zeros_like(x)
        full[:, ~self.circular] = moving.to(x)
        return full


def _trunk(sizes: list[int], generator: torch.Generator) -> nn.Sequential:
    layers = [_linear(i, o, generator) for i, o in pairwise(sizes)]
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.SiLU())))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = _blank_linear(inputs, outputs)
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        _fill_uniform(layer.weight, math.sqrt(3) * bound, generator)
        _fill_uniform(layer.bias, bound, generator)
    return layer


def _fill_uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    """Drawn where the generator lives, which may be a GPU while networks are built on the CPU."""
    drawn = torch.empty_like(parameter, device=generator.device)
    parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = _blank_linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _blank_linear(inputs: int, outputs: int) -> nn.Linear:
    # An ordinary constructor would draw from the global random state.
    return cast(nn.Linear, nn.utils.skip_init(nn.Linear, inputs, outputs))
