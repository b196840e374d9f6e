"""Lennard-Jones atoms in a harmonic trap: a rugged landscape with permutation and rotation symmetry."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["LennardJonesCluster"]

OVERLAP = 0.01
"""Atoms closer than this part of λ have energy +inf: some 1e24 λ kT, beyond what float32 forces can hold."""


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
    come closer than $\lambda/100$ the energy is +inf and the score zero.

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
        """U and -∇U, each pair visited once."""
        position = x.double()
        held = self._held(position)
        energy, score = 0.5 * self.trap * held.square().sum((-1, -2)), -self.trap * held
        if self.strength > 0:
            difference, squared, overlap = self._separations(position)
            sixth = (self.strength**2 / squared).pow(3)
            force = (48 * self.strength * sixth * (2 * sixth - 1) / squared)[..., None] * difference
            first, second = self._pairs.to(x.device)
            score = score.index_add(1, first, force).index_add(1, second, -force)
            energy = energy + 8 * self.strength * (sixth * (sixth - 1)).sum(-1)
            energy = torch.where(overlap, torch.inf, energy)
            score = torch.where(overlap[:, None, None], 0.0, score)
        return energy.to(x), score.to(x)

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
