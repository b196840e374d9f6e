"""Several molecules in one z-matrix: each keeps its own tree, and six coordinates say how it lies to the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nessampler.errors import InputError
from nessampler.molecular.topology_tree import (
    Placement,
    ZMatrix,
    bond_graph,
    breadth_first,
    by_level,
    check_graph,
    neighbours_of,
)

__all__ = ["join_molecules", "join_topology"]


def join_molecules(
    n_atoms: int,
    bonds: Iterable[tuple[int, int]],
    *,
    elements: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    anchors: Iterable[tuple[int, int, int]] = (),
) -> ZMatrix:
    r"""One z-matrix of several molecules, joined by a distance, two angles and three torsions as in Boresch restraints.

    The first molecule of three atoms or more is the base. Each other molecule hangs on the base's anchors
    $a_1, a_2, a_3$ by its own $b_1, b_2, b_3$:

    | coordinate | atoms | |
    |---|---|---|
    | $r$ | $b_1 a_1$ | distance, nm |
    | $\theta_A$ | $b_1 a_1 a_2$ | angle |
    | $\phi_A$ | $b_1 a_1 a_2 a_3$ | torsion, circular |
    | $\theta_B$ | $b_2 b_1 a_1$ | angle, from two atoms on |
    | $\phi_B$ | $b_2 b_1 a_1 a_2$ | torsion, circular, from two atoms on |
    | $\phi_C$ | $b_3 b_2 b_1 a_1$ | torsion, circular, from three atoms on |

    Where $b_3$ is bonded to $b_1$, $\phi_C$ is the torsion $b_3 b_1 b_2 a_1$. Within a molecule everything is as in
    `ZMatrix.from_bonds`, so stiff and loose motions do not mix. The Jacobian is that of `InternalCoordinates`:
    $r^2 \sin\theta_A \sin\theta_B$ for the six, whose integral is the volume that $b_1$ may take times the $8\pi^2$ of
    the orientation.

    An ion has $r, \theta_A, \phi_A$ only. Where no molecule has three atoms, the first atoms make the root, those of
    diatomic molecules before single ones. By default the anchors are the centre of a molecule's tree and its two
    neighbours in the root; good ones are stiff and keep $\theta_A$ and $\theta_B$ away from 0 and π.

    Args:
        n_atoms: of all molecules, at least three.
        bonds, elements, names: as in `ZMatrix.from_bonds`.
        anchors: a triple for each molecule whose anchors are not to be the default's: the second bonded to the first,
            the third to either.

    Raises:
        InputError: a graph that `ZMatrix.from_bonds` refuses too, anchors that are no chain of bonds, or two triples
            for one molecule.

    References:
        Boresch et al., Absolute binding free energies: a quantitative approach for their calculation, 2003,
        doi:10.1021/jp0217839 (the six coordinates).

    Example:
        >>> water_and_ion = join_molecules(4, [(0, 1), (0, 2)], elements=["O", "H", "H", "Na"])
        >>> water_and_ion.coordinate_names[2:]
        ('r(Na3-O0)', 'angle(H1-O0-H2)', 'angle(Na3-O0-H1)', 'torsion(Na3-O0-H1-H2)')
    """
    bonds = list(bonds)
    check_graph(n_atoms, bonds, elements, names)
    if names is None:
        names = [f"{'' if elements is None else elements[a]}{a}" for a in range(n_atoms)]
    pieces = _pieces(bonds, elements, names, list(anchors))
    pieces.sort(key=lambda piece: -len(piece.chain))  # stable: the first molecule of three atoms is the base
    base, *others = pieces
    if base.root is None:
        a1, a2, a3 = chain = [a for piece in pieces for a in piece.chain][:3]
        root, placements = (a1, a2, a3), []
    else:
        root, chain, placements = base.root, base.chain, [*base.placements]
    for piece in others:
        placements += [p for p in _hang(piece, *chain) if p.atom not in root] + piece.placements
    return ZMatrix(tuple(names), root, by_level(root, placements), tuple(sorted(piece.atoms for piece in pieces)))


def join_topology(topology: Any, *, anchors: Iterable[tuple[int, int, int]] = ()) -> ZMatrix:
    """`join_molecules` of an `openmm.app.Topology`."""
    names, elements, bonds = bond_graph(topology)
    return join_molecules(len(names), bonds, elements=elements, names=names, anchors=anchors)


class _Piece(NamedTuple):
    """A molecule: its atoms, up to three anchors, and its tree where it has three atoms."""

    atoms: tuple[int, ...]
    chain: list[int]
    root: tuple[int, int, int] | None
    placements: list[Placement]


def _pieces(
    bonds: list[tuple[int, int]],
    elements: Sequence[str] | None,
    names: Sequence[str],
    anchors: list[tuple[int, int, int]],
) -> list[_Piece]:
    neighbours = neighbours_of(len(names), bonds)
    chains: dict[int, tuple[int, int, int]] = {}
    for triple in anchors:
        molecule = min(_reached(neighbours, _checked(triple, neighbours)[0]))
        if molecule in chains:
            raise InputError(
                f"a molecule has one triple of anchors: got {chains[molecule]} and {triple} for that of atom {molecule}"
                f" ({names[molecule]}); keep one"
            )
        chains[molecule] = triple
    pieces, seen = [], set()
    for atom in range(len(names)):
        if atom not in seen:
            atoms = _reached(neighbours, atom)
            seen |= set(atoms)
            pieces.append(_piece(atoms, bonds, elements, chains.get(atom), neighbours))
    return pieces


def _piece(
    atoms: tuple[int, ...],
    bonds: list[tuple[int, int]],
    elements: Sequence[str] | None,
    chain: tuple[int, int, int] | None,
    neighbours: list[list[int]],
) -> _Piece:
    if len(atoms) < 3:
        return _Piece(atoms, list(atoms), None, [])
    own = {atom: i for i, atom in enumerate(atoms)}
    root = None
    if chain is not None:
        b1, b2, b3 = (own[a] for a in chain)
        root = (b1, b2, b3) if chain[2] in neighbours[chain[1]] else (b2, b1, b3)
    tree = ZMatrix.from_bonds(
        len(atoms),
        [(own[a], own[b]) for a, b in bonds if a in own],
        elements=None if elements is None else [elements[a] for a in atoms],
        root=root,
    )
    first, centre, last = (atoms[i] for i in tree.root)
    placements = [
        Placement(*(atoms[i] for i in p[:4]), proper=p.proper, rotor=p.rotor)  # pyright: ignore[reportCallIssue]
        for p in tree.placements
    ]
    return _Piece(atoms, list(chain or (centre, first, last)), (first, centre, last), placements)


def _hang(piece: _Piece, a1: int, a2: int, a3: int) -> list[Placement]:
    b1 = piece.chain[0]
    hung = [Placement(b1, a1, a2, a3, proper=True, rotor=True)]
    if len(piece.chain) > 1:
        b2 = piece.chain[1]
        hung.append(Placement(b2, b1, a1, a2, proper=True, rotor=True))
    if piece.root is not None:
        b2, b3 = piece.chain[1:]
        parent, grandparent = (b1, b2) if piece.root[1] == b1 else (b2, b1)
        hung.append(Placement(b3, parent, grandparent, a1, proper=True, rotor=True))
    return hung


def _reached(neighbours: list[list[int]], atom: int) -> tuple[int, ...]:
    return tuple(sorted(breadth_first(neighbours, atom)))


def _checked(triple: tuple[int, int, int], neighbours: list[list[int]]) -> tuple[int, int, int]:
    inside = all(0 <= a < len(neighbours) for a in triple) and len(set(triple)) == 3
    if (
        not inside
        or triple[1] not in neighbours[triple[0]]
        or triple[2] not in (neighbours[triple[0]] + neighbours[triple[1]])
    ):
        raise InputError(
            f"anchors are three atoms of a molecule, the second bonded to the first, the third to either: got {triple};"
            " choose others"
        )
    return triple
