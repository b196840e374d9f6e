"""A velocity for clusters of like atoms whose pairs feel their surroundings, with a divergence in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.networks.drift import time_features
from nessampler.networks.mlp import _linear, _zero_linear

__all__ = ["EmbeddedPairs"]

PAIRS_AT_ONCE = 2**12
"""So that they stay in a core's cache."""


class EmbeddedPairs(nn.Module):
    r"""Atoms that push along the lines between them, as strongly as the surroundings of either say:

    $$b_i = \sum_{j \ne i} \sum_m \big(c_m(t, s_i) + c_m(t, s_j)\big)\, \varphi_m(r_{ij})\, (x_i - x_j), \qquad
      s_{ik} = \sum_{j \ne i} \varphi_k(r_{ij})$$

    with bumps $\varphi_m$ of the distance, one of them constant, and $c = W_2\, a(W_1 s + C(t))$ of one layer of SiLU
    units. $s_i$ is how crowded atom i is at every distance, as in the embedded-atom method. Distances are the only
    thing that derivatives go through, and so the divergence is a sum over pairs as well, at a few times the cost:

    $$\nabla\cdot b = \sum_i \Big[ 2 \sum_m c_m(s_i) \sum_j (3 \varphi_m + r \varphi_m')(r_{ij})
      + \sum_{mk} \frac{\partial c_m}{\partial s_k}(s_i)\, \big(v_{im} \cdot \nabla_i s_{ik}
      + \sum_j r\, \varphi_m \varphi_k'(r_{ij})\big)\Big], \qquad v_{im} = \sum_j \varphi_m(r_{ij})\, (x_i - x_j)$$

    It commutes with rotations, reflections and permutations, is blind to translations and moves no centre of mass. The
    last layer starts at zero.

    | symbol | argument | |
    |---|---|---|
    | N | `atoms` | two or more |
    | $\varphi_m$ | `reach`, `radial` | `radial` Gaussian bumps, equidistant from 0 to `reach`, and the constant 1/N |
    | | `width` | units of c |
    | | `frequencies` | C is linear in t, $\cos\pi k t$ and $\sin\pi k t$ for $k = 1 \dots$ `frequencies` |
    | | `generator` | of the initial weights |

    Walkers are `(n, atoms, 3)`; parameters are float32 unless moved, arithmetic is in the dtype of x.

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: fewer than two atoms or bumps, a reach that is not positive, a width below one.

    References:
        Daw & Baskes, Embedded-atom method, 1984, doi:10.1103/PhysRevB.29.6443 (surroundings as a sum over pairs);
        Köhler, Klein & Noé, Equivariant flows, 2020, arXiv:2006.02425 (radial fields and their divergence).

    Example:
        >>> network = EmbeddedPairs(3, reach=4.0, generator=torch.Generator().manual_seed(0))
        >>> velocity, divergence = network.velocity_and_divergence(torch.zeros(2), torch.randn(2, 3, 3))
        >>> velocity.shape, divergence.tolist()
        (torch.Size([2, 3, 3]), [0.0, 0.0])
    """

    def __init__(
        self,
        atoms: int,
        *,
        reach: float,
        radial: int = 24,
        width: int = 64,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if min(atoms, radial) < 2 or not reach > 0 or width < 1:
            raise InputError(
                "embedded pairs have two atoms, two radial bumps, a positive reach and a width of 1 at least: got "
                f"{atoms}, {radial}, {reach} and {width}"
            )
        self.atoms, self.radial, self.frequencies, self.evaluations = atoms, radial, frequencies, 0
        self.spacing, self.at_once = reach / (radial - 1), max(1, PAIRS_AT_ONCE // atoms**2)
        self.first = _linear(radial + 2 * frequencies + 1, width, generator)
        self.last = _zero_linear(width, radial + 1)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        """The velocity alone, as in training."""
        return torch.cat([self._velocity(*part) for part in self._parts(t, x)])

    def velocity_and_divergence(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]
    ) -> tuple[Float[Tensor, "n atoms 3"], Float[Tensor, " n"]]:
        """Both, from the same pairs; the divergence is float64."""
        velocity, divergence = zip(*(self._both(*part) for part in self._parts(t, x)), strict=True)
        return torch.cat(velocity), torch.cat(divergence)

    def _parts(self, t: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(t.split(self.at_once), x.split(self.at_once), strict=True)

    def _velocity(self, t: Tensor, x: Tensor) -> Tensor:
        seen = self._seen(x)
        return _pushed(seen, self._strengths(t, seen)[0])

    def _both(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = self._seen(x)
        (c, slope), r, bumps = self._strengths(t, seen), seen.r.unsqueeze(-1), seen.bumps
        steep = -self._away(seen.r) * bumps[..., 1:] / self.spacing  # slopes of the bumps; the constant one has none
        rate = 3 * (bumps @ c.unsqueeze(-1)) + r * (steep @ c[..., 1:].unsqueeze(-1))
        # What a pair adds to every unit as its atoms move, and what every unit adds to the pair's push.
        heard = steep @ self.first.weight[:, : self.radial].T.to(x)
        said = bumps @ self.last.weight.to(x)
        felt = ((heard / r).mT @ seen.difference * (said.mT @ seen.difference)).sum(-1) + (r * heard * said).sum(2)
        return _pushed(seen, c), (2 * rate.sum((1, 2, 3)) + (slope * felt).sum((1, 2))).to(torch.float64)

    def _seen(self, x: Tensor) -> _Pairs:
        self.evaluations += len(x)
        difference = x[:, :, None] - x[:, None]
        own = torch.eye(self.atoms, dtype=torch.bool, device=x.device)
        r = torch.where(own, 1.0, difference.square().sum(-1)).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
        bells = torch.exp(-0.5 * self._away(r).square())
        bumps = torch.cat([bells.new_full((*bells.shape[:-1], 1), 1 / self.atoms), bells], -1)
        return _Pairs(difference, r, bumps * (~own).to(x).unsqueeze(-1))

    def _away(self, r: Tensor) -> Tensor:
        """From the centre of every bump, in widths."""
        return r.unsqueeze(-1) / self.spacing - torch.arange(self.radial, dtype=r.dtype, device=r.device)

    def _strengths(self, t: Tensor, seen: _Pairs) -> tuple[Tensor, Tensor]:
        """c of every atom, and the slope of every unit."""
        crowd = seen.bumps[..., 1:].sum(2)
        time = time_features(t.to(crowd), self.frequencies)[:, None].expand(-1, self.atoms, -1)
        units = _applied(self.first, torch.cat([crowd, time], -1))
        gate = torch.sigmoid(units)
        return _applied(self.last, units * gate), gate * (1 + units * (1 - gate))


class _Pairs(NamedTuple):
    """Every ordered pair; an atom and itself have bumps of zero."""

    difference: Float[Tensor, "n atoms atoms 3"]
    r: Float[Tensor, "n atoms atoms"]
    bumps: Float[Tensor, "n atoms atoms radial+1"]


def _applied(layer: nn.Linear, x: Tensor) -> Tensor:
    """In the dtype of x."""
    return nn.functional.linear(x, layer.weight.to(x), layer.bias.to(x))


def _pushed(seen: _Pairs, c: Tensor) -> Tensor:
    own = (seen.bumps @ c.unsqueeze(-1)).squeeze(-1)
    return ((own + own.mT).unsqueeze(-1) * seen.difference).sum(2)
