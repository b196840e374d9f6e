"""Independent normal coordinates: the simplest density with an exact sampler and log Z."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["Gaussian"]


class Gaussian:
    r"""$U(x) = \tfrac12 \sum_i (x_i - \mu_i)^2 / \sigma_i^2$, unnormalised: $\log Z = \sum_i \log \sigma_i\sqrt{2\pi}$.

    Args:
        mean: $\mu$, `(d,)`.
        scale: $\sigma > 0$, `(d,)`.

    Raises:
        InputError: lengths that differ, or a scale that is not positive.

    Example:
        >>> Gaussian(torch.zeros(3), torch.ones(3)).energy(torch.ones(1, 3))
        tensor([1.5000])
    """

    def __init__(self, mean: Float[Tensor, " d"], scale: Float[Tensor, " d"]) -> None:
        if mean.ndim != 1 or scale.shape != mean.shape or not bool((scale > 0).all()):
            raise InputError(
                f"a Gaussian needs a mean (d,) and positive scales (d,): got {tuple(mean.shape)} and {scale.tolist()}"
            )
        self.mean, self.scale = mean, scale
        self.event_shape = mean.shape
        self.log_z = float(torch.log(scale).sum()) + 0.5 * mean.numel() * math.log(2 * math.pi)

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return 0.5 * ((x - self.mean.to(x.device)) / self.scale.to(x.device)).square().sum(-1)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        r"""$\sum_i \sigma_i^{-2}$, the same everywhere."""
        return self.scale.to(x).square().reciprocal().sum().expand(len(x))

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, on the device of the generator."""
        like = {"dtype": self.mean.dtype, "device": generator.device}
        noise = torch.randn(n, *self.event_shape, generator=generator, **like)
        return self.mean.to(noise) + self.scale.to(noise) * noise
