r"""Distances, angles and dihedrals of atoms, with the walkers last: `(3, atoms, walkers)` in nm.

Gradients are finite everywhere, zero where a distance vanishes or three atoms lie on a line.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["angle", "cross", "dihedral", "displacement", "distance", "dot", "minimum_image", "norm", "take"]


def take(x: Float[Tensor, "*batch atoms walkers"], index: Int[Tensor, " m"]) -> Float[Tensor, "*batch m walkers"]:
    """The rows of some atoms."""
    return x.index_select(-2, index)


def displacement(
    x: Float[Tensor, "3 atoms walkers"],
    i: Int[Tensor, " m"],
    j: Int[Tensor, " m"],
    box: Float[Tensor, "3 3"] | None = None,
) -> Float[Tensor, "3 m walkers"]:
    r"""$x_j - x_i$, in a periodic box that of the nearest images.

    Example:
        >>> x = torch.tensor([[0.1, 0.9], [0.0, 0.0], [0.0, 0.0]])[..., None]
        >>> first, second = torch.tensor([0]), torch.tensor([1])
        >>> displacement(x, first, second)[0].item(), displacement(x, first, second, torch.eye(3))[0].item()
        (0.79..., -0.20...)
    """
    d = take(x, j) - take(x, i)
    return d if box is None else minimum_image(d, box)


def minimum_image(d: Float[Tensor, "3 m walkers"], box: Float[Tensor, "3 3"]) -> Float[Tensor, "3 m walkers"]:
    """The displacement shifted by whole box vectors, the rows of `box`, in OpenMM's order: third, second, first."""
    for k in (2, 1, 0):
        d = d - box[k, :, None, None] * torch.floor(d[k] / box[k, k] + 0.5)
    return d


def dot(a: Float[Tensor, "3 m walkers"], b: Float[Tensor, "3 m walkers"]) -> Float[Tensor, "m walkers"]:
    """Scalar product over the first axis."""
    return (a * b).sum(0)


def cross(a: Float[Tensor, "3 m walkers"], b: Float[Tensor, "3 m walkers"]) -> Float[Tensor, "3 m walkers"]:
    """Vector product over the first axis."""
    (ax, ay, az), (bx, by, bz) = a, b  # torch.linalg.cross walks the strided axis, at thirty times the cost
    return torch.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def norm(d: Float[Tensor, "3 m walkers"]) -> Float[Tensor, "m walkers"]:
    """Length, with a gradient of zero where the length is zero."""
    square = dot(d, d)
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def distance(
    x: Float[Tensor, "3 atoms walkers"],
    i: Int[Tensor, " m"],
    j: Int[Tensor, " m"],
    box: Float[Tensor, "3 3"] | None = None,
) -> Float[Tensor, "m walkers"]:
    """Of the pairs `(i, j)`, in nm."""
    return norm(displacement(x, i, j, box))


def angle(u: Float[Tensor, "3 m walkers"], v: Float[Tensor, "3 m walkers"]) -> Float[Tensor, "m walkers"]:
    r"""Between two displacements from the middle atom, $\mathrm{atan2}(|u \times v|, u \cdot v)$ in $[0, \pi]$."""
    return torch.atan2(norm(cross(u, v)), dot(u, v))


def dihedral(
    a: Float[Tensor, "3 m walkers"], b: Float[Tensor, "3 m walkers"], c: Float[Tensor, "3 m walkers"]
) -> Float[Tensor, "m walkers"]:
    r"""Torsion in $[-\pi, \pi]$ along the displacements 1→2, 2→3, 3→4; zero is cis, clockwise along 2→3 is positive.

    $$\varphi = \mathrm{atan2}\left(|b|\, a \cdot (b \times c),\ (a \times b) \cdot (b \times c)\right)$$
    """
    m, n = cross(a, b), cross(b, c)
    return torch.atan2(norm(b) * dot(a, n), dot(m, n))
