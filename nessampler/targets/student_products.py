"""Mixtures of products of Student-t densities with scales and tails of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["StudentProducts"]

CHUNK = 2**16
"""Numbers per intermediate array: walkers are taken so many at a time that memory is bounded and caches are used."""


class StudentProducts:
    r"""A normalised mixture of products of one-dimensional Student-t densities; $\log Z = 0$.

    $$U(x) = -\log \sum_k w_k \prod_i \frac1{\sigma_{ki}}\, t_{\nu_k}\!\Big(\frac{x_i - \mu_{ki}}{\sigma_{ki}}\Big)$$

    `StudentMixture` is the case of one scale and one $\nu$.

    | symbol | argument | |
    |---|---|---|
    | $\mu$ | `means` | `(m, d)` |
    | $\sigma > 0$ | `scales` | `(m, d)` |
    | $\nu > 0$ | `degrees_of_freedom` | `(m,)` |
    | $w > 0$ | `weights` | `(m,)`, normalised here; uniform where None |

    Computed in float64 whatever the walkers' dtype.

    Raises:
        InputError: shapes that do not belong together; a scale, weight or number of degrees of freedom that is not
            positive; a mean that is not finite.

    References:
        Bailey, Polar generation of random variates with the t-distribution, 1994, Math. Comp. 62 (the sampler).

    Example:
        >>> cauchy = StudentProducts(torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1))
        >>> cauchy.energy(torch.ones(1, 1)).sub(math.log(2 * math.pi)).abs() < 1e-6
        tensor([True])
    """

    def __init__(
        self,
        means: Float[Tensor, "m d"],
        scales: Float[Tensor, "m d"],
        degrees_of_freedom: Float[Tensor, " m"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> None:
        weights = torch.ones(len(means), dtype=torch.float64, device=means.device) if weights is None else weights
        if scales.shape != means.shape or not weights.shape == degrees_of_freedom.shape == means.shape[:1]:
            raise InputError(
                "a mixture needs means and scales (m, d), degrees of freedom and weights (m,): got "
                f"{tuple(means.shape)}, {tuple(scales.shape)}, {tuple(degrees_of_freedom.shape)} and "
                f"{tuple(weights.shape)}"
            )
        positive = bool((scales > 0).all() & (degrees_of_freedom > 0).all() & (weights > 0).all())
        if not (positive and bool(torch.isfinite(means).all())):
            raise InputError(
                "a Student mixture needs finite means and positive scales, degrees of freedom and weights: got a scale "
                f"of {float(scales.min())}, {float(degrees_of_freedom.min())} degrees of freedom and a weight of "
                f"{float(weights.min())} at least"
            )
        self.means, self.scales = means.double(), scales.double()
        self.degrees_of_freedom, self.weights = degrees_of_freedom.double(), (weights / weights.sum()).double()
        self.event_shape = means.shape[1:]
        self.log_z = 0.0
        nu = self.degrees_of_freedom
        norm = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * torch.log(math.pi * nu)
        self._offset = self.weights.log() + means.shape[1] * norm - self.scales.log().sum(1)

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return torch.cat([-torch.logsumexp(logits, -1) for _, logits in self._chunks(x)]).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        energies, scores = [], []
        for y, logits in self._chunks(x):
            log_p = torch.logsumexp(logits, -1, keepdim=True)
            energies.append(-log_p[:, 0])
            scores.append(torch.einsum("nm,nmd->nd", torch.exp(logits - log_p), self._slopes(y)))
        return torch.cat(energies).to(x), torch.cat(scores).to(x)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        nu, values = self.degrees_of_freedom.to(x.device)[:, None], []
        for y, logits in self._chunks(x):
            r, s = torch.softmax(logits, -1), self._slopes(y)
            square = y.square()
            bend = -(nu + 1) * (nu - square) / (nu + square).square() / self.scales.to(y).square()
            mean = torch.einsum("nm,nmd->nd", r, s)
            values.append(mean.square().sum(-1) - (r * (s.square() + bend).sum(-1)).sum(-1))
        return torch.cat(values).to(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in float64."""
        device = generator.device
        chosen = torch.multinomial(self.weights.to(device), max(n, 1), replacement=True, generator=generator)[:n]
        u, v = torch.rand(2, n, *self.event_shape, generator=generator, dtype=torch.float64, device=device)
        nu = self.degrees_of_freedom.to(device)[chosen, None]
        # Bailey's polar form. log1p(-u) because u may be 0 and is never 1; expm1 because ν may be large.
        radius = torch.sqrt(nu * torch.expm1(-2 / nu * torch.log1p(-u)))
        return self.means.to(device)[chosen] + self.scales.to(device)[chosen] * radius * torch.cos(2 * math.pi * v)

    def _chunks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardised distances (c, m, d) and log w t (c, m), a chunk of walkers at a time."""
        means, scales, nu, offset = (
            v.to(x.device) for v in (self.means, self.scales, self.degrees_of_freedom, self._offset)
        )
        for part in x.split(max(1, CHUNK // means.numel())):
            y = (part.double()[:, None] - means) / scales
            yield y, offset - 0.5 * (nu + 1) * torch.log1p(y.square() / nu[:, None]).sum(-1)

    def _slopes(self, y: Tensor) -> Tensor:
        nu = self.degrees_of_freedom.to(y)[:, None]
        return -(nu + 1) * y / (nu + y.square()) / self.scales.to(y)
