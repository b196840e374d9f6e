"""Lennard-Jones atoms in a harmonic trap: a rugged landscape with permutation and rotation symmetry."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["LennardJonesCluster", "PairSums", "pair_sums"]

OVERLAP = 0.01
"""Atoms closer than this part of λ have energy +inf: some 1e24 λ kT, beyond what float32 forces can hold."""

PAIRS_AT_ONCE = 2**15
"""So that they stay in a core's cache."""

LOOSE = 1.3
"""Spacing of atoms in `start`, in units of λ; pairs are most content at 1.12 λ."""


class LennardJonesCluster:
    r"""N atoms in three dimensions, energies in kT:

    $$U(x) = \sum_{i \ne j} 4\lambda\Big[\Big(\frac{\lambda}{r_{ij}}\Big)^{12}
        - \Big(\frac{\lambda}{r_{ij}}\Big)^{6}\Big] + \frac{\kappa}{2} \sum_i |x_i|^2$$

    The sum runs over ordered pairs: every pair counts twice, as in the benchmark this comes from. $\lambda$ is at once
    the depth and the size of the atoms; at $\lambda = 0$ the trap alone is left.

    With `free_center=True` the trap holds the distances $|x_i - \bar x|$ to the centre of mass instead, as published.
    The density on $R^{3N}$ is then improper, and has to be sampled in the subspace $\bar x = 0$. Either way
    differences between two $\lambda$ are the same; by default the centre of mass adds

    $$\log Z = \log Z_{\bar x = 0} + \tfrac32 \log(2\pi/\kappa).$$

    | symbol | argument | |
    |---|---|---|
    | $N$ | `atoms` | two or more |
    | $\lambda \ge 0$ | `strength` | kT, and length |
    | $\kappa > 0$ | `trap` | kT per squared length |

    Shapes: walkers `(n, N, 3)`; pairs are summed in float64, results are in the dtype of the walkers. Where two atoms
    come closer than $\lambda/100$ the energy is +inf and the score zero. The trap alone, $\lambda = 0$ and held at the
    origin, also has `sample` and `log_z`.

    Raises:
        InputError: fewer than two atoms, a negative strength, a trap that is not positive.

    References:
        He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025, arXiv:2504.11516 (the LJ benchmark).

    Example:
        >>> pair = LennardJonesCluster(2)
        >>> pair.energy(torch.tensor([[[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]]))
        tensor([0.2500])
    """

    def __init__(self, atoms: int, strength: float = 1.0, trap: float = 1.0, *, free_center: bool = False) -> None:
        if atoms < 2:
            raise InputError(f"a cluster has two or more atoms: got {atoms}")
        if not (0 <= strength < math.inf and 0 < trap < math.inf):
            raise InputError(
                f"a cluster needs strength >= 0 and trap > 0: got {strength} and {trap}; atoms without a trap evaporate"
            )
        self.strength, self.trap, self.free_center = float(strength), float(trap), free_center
        self.event_shape = torch.Size([atoms, 3])
        self._pairs = torch.triu_indices(atoms, atoms, offset=1)
        if strength == 0 and not free_center:
            self.log_z = 1.5 * atoms * math.log(2 * math.pi / trap)
            self.sample = self._sample

    def energy(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """U in kT."""
        position = x.double()
        energy = 0.5 * self.trap * self._held(position).square().sum((-1, -2))
        if self.strength > 0:
            _, squared, overlap = self._separations(position)
            sixth = (self.strength**2 / squared).pow(3)
            pairs = 8 * self.strength * (sixth * (sixth - 1)).sum(-1)
            energy = torch.where(overlap, torch.inf, energy + pairs)
        return energy.to(x)

    def energy_and_score(self, x: Float[Tensor, "n atoms 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """U and -∇U."""
        position = x.double()
        held = self._held(position)
        energy, score = 0.5 * self.trap * held.square().sum((-1, -2)), -self.trap * held
        if self.strength > 0:
            sums = pair_sums(position, position.new_full((len(x),), self.strength))
            score = torch.where(sums.overlap[:, None, None], 0.0, score + 48 * self.strength * sums.push)
            pairs = 8 * self.strength * (sums.repulsion - sums.attraction)
            energy = torch.where(sums.overlap, torch.inf, energy + pairs)
        return energy.to(x), score.to(x)

    def start(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n atoms 3"]:
        """Loose random heaps about the origin, float64: where chains may start, since no two atoms touch."""
        atoms, spacing = self.event_shape[0], LOOSE * self.strength
        reach = math.ceil((2 * atoms) ** (1 / 3)) + 1
        like = {"dtype": torch.float64, "device": generator.device}
        axis = torch.arange(-reach, reach + 1, **like)
        heaps = []
        for _ in range(n):
            sites = torch.cartesian_prod(axis, axis, axis) + torch.rand(3, generator=generator, **like)
            near = sites[sites.square().sum(-1).argsort()[: 2 * atoms]]
            heaps.append(near[torch.randperm(2 * atoms, generator=generator, device=generator.device)[:atoms]])
        noise = torch.randn(n, atoms, 3, generator=generator, **like)
        return spacing * (torch.stack(heaps) + 0.02 * noise)

    def observables(self, x: Float[Tensor, "n atoms 3"]) -> dict[str, Float[Tensor, " n"]]:
        """What chains are watched by: sizes and shapes about the centre of mass, whose own motion no ΔF depends on."""
        inner = x.double() - x.double().mean(1, keepdim=True)
        squares = inner.square().sum(-1)
        return {"the mean square radius": squares.mean(-1), "the outermost atom": squares.amax(-1).sqrt()}

    def _sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n atoms 3"]:
        """Independent, exact draws of the trap, float64."""
        noise = torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64, device=generator.device)
        return noise / math.sqrt(self.trap)

    def _held(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True) if self.free_center else x

    def _separations(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Differences and squared distances of every pair, and which walkers have an overlap anywhere."""
        first, second = self._pairs.to(x.device)
        difference = x[:, first] - x[:, second]
        squared = difference.square().sum(-1)
        close = squared < (OVERLAP * self.strength) ** 2
        # A distance stands in where atoms overlap, so that no gradient meets 0/0.
        return difference, torch.where(close, self.strength**2, squared), close.any(-1)


class PairSums(NamedTuple):
    r"""$S_{12} = \sum_{i<j} (\lambda/r_{ij})^{12}$, $S_6$ likewise, $P_i = \sum_{j \ne i} [2 (\lambda/r_{ij})^{12}
    - (\lambda/r_{ij})^6]\, (x_i - x_j)/r_{ij}^2$, and which walkers have two atoms on one another.

    Of them are made the energy of all pairs $8\lambda (S_{12} - S_6)$, its slope $8\,(13 S_{12} - 7 S_6)$ in
    $\lambda$, the forces $48 \lambda P$, and the energy at any other $\lambda'$, where $S_n$ is
    $(\lambda'/\lambda)^n$ times as large.
    """

    repulsion: Float[Tensor, " n"]
    attraction: Float[Tensor, " n"]
    push: Float[Tensor, "n atoms 3"]
    overlap: Bool[Tensor, " n"]


@torch.no_grad()
def pair_sums(x: Float[Tensor, "n atoms 3"], strength: Float[Tensor, " n"]) -> PairSums:
    r"""What all energies and forces of a cluster are made of, in the dtype of x.

    Args:
        x: positions.
        strength: $\lambda > 0$ of each walker.

    Example:
        >>> sums = pair_sums(torch.tensor([[[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]]), torch.tensor([1.0]))
        >>> sums.repulsion, sums.attraction, sums.push[0, 0]
        (tensor([1.]), tensor([1.]), tensor([1., 0., 0.]))
    """
    walkers = max(1, PAIRS_AT_ONCE // x.shape[1] ** 2)
    parts = [_sums(*part) for part in zip(x.split(walkers), strength.split(walkers), strict=True)]
    return PairSums(*(torch.cat(pieces) for pieces in zip(*parts, strict=True)))


def _sums(x: Tensor, strength: Tensor) -> PairSums:
    square = (strength * strength)[:, None, None]
    centred = x - x.mean(1, keepdim=True)
    length = centred.square().sum(-1)
    # All distances by one matrix product; every pair is seen twice, and that is still several times faster.
    squared = torch.baddbmm(length[:, :, None] + length[:, None, :], centred, centred.mT, alpha=-2)
    squared.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    overlap = squared.amin((1, 2)) < OVERLAP**2 * square[:, 0, 0]
    inverse = torch.maximum(squared, OVERLAP**2 * square, out=squared).reciprocal_()
    ratio = inverse * square
    sixth = ratio.square().mul_(ratio)
    twelfth = sixth * sixth
    repulsion, attraction = 0.5 * twelfth.sum((1, 2)), 0.5 * sixth.sum((1, 2))
    steep = twelfth.mul_(2).sub_(sixth).mul_(inverse)
    return PairSums(repulsion, attraction, centred * steep.sum(2, keepdim=True) - steep @ centred, overlap)
