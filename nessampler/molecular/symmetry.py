"""Local symmetry of rotors: which turns of a torsion give the same molecule back."""

from __future__ import annotations

from typing import Any

from nessampler.molecular.internal_coordinates import InternalCoordinates

__all__ = ["rotor_orders"]


def rotor_orders(topology: Any, coordinates: InternalCoordinates) -> dict[int, int]:
    """The order k of every soft torsion, by its index among the coordinates: a turn by 2π/k changes nothing.

    An end of the axis that carries three equal atoms and nothing else, such as the hydrogens of a methyl group, makes
    the order 3; every other axis has order 1. What is observed of such a torsion must have that period: whether a
    methyl group turned by 120° during a run tells nothing about sampling, since the two structures are the same
    molecule with hydrogens renamed. Two equal atoms are left alone: they are symmetric where the centre is planar, and
    not where it is a pyramid, which bonds do not tell. Torsions between molecules have order 1.

    Args:
        topology: with `.atoms()` and `.bonds()`, as of `openmm.app`, of the molecule in `coordinates`.
    """
    element = [atom.element.symbol for atom in topology.atoms()]
    neighbours: list[set[int]] = [set() for _ in element]
    for first, second in topology.bonds():
        neighbours[first.index].add(second.index)
        neighbours[second.index].add(first.index)

    def order(end: int, other: int) -> int:
        carried = neighbours[end] - {other}
        equal = len({element[i] for i in carried}) == 1 and all(len(neighbours[i]) == 1 for i in carried)
        return 3 if equal and len(carried) == 3 else 1

    tree, orders = coordinates.zmatrix, {}
    for index in coordinates.circular.nonzero().flatten().tolist():
        placement = tree.placements[index - (2 * tree.n_atoms - 3)]
        axis = placement.parent, placement.grandparent
        orders[index] = 1 if tree.between(placement[:4]) else max(order(*axis), order(*axis[::-1]))
    return orders
