"""Angles go the shorter way round."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.interpolants.protocol import Interpolant

__all__ = ["ShortestArc", "nearest_image"]


@dataclass(frozen=True)
class ShortestArc:
    r"""An interpolant whose circular coordinates go from $x_a$ to the image of $x_b$ that is nearest to it:

    $$I_t = I^0_t(x_a,\; x_a + \mathrm{wrap}(x_b - x_a),\; z), \qquad \mathrm{wrap}(\delta) \in [-\pi, \pi) .$$

    Positions are lifted: off the circle by multiples of $2\pi$, which fields that are periodic do not see. Velocity and
    denoiser are regressed as ever. There is no `ends`: antipodal pairs change sides, so that $I_t$ on the circle jumps
    where $x_a$ passes the point opposite $x_b$, and integration by parts, on which matching the ends' scores rests,
    leaves something over at the jump.

    Args:
        inner: of coordinates on the line, with $\alpha + \beta = 1$, such as `LinearInterpolant`: one that sums to
            more would turn with the choice of the origin.
        circular: `(d,)`, which coordinates are angles.

    Raises:
        InputError: an inner interpolant that moves a pair of equal angles.

    Example:
        >>> from nessampler.interpolants import LinearInterpolant
        >>> arc = ShortestArc(LinearInterpolant(torch.ones(1)), torch.tensor([True]))
        >>> a, b = torch.tensor([[3.0]]), torch.tensor([[-3.0]])
        >>> arc.position(torch.tensor([0.5]), a, b, torch.zeros(1, 1))
        tensor([[3.1416]])
    """

    inner: Interpolant
    circular: Bool[Tensor, " d"]

    def __post_init__(self) -> None:
        one = torch.ones(1, len(self.circular), dtype=torch.float64)
        half = self.inner.position(one.new_tensor([0.4]), one, one, 0 * one)
        if not torch.allclose(half[:, self.circular], one[:, self.circular]):
            raise InputError(
                "on a circle the ends' factors must add up to one at all times, and those of the inner interpolant do "
                "not; use a linear one, retimed if need be"
            )

    def gamma(self, t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """That of the inner interpolant."""
        return self.inner.gamma(t)

    def position(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$I_t$, lifted."""
        return self.inner.position(t, x_a, nearest_image(x_b, x_a, self.circular), z)

    def velocity(
        self, t: Float[Tensor, " n"], x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n d"]:
        """$dI_t/dt$."""
        return self.inner.velocity(t, x_a, nearest_image(x_b, x_a, self.circular), z)

    def noise_score(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """That of the inner interpolant: the score of the lifted position."""
        return self.inner.noise_score(z)


def nearest_image(
    x: Float[Tensor, "n d"], center: Float[Tensor, "n d"], circular: Bool[Tensor, " d"]
) -> Float[Tensor, "n d"]:
    r"""x, its circular coordinates shifted by multiples of $2\pi$ to within $\pi$ of the centre's.

    Example:
        >>> nearest_image(torch.tensor([[6.0, 6.0]]), torch.zeros(1, 2), torch.tensor([True, False]))
        tensor([[-0.2832,  6.0000]])
    """
    turns = torch.round((x - center) / (2 * math.pi))
    return torch.where(circular.to(x.device), x - 2 * math.pi * turns, x)
