"""States that are a molecule with one torsion kept in an arc of the circle: basins, as densities with hard edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import openmm
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.molecular.internal_coordinates import proper_dihedral
from nessampler.molecular.systems import Molecule
from nessampler.targets import Target, energy_and_score

__all__ = ["Arc", "ArcToArc", "Region", "RegionTarget", "Torsion", "walled"]

WALL = 1000.0  # kJ/mol/rad², 0.05 rad deep at 300 K
BACKBONE = {"phi": (("C", -1), ("N", 0), ("CA", 0), ("C", 0)), "psi": (("N", 0), ("CA", 0), ("C", 0), ("N", 1))}


@dataclass(frozen=True)
class Arc:
    r"""The angles that lie counterclockwise from `start` on, up to `start + width`, in rad.

    Example:
        >>> right = Arc.between(0.0, 2.0)
        >>> right.holds(torch.tensor([1.0, 3.0, 1.0 - 2 * math.pi]))
        tensor([ True, False,  True])
        >>> Arc.between(2.0, 0.0).width == 2 * math.pi - 2.0
        True
    """

    start: float
    width: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and 0 < self.width < 2 * math.pi):
            raise InputError(
                f"an arc is wider than 0 and narrower than 2π: got one of {self.width:g} rad from {self.start:g} on; "
                "leave the region out for the whole circle"
            )

    @classmethod
    def between(cls, start: float, stop: float) -> Arc:
        """Counterclockwise from one angle to the other: from 2 to 0 is all that from 0 to 2 is not.

        Raises:
            InputError: no arc, or all of the circle.
        """
        if abs(stop - start) >= 2 * math.pi:
            raise InputError(
                f"an arc's ends are less than 2π apart: got {start:g} and {stop:g}; leave the region out for the whole "
                "circle"
            )
        return cls(start, stop - start if stop >= start else stop - start + 2 * math.pi)

    def along(self, value: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """How far beyond `start` an angle lies, in [0, 2π)."""
        return torch.remainder(value - self.start, 2 * math.pi)

    def holds(self, value: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        """Whether an angle lies in the arc."""
        return self.along(value) < self.width

    def meets(self, other: Arc, tolerance: float = 1e-9) -> bool:
        """Whether the two have angles in common, beyond their ends."""
        gap = math.remainder(other.start - self.start, 2 * math.pi) % (2 * math.pi)
        return gap < self.width - tolerance or 2 * math.pi - gap < other.width - tolerance

    def like(self, other: Arc, tolerance: float = 1e-9) -> bool:
        """Whether the two are one arc."""
        apart = abs(math.remainder(other.start - self.start, 2 * math.pi))
        return apart <= tolerance and abs(other.width - self.width) <= tolerance


@dataclass(frozen=True)
class Torsion:
    """Four bonded atoms, and the atoms that turn with the last of them about the middle bond."""

    name: str
    atoms: tuple[int, int, int, int]
    turning: tuple[int, ...]

    @classmethod
    def of(cls, molecule: Molecule, name: str | Sequence[str]) -> Torsion:
        """`phi` or `psi` of a peptide that has one, or four atoms as `ACE1:C`, the residue numbered from 1.

        Raises:
            InputError: a torsion that the molecule does not have, or has more than once; atoms that are not bonded in a
                row; a middle bond in a ring, about which nothing turns.
        """
        atoms = _backbone(molecule, name) if isinstance(name, str) else _named(molecule, name)
        neighbours: list[set[int]] = [set() for _ in molecule.positions]
        for one, other in molecule.topology.bonds():
            neighbours[one.index].add(other.index)
            neighbours[other.index].add(one.index)
        words = name if isinstance(name, str) else ", ".join(name)
        for one, other in pairwise(atoms):
            if other not in neighbours[one]:
                names = molecule.atom_names
                raise InputError(
                    f"the atoms of a torsion are bonded in a row: {names[one]} and {names[other]} of {words} are not; "
                    "name four atoms along a chain"
                )
        turning, left = {atoms[2]}, [atoms[2]]
        while left:
            for near in neighbours[left.pop()] - turning - {atoms[1]}:
                turning.add(near)
                left.append(near)
        # The one way back is the middle bond itself, unless a ring closes.
        if any(atoms[1] in neighbours[i] for i in turning - {atoms[2]}):
            raise InputError(f"about a bond in a ring nothing turns: {words} is about one; name another torsion")
        return cls(words, atoms, tuple(sorted(turning - {atoms[2]})))

    def value(self, x: Float[Tensor, "*batch atoms 3"]) -> Float[Tensor, "*batch"]:
        """In (-π, π]."""
        return proper_dihedral(x, *self.atoms)

    def turned(self, x: Float[Tensor, "n atoms 3"], by: Float[Tensor, " n"]) -> Float[Tensor, "n atoms 3"]:
        """The molecule with this torsion larger by these angles, all else in internal coordinates the same."""
        _, near, far, _ = self.atoms
        axis = torch.nn.functional.normalize(x[:, far] - x[:, near], dim=-1)[:, None]
        arm = x[:, self.turning] - x[:, far, None]
        along = (arm * axis).sum(-1, keepdim=True) * axis
        across = torch.linalg.cross(axis.expand_as(arm), arm)
        cos, sin = by.cos()[:, None, None], by.sin()[:, None, None]
        moved = x.clone()
        moved[:, self.turning] = x[:, far, None] + along + cos * (arm - along) + sin * across
        return moved


@dataclass(frozen=True)
class Region:
    """A torsion, and the arc that it keeps to."""

    torsion: Torsion
    arc: Arc

    def holds(self, x: Float[Tensor, "*batch atoms 3"]) -> Bool[Tensor, "*batch"]:
        """Whether a conformation lies in it."""
        return self.arc.holds(self.torsion.value(x))


class RegionTarget:
    r"""A density cut down to a region $R$, unnormalised as it was:

    $$U_R(x) = U(x) \text{ for } x \in R, \quad +\infty \text{ elsewhere}, \qquad
      F_R - F = -\log \int_R e^{-U} \Big/ \int e^{-U}$$

    Scores are 0 where the energy is +inf. Conformations outside are not given to the target, and cost nothing.

    Example:
        >>> from nessampler.molecular import TorchForceFieldTarget
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(4)]
        >>> square = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]])  # its torsion is π/2
        >>> region = Region(Torsion("torsion", (0, 1, 2, 3), (3,)), Arc.between(0.0, 1.0))
        >>> RegionTarget(TorchForceFieldTarget(system, 300.0), region).energy(square[None])
        tensor([inf])
    """

    def __init__(self, target: Target, region: Region) -> None:
        self.target, self.region, self.event_shape = target, region, target.event_shape

    def energy(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """U in kT."""
        inside = self.region.holds(x)
        energy = x.new_full((len(x),), torch.inf)
        return energy.masked_scatter(inside, self.target.energy(x[inside])) if bool(inside.any()) else energy

    def energy_and_score(self, x: Float[Tensor, "n atoms 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """U in kT and -∇U in kT/nm."""
        inside = self.region.holds(x)
        energy, score = x.new_full((len(x),), torch.inf), torch.zeros_like(x)
        if bool(inside.any()):
            energy[inside], score[inside] = energy_and_score(self.target, x[inside])
        return energy, score


class ArcToArc(Transform):
    r"""Turns a molecule so that a torsion in one arc comes to lie in another, at the same fraction of its width.

    $$\varphi' = s' + \frac{w'}{w}(\varphi - s), \qquad \log|\det| = \log \frac{w'}{w}$$

    In internal coordinates this moves $\varphi$ alone, and by as much what turns with it, so the determinant is that of
    one number. Positions outside of the arcs belong to no chart (`in_chart`): there the density is zero.

    | symbol | argument | |
    |---|---|---|
    | $\varphi$ | `torsion` | |
    | $s, w$ | `source` | where it lies before |
    | $s', w'$ | `goal` | and after |

    Example:
        >>> torsion = Torsion("torsion", (0, 1, 2, 3), (3,))
        >>> move = ArcToArc(torsion, Arc.between(1.0, 2.0), Arc.between(-1.0, 1.0))
        >>> square = torch.tensor([[[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]]])
        >>> (torsion.value(move(square)) - 2 * (torch.pi / 2 - 1) + 1).abs() < 1e-6
        tensor([True])
    """

    bijective = True
    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.independent(constraints.real, 2)

    def __init__(self, torsion: Torsion, source: Arc, goal: Arc, *, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.torsion, self.source, self.goal = torsion, source, goal

    def _call(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        return _moved(self.torsion, x, self.source, self.goal)

    def _inverse(self, y: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        return _moved(self.torsion, y, self.goal, self.source)

    def log_abs_det_jacobian(self, x: Float[Tensor, "n atoms 3"], y: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """The same everywhere."""
        return x.new_full((len(x),), math.log(self.goal.width / self.source.width))

    def in_chart(self, y: Float[Tensor, "n atoms 3"]) -> Bool[Tensor, " n"]:
        """Whether the torsion lies in the goal's arc."""
        return self.goal.holds(self.torsion.value(y))


