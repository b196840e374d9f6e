"""Positions without their centre, in orthonormal coordinates: for clusters, and for maps that move every atom."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.errors import InputError

__all__ = ["CentredCartesian"]


class CentredCartesian(Transform):
    r"""Positions to $3N - 3$ orthonormal coordinates of the subspace in which the centre rests at the origin.

    $$y_k = \sqrt{\tfrac{k}{k+1}}\,\Big(x_{k+1} - \tfrac1k \sum_{j \le k} x_j\Big), \quad k = 1 \dots N - 1, \qquad
    \int f(x)\, dx = V N^{3/2} \int f(x(y))\, dy$$

    for an `f` that does not change under translations, with V the volume that the centre may take. `y` has the
    Euclidean measure of the subspace, so the log-determinant is 0; the $N^{3/2}$ and V are left out. They cancel in
    every difference. With `masses` the inverse puts the centre of mass at the origin instead of the centre of geometry;
    `y` and its measure stay the same, since the two centres differ by a function of `y`.

    Forward takes `(*batch, atoms, 3)` to `(*batch, 3 atoms - 3)`, atom after atom. Nothing is circular. Rotations are
    still in: to whiten a molecule use `InternalCoordinates`, whose moments mean something.

    Args:
        n_atoms: two or more.
        masses: `(atoms,)`, in any unit.
        cache_size: as in `torch.distributions.transforms.Transform`.

    Raises:
        InputError: fewer than two atoms, masses that are not positive, points of another shape.

    References: the rows of the matrix are those of Helmert, see Lancaster, The Helmert matrices, 1965, Am. Math. Mon.
        72, 4.

    Example:
        >>> centred = CentredCartesian(2)
        >>> centred(torch.tensor([[[5.0, 0.0, 0.0], [7.0, 0.0, 0.0]]]))
        tensor([[1.4142, 0.0000, 0.0000]])
        >>> centred.inv(torch.tensor([[2.0**0.5, 0.0, 0.0]])).round()
        tensor([[[-1.,  0.,  0.],
                 [ 1.,  0.,  0.]]])
    """

    bijective = True
    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.real_vector

    def __init__(self, n_atoms: int, masses: Float[Tensor, " atoms"] | None = None, *, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        if n_atoms < 2:
            raise InputError(f"a centre is left out of two atoms or more: got {n_atoms}; one atom has no shape")
        if masses is not None and (masses.shape != (n_atoms,) or not bool((masses > 0).all())):
            raise InputError(
                f"`masses` must be {n_atoms} positive numbers: got {tuple(masses.shape)}, smallest"
                f" {float(masses.min()):g}; leave them out for the centre of geometry"
            )
        self.n_atoms = n_atoms
        self.circular = torch.zeros(3 * n_atoms - 3, dtype=torch.bool)
        self._basis = _helmert(n_atoms)
        weights = torch.ones(n_atoms) if masses is None else masses.cpu()
        weights = weights.double() / weights.double().sum()
        # Each column has its centre moved to the origin, which the orthonormal rows already have without masses.
        self._placed = self._basis.T - weights @ self._basis.T

    def forward_shape(self, shape: tuple[int, ...]) -> torch.Size:
        return torch.Size((*shape[:-2], 3 * self.n_atoms - 3))

    def inverse_shape(self, shape: tuple[int, ...]) -> torch.Size:
        return torch.Size((*shape[:-1], self.n_atoms, 3))

    def _call(self, x: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch coordinates"]:
        if x.ndim < 2 or x.shape[-2:] != (self.n_atoms, 3) or not x.is_floating_point():
            raise InputError(
                f"positions must be (n, {self.n_atoms}, 3) and floating point: got {tuple(x.shape)} of {x.dtype}"
            )
        return (self._basis.to(x) @ x).flatten(-2)

    def _inverse(self, y: Float[Tensor, "*batch coordinates"]) -> Float[Tensor, "*batch atoms 3"]:
        if y.ndim < 1 or y.shape[-1] != 3 * self.n_atoms - 3 or not y.is_floating_point():
            raise InputError(
                f"centred coordinates of {self.n_atoms} atoms must be (n, {3 * self.n_atoms - 3}) and floating point:"
                f" got {tuple(y.shape)} of {y.dtype}"
            )
        return self._placed.to(y) @ y.unflatten(-1, (self.n_atoms - 1, 3))

    def log_abs_det_jacobian(
        self, x: Float[Tensor, "*batch atoms 3"], y: Float[Tensor, "*batch coordinates"]
    ) -> Float[Tensor, "*batch"]:
        """Zero, modulo translations."""
        return torch.zeros_like(y[..., 0])


def _helmert(n: int) -> Float[Tensor, "n_minus_1 n"]:
    k = torch.arange(1, n, dtype=torch.float64)[:, None]
    before = torch.ones(n - 1, n, dtype=torch.float64).tril()
    return (k * torch.eye(n, dtype=torch.float64)[1:] - before) / (k * (k + 1)).sqrt()
