r"""Custom forces of a few particles each: bonds, angles, torsions, external fields, compound and centroid bonds.

They are one kind. A bond is an expression of its particles' coordinates; distances, angles and torsions are written
in the expression's own language, so one graph holds the energy and the derivatives by every coordinate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.molecular.force_field.expressions import Function, Macro, compile_expression
from nessampler.molecular.force_field.tabulated import tabulated_functions

__all__ = [
    "CustomBonded",
    "custom_angle",
    "custom_bond",
    "custom_centroid_bond",
    "custom_compound_bond",
    "custom_external",
    "custom_torsion",
    "global_defaults",
    "parameter_list",
]

BOX = ("box.ax", "box.bx", "box.by", "box.cx", "box.cy", "box.cz")
"""Variables of an expression for the reduced box vectors; no name of OpenMM's can contain a dot."""


class CustomBonded(nn.Module):
    r"""$U(x) = \sum_b u(x_{b1}, \ldots, x_{bm}; \theta_b, \lambda)$ with an expression $u$.

    | symbol | argument | |
    |---|---|---|
    | $u$ | `text` | kJ/mol, of `names`, `coordinates` and global parameters |
    | $b1 \ldots bm$ | `particles` | `(bonds, m)` indices of atoms, or of centres |
    | $\theta_b$ | `names`, `parameters` | the name of every column of `(bonds, k)` |
    | $\lambda$ | `default_parameters` | names and defaults |

    Args:
        coordinates: how the expression calls x, y and z of every one of the m particles.
        functions: further functions of the expression by name.
        periodic: distances, angles and torsions are those of nearest images.
        weights: `(centres, atoms)`, if the particles are centres of groups.

    Shapes: positions `(3, atoms, walkers)` in nm, energies `(walkers,)` in kJ/mol.

    Raises:
        InputError: an expression that cannot be read.

    Example:
        >>> pair = CustomBonded(
        ...     "k*(distance(p1,p2)-1)^2", torch.tensor([[0, 1]]), names=["k"], parameters=torch.tensor([[3.0]])
        ... )
        >>> pair(torch.tensor([[[0.0], [3.0]], [[0.0], [0.0]], [[0.0], [0.0]]]), {}, None)
        tensor([12.])
    """

    particles: Tensor
    weights: Tensor | None

    def __init__(
        self,
        text: str,
        particles: Int[Tensor, "bonds m"],
        *,
        names: Sequence[str] = (),
        parameters: Float[Tensor, "bonds k"] | None = None,
        default_parameters: Mapping[str, float] | None = None,
        coordinates: Sequence[tuple[str, str, str]] | None = None,
        functions: Mapping[str, Function] | None = None,
        periodic: bool = False,
        weights: Float[Tensor, "centres atoms"] | None = None,
    ) -> None:
        super().__init__()
        bonds, members = particles.shape
        self.coordinates = tuple(coordinates or _numbered(members))
        self.parameter_names = tuple(names)
        self.parameter_values = parameter_list(parameters if parameters is not None else torch.zeros(bonds, 0))
        self.default_parameters = dict(default_parameters or {})
        self.functions = nn.ModuleList(f for f in (functions or {}).values() if isinstance(f, nn.Module))
        self.register_buffer("particles", particles.T.reshape(-1))
        self.register_buffer("weights", weights)
        self.bonds = bonds
        known = [*(c for xyz in self.coordinates for c in xyz), *self.parameter_names, *self.default_parameters]
        self.expression = compile_expression(
            text, known, functions={**_measures(members, periodic), **(functions or {})}
        )

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, " walkers"]:
        return self.contributions(x, globals, box).sum(0)

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, "bonds walkers"]:
        """The energy of every bond."""
        if self.weights is not None:
            x = self.weights @ x
        members = x.index_select(1, self.particles).unflatten(1, (len(self.coordinates), self.bonds))
        values: dict[str, Tensor] = {
            **{name: globals[name] for name in self.default_parameters},
            **dict(zip(self.parameter_names, self.parameter_values, strict=True)),
            **box_values(box, self.expression.names),
        }
        for xyz, member in zip(self.coordinates, members.unbind(1), strict=True):
            values.update(zip(xyz, member.unbind(0), strict=True))
        return self.expression(values).to(x).expand(self.bonds, x.shape[-1])


