"""Local symmetry of rotors: which turns of a torsion give the same molecule back."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.molecular.internal_coordinates import InternalCoordinates

__all__ = ["equal_triples", "rotor_orders", "spun"]


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
    centres = {centre for centre, _ in equal_triples(topology)}
    tree, orders = coordinates.zmatrix, {}
    for index in coordinates.circular.nonzero().flatten().tolist():
        placement = tree.placements[index - (2 * tree.n_atoms - 3)]
        axis = placement.parent, placement.grandparent
        orders[index] = 1 if tree.between(placement[:4]) or centres.isdisjoint(axis) else 3
    return orders


def equal_triples(topology: Any) -> list[tuple[int, tuple[int, int, int]]]:
    """Atoms with four neighbours, and the equal three of these that have no other bond: methyl groups, say."""
    element = [atom.element.symbol for atom in topology.atoms()]
    neighbours: list[set[int]] = [set() for _ in element]
    for first, second in topology.bonds():
        neighbours[first.index].add(second.index)
        neighbours[second.index].add(first.index)
    found = []
    for centre, around in enumerate(neighbours):
        leaves = sorted(i for i in around if len(neighbours[i]) == 1)
        if len(around) == 4 and len(leaves) == 3 and len({element[i] for i in leaves}) == 1:
            found.append((centre, (leaves[0], leaves[1], leaves[2])))
    return found


def spun(
    x: Float[Tensor, "*batch atoms 3"], topology: Any, *, generator: torch.Generator
) -> Float[Tensor, "*batch atoms 3"]:
    """The same conformations, the equal atoms of every triple renamed in turn by 0, 1 or 2 places at random.

    A turn by about 120°, which keeps chirality, and the energy of every force field that treats equal atoms alike.
    Draws become draws with rotors in equilibrium over their wells, even if these never turned during sampling.
    """
    order = torch.arange(x.shape[-2]).expand(x.shape[:-1]).clone()
    for _, triple in equal_triples(topology):
        places = torch.tensor(triple)
        shift = torch.randint(3, (*x.shape[:-2], 1), generator=generator, device=generator.device).cpu()
        order[..., places] = places[(torch.arange(3) + shift) % 3]
    return x.gather(-2, order[..., None].expand(x.shape).to(x.device))