def _moved(torsion: Torsion, x: Tensor, source: Arc, goal: Arc) -> Tensor:
    value = torsion.value(x)
    place = goal.start + goal.width / source.width * source.along(value)
    return torsion.turned(x, place - value)


def walled(system: openmm.System, region: Region, stiffness: float = WALL) -> openmm.System:
    r"""A copy of the system with a wall around a region, exactly 0 inside:

    $$W(\varphi) = k\, \max(0, |\varphi - c| - w/2)^2, \qquad |\varphi - c| \text{ the shorter way round}$$

    Conformations that its dynamics visits inside of the region are equilibrium samples of the system cut down to it.

    Args:
        region: around whose arc, of centre c and width w.
        stiffness: k in kJ/mol/rad².
    """
    wall = openmm.CustomTorsionForce(
        "stiffness*max(0, apart-half)^2; apart=abs(turned-6.283185307179586*floor(turned/6.283185307179586+0.5)); "
        "turned=theta-centre"
    )
    wall.setName("wall")
    for parameter in ("centre", "half", "stiffness"):
        wall.addPerTorsionParameter(parameter)
    arc = region.arc
    wall.addTorsion(*region.torsion.atoms, [arc.start + arc.width / 2, arc.width / 2, stiffness])
    copy = deepcopy(system)
    copy.addForce(wall)
    return copy