def custom_bond(force: Any, system: Any) -> CustomBonded:
    """From an `openmm.CustomBondForce`."""
    rows = [force.getBondParameters(i) for i in range(force.getNumBonds())]
    text = f"{force.getEnergyFunction()}; r=distance(p1,p2)"
    return _bonded(force, text, [r[:2] for r in rows], [r[2] for r in rows], _names(force, "Bond"), 2)


def custom_angle(force: Any, system: Any) -> CustomBonded:
    """From an `openmm.CustomAngleForce`."""
    rows = [force.getAngleParameters(i) for i in range(force.getNumAngles())]
    text = f"{force.getEnergyFunction()}; theta=angle(p1,p2,p3)"
    return _bonded(force, text, [r[:3] for r in rows], [r[3] for r in rows], _names(force, "Angle"), 3)


def custom_torsion(force: Any, system: Any) -> CustomBonded:
    """From an `openmm.CustomTorsionForce`."""
    rows = [force.getTorsionParameters(i) for i in range(force.getNumTorsions())]
    text = f"{force.getEnergyFunction()}; theta=dihedral(p1,p2,p3,p4)"
    return _bonded(force, text, [r[:4] for r in rows], [r[4] for r in rows], _names(force, "Torsion"), 4)


def custom_external(force: Any, system: Any) -> CustomBonded:
    """From an `openmm.CustomExternalForce`."""
    rows = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    text, names = force.getEnergyFunction(), _names(force, "Particle")
    particles = [r[:1] for r in rows]
    return _bonded(force, text, particles, [r[1] for r in rows], names, 1, coordinates=[("x", "y", "z")])


def custom_compound_bond(force: Any, system: Any) -> CustomBonded:
    """From an `openmm.CustomCompoundBondForce`."""
    rows = [force.getBondParameters(i) for i in range(force.getNumBonds())]
    members = force.getNumParticlesPerBond()
    text, names = force.getEnergyFunction(), _names(force, "Bond")
    return _bonded(force, text, [r[0] for r in rows], [r[1] for r in rows], names, members)


def custom_centroid_bond(force: Any, system: Any) -> CustomBonded:
    """From an `openmm.CustomCentroidBondForce`; groups without weights have their centre of mass."""
    rows = [force.getBondParameters(i) for i in range(force.getNumBonds())]
    members = force.getNumGroupsPerBond()
    text, names = force.getEnergyFunction(), _names(force, "Bond")
    weights = torch.zeros(force.getNumGroups(), system.getNumParticles(), dtype=torch.float64)
    for group in range(force.getNumGroups()):
        particles, given = force.getGroupParameters(group)
        masses = given or [system.getParticleMass(p)._value for p in particles]
        weights[group, list(particles)] = torch.tensor(masses, dtype=torch.float64) / sum(masses)
    groups, parameters = [r[0] for r in rows], [r[1] for r in rows]
    return _bonded(force, text, groups, parameters, names, members, weights=weights)


def parameter_list(columns: Tensor) -> nn.ParameterList:
    """One parameter `(interactions, 1)` per column, without gradient until asked for.

    A list, since names such as `type` are taken in a dictionary of parameters.
    """
    return nn.ParameterList(nn.Parameter(c[:, None].clone(), requires_grad=False) for c in columns.double().T)


def global_defaults(force: Any) -> dict[str, float]:
    """Names and defaults of a custom force's global parameters."""
    count = force.getNumGlobalParameters()
    return {force.getGlobalParameterName(i): force.getGlobalParameterDefaultValue(i) for i in range(count)}


def box_values(box: Tensor | None, names: Iterable[str]) -> dict[str, Tensor]:
    """The entries of the box vectors that an expression needs."""
    if box is None or not any(name in BOX for name in names):
        return {}
    return dict(zip(BOX, (box[0, 0], box[1, 0], box[1, 1], box[2, 0], box[2, 1], box[2, 2]), strict=True))


