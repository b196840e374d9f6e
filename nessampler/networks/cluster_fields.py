"""Velocity and score of a cluster of like atoms: messages along pairs, on top of fields in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.closed_form.centre_apart import CentreApart
from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.networks.drift import time_features
from nessampler.networks.mlp import _linear, _zero_linear

__all__ = ["ClusterFields"]


class ClusterFields(nn.Module):
    r"""Closed-form fields plus remainders $\sigma\, r^b$ and $r^s/\sigma$ that know the symmetry of like atoms.

    Atoms carry numbers $h_i$ that start alike and learn of their surroundings from messages along all pairs,

    $$m_{ij} = \psi(h_i, h_j, g(r_{ij}), t), \qquad
      h_i \leftarrow h_i + \chi\Big(h_i, \frac1N\sum_{j \ne i} m_{ij}\Big), \qquad
      r_i = \frac1N\sum_{j \ne i} c(m_{ij})\,\frac{x_i - x_j}\sigma + a(h_i)\,\frac{x_i - \bar x}\sigma,$$

    less the mean over atoms. Scalars see distances alone and vectors are sums of differences, so the fields turn and
    mirror with x, are relabelled with it, and neither see nor move its centre. The last layers start at zero: an
    untrained network *is* its base.

    | symbol | argument | |
    |---|---|---|
    | | `base` | fields of the coordinates of `CentreApart`, with a velocity |
    | N | `atoms` | |
    | $\sigma$ | `scale` | of the coordinates |
    | $g$ | `reach`, `radial` | Gaussian bumps of the distance, equidistant from 0 to `reach` |
    | $h$ | `width`, `depth` | numbers of an atom, rounds of messages |
    | | `generator` | of the initial weights |

    Walkers are `(n, 3 atoms)` in the coordinates of `CentreApart`; parameters are float32 unless moved, answers in the
    dtype of x.

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: fewer than two atoms or bumps, a scale or reach that is not positive.

    References:
        Satorras, Hoogeboom & Welling, E(n) equivariant graph neural networks, 2021, arXiv:2102.09844, eqs. 3 to 6.

    Example:
        >>> base = lambda t, x: Evaluated(torch.zeros_like(x), -x)
        >>> fields = ClusterFields(base, 4, scale=1.0, reach=4.0, generator=torch.Generator().manual_seed(0))
        >>> fields(torch.zeros(1), torch.ones(1, 12)).velocity.abs().max().item(), fields.evaluations
        (0.0, 1)
    """

    matrix: Tensor

    def __init__(
        self,
        base: Fields,
        atoms: int,
        *,
        scale: float,
        reach: float,
        radial: int = 16,
        width: int = 32,
        depth: int = 2,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if min(atoms, radial) < 2 or not min(scale, reach) > 0 or min(width, depth) < 1:
            raise InputError(
                "a cluster's fields have two atoms and two radial bumps, a positive scale and reach, and a width and "
                f"depth of 1 at least: got {atoms}, {radial}, {scale}, {reach}, {width} and {depth}"
            )
        self.base, self.atoms, self.scale, self.frequencies, self.evaluations = base, atoms, scale, frequencies, 0
        self.spacing = reach / (radial - 1)
        self.register_buffer("matrix", CentreApart(atoms).matrix)
        times = 2 * frequencies + 1
        self.first = _linear(times, width, generator)
        self.message = nn.ModuleList(_linear(2 * width + radial, width, generator) for _ in range(depth))
        self.update = nn.ModuleList(_linear(2 * width, width, generator) for _ in range(depth))
        self.along, self.out = _zero_linear(width, 2), _zero_linear(width, 2)
        self.last = _linear(2 * width + radial, width, generator)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields: the base's plus the remainder."""
        self.evaluations += len(x)
        base = self.base(t, x)
        if base.velocity is None:
            raise InputError("the base of a residual network must have a velocity: got None; use zeros")
        dtype = self.first.weight.dtype
        matrix = self.matrix.to(dtype)
        position = matrix.T @ x.to(dtype).unflatten(-1, (self.atoms, 3))
        # Along the centre of mass exactly nothing: a coordinate without noise must not have a velocity.
        velocity, score = (
            nn.functional.pad((matrix[:-1] @ part).flatten(1).to(x), (0, 3))
            for part in self._remainders(t.to(dtype), position)
        )
        return Evaluated(base.velocity + self.scale * velocity, base.score + score / self.scale)

    def _remainders(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        n, atoms = x.shape[:2]
        difference = x[:, :, None] - x[:, None]
        own = torch.eye(atoms, dtype=torch.bool, device=x.device)
        # An atom's distance from itself is nothing that a root could be differentiated at.
        r = torch.where(own, 1.0, difference.square().sum(-1)).sqrt()
        bumps = torch.arange(self.message[0].in_features - 2 * self.first.out_features, device=x.device)  # pyright: ignore
        edge = torch.exp(-0.5 * (r.unsqueeze(-1) / self.spacing - bumps).square())
        others = (~own).to(x)[None, :, :, None]
        h = self.first(time_features(t, self.frequencies))[:, None].expand(n, atoms, -1)
        for message, update in zip(self.message, self.update, strict=True):
            heard = (others * _messages(message, h, edge)).sum(2) / atoms
            h = h + nn.functional.silu(update(torch.cat([h, heard], -1)))
        along = others * self.along(_messages(self.last, h, edge)) / atoms
        centred, out = x - x.mean(1, keepdim=True), self.out(h)
        vectors = (
            (along[..., k : k + 1] * difference).sum(2) / self.scale + out[..., k : k + 1] * centred / self.scale
            for k in range(2)
        )
        velocity, score = (v - v.mean(1, keepdim=True) for v in vectors)
        return velocity, score


def _messages(layer: nn.Module, h: Tensor, edge: Tensor) -> Tensor:
    """ψ of every ordered pair; the two atoms' shares are computed once per atom."""
    width = h.shape[-1]
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    one, other = h @ weight[:, :width].T, h @ weight[:, width : 2 * width].T
    return nn.functional.silu(one[:, :, None] + other[:, None] + edge @ weight[:, 2 * width :].T + bias)
