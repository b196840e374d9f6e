"""Periodic and Ryckaert–Bellemans torsions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import openmm
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.molecular.force_field.geometry import dihedral, displacement, take
from nessampler.molecular.force_field.protocol import column, index_rows, plain

__all__ = ["PeriodicTorsion", "RBTorsion", "torsion_angles"]


def torsion_angles(
    x: Float[Tensor, "3 atoms walkers"], atoms: Int[Tensor, "4 m"], box: Tensor | None = None
) -> Float[Tensor, "m walkers"]:
    r"""Torsions along chains of four atoms, in $[-\pi, \pi]$."""
    i, j, k, m = atoms
    return dihedral(displacement(x, i, j, box), displacement(x, j, k, box), displacement(x, k, m, box))


class _Chains(nn.Module):
    """Torsions of many terms, each chain of atoms worked out once: force fields give several terms to most."""

    atoms: Int[Tensor, "4 chains"]
    which: Int[Tensor, " m"]

    def __init__(self, atoms: Sequence[Sequence[int]], periodic: bool) -> None:
        super().__init__()
        chains = [min(tuple(a), tuple(a)[::-1]) for a in atoms]  # a torsion is the same from either end
        distinct = list(dict.fromkeys(chains))
        place = {chain: k for k, chain in enumerate(distinct)}
        self.register_buffer("atoms", index_rows(distinct, 4))
        self.register_buffer("which", torch.tensor([place[c] for c in chains], dtype=torch.int64))
        self.periodic = periodic

    def forward(self, x: Float[Tensor, "3 atoms walkers"], box: Tensor | None) -> Float[Tensor, "m walkers"]:
        phi = torsion_angles(x, self.atoms, box if self.periodic else None)
        return phi if len(phi) == len(self.which) else take(phi, self.which)


class PeriodicTorsion(nn.Module):
    r"""Fourier terms of torsions, $U = \sum_t k_t \left(1 + \cos(n_t \varphi_t - \varphi_{0,t})\right)$.

    Args:
        atoms: chains of four indices; several terms may share one.
        periodicity: $n$.
        phase: $\varphi_0$ in radian.
        stiffness: $k$ in kJ/mol.
        periodic: displacements are those of the nearest images.
    """

    def __init__(
        self,
        atoms: Sequence[Sequence[int]],
        periodicity: Sequence[int],
        phase: Sequence[float],
        stiffness: Sequence[float],
        *,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.chains = _Chains(atoms, periodic)
        self.register_buffer("periodicity", torch.tensor(periodicity, dtype=torch.float64).reshape(-1, 1))
        self.phase = column(phase)
        self.stiffness = column(stiffness)
        self.default_parameters: dict[str, float] = {}

    @classmethod
    def from_openmm(cls, force: openmm.PeriodicTorsionForce, system: openmm.System) -> PeriodicTorsion:
        """The same terms, in their order."""
        rows = [plain(force.getTorsionParameters(t)) for t in range(force.getNumTorsions())]
        return cls(
            [r[:4] for r in rows],
            [r[4] for r in rows],
            [r[5] for r in rows],
            [r[6] for r in rows],
            periodic=force.usesPeriodicBoundaryConditions(),
        )

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None
    ) -> Float[Tensor, "terms walkers"]:
        """The energy of every term."""
        phi = self.chains(x, box)
        return self.stiffness * (1 + torch.cos(self.periodicity * phi - self.phase))

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None = None
    ) -> Float[Tensor, " walkers"]:
        """Their sum."""
        return self.contributions(x, globals, box).sum(0)


class RBTorsion(nn.Module):
    r"""Ryckaert–Bellemans torsions, $U = \sum_t \sum_{n=0}^{5} c_{t,n} \cos^n(\varphi_t - \pi)$.

    Args:
        atoms: chains of four indices.
        coefficients: six per torsion, $c_0$ first, in kJ/mol.
        periodic: displacements are those of the nearest images.
    """

    def __init__(
        self, atoms: Sequence[Sequence[int]], coefficients: Sequence[Sequence[float]], *, periodic: bool = False
    ) -> None:
        super().__init__()
        self.chains = _Chains(atoms, periodic)
        rows = torch.tensor(coefficients, dtype=torch.float64).reshape(-1, 6)
        self.coefficients = nn.Parameter(rows.T[..., None].contiguous(), requires_grad=False)  # (6, torsions, 1)
        self.default_parameters: dict[str, float] = {}

    @classmethod
    def from_openmm(cls, force: openmm.RBTorsionForce, system: openmm.System) -> RBTorsion:
        """The same torsions, in their order."""
        rows = [plain(force.getTorsionParameters(t)) for t in range(force.getNumTorsions())]
        return cls([r[:4] for r in rows], [r[4:] for r in rows], periodic=force.usesPeriodicBoundaryConditions())

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None
    ) -> Float[Tensor, "torsions walkers"]:
        """The energy of every torsion."""
        cosine = -torch.cos(self.chains(x, box))
        energy = self.coefficients[5] * cosine
        for n in (4, 3, 2, 1):
            energy = (energy + self.coefficients[n]) * cosine
        return energy + self.coefficients[0]

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None = None
    ) -> Float[Tensor, " walkers"]:
        """Their sum."""
        return self.contributions(x, globals, box).sum(0)