def _bonded(
    force: Any,
    text: str,
    particles: Sequence[Sequence[int]],
    parameters: Sequence[Sequence[float]],
    names: Sequence[str],
    members: int,
    *,
    coordinates: Sequence[tuple[str, str, str]] | None = None,
    weights: Tensor | None = None,
) -> CustomBonded:
    table = np.array([list(p) for p in parameters], dtype=np.float64).reshape(len(particles), len(names))
    return CustomBonded(
        text,
        torch.tensor([list(p) for p in particles], dtype=torch.long).reshape(-1, members),
        names=names,
        parameters=torch.from_numpy(table),
        default_parameters=global_defaults(force),
        coordinates=coordinates,
        functions=tabulated_functions(force) if hasattr(force, "getNumTabulatedFunctions") else {},
        periodic=force.usesPeriodicBoundaryConditions(),
        weights=weights,
    )


def _names(force: Any, kind: str) -> list[str]:
    count = getattr(force, f"getNumPer{kind}Parameters")()
    return [getattr(force, f"getPer{kind}ParameterName")(i) for i in range(count)]


# Geometry in the language of expressions ------------------------------------------------------------------------------

TINY = "1e-36"
"""Squared lengths below this, in nm², count as this: derivatives stay finite, in single precision too."""


def _numbered(members: int) -> list[tuple[str, str, str]]:
    return [(f"x{k}", f"y{k}", f"z{k}") for k in range(1, members + 1)]


def _measures(members: int, periodic: bool) -> dict[str, Macro]:
    points = {f"{letter}{k + 1}": xyz for k, xyz in enumerate(_numbered(members)) for letter in "pg"}
    found = {"periodicdistance": _macro(2, _DISTANCE, [("u", 1, 2)], True, {})}
    for prefix, known in (("", points), ("point", {})):
        found[f"{prefix}distance"] = _macro(2, _DISTANCE, [("u", 1, 2)], periodic, known)
        found[f"{prefix}angle"] = _macro(3, _ANGLE, [("u", 2, 1), ("v", 2, 3)], periodic, known)
        sides = [("u", 1, 2), ("v", 2, 3), ("w", 3, 4)]
        found[f"{prefix}dihedral"] = _macro(4, _DIHEDRAL, sides, periodic, known)
    return found


def _macro(
    count: int,
    text: str,
    sides: Sequence[tuple[str, int, int]],
    periodic: bool,
    points: Mapping[str, tuple[str, str, str]],
) -> Macro:
    arguments = tuple(name for xyz in _numbered(count) for name in xyz)
    text = ";".join([text, *(_side(name, start, end, periodic) for name, start, end in sides)])
    return Macro(arguments, text, BOX if periodic else (), points)


def _side(name: str, start: int, end: int, periodic: bool) -> str:
    """Definitions of the displacement from one point to another, or between their nearest images."""
    if not periodic:
        return ";".join(f"{name}{c}={c}{end}-{c}{start}" for c in "xyz")
    # Third box vector, second, first: in the text, what is used comes after what uses it.
    return (
        f"{name}x={name}x1-box.ax*floor({name}x1/box.ax+0.5);"
        f"{name}x1={name}x2-box.bx*{name}b;"
        f"{name}y={name}y1-box.by*{name}b;"
        f"{name}b=floor({name}y1/box.by+0.5);"
        f"{name}x2=x{end}-x{start}-box.cx*{name}c;"
        f"{name}y1=y{end}-y{start}-box.cy*{name}c;"
        f"{name}z=z{end}-z{start}-box.cz*{name}c;"
        f"{name}c=floor((z{end}-z{start})/box.cz+0.5)"
    )


_DISTANCE = f"sqrt(max(ux^2+uy^2+uz^2,{TINY}))"
_ANGLE = f"atan2(sqrt(max(nx^2+ny^2+nz^2,{TINY})),ux*vx+uy*vy+uz*vz);nx=uy*vz-uz*vy;ny=uz*vx-ux*vz;nz=ux*vy-uy*vx"
_DIHEDRAL = (
    f"atan2(sqrt(max(vx^2+vy^2+vz^2,{TINY}))*(ux*nx+uy*ny+uz*nz),mx*nx+my*ny+mz*nz);"
    "mx=uy*vz-uz*vy;my=uz*vx-ux*vz;mz=ux*vy-uy*vx;"
    "nx=vy*wz-vz*wy;ny=vz*wx-vx*wz;nz=vx*wy-vy*wx"
)
