"""Atoms as 3(N − 1) internal numbers and a centre of mass, by an orthonormal turn."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.errors import InputError

__all__ = ["CentreApart"]


class CentreApart(Transform):
    r"""$y = H x$, where the last row of the orthonormal H is $(1, \dots, 1)/\sqrt N$ (Helmert's matrix).

    The first 3(N − 1) numbers do not change under translations, the last three are $\sqrt N \bar x$. White noise in y
    without the last three is white noise in x whose mean was taken off: fields and noise live in the subspace free of
    the centre of mass, and a step's Gaussian normalisers cancel as they do for any vector, $\varepsilon$ being one for
    all of its coordinates. The log-determinant is 0.

    Attributes:
        internal: `(3 N,)`, true for all but the last three numbers.

    Shapes: `(n, N, 3)` to `(n, 3 N)`.

    Raises:
        InputError: fewer than two atoms.

    Example:
        >>> apart = CentreApart(2)
        >>> apart(torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])).round(decimals=3)
        tensor([[0.7070, 0.0000, 0.0000, 0.7070, 0.0000, 0.0000]])
    """

    bijective = True
    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.independent(constraints.real, 1)

    def __init__(self, atoms: int) -> None:
        super().__init__()
        if atoms < 2:
            raise InputError(f"a centre is set apart from two or more atoms: got {atoms}")
        rows = [
            [1 / math.sqrt(k * (k + 1))] * k + [-k / math.sqrt(k * (k + 1))] + [0.0] * (atoms - k - 1)
            for k in range(1, atoms)
        ]
        self.matrix = torch.tensor([*rows, [1 / math.sqrt(atoms)] * atoms], dtype=torch.float64)
        self.atoms = atoms

    @property
    def internal(self) -> Bool[Tensor, " d"]:
        """Which numbers know nothing of the centre."""
        return torch.arange(3 * self.atoms) < 3 * (self.atoms - 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CentreApart) and other.atoms == self.atoms

    def __hash__(self) -> int:
        return hash(self.atoms)

    def _call(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n d"]:
        return (self.matrix.to(x) @ x).flatten(-2)

    def _inverse(self, y: Float[Tensor, "n d"]) -> Float[Tensor, "n atoms 3"]:
        return self.matrix.T.to(y) @ y.unflatten(-1, (self.atoms, 3))

    def log_abs_det_jacobian(self, x: Float[Tensor, "n atoms 3"], y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Zero."""
        return y.new_zeros(y.shape[:-1])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """`(..., N, 3)` to `(..., 3 N)`."""
        return torch.Size([*shape[:-2], 3 * self.atoms])

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """`(..., 3 N)` to `(..., N, 3)`."""
        return torch.Size([*shape[:-1], self.atoms, 3])
