"""Make `tetraalanine.pdb`: ACE-ALA4-NME from ideal internal coordinates, minimised in amber14 with OBC2.

    python systems/tetraalanine-solvation/build.py OUTPUT.pdb     # seconds

Heavy atoms are placed one after another, each by a bond, an angle and a torsion; OpenMM adds the hydrogens. The
backbone is extended, φ = -75° and ψ = 145°, every peptide bond trans and every residue L.
"""

import io
import random
import sys

import numpy as np
import openmm
from openmm import app, unit

PHI, PSI, OMEGA = -75.0, 145.0, 180.0
CHIRAL = ("N", "C", "CB")  # seen from CA, against the clock with HA behind: L


def place(a: np.ndarray, b: np.ndarray, c: np.ndarray, bond: float, angle: float, torsion: float) -> np.ndarray:
    """The atom at this distance (angstrom) from c, at this angle to b and this torsion about b-c (degrees)."""
    angle, torsion = np.radians(angle), np.radians(torsion)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    axes = np.stack([along, np.cross(normal, along), normal])
    part = [-np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion)]
    return c + bond * (np.array(part) @ axes)


def heavy_atoms(residues: int = 4) -> list[tuple[str, str, int, np.ndarray]]:
    """Name, residue and position (angstrom) of every heavy atom."""
    methyl, carbonyl = np.zeros(3), np.array([1.52, 0.0, 0.0])
    oxygen = np.array([1.52 + 1.23 * np.cos(np.radians(59)), 1.23 * np.sin(np.radians(59)), 0.0])
    atoms = [("CH3", "ACE", 1, methyl), ("C", "ACE", 1, carbonyl), ("O", "ACE", 1, oxygen)]
    before, last, torsion = methyl, carbonyl, PSI  # the atoms before the next nitrogen
    nitrogen = place(oxygen, before, last, 1.335, 116.6, 180.0)
    nitrogen = place(nitrogen, before, last, 1.335, 116.6, 0.0) if nitrogen[1] > 0 else nitrogen  # opposite to O
    for k in range(2, residues + 2):
        alpha = place(before, last, nitrogen, 1.449, 121.9, OMEGA)
        c = place(last, nitrogen, alpha, 1.522, 111.0, PHI)
        beta = place(last, nitrogen, alpha, 1.526, 109.7, PHI - 122.0)
        o = place(nitrogen, alpha, c, 1.229, 120.4, torsion + 180.0)
        rows = zip(("N", "CA", "CB", "C", "O"), (nitrogen, alpha, beta, c, o), strict=True)
        atoms += [(name, "ALA", k, position) for name, position in rows]
        before, last, nitrogen = alpha, c, place(nitrogen, alpha, c, 1.335, 116.6, torsion)
    cap = place(before, last, nitrogen, 1.449, 121.9, OMEGA)
    return [*atoms, ("N", "NME", residues + 2, nitrogen), ("C", "NME", residues + 2, cap)]


def handedness(topology: app.Topology, positions: np.ndarray) -> list[float]:
    """The triple product about every CA in A^3: positive for L."""
    found = []
    for residue in topology.residues():
        index = {atom.name: atom.index for atom in residue.atoms()}
        if "CA" in index:
            n, c, beta = (positions[index[name]] - positions[index["CA"]] for name in CHIRAL)
            found.append(float(n @ np.cross(c, beta)))
    return found


def main() -> None:
    line = "ATOM  {:5d} {:<4s} {} A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           {}"
    rows = [
        line.format(i, name if len(name) > 3 else " " + name, residue, k, *x, name[0])
        for i, (name, residue, k, x) in enumerate(heavy_atoms(), 1)
    ]
    file = app.PDBFile(io.StringIO("\n".join([*rows, "END"])))
    field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
    random.seed(0)  # OpenMM draws the hydrogens' first places
    modeller = app.Modeller(file.topology, file.positions)
    modeller.addHydrogens(field, platform=openmm.Platform.getPlatformByName("Reference"))
    system = field.createSystem(modeller.topology, constraints=None, rigidWater=False)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(modeller.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 0.1)  # pyright: ignore[reportArgumentType]
    state = context.getState(getPositions=True, getEnergy=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    products = handedness(modeller.topology, positions)
    print(f"{state.getPotentialEnergy()}, triple products {np.round(products, 2)} A^3")
    if min(products) <= 0:
        raise SystemExit("a CA is not L")
    with open(sys.argv[1], "w") as out:
        app.PDBFile.writeFile(modeller.topology, (positions - positions.mean(0)) * unit.angstrom, out)


if __name__ == "__main__":
    main()
