"""The vector fields of several dictionaries as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.errors import InputError
from nessampler.paths import PathPoint

__all__ = ["JoinedDictionary"]


@dataclass(frozen=True)
class JoinedDictionary:
    """All fields of `parts`, in their order.

    Raises:
        InputError: no parts.

    Example:
        >>> from nessampler.closed_form.ridge_dictionary import RidgeDictionary
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> affine = RidgeDictionary(0 * one, one, torch.zeros(0, 2), torch.zeros(0))
        >>> waves = RidgeDictionary(0 * one, one, torch.eye(2).double(), 0 * one, "isotropic")
        >>> both = JoinedDictionary((affine, waves))
        >>> both.size, both.velocity(0.5, torch.zeros(1, 2), torch.ones(both.size))[1].item()
        (7, 6.0)
    """

    parts: tuple[Dictionary, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("a joined dictionary has parts: got none")

    @property
    def size(self) -> int:
        """Number of fields."""
        return sum(part.size for part in self.parts)

    def stein(self, t: float, x: Float[Tensor, " n *event"], point: PathPoint) -> Float[Tensor, "n p"]:
        r"""$\nabla\cdot\varphi_i + \varphi_i\cdot s_t$ with the score $s_t = -\nabla U_t$, float64."""
        return torch.cat([part.stein(t, x, point) for part in self.parts], 1)

    def velocity(
        self, t: float, x: Float[Tensor, " n *event"], coefficients: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        r"""$b = \sum_i \theta_i \varphi_i$ and $\nabla\cdot b$."""
        shares = coefficients.split([part.size for part in self.parts])
        found = [part.velocity(t, x, share) for part, share in zip(self.parts, shares, strict=True)]
        velocity, divergence = found[0]
        for one, other in found[1:]:
            velocity, divergence = velocity + one, divergence + other
        return velocity, divergence
