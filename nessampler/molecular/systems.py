"""From a structure file and force-field files to an `openmm.System` whose energy is a density on R^3N."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openmm
from openmm import app, unit

from nessampler.errors import InputError

__all__ = ["Molecule", "check_density", "check_same_atoms", "load_structure", "parameterize"]

_NM = unit.nano * unit.meter
_METHODS = {"NoCutoff": app.NoCutoff, "CutoffNonPeriodic": app.CutoffNonPeriodic}


@dataclass(frozen=True)
class Molecule:
    """Topology and positions `(atoms, 3)` in nm, as read from a structure file.

    Example:
        >>> from nessampler.runs import catalogue
        >>> molecule = load_structure(catalogue.find("alanine-solvation").with_name("alanine-dipeptide.pdb"))
        >>> molecule.positions.shape, molecule.atom_names[:3]
        ((22, 3), ('ACE1:H1', 'ACE1:CH3', 'ACE1:H2'))
    """

    topology: app.Topology
    positions: np.ndarray

    @property
    def atom_names(self) -> tuple[str, ...]:
        """`residue:atom` for every atom, in order."""
        return tuple(f"{a.residue.name}{a.residue.index + 1}:{a.name}" for a in self.topology.atoms())


def load_structure(path: Path) -> Molecule:
    """Read a PDB or PDBx/mmCIF file.

    Raises:
        InputError: the file is missing, not readable as a structure, or holds NaN coordinates.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "argon.pdb")
        ...     _ = file.write_text("HETATM    1 AR    AR A   1       1.000   2.000   3.000  1.00  0.00          Ar\\n")
        ...     load_structure(file).positions  # Å in the file, nm here
        array([[0.1, 0.2, 0.3]])
    """
    if not path.is_file():
        raise InputError(f"the structure file must exist: {path} does not; check `structure` in system.toml")
    try:
        reader = (
            app.PDBxFile(str(path)) if path.suffix.lower() in {".cif", ".pdbx", ".mmcif"} else app.PDBFile(str(path))
        )
    except Exception as error:
        raise InputError(f"the structure file must be PDB or PDBx/mmCIF: {path} could not be read ({error})") from error
    positions = np.array(reader.getPositions(asNumpy=True) / _NM)  # pyright: ignore[reportOperatorIssue]
    molecule = Molecule(reader.getTopology(), np.asarray(positions, dtype=np.float64))
    if len(molecule.positions) == 0:
        raise InputError(f"a structure needs atoms: {path} holds none")
    bad = ~np.isfinite(molecule.positions).all(axis=1)
    if bad.any():
        name = molecule.atom_names[int(np.flatnonzero(bad)[0])]
        raise InputError(f"coordinates must be finite: atom {name} of {path} is not; mend the file")
    return molecule


def parameterize(
    molecule: Molecule,
    force_field: Sequence[str],
    options: Mapping[str, Any] | None = None,
    hydrogen_mass: float | None = None,
    folder: Path | None = None,
) -> openmm.System:
    """Apply force-field XML files (OpenMM's own, or files in `folder`) without constraints.

    `options` go to `ForceField.createSystem`; `hydrogen_mass` in dalton repartitions masses, which changes the
    dynamics but no configurational average.

    Raises:
        InputError: an unknown force field, one in `folder` that holds scripts or includes, a residue without template,
            constraints asked for, an unknown option.

    Example:
        >>> from nessampler.runs import catalogue
        >>> molecule = load_structure(catalogue.find("alanine-solvation").with_name("alanine-dipeptide.pdb"))
        >>> system = parameterize(molecule, ["amber96.xml"], hydrogen_mass=4.0)
        >>> system.getNumParticles(), system.getNumConstraints(), system.getParticleMass(0).value_in_unit(unit.dalton)
        (22, 0, 4.0)
    """
    options = dict(options or {})
    if options.pop("constraints", None) not in (None, "None") or options.pop("rigidWater", False):
        raise InputError(
            "a density on R^3N needs every bond flexible: got `constraints` or `rigidWater` in the options; remove them"
        )
    method = options.pop("nonbondedMethod", "NoCutoff")
    if method not in _METHODS:
        raise InputError(
            f"nonbondedMethod must be one of {', '.join(_METHODS)} for a molecule without box: got {method!r}"
        )
    for own in [folder / f for f in force_field] if folder is not None else []:
        if own.is_file():
            _refuse_code(own)
    files = [str(folder / f) if folder is not None and (folder / f).is_file() else f for f in force_field]
    try:
        field = app.ForceField(*files)
    except Exception as error:
        raise InputError(
            f"force_field must name files that ship with OpenMM or lie in the system's folder: "
            f"could not load {', '.join(force_field)} ({error})"
        ) from error
    masses = {} if hydrogen_mass is None else {"hydrogenMass": unit.Quantity(hydrogen_mass, unit.dalton)}
    try:
        system = field.createSystem(
            molecule.topology,
            nonbondedMethod=_METHODS[method],
            constraints=None,
            rigidWater=False,
            **masses,
            **options,
        )
    except Exception as error:
        raise InputError(f"{', '.join(force_field)} cannot describe this molecule: {error}") from error
    check_density(system)
    return system


def _refuse_code(path: Path) -> None:
    """OpenMM runs the scripts in a force field as Python, and reads files that it includes from anywhere."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, UnicodeError, ValueError) as error:
        raise InputError(f"a force field is an XML file: {path} could not be read ({error})") from error
    for tag in ("Script", "InitializationScript", "Include"):
        if root.find(f".//{tag}") is not None:
            raise InputError(
                f"a force field in a system's folder must be data alone: {path} has an element <{tag}>; name included "
                "files in `force_field`, and build a system that needs a script in Python, for nessampler.molecular"
            )


def check_density(system: openmm.System) -> None:
    """Refuse a system whose energy alone does not define a density on R^3N.

    Raises:
        InputError: constraints, virtual sites, massless particles, periodic boxes or barostats.
    """
    if system.getNumConstraints():
        raise InputError(
            f"a density on R^3N needs every bond flexible: the system has {system.getNumConstraints()} constraints; "
            "build it with constraints=None, rigidWater=False"
        )
    for i in range(system.getNumParticles()):
        if system.isVirtualSite(i):
            raise InputError(
                f"virtual sites have no density of their own: particle {i} is one; use a model without them"
            )
        if not system.getParticleMass(i) > unit.Quantity(0.0, unit.dalton):
            raise InputError(f"every particle needs a mass: particle {i} has none, so MD would never move it")
    for force in system.getForces():
        kind = type(force).__name__  # its name is the user's to choose
        if "Barostat" in kind:
            raise InputError(f"a barostat changes the box, which is not part of the density: remove the {kind}")
    if system.usesPeriodicBoundaryConditions():
        raise InputError(
            "OpenMM's energies of periodic systems are no density on R^3N: use nonbondedMethod NoCutoff or "
            'CutoffNonPeriodic, or, for CutoffPeriodic and Ewald, openmm_target(..., backend="torch")'
        )


def check_same_atoms(a: Molecule, b: Molecule) -> None:
    """The two states must describe the same atoms in the same order.

    Raises:
        InputError: naming the first atom that differs.
    """
    if len(a.positions) != len(b.positions):
        raise InputError(
            f"both states must have the same atoms: A has {len(a.positions)}, B has {len(b.positions)}; "
            "give both states the same structure"
        )
    elements = ([x.element for x in m.topology.atoms()] for m in (a, b))
    for i, (p, q, e, f) in enumerate(zip(a.atom_names, b.atom_names, *elements, strict=True)):
        if p != q or e != f:
            raise InputError(
                f"both states must list the same atoms in the same order: atom {i} is {p} in A but {q} in B; "
                "write both structures from one file"
            )
