"""Mixtures of Student-t products: modes with heavy tails."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["StudentMixture", "student_mixture_50"]

CHUNK = 2**16
"""Numbers per intermediate array: walkers are taken so many at a time that memory is bounded and caches are used."""


class StudentMixture:
    r"""A normalised mixture of products of one-dimensional Student-t densities; $\log Z = 0$.

    $$U(x) = -\log \sum_k w_k \prod_i
      \frac{\Gamma(\frac{\nu+1}2)}{\Gamma(\frac\nu2)\sqrt{\pi\nu}\,\sigma}
      \Big(1 + \frac{(x_i - \mu_{ki})^2}{\nu\sigma^2}\Big)^{-(\nu+1)/2}$$

    The coordinates of a component are independent: this is not the multivariate t, whose coordinates share one
    radial variable. At $\nu \le 2$ the variance is infinite.

    | symbol | argument | |
    |---|---|---|
    | $\mu$ | `means` | `(m, d)`; draws have its dtype |
    | $\sigma > 0$ | `scale` | one for all |
    | $\nu > 0$ | `degrees_of_freedom` | one for all |
    | $w > 0$ | `weights` | `(m,)`, normalised here; uniform where None |

    Computed in float64 whatever the walkers' dtype.

    Raises:
        InputError: shapes that do not belong together; a scale, weight or number of degrees of freedom that is not
            positive; a mean that is not finite.

    References:
        Bailey, Polar generation of random variates with the t-distribution, 1994, Math. Comp. 62 (the sampler).

    Example:
        >>> cauchy = StudentMixture(torch.zeros(1, 1), degrees_of_freedom=1.0)
        >>> cauchy.energy(torch.ones(1, 1)).sub(math.log(2 * math.pi)).abs() < 1e-6
        tensor([True])
    """

    def __init__(
        self,
        means: Float[Tensor, "m d"],
        scale: float = 1.0,
        degrees_of_freedom: float = 2.0,
        weights: Float[Tensor, " m"] | None = None,
    ) -> None:
        weights = torch.ones(len(means), dtype=torch.float64, device=means.device) if weights is None else weights
        if means.ndim != 2 or weights.shape != means.shape[:1]:
            raise InputError(
                f"a mixture needs means (m, d) and weights (m,): got {tuple(means.shape)} and {tuple(weights.shape)}"
            )
        positive = scale > 0 and degrees_of_freedom > 0 and bool((weights > 0).all())
        if not (positive and bool(torch.isfinite(means).all())):
            raise InputError(
                "a Student mixture needs finite means and positive scale, degrees of freedom and weights: got scale "
                f"{scale}, {degrees_of_freedom} degrees of freedom and a weight of {float(weights.min())} at least"
            )
        self.means, self.scale, self.degrees_of_freedom = means, float(scale), float(degrees_of_freedom)
        self.weights = weights / weights.sum()
        self.event_shape = means.shape[1:]
        self.log_z = 0.0

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return torch.cat([-torch.logsumexp(self._logits(y), -1) for y in self._chunks(x)]).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        energies, scores = [], []
        for y in self._chunks(x):
            logits = self._logits(y)
            log_p = torch.logsumexp(logits, -1, keepdim=True)
            energies.append(-log_p[:, 0].to(x))
            scores.append(torch.einsum("nm,nmd->nd", torch.exp(logits - log_p), self._slopes(y)).to(x))
        return torch.cat(energies), torch.cat(scores)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        r"""The sum of the second derivatives of U: $|\sum_k r_k s_k|^2 - \sum_k r_k(|s_k|^2 + \nabla\cdot s_k)$."""
        nu, values = self.degrees_of_freedom, []
        for y in self._chunks(x):
            r, s = torch.softmax(self._logits(y), -1), self._slopes(y)
            # Of one coordinate, s = -(ν+1) y/(ν + y²)/σ and s' = -(ν+1)(ν - y²)/(ν + y²)²/σ².
            slope = -(nu + 1) * (nu - y.square()) / (nu + y.square()).square() / self.scale**2
            mean = torch.einsum("nm,nmd->nd", r, s)
            values.append((mean.square().sum(-1) - (r * (s.square() + slope).sum(-1)).sum(-1)).to(x))
        return torch.cat(values)

    def modes(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Index of the component with the largest responsibility: which mode a walker sits in."""
        return torch.cat([self._logits(y).argmax(-1) for y in self._chunks(x)])

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in the dtype of the means."""
        device, nu = generator.device, self.degrees_of_freedom
        chosen = torch.multinomial(self.weights.to(device), max(n, 1), replacement=True, generator=generator)[:n]
        u, v = torch.rand(2, n, *self.event_shape, generator=generator, dtype=torch.float64, device=device)
        # Bailey's polar form. log1p(-u) because u may be 0 and is never 1; expm1 because ν may be large.
        radius = torch.sqrt(nu * torch.expm1(-2 / nu * torch.log1p(-u)))
        t = radius * torch.cos(2 * math.pi * v)
        return self.means.to(device)[chosen] + (self.scale * t).to(self.means.dtype)

    def _chunks(self, x: Tensor) -> Iterator[Tensor]:
        """Standardised distances to every centre, (c, m, d), a chunk of walkers at a time."""
        means = self.means.to(x.device, torch.float64)
        for part in x.split(max(1, CHUNK // max(1, means.numel()))):
            yield (part.double()[:, None] - means) / self.scale

    def _logits(self, y: Tensor) -> Tensor:
        nu = self.degrees_of_freedom
        norm = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(math.pi * nu) - math.log(self.scale)
        log_weights = torch.log(self.weights.to(y))
        return log_weights + y.shape[-1] * norm - 0.5 * (nu + 1) * torch.log1p(y.square() / nu).sum(-1)

    def _slopes(self, y: Tensor) -> Tensor:
        nu = self.degrees_of_freedom
        return -(nu + 1) * y / (nu + y.square()) / self.scale


def student_mixture_50() -> StudentMixture:
    r"""Ten heavy-tailed modes in 50 dimensions: $\nu = 2$, scale 1, equal weights, means uniform in $(-10, 10)^{50}$.

    The law of the published benchmark. Its means come from another library's generator; these are torch's, seed 0.

    References:
        Blessing et al., Beyond ELBOs: A Large-Scale Evaluation of Variational Methods for Sampling, 2024,
        arXiv:2406.07423, and its public code for the constants.

    Example:
        >>> student_mixture_50().means.shape
        torch.Size([10, 50])
    """
    uniform = torch.rand(10, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return StudentMixture(10 * (2 * uniform - 1), scale=1.0, degrees_of_freedom=2.0)
