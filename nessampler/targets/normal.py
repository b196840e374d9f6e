"""The multivariate normal with any mean and covariance."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler._cast import Cast
from nessampler.errors import InputError

__all__ = ["Normal"]


class Normal:
    r"""$\mathcal N(\mu, \Sigma)$, normalised, so $\log Z = 0$.

    $$U(x) = \tfrac12 (x - \mu)^T \Sigma^{-1} (x - \mu) + \tfrac12 \log|2\pi\Sigma|$$

    Args:
        mean: $\mu$, `(*event,)`; the covariance is that of the flattened event.
        covariance: $\Sigma$, `(d, d)` with d the number of coordinates.

    Shapes: walkers `(n, *event)`; products in their dtype, sums over coordinates in float64.

    Raises:
        InputError: a covariance of the wrong shape, or not positive definite.

    Example:
        >>> normal = Normal(torch.zeros(2), torch.eye(2) / (2 * math.pi))
        >>> normal.energy(torch.zeros(1, 2)).abs() < 1e-6
        tensor([True])
    """

    log_z = 0.0

    def __init__(self, mean: Float[Tensor, " *event"], covariance: Float[Tensor, "d d"]) -> None:
        d = mean.numel()
        if covariance.shape != (d, d):
            raise InputError(
                f"a mean of {d} coordinates needs a covariance ({d}, {d}): got {tuple(covariance.shape)}; "
                "give the covariance of the flattened coordinates"
            )
        factor, failed = torch.linalg.cholesky_ex(covariance.double())
        if int(failed) or not bool(torch.isfinite(factor).all()):
            raise InputError(
                f"a covariance must be positive definite: the leading minor of order {int(failed)} is not; "
                "use more samples than coordinates, or shrink it towards its diagonal"
            )
        self.mean, self.cholesky, self.event_shape = mean.double(), factor, mean.shape
        self._precision = Cast(torch.cholesky_inverse(factor))
        self._normaliser = float(factor.diagonal().log().sum()) + 0.5 * d * math.log(2 * math.pi)

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        r"""$\Sigma$, float64."""
        return self.cholesky @ self.cholesky.T

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return self.energy_and_score(x)[0]

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        """U and -∇U: one product with the precision."""
        deviation = (x - self.mean.to(x)).flatten(1)
        pull = deviation @ self._precision.like(x)
        energy = 0.5 * (deviation * pull).sum(1, dtype=torch.float64) + self._normaliser
        return energy.to(x), -pull.view_as(x)

    def laplacian(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """The trace of the precision, the same everywhere."""
        return torch.full((len(x),), float(self._precision.tensor.trace()), dtype=x.dtype, device=x.device)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, " n *event"]:
        """Independent draws, in float64."""
        d = self.mean.numel()
        noise = torch.randn(n, d, generator=generator, dtype=torch.float64, device=generator.device)
        return self.mean.to(noise) + (noise @ self.cholesky.to(noise).T).view(n, *self.event_shape)
