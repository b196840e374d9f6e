"""Angles of a mixture of wrapped Gaussians, and independent standard normals beside them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["AnglesAndNormals"]

IMAGES = 2  # turns to either side: of a scale of 1.5 rad, what lies beyond is 1e-9


class AnglesAndNormals:
    r"""A base where some coordinates are angles, exactly sampled and integrated:

    $$e^{-U(\theta, u)} = \Big[\sum_i w_i \prod_a \sum_m N(\theta_a + 2\pi m; \mu_{ia}, \sigma_{ia}^2)\Big]\,
      e^{-\frac12 |u|^2}, \qquad \log Z = \tfrac{d_u}{2} \log 2\pi$$

    Angles may be lifted: U has the period $2\pi$ in them. Draws lie in $[-\pi, \pi)$.

    | symbol | argument | |
    |---|---|---|
    | $w$ | `weights` | `(k,)`, made to sum to 1 |
    | $\mu, \sigma$ | `means`, `scales` | `(k, angles)`, rad; scales up to 1.5, where it is nearly flat |
    | | `circular` | `(d,)`: which coordinates are the angles, in this order; the others are u |

    Raises:
        InputError: shapes that differ, a weight that is not positive, or a scale outside (0, 1.5].

    Example:
        >>> one = AnglesAndNormals(torch.ones(1), torch.zeros(1, 1), torch.ones(1, 1), torch.tensor([True, False]))
        >>> x = torch.tensor([[0.5, 1.0]])
        >>> torch.allclose(one.energy(x), one.energy(x + torch.tensor([2 * math.pi, 0.0])))
        True
    """

    def __init__(
        self,
        weights: Float[Tensor, " k"],
        means: Float[Tensor, "k a"],
        scales: Float[Tensor, "k a"],
        circular: Bool[Tensor, " d"],
    ) -> None:
        if means.ndim != 2 or means.shape != scales.shape or weights.shape != means.shape[:1]:
            shapes = [tuple(v.shape) for v in (weights, means, scales)]
            raise InputError(f"weights (k,), means and scales (k, angles) must go together: got {shapes}")
        if int(circular.sum()) != means.shape[1]:
            raise InputError(
                f"every angle has means and scales: got {means.shape[1]} for {int(circular.sum())} circular coordinates"
            )
        if not bool((weights > 0).all() and (scales > 0).all() and (scales <= 1.5).all()):
            raise InputError(
                f"weights must be positive and scales in (0, 1.5] rad: got {float(weights.min())}, "
                f"{float(scales.min())} and {float(scales.max())}; split a wide component in two"
            )
        self.weights, self.means, self.scales = weights / weights.sum(), means, scales
        self.circular, self.event_shape = circular, circular.shape
        self.log_z = 0.5 * int((~circular).sum()) * math.log(2 * math.pi)

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        circular = self.circular.to(x.device)
        angles, others = x[:, circular], x[:, ~circular]
        means, scales = self.means.to(x), self.scales.to(x)
        near = torch.remainder(angles[:, None] - means + math.pi, 2 * math.pi) - math.pi
        turns = 2 * math.pi * torch.arange(-IMAGES, IMAGES + 1, dtype=x.dtype, device=x.device)
        images = (near.unsqueeze(-1) + turns) / scales.unsqueeze(-1)
        log_p = torch.logsumexp(-0.5 * images.square(), -1) - scales.log() - 0.5 * math.log(2 * math.pi)
        mixed = torch.logsumexp(self.weights.to(x).log() + log_p.sum(-1), 1)
        return 0.5 * others.square().sum(-1) - mixed

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, float64, on the device of the generator."""
        like = {"dtype": torch.float64, "device": generator.device}
        x = torch.randn(n, len(self.circular), generator=generator, **like)
        which = torch.multinomial(self.weights.to(**like), n, replacement=True, generator=generator)
        circular = self.circular.to(generator.device)
        angles = self.means.to(**like)[which] + self.scales.to(**like)[which] * x[:, circular]
        x[:, circular] = torch.remainder(angles + math.pi, 2 * math.pi) - math.pi
        return x
