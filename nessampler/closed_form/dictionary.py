"""What a dictionary of vector fields must offer for a drift to be solved in it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from nessampler.paths import PathPoint

__all__ = ["Dictionary"]


@runtime_checkable
class Dictionary(Protocol):
    r"""Vector fields $\varphi_i(t, x)$, $i = 1 \dots p$, with exact divergence.

    Optional: `affine(coefficients)`, the matrix $\sum_i \theta_i\, \partial\varphi_i/\partial x$ where all fields are
    affine in x, `(d, d)`, or its `(d,)` eigenvalues in a basis that does not depend on θ; None where they are not.
    """

    @property
    def size(self) -> int:
        """p, the number of fields."""
        ...

    def stein(self, t: float, x: Float[Tensor, " n *event"], point: PathPoint) -> Float[Tensor, "n p"]:
        r"""Stein features $\nabla\cdot\varphi_i - \varphi_i\cdot\nabla U_t$, float64; their mean under $e^{-U_t}$ is 0.

        `point` is what the path knows at (t, x): the fields need its score.
        """
        ...

    def velocity(
        self, t: float, x: Float[Tensor, " n *event"], coefficients: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        r"""$b = \sum_i \theta_i \varphi_i$ and $\nabla\cdot b$, the latter in float64."""
        ...
