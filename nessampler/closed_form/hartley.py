"""Fields on a periodic lattice as vectors of their modes, in which translation-invariant covariances are diagonal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.targets.phi4 import lattice_momenta

__all__ = ["Hartley", "shell_spectrum"]


class Hartley(Transform):
    r"""From a field on a periodic lattice to its real modes, `(n, L, ..., L)` to `(n, L^D)`; orthogonal.

    $$y_k = L^{-D/2} \sum_x \varphi_x \big[\cos(k \cdot x) + \sin(k \cdot x)\big], \qquad y_0 = L^{D/2} M$$

    Volumes are kept, so that the log-determinant is 0, and the covariance of fields whose law knows neither an origin
    nor an orientation is the diagonal matrix of their spectrum: one transport mode by mode suits waves of every length.

    Args:
        shape: of one field, sides equal.

    Raises:
        InputError: sides of different length.

    References:
        Bracewell, Discrete Hartley transform, 1983, J. Opt. Soc. Am. 73, 1832.

    Example:
        >>> modes = Hartley((2, 2))(torch.ones(1, 2, 2))
        >>> modes
        tensor([[2., 0., 0., 0.]])
    """

    bijective = True

    def __init__(self, shape: Sequence[int]) -> None:
        if len(shape) == 0 or len(set(shape)) != 1:
            raise InputError(f"a lattice has equal sides: got {tuple(shape)}")
        super().__init__(cache_size=0)
        self.shape = torch.Size(shape)
        self.domain = constraints.independent(constraints.real, len(shape))
        self.codomain = constraints.independent(constraints.real, 1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Float[Tensor, " n"]:
        """Zero."""
        return torch.zeros(x.shape[: x.ndim - len(self.shape)], dtype=torch.float64, device=x.device)

    def forward_shape(self, shape: Sequence[int]) -> torch.Size:
        """`(..., L, ..., L)` to `(..., L^D)`."""
        return torch.Size([*shape[: len(shape) - len(self.shape)], self.shape.numel()])

    def inverse_shape(self, shape: Sequence[int]) -> torch.Size:
        """`(..., L^D)` to `(..., L, ..., L)`."""
        return torch.Size([*shape[:-1], *self.shape])

    def _call(self, x: Tensor) -> Tensor:
        return self._cas(x).flatten(-len(self.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return self._cas(y.unflatten(-1, self.shape))  # an involution, but for the shape

    def _cas(self, x: Tensor) -> Tensor:
        modes = torch.fft.fftn(x, dim=tuple(range(-len(self.shape), 0)), norm="ortho")
        return modes.real - modes.imag


def shell_spectrum(x: Float[Tensor, " n *event"], center: float | None = None) -> Float[Tensor, " modes"]:
    r"""Variance of every Hartley mode, the same for all modes of equal $\hat k^2$, `(L^D,)` float64.

    Averages over a shell take from a few hundred fields what single modes would need thousands for.

    Args:
        x: fields.
        center: the mean of a site; by default that of the fields.

    Raises:
        InputError: fewer than two fields, or fields that do not vary.

    Example:
        >>> white = torch.randn(400, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> bool(((shell_spectrum(white) - 1).abs() < 0.2).all())
        True
    """
    if len(x) < 2:
        raise InputError(f"a spectrum needs two fields at least: got {len(x)}")
    shape = x.shape[1:]
    modes = Hartley(shape)._call(x.double() - (float(x.double().mean()) if center is None else center))
    # Rounded, because reflected modes differ in the last digits.
    shells = (1e6 * _all_momenta(shape[0], len(shape))).round().flatten().to(x.device)
    _, shell, members = shells.unique(return_inverse=True, return_counts=True)
    power = modes.square().mean(0)
    found = torch.zeros(len(members), dtype=torch.float64, device=x.device).index_add_(0, shell, power) / members
    if not bool((found > 0).all()):
        raise InputError("every wave must vary over the fields of a spectrum: some do not; give fields of equilibrium")
    return found[shell]


def _all_momenta(size: int, dimensions: int) -> Tensor:
    """`lattice_momenta` over the modes of `torch.fft.fftn`: even in every component, the last axis is mirrored."""
    k = torch.arange(size)
    return lattice_momenta(size, dimensions)[..., torch.minimum(k, (size - k) % size)]
