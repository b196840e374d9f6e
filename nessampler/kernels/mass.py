"""Mass matrices: what Hamiltonian momenta are drawn from, so that stiff and soft directions move alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler._cast import Cast

__all__ = ["DenseMass", "DiagonalMass", "Mass", "SpectralMass", "UnitMass"]


@runtime_checkable
class Mass(Protocol):
    r"""A mass matrix $M$, best the precision of the target, as factors of it.

    Example:
        >>> mass = DiagonalMass(torch.tensor([4.0]))
        >>> noise = torch.tensor([[2.0]])
        >>> isinstance(mass, Mass), mass.velocity(mass.momentum(noise))  # of covariance 1/M = 4: twice the noise
        (True, tensor([[4.]]))
    """

    def momentum(self, noise: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        r"""A draw of $p \sim N(0, M)$ from white noise."""
        ...

    def velocity(self, momentum: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        r"""$M^{-1} p$."""
        ...


@dataclass(frozen=True)
class UnitMass:
    """M = 1.

    Example:
        >>> UnitMass().velocity(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 2.]])
    """

    def momentum(self, noise: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """White noise itself."""
        return noise

    def velocity(self, momentum: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """The momentum itself."""
        return momentum


@dataclass(frozen=True)
class DiagonalMass:
    r"""$M = \mathrm{diag}(1/\sigma^2)$ for coordinates of variance $\sigma^2$, shape `event`.

    Example:
        >>> mass = DiagonalMass(torch.tensor([1.0, 100.0]))  # the second coordinate is ten times wider
        >>> mass.momentum(torch.ones(1, 2)), mass.velocity(torch.ones(1, 2))
        (tensor([[1.0000, 0.1000]]), tensor([[  1., 100.]]))
    """

    variance: Float[Tensor, " *event"]

    def momentum(self, noise: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """Noise over the standard deviations."""
        return noise / self.variance.to(noise).sqrt()

    def velocity(self, momentum: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """The momentum times the variances."""
        return momentum * self.variance.to(momentum)


@dataclass(frozen=True)
class DenseMass:
    r"""$M = \Sigma^{-1}$ from the Cholesky factor $\Sigma = L L^T$, `(d, d)`, of the covariance of vectors.

    Example:
        >>> covariance = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
        >>> mass = DenseMass(torch.linalg.cholesky(covariance))
        >>> factor = mass.momentum(torch.eye(2))
        >>> torch.allclose(factor.T @ factor, covariance.inverse())
        True
        >>> torch.allclose(mass.velocity(torch.eye(2)), covariance)
        True
    """

    cholesky: Float[Tensor, "d d"]

    def momentum(self, noise: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$L^{-T} \xi$."""
        return torch.linalg.solve_triangular(self._factor.like(noise).T, noise.T, upper=True).T

    def velocity(self, momentum: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        r"""$L L^T p$."""
        return momentum @ self._covariance.like(momentum)

    @cached_property
    def _factor(self) -> Cast:
        return Cast(self.cholesky)

    @cached_property
    def _covariance(self) -> Cast:
        return Cast(self.cholesky @ self.cholesky.T)


@dataclass(frozen=True)
class SpectralMass:
    r"""Fourier acceleration on a periodic lattice: $M$ is diagonal in momentum space.

    Args:
        precision: eigenvalues of $M$ over the modes of `torch.fft.rfftn`, all positive.

    References:
        Batrouni et al., Langevin simulations of lattice field theories, 1985, Phys. Rev. D 32, 2736.

    Example:
        >>> wave = torch.fft.rfftfreq(8) * 2 * torch.pi
        >>> mass = SpectralMass(1 + 2 * (1 - wave.cos()))  # the free field of mass 1 on eight sites
        >>> mass.velocity(torch.ones(1, 8)).allclose(torch.ones(1, 8))  # a constant field has precision 1
        True
    """

    precision: Float[Tensor, " *modes"]

    def momentum(self, noise: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """Noise with the square root of the spectrum."""
        return filtered(noise, self._root.like(noise))

    def velocity(self, momentum: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """Momentum divided by the spectrum."""
        return filtered(momentum, self._inverse.like(momentum))

    @cached_property
    def _root(self) -> Cast:
        return Cast(self.precision.sqrt())

    @cached_property
    def _inverse(self) -> Cast:
        return Cast(1 / self.precision)


def filtered(x: Float[Tensor, " n *event"], response: Float[Tensor, " *modes"]) -> Float[Tensor, " n *event"]:
    """A field with its Fourier modes multiplied by a real response."""
    axes, shape = tuple(range(1, x.ndim)), x.shape[1:]
    return torch.fft.irfftn(torch.fft.rfftn(x, dim=axes) * response.to(x), s=shape, dim=axes)
