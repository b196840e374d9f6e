"""Neal's funnel: one coordinate sets the scale of all others."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["Funnel"]


class Funnel:
    r"""$x_0 \sim \mathcal N(0, \sigma^2)$ and $x_i \mid x_0 \sim \mathcal N(0, e^{x_0})$, normalised: $\log Z = 0$.

    $$U(x) = \frac{x_0^2}{2\sigma^2} + \frac{d-1}2 x_0 + \frac{e^{-x_0}}2 \sum_{i \ge 1} x_i^2
             + \log\sigma + \frac d2 \log 2\pi$$

    Args:
        dimension: $d \ge 2$.
        scale: $\sigma > 0$, the standard deviation of $x_0$, in the units of $x_0$; 3 in the benchmarks.

    Raises:
        InputError: fewer than two dimensions, or a scale that is not positive.

    References:
        Neal, Slice sampling, 2003, Annals of Statistics 31.

    Example:
        >>> Funnel(2, scale=1.0).energy(torch.zeros(1, 2)) - math.log(2 * math.pi)
        tensor([0.])
    """

    def __init__(self, dimension: int = 10, scale: float = 3.0) -> None:
        if dimension < 2 or not 0 < scale < math.inf:
            raise InputError(f"a funnel needs two dimensions or more and a positive scale: got {dimension} and {scale}")
        self.scale = float(scale)
        self.event_shape = torch.Size([dimension])
        self.log_z = 0.0

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return self._energy(x.double()).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        y = x.double()
        neck, others, precision = y[:, :1], y[:, 1:], torch.exp(-y[:, :1])
        pull = 0.5 * precision * others.square().sum(-1, keepdim=True)
        along = pull - neck / self.scale**2 - 0.5 * others.shape[-1]
        return self._energy(y).to(x), torch.cat([along, -others * precision], -1).to(x)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        y = x.double()
        others = y[:, 1:]
        bend = torch.exp(-y[:, 0]) * (0.5 * others.square().sum(-1) + others.shape[-1])
        return (bend + 1 / self.scale**2).to(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in float64."""
        noise = torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64, device=generator.device)
        neck = self.scale * noise[:, :1]
        return torch.cat([neck, torch.exp(0.5 * neck) * noise[:, 1:]], -1)

    def _energy(self, y: Tensor) -> Tensor:
        neck, others = y[:, 0], y[:, 1:]
        norm = math.log(self.scale) + 0.5 * y.shape[-1] * math.log(2 * math.pi)
        spread = torch.exp(-neck) * others.square().sum(-1)
        return 0.5 * ((neck / self.scale).square() + others.shape[-1] * neck + spread) + norm
