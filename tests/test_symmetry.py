"""Local symmetry of rotors."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.molecular.symmetry import equal_triples, rotor_orders, spun
from nessampler.molecular.systems import Molecule, load_structure, parameterize
from nessampler.molecular.target import OpenMMTarget
from nessampler.molecular.topology_tree import ZMatrix
from nessampler.runs import catalogue


@pytest.fixture(scope="module")
def dipeptide() -> Molecule:
    return load_structure(Path(catalogue.root()) / "amber-to-amoeba" / "alanine-dipeptide.pdb")


def coordinates_of(molecule: Molecule) -> InternalCoordinates:
    return InternalCoordinates.from_topology(molecule.topology, torch.as_tensor(molecule.positions)[None])


def test_methyl_groups_have_order_three_and_the_backbone_one(dipeptide: Molecule) -> None:
    coordinates = coordinates_of(dipeptide)
    orders = {coordinates.names[i]: k for i, k in rotor_orders(dipeptide.topology, coordinates).items()}
    assert sorted(orders.values()) == [1, 1, 3, 3, 3]
    assert {k for name, k in orders.items() if name.startswith(("phi", "psi"))} == {1}


def test_a_turn_by_the_order_renames_atoms_and_changes_no_energy(dipeptide: Molecule) -> None:
    coordinates = coordinates_of(dipeptide)
    target = OpenMMTarget(parameterize(dipeptide, ["amber14-all.xml"]), 300.0)
    z = coordinates(torch.as_tensor(dipeptide.positions)[None])
    x = coordinates.inv(z)
    before = float(target.energy(x)[0])
    for index, order in rotor_orders(dipeptide.topology, coordinates).items():
        moved = z.clone()
        moved[:, index] += 2 * math.pi / 3
        change = abs(float(target.energy(coordinates.inv(moved))[0]) - before)
        # The structure's methyl groups are ideal to the PDB's three decimals; phi and psi are no rotors.
        assert (change < 0.5) == (order == 3)


def test_two_equal_atoms_make_no_rotor() -> None:
    """An amine's pyramid is not the same after half a turn, and bonds do not tell a pyramid from a plane."""
    symbols = ["C", "C", "N", "H", "H", "H", "H", "H", "H", "H"]
    atoms = [SimpleNamespace(index=i, element=SimpleNamespace(symbol=s)) for i, s in enumerate(symbols)]
    pairs = [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7), (2, 8), (2, 9)]
    topology = SimpleNamespace(atoms=lambda: atoms, bonds=lambda: [(atoms[i], atoms[j]) for i, j in pairs])
    coordinates = InternalCoordinates(ZMatrix.from_bonds(len(symbols), pairs, elements=symbols))
    axes = {}
    for index, order in rotor_orders(topology, coordinates).items():
        placement = coordinates.zmatrix.placements[index - (2 * len(symbols) - 3)]
        axes[frozenset((placement.parent, placement.grandparent))] = order
    assert axes[frozenset((0, 1))] == 3
    assert axes[frozenset((1, 2))] == 1


def test_spun_rotors_are_spread_over_their_wells_and_change_nothing_else(dipeptide: Molecule) -> None:
    target = OpenMMTarget(parameterize(dipeptide, ["amber14-all.xml"]), 300.0)
    noise = torch.randn(600, 22, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.as_tensor(dipeptide.positions, dtype=torch.float64) + 0.003 * noise
    y = spun(x.view(20, 30, 22, 3), dipeptide.topology, generator=torch.Generator().manual_seed(1)).view(600, 22, 3)
    torch.testing.assert_close(target.energy(y), target.energy(x), rtol=0, atol=1e-9)
    coordinates = coordinates_of(dipeptide)
    before, after = coordinates(x), coordinates(y)
    for index, order in rotor_orders(dipeptide.topology, coordinates).items():
        turned = torch.remainder(after[:, index] - before[:, index] + math.pi / 3, 2 * math.pi) // (2 * math.pi / 3)
        counts = turned.long().bincount(minlength=3)
        assert (int(counts.min()) > 160) if order == 3 else (counts.tolist() == [600, 0, 0])
    hard = ~coordinates.circular
    assert float((after[:, hard].sort(0).values - before[:, hard].sort(0).values).abs().max()) < 0.2  # chirality stays


def test_triples_are_methyl_groups(dipeptide: Molecule) -> None:
    names = dipeptide.atom_names
    found = {names[centre]: [names[i] for i in leaves] for centre, leaves in equal_triples(dipeptide.topology)}
    assert len(found) == 3
    assert all(len(leaves) == 3 and all("H" in name for name in leaves) for leaves in found.values())
