"""Conformations of like atoms laid onto one another: turned, mirrored and relabelled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["Aligned", "aligned_distances", "relabelling", "rotation_onto"]


def rotation_onto(
    x: Float[Tensor, "n atoms 3"], y: Float[Tensor, "n atoms 3"], *, mirrors: bool = True
) -> Float[Tensor, "n 3 3"]:
    r"""Rotations about the centres that bring y closest to x, $\min_Q \sum_i |x_i - \bar x - (y_i - \bar y)\, Q|^2$.

    From the singular values of $(y - \bar y)^T (x - \bar x) = W S V^T$: $Q = W V^T$; without mirrors the least singular
    direction changes its sign where that is needed for $\det Q = 1$.

    Args:
        x, y: atom by atom.
        mirrors: whether Q may be a reflection, as it may where left- and right-handed forms are one density.

    Raises:
        InputError: shapes that differ or are not `(n, atoms, 3)`.

    References:
        Kabsch, A solution for the best rotation to relate two sets of vectors, 1976, Acta Cryst. A32, 922.

    Example:
        >>> x = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0))
        >>> mirrored = -x @ rotation_onto(x, -x)
        >>> turned = -x @ rotation_onto(x, -x, mirrors=False)
        >>> bool((mirrored - x).norm() < 1e-5), bool((turned - x).norm() > 1)
        (True, True)
    """
    _check(x, y)
    left, _, right = torch.linalg.svd((y - y.mean(1, keepdim=True)).mT @ (x - x.mean(1, keepdim=True)))
    if not mirrors:
        sign = torch.linalg.det(left @ right).sign()
        left = torch.cat([left[..., :2], left[..., 2:] * sign[:, None, None]], -1)
    return left @ right


def relabelling(x: Float[Tensor, "n atoms 3"], y: Float[Tensor, "n atoms 3"]) -> Int[Tensor, "n atoms"]:
    r"""Which atom of y takes the place of each of x: $\min_\pi \sum_i |x_i - y_{\pi(i)}|^2$, exactly.

    Raises:
        InputError: shapes that differ or are not `(n, atoms, 3)`.

    References:
        Crouse, On implementing 2D rectangular assignment algorithms, 2016, IEEE Trans. Aerosp. Electron. Syst. 52, 1679
        (`scipy.optimize.linear_sum_assignment`).

    Example:
        >>> x = torch.eye(3)[None]
        >>> relabelling(x, x[:, [2, 0, 1]]).tolist()
        [[1, 2, 0]]
    """
    _check(x, y)
    costs = -(x @ y.mT).detach().cpu().double().numpy()  # the squares are the same for every labelling
    orders = [torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs]
    return torch.stack(orders).to(x.device)


@dataclass(frozen=True)
class Aligned:
    r"""$x_b$ turned, mirrored and relabelled towards $x_a$, turn after turn of `relabelling` and `rotation_onto`.

    The squared distance falls with every round, to a minimum that need not be the lowest: the first labelling decides,
    so several orientations are tried. Turns are about the centres of mass; each conformation keeps its own.

    For interpolants between densities that rotations, reflections and permutations leave as they are: a pair's partner
    may be replaced by any of its images. Rows of `(n, 3 atoms)` are understood as well.

    Args:
        mirrors: see `rotation_onto`.
        rounds: at most; one that changes no label is the last.
        starts: orientations from which to begin, the given one first.
        seed: of the others.

    Raises:
        InputError: shapes that differ, or rows that are not coordinates of atoms.

    References:
        Klein, Krämer & Noé, Equivariant flow matching, 2023, arXiv:2306.15030, section 4 (pairs aligned by rotation and
        permutation).

    Example:
        >>> x = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(1))
        >>> turned = x.flip(1) @ torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> bool((Aligned(starts=8)(x, turned) - x).norm() < (turned - x).norm())
        True
    """

    mirrors: bool = True
    rounds: int = 20
    starts: int = 1
    seed: int = 0

    def __call__(self, x_a: Float[Tensor, " n *event"], x_b: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        """The partners of $x_a$."""
        a, b = _atoms(x_a), _atoms(x_b)
        best, least = b, torch.full((len(b),), torch.inf, dtype=b.dtype, device=b.device)
        for turn in _orientations(self.starts, self.seed).to(b):
            found = self._descend(a, _turned(b, turn))
            distance = (found - a).square().sum((1, 2))
            best = torch.where((distance < least)[:, None, None], found, best)
            least = torch.minimum(distance, least)
        return best.view_as(x_b)

    def _descend(self, a: Tensor, b: Tensor) -> Tensor:
        for _ in range(self.rounds):
            order = relabelling(a, b)
            changed = bool((order != torch.arange(order.shape[1], device=order.device)).any())
            b = b.gather(1, order.unsqueeze(-1).expand_as(b))
            b = _turned(b, rotation_onto(a, b, mirrors=self.mirrors))
            if not changed:
                break
        return b


def aligned_distances(
    x_a: Float[Tensor, " n *event"], x_b: Float[Tensor, " m *event"], align: Aligned = Aligned()
) -> Float[Tensor, "n m"]:
    """Squared distances of all pairs after alignment: a cost for pairing batches of conformations, n m alignments dear.

    Example:
        >>> x = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> aligned_distances(x, x.flip(1)).argmin(1).tolist()
        [0, 1, 2]
    """
    n, m = len(x_a), len(x_b)
    one, other = x_a.repeat_interleave(m, 0), x_b.repeat(n, *[1] * (x_b.ndim - 1))
    return (align(one, other) - one).square().flatten(1).sum(1).view(n, m)


def _turned(x: Tensor, rotation: Tensor) -> Tensor:
    centre = x.mean(1, keepdim=True)
    return centre + (x - centre) @ rotation


def _orientations(count: int, seed: int) -> Tensor:
    """The identity, then random rotations."""
    noise = torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turns = torch.linalg.qr(noise).Q
    turns = turns * torch.linalg.det(turns)[:, None, None]
    return torch.cat([torch.eye(3, dtype=torch.float64)[None], turns[1:]])


def _atoms(x: Tensor) -> Tensor:
    if x.ndim == 3 and x.shape[-1] == 3:
        return x
    if x.ndim != 2 or x.shape[1] % 3:
        raise InputError(f"conformations are (n, atoms, 3) or (n, 3 atoms): got shape {tuple(x.shape)}")
    return x.view(len(x), -1, 3)


def _check(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.ndim != 3 or x.shape[-1] != 3:
        raise InputError(
            f"two sets of conformations have one shape (n, atoms, 3): got {tuple(x.shape)} and {tuple(y.shape)}"
        )
