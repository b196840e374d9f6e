"""Mixtures of Gaussians whose components have covariances of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["CovarianceMixture"]

CHUNK = 2**18
"""Numbers per intermediate array: walkers are taken so many at a time that memory is bounded and caches are used."""


class CovarianceMixture:
    r"""A normalised mixture of Gaussians with any covariances; $\log Z = 0$.

    $$U(x) = -\log \sum_k w_k \mathcal N(x; \mu_k, \Sigma_k)$$

    | symbol | argument | |
    |---|---|---|
    | $\mu$ | `means` | `(m, d)` |
    | $\Sigma$ | `covariances` | `(m, d, d)` |
    | $w > 0$ | `weights` | `(m,)`, normalised here; uniform where None |

    Computed in float64 whatever the walkers' dtype. An evaluation takes $m d^2$ operations a walker: where coordinates
    are independent, `GaussianMixture` takes $m d$.

    Raises:
        InputError: shapes that do not belong together, a weight that is not positive, a covariance that is not
            positive definite.

    Example:
        >>> mixture = CovarianceMixture(torch.zeros(1, 2), torch.eye(2)[None] / (2 * math.pi))
        >>> mixture.energy(torch.zeros(1, 2)).abs() < 1e-6
        tensor([True])
    """

    def __init__(
        self,
        means: Float[Tensor, "m d"],
        covariances: Float[Tensor, "m d d"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> None:
        weights = torch.ones(len(means), dtype=torch.float64, device=means.device) if weights is None else weights
        m, d = means.shape
        if covariances.shape != (m, d, d) or weights.shape != (m,):
            raise InputError(
                f"{m} means of {d} coordinates need covariances ({m}, {d}, {d}) and weights ({m},): got "
                f"{tuple(covariances.shape)} and {tuple(weights.shape)}"
            )
        if not bool((weights > 0).all() & torch.isfinite(means).all()):
            raise InputError(f"a mixture needs finite means and positive weights: got {float(weights.min())} at least")
        factors, failed = torch.linalg.cholesky_ex(covariances.double())
        if bool(failed.any()) or not bool(torch.isfinite(factors).all()):
            raise InputError(
                f"covariances must be positive definite: that of component {int(failed.argmax())} is not; "
                "shrink it towards its diagonal"
            )
        self.means, self.covariances = means.double(), covariances.double()
        self.weights = (weights / weights.sum()).double()
        self.event_shape = means.shape[1:]
        self.log_z = 0.0
        self._factors = factors
        eye = torch.eye(d, dtype=torch.float64, device=factors.device).expand_as(factors)
        self._whiten = torch.linalg.solve_triangular(factors, eye, upper=False)
        log_det = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        self._offset = self.weights.log() - log_det - 0.5 * d * math.log(2 * math.pi)

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return torch.cat([-torch.logsumexp(logits, -1) for _, logits in self._chunks(x)]).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        energies, scores = [], []
        whiten = self._whiten.to(x.device)
        for u, logits in self._chunks(x):
            log_p = torch.logsumexp(logits, -1, keepdim=True)
            r = torch.exp(logits - log_p)
            energies.append(-log_p[:, 0])
            scores.append(-((r.T[:, :, None] * u) @ whiten).sum(0))
        return torch.cat(energies).to(x), torch.cat(scores).to(x)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        whiten, values = self._whiten.to(x.device), []
        trace = whiten.square().sum((-1, -2))
        for u, logits in self._chunks(x):
            r, s = torch.softmax(logits, -1), -(u @ whiten)
            mean = (r.T[:, :, None] * s).sum(0)
            values.append(mean.square().sum(-1) - (r * (s.square().sum(-1).T - trace)).sum(-1))
        return torch.cat(values).to(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in float64."""
        device = generator.device
        chosen = torch.multinomial(self.weights.to(device), max(n, 1), replacement=True, generator=generator)[:n]
        noise = torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64, device=device)
        x = self.means.to(device)[chosen]
        for k, factor in enumerate(self._factors.to(device)):
            mine = chosen == k
            x[mine] += noise[mine] @ factor.T
        return x

    def _chunks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """White distances (m, c, d) and log w N (c, m), a chunk of walkers at a time."""
        means, whiten, offset = (v.to(x.device) for v in (self.means, self._whiten, self._offset))
        for part in x.split(max(1, CHUNK // means.numel())):
            u = (part.double() - means[:, None]) @ whiten.mT
            yield u, offset - 0.5 * u.square().sum(-1).T
