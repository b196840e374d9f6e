"""Harmonic bonds and angles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import openmm
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.molecular.force_field.geometry import angle, displacement, norm
from nessampler.molecular.force_field.protocol import column, index_rows, plain

__all__ = ["HarmonicAngle", "HarmonicBond"]


class HarmonicBond(nn.Module):
    r"""Springs between pairs of atoms, $U = \sum_b \tfrac12 k_b (r_b - r_{0,b})^2$.

    Args:
        atoms: pairs of indices.
        length: $r_0$ in nm.
        stiffness: $k$ in kJ/mol/nm².
        periodic: distances are those of the nearest images.
    """

    atoms: Int[Tensor, "2 bonds"]

    def __init__(
        self,
        atoms: Sequence[Sequence[int]],
        length: Sequence[float],
        stiffness: Sequence[float],
        *,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("atoms", index_rows(atoms, 2))
        self.length = column(length)
        self.stiffness = column(stiffness)
        self.periodic = periodic
        self.default_parameters: dict[str, float] = {}

    @classmethod
    def from_openmm(cls, force: openmm.HarmonicBondForce, system: openmm.System) -> HarmonicBond:
        """The same bonds, in their order."""
        rows = [plain(force.getBondParameters(b)) for b in range(force.getNumBonds())]
        return cls(
            [r[:2] for r in rows],
            [r[2] for r in rows],
            [r[3] for r in rows],
            periodic=force.usesPeriodicBoundaryConditions(),
        )

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None
    ) -> Float[Tensor, "bonds walkers"]:
        """The energy of every bond."""
        i, j = self.atoms
        stretch = norm(displacement(x, i, j, box if self.periodic else None)) - self.length
        return 0.5 * self.stiffness * stretch.square()

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None = None
    ) -> Float[Tensor, " walkers"]:
        """Their sum."""
        return self.contributions(x, globals, box).sum(0)


class HarmonicAngle(nn.Module):
    r"""Springs on the angle at the middle of three atoms, $U = \sum_a \tfrac12 k_a (\theta_a - \theta_{0,a})^2$.

    Args:
        atoms: triples of indices.
        angle: $\theta_0$ in radian.
        stiffness: $k$ in kJ/mol/rad².
        periodic: displacements are those of the nearest images.
    """

    atoms: Int[Tensor, "3 angles"]

    def __init__(
        self,
        atoms: Sequence[Sequence[int]],
        angle: Sequence[float],
        stiffness: Sequence[float],
        *,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("atoms", index_rows(atoms, 3))
        self.angle = column(angle)
        self.stiffness = column(stiffness)
        self.periodic = periodic
        self.default_parameters: dict[str, float] = {}

    @classmethod
    def from_openmm(cls, force: openmm.HarmonicAngleForce, system: openmm.System) -> HarmonicAngle:
        """The same angles, in their order."""
        rows = [plain(force.getAngleParameters(a)) for a in range(force.getNumAngles())]
        return cls(
            [r[:3] for r in rows],
            [r[3] for r in rows],
            [r[4] for r in rows],
            periodic=force.usesPeriodicBoundaryConditions(),
        )

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None
    ) -> Float[Tensor, "angles walkers"]:
        """The energy of every angle."""
        i, j, k = self.atoms
        box = box if self.periodic else None
        bend = angle(displacement(x, j, i, box), displacement(x, j, k, box)) - self.angle
        return 0.5 * self.stiffness * bend.square()

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None = None
    ) -> Float[Tensor, " walkers"]:
        """Their sum."""
        return self.contributions(x, globals, box).sum(0)
