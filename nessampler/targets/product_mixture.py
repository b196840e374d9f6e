"""Independent coordinates, each a mixture of normals: wells without number from a handful of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["ProductMixture"]

CHUNK = 2**18
"""Numbers per intermediate array: walkers are taken so many at a time that memory is bounded and caches are used."""


class ProductMixture:
    r"""A normalised product of one-dimensional Gaussian mixtures; $\log Z = 0$.

    $$U(x) = -\sum_i \log \sum_k w_{ik}\, \mathcal N(x_i; \mu_{ik}, \sigma_{ik}^2)$$

    With m components along each of d coordinates it has up to $m^d$ modes.

    | symbol | argument | |
    |---|---|---|
    | $\mu$ | `means` | `(d, m)`; draws have its dtype |
    | $\sigma > 0$ | `scales` | `(d, m)` |
    | $w \ge 0$ | `weights` | `(d, m)`, normalised here; zeros fill up coordinates that have fewer components |

    Computed in float64 whatever the walkers' dtype.

    Raises:
        InputError: shapes that differ, a scale that is not positive, a negative weight, a coordinate without weight.

    Example:
        >>> wells = ProductMixture(torch.tensor([[-1.0, 1.0]]), torch.full((1, 2), 0.1), torch.tensor([[1.0, 3.0]]))
        >>> draws = wells.sample(1000, generator=torch.Generator().manual_seed(0))
        >>> 0.7 < float((draws > 0).double().mean()) < 0.8
        True
    """

    def __init__(
        self, means: Float[Tensor, "d m"], scales: Float[Tensor, "d m"], weights: Float[Tensor, "d m"]
    ) -> None:
        if means.ndim != 2 or scales.shape != means.shape or weights.shape != means.shape:
            raise InputError(
                "a product of mixtures needs means, scales and weights of one shape (d, m): got "
                f"{tuple(means.shape)}, {tuple(scales.shape)} and {tuple(weights.shape)}"
            )
        positive = bool((scales > 0).all() & (weights >= 0).all() & (weights.sum(1) > 0).all())
        if not (positive and bool(torch.isfinite(means).all() & torch.isfinite(scales).all())):
            raise InputError(
                "a product of mixtures needs finite means, positive scales and a positive weight along every "
                f"coordinate: got scales of {float(scales.min())} and weights of {float(weights.sum(1).min())} at least"
            )
        self.means, self.scales = means, scales
        self.weights = weights / weights.sum(1, keepdim=True)
        self.event_shape = torch.Size([len(means)])
        self.log_z = 0.0
        self._mu, self._sigma = means.double(), scales.double()
        self._offset = self.weights.double().log() - self._sigma.log() - 0.5 * math.log(2 * math.pi)

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return torch.cat([-torch.logsumexp(logits, -1).sum(-1) for _, logits in self._chunks(x)]).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        energies, scores = [], []
        sigma = self._sigma.to(x.device)
        for u, logits in self._chunks(x):
            log_p = torch.logsumexp(logits, -1, keepdim=True)
            energies.append(-log_p.sum((-1, -2)))
            scores.append(-(torch.exp(logits - log_p) * u / sigma).sum(-1))
        return torch.cat(energies).to(x), torch.cat(scores).to(x)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        values, sigma = [], self._sigma.to(x.device)
        for u, logits in self._chunks(x):
            r, s = torch.softmax(logits, -1), -u / sigma
            bend = (r * s).sum(-1).square() - (r * (s.square() - sigma.pow(-2))).sum(-1)
            values.append(bend.sum(-1))
        return torch.cat(values).to(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in the dtype of the means."""
        device, dtype = generator.device, self.means.dtype
        weights, means, scales = (v.to(device) for v in (self.weights, self.means, self.scales))
        chosen = torch.multinomial(weights, max(n, 1), replacement=True, generator=generator)[:, :n]
        noise = torch.randn(n, len(means), generator=generator, dtype=dtype, device=device)
        return means.gather(1, chosen).T + scales.to(noise).gather(1, chosen).T * noise

    def _chunks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardised distances and log w N, both (c, d, m), a chunk of walkers at a time."""
        mu, sigma, offset = (v.to(x.device) for v in (self._mu, self._sigma, self._offset))
        for part in x.split(max(1, CHUNK // mu.numel())):
            u = (part.double()[:, :, None] - mu) / sigma
            yield u, offset - 0.5 * u.square()