def _backbone(molecule: Molecule, name: str) -> tuple[int, int, int, int]:
    if name not in BACKBONE:
        raise InputError(
            f"a torsion is phi, psi or a list of four atoms: got {name!r}; atoms are called as {molecule.atom_names[0]}"
        )
    residues = [{a.name: a.index for a in r.atoms()} for r in molecule.topology.residues()]
    found = []
    for k in range(len(residues)):
        wanted = [(k + step, atom) for atom, step in BACKBONE[name]]
        if all(0 <= r < len(residues) and atom in residues[r] for r, atom in wanted):
            found.append(tuple(residues[r][atom] for r, atom in wanted))
    if len(found) != 1:
        raise InputError(
            f"{name} names a torsion where the molecule has one: this one has {len(found)}; give four atoms, as in "
            f'["{molecule.atom_names[0]}", ...]'
        )
    return found[0]


def _named(molecule: Molecule, names: Sequence[str]) -> tuple[int, int, int, int]:
    known: dict[str, Any] = {name: i for i, name in enumerate(molecule.atom_names)}
    if len(names) != 4 or len(set(names)) != 4:
        raise InputError(f"a torsion is of four different atoms: got {', '.join(names) or 'none'}")
    for name in names:
        if name not in known:
            raise InputError(f"a torsion's atoms are the molecule's: it has no {name!r}; it has {', '.join(known)}")
    one, two, three, four = (known[name] for name in names)
    return one, two, three, four
