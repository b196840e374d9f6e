"""Which atoms each atom is placed from: a z-matrix tree grown over a molecule's bonds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from nessampler.errors import InputError

__all__ = [
    "BondGraph",
    "Placement",
    "ZMatrix",
    "bond_graph",
    "breadth_first",
    "by_level",
    "check_graph",
    "check_same_topology",
    "neighbours_of",
]

_BACKBONE = {
    ("C", "N", "CA", "C"): "phi",
    ("N", "CA", "C", "N"): "psi",
    ("CA", "C", "N", "CA"): "omega",
    ("CA", "C", "N", "C"): "omega",
    ("CH3", "C", "N", "CA"): "omega",
    ("CH3", "C", "N", "C"): "omega",
}


class BondGraph(NamedTuple):
    """What coordinates need of a topology: a unique name and an element symbol per atom, and the bonds."""

    names: tuple[str, ...]
    elements: tuple[str, ...]
    bonds: tuple[tuple[int, int], ...]

    @property
    def neighbours(self) -> list[list[int]]:
        """Ascending, per atom."""
        return neighbours_of(len(self.names), self.bonds)


def bond_graph(topology: Any) -> BondGraph:
    """The graph of an `openmm.app.Topology`, or of anything else with its `atoms()` and `bonds()`.

    Atom names that occur more than once get their residue in front, as in `ALA2:N`, and their index behind where
    residues repeat too.

    Raises:
        InputError: an atom without element.
    """
    atoms = list(topology.atoms())
    for atom in atoms:
        if atom.element is None:
            raise InputError(f"every atom needs an element: {atom.name} has none; leave out virtual sites")
    times = Counter(atom.name for atom in atoms)
    names = [a.name if times[a.name] == 1 else f"{a.residue.name}{a.residue.id}:{a.name}" for a in atoms]
    times = Counter(names)
    names = [name if times[name] == 1 else f"{name}#{i}" for i, name in enumerate(names)]
    elements = tuple(atom.element.symbol for atom in atoms)
    return BondGraph(tuple(names), elements, tuple((a.index, b.index) for a, b in topology.bonds()))


def check_same_topology(a: Any, b: Any) -> None:
    """Coordinates of one topology serve another only where atoms, their order and the bonds agree.

    Raises:
        InputError: naming the first atom that differs.

    Example:
        >>> from openmm import app
        >>> def diatomic(first: str, second: str) -> app.Topology:
        ...     topology = app.Topology()
        ...     residue = topology.addResidue("X", topology.addChain())
        ...     atoms = [topology.addAtom(name, app.Element.getBySymbol(name), residue) for name in (first, second)]
        ...     topology.addBond(*atoms)
        ...     return topology
        >>> check_same_topology(diatomic("H", "F"), diatomic("H", "F"))
        >>> check_same_topology(diatomic("H", "F"), diatomic("H", "Cl"))
        Traceback (most recent call last):
            ...
        nessampler.errors.InputError: both structures must list the same atoms in the same order: atom 1 is F ...
    """
    first, second = bond_graph(a), bond_graph(b)
    if len(first.names) != len(second.names):
        raise InputError(
            f"both structures must have the same atoms: A has {len(first.names)}, B has {len(second.names)}; "
            "coordinates belong to one molecule, so give both states the same one"
        )
    for i, (name, other) in enumerate(zip(first.names, second.names, strict=True)):
        element, symbol = first.elements[i], second.elements[i]
        if (name, element) == (other, symbol):
            continue
        where = second.names.index(name) if name in second.names else i
        remedy = "give both states the same molecule" if where == i else f"reorder B: there {name} is atom {where}"
        raise InputError(
            f"both structures must list the same atoms in the same order: atom {i} is {name} ({element}) in A but "
            f"{other} ({symbol}) in B; {remedy}"
        )
    for i, (near, other) in enumerate(zip(first.neighbours, second.neighbours, strict=True)):
        if near != other:
            in_a, in_b = (", ".join(first.names[j] for j in atoms) or "nothing" for atoms in (near, other))
            raise InputError(
                f"both structures must have the same bonds: atom {i} ({first.names[i]}) is bonded to {in_a} in A "
                f"but to {in_b} in B; correct the bonds, or use Cartesian positions where a bond breaks"
            )


class Placement(NamedTuple):
    """One atom and the three it is placed from: bond to `parent`, angle to `grandparent`, torsion to `reference`.

    A proper torsion has its reference bonded to the grandparent. Otherwise the reference is the atom that was
    placed first about the axis parent–grandparent, and the torsion is the difference of the two proper ones. A torsion
    that involves two molecules counts as proper, and as a rotor: nothing holds it.

    Attributes:
        proper: the first atom placed about its axis.
        rotor: proper, about a bond outside rings that has an end with four neighbours or more: such a bond turns.
    """

    atom: int
    parent: int
    grandparent: int
    reference: int
    proper: bool
    rotor: bool


@dataclass(frozen=True)
class ZMatrix:
    """A z-matrix: three root atoms, then every other atom from three that are placed before it.

    Attributes:
        labels: a unique name per atom.
        root: end, centre, end; the centre is bonded to both.
        placements: the other atoms, by `levels`.
        molecules: the atoms of each molecule where there are several, from `join_molecules`.
    """

    labels: tuple[str, ...]
    root: tuple[int, int, int]
    placements: tuple[Placement, ...]
    molecules: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def from_bonds(
        cls,
        n_atoms: int,
        bonds: Iterable[tuple[int, int]],
        *,
        elements: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        root: tuple[int, int, int] | None = None,
    ) -> ZMatrix:
        """The tree of a bond graph: shallow, of bonds only, rooted in heavy atoms at the middle of the molecule.

        Breadth-first from the atom with the smallest distance to its farthest atom, among those that make a root of
        heavy atoms; a bond that closes a ring is left out. The first atom about each axis is the one that carries
        most heavy atoms, then most atoms.

        Args:
            n_atoms: at least three.
            bonds: pairs of atom indices; order and repetition do not matter.
            elements: symbols; without them an atom with one neighbour counts as hydrogen.
            names: unique atom names; by default element and index.
            root: end, centre, end, to override the choice.

        Raises:
            InputError: fewer than three atoms, a bond or a root that the graph does not have, names that repeat, or
                more than one molecule.

        Example:
            >>> water = ZMatrix.from_bonds(3, [(0, 1), (0, 2)], elements="OHH", names=["O", "H1", "H2"])
            >>> water.coordinate_names
            ('r(H1-O)', 'r(O-H2)', 'angle(H1-O-H2)')
        """
        bonds = list(bonds)
        check_graph(n_atoms, bonds, elements, names)
        neighbours = neighbours_of(n_atoms, bonds)
        heavy = [len(near) > 1 if elements is None else elements[a] not in "HD" for a, near in enumerate(neighbours)]
        labels = tuple(names) if names is not None else tuple(_label(a, elements) for a in range(n_atoms))
        _check_connected(neighbours, labels)
        if root is not None:
            _check_root(root, neighbours)
        centre = root[1] if root is not None else _middle(neighbours, heavy)
        tree = _Tree(neighbours, heavy, centre)
        first, last = (root[0], root[2]) if root is not None else sorted(tree.children[centre][:2])
        root = (first, centre, last)
        return cls(labels, root, by_level(root, tree.placements(root)))

    @classmethod
    def from_topology(cls, topology: Any, *, root: tuple[int, int, int] | None = None) -> ZMatrix:
        """The tree of an `openmm.app.Topology` with one molecule, with the names of `bond_graph`."""
        names, elements, bonds = bond_graph(topology)
        return cls.from_bonds(len(names), bonds, elements=elements, names=names, root=root)

    @property
    def n_atoms(self) -> int:
        return len(self.labels)

    @property
    def bonds(self) -> list[tuple[int, int]]:
        """The `atoms - 1` bonds of the tree, in the order of the coordinates."""
        first, centre, last = self.root
        return [(first, centre), (centre, last)] + [(p.atom, p.parent) for p in self.placements]

    @property
    def angles(self) -> list[tuple[int, int, int]]:
        """The `atoms - 2` angles, in the order of the coordinates."""
        return [self.root] + [(p.atom, p.parent, p.grandparent) for p in self.placements]

    @property
    def levels(self) -> list[int]:
        """How many placements, one after the other, can be done at once."""
        return list(Counter(_levels(self.root, self.placements)).values())

    @property
    def coordinate_names(self) -> tuple[str, ...]:
        """A readable name per coordinate: bond lengths, then angles, then torsions."""
        lengths = [f"r({self._join(pair)})" for pair in self.bonds]
        angles = [f"angle({self._join(triple)})" for triple in self.angles]
        return tuple(lengths + angles + [self._torsion_name(p) for p in self.placements])

    def between(self, atoms: Iterable[int]) -> bool:
        """Whether these atoms belong to more than one molecule."""
        return len({self._molecule_of.get(a) for a in atoms}) > 1

    @cached_property
    def _molecule_of(self) -> dict[int, int]:
        return {atom: m for m, atoms in enumerate(self.molecules) for atom in atoms}

    def _join(self, atoms: Iterable[int]) -> str:
        return "-".join(self.labels[a] for a in atoms)

    def _torsion_name(self, placement: Placement) -> str:
        atoms = placement[:4]
        if not placement.proper:
            atom, parent, grandparent, reference = (self.labels[a] for a in atoms)
            return f"difference({atom},{reference} about {parent}-{grandparent})"
        for ordered in (atoms, atoms[::-1]):
            kind = _BACKBONE.get(tuple(self.labels[a].split(":")[-1] for a in ordered))  # pyright: ignore[reportArgumentType, reportCallIssue]
            if kind:
                return f"{kind}({self._join(ordered)})"
        return f"torsion({self._join(atoms)})"


class _Tree:
    """A breadth-first spanning tree; the children of an atom come in the order in which they are placed."""

    def __init__(self, neighbours: list[list[int]], heavy: list[bool], centre: int) -> None:
        self.neighbours = neighbours
        self.parent = breadth_first(neighbours, centre)
        self.ring_bonds = self._ring_bonds()
        heavy_below, below = [int(h) for h in heavy], [1] * len(heavy)
        self.children: list[list[int]] = [[] for _ in heavy]
        for atom in reversed(self.parent):
            if atom != centre:
                parent = self.parent[atom]
                self.children[parent].append(atom)
                heavy_below[parent] += heavy_below[atom]
                below[parent] += below[atom]
        for group in self.children:
            group.sort(key=lambda a: (-heavy_below[a], -below[a], a))

    def placements(self, root: tuple[int, int, int]) -> list[Placement]:
        first, centre, last = root
        rest = [a for a in self.children[centre] if a not in root]
        found = [Placement(a, centre, first, last, proper=False, rotor=False) for a in rest]
        todo = [(first, centre, last), (last, centre, first)] + [(a, centre, first) for a in rest]
        for axis in todo:  # grows while it is walked
            found += self._about(*axis)
            todo += [(child, axis[0], axis[1]) for child in self.children[axis[0]]]
        return found

    def _about(self, parent: int, grandparent: int, reference: int) -> list[Placement]:
        children = self.children[parent]
        if not children:
            return []
        first, *siblings = children
        placed = [Placement(first, parent, grandparent, reference, True, self._turns(parent, grandparent))]
        return placed + [Placement(a, parent, grandparent, first, False, False) for a in siblings]

    def _turns(self, a: int, b: int) -> bool:
        return frozenset((a, b)) not in self.ring_bonds and max(len(self.neighbours[a]), len(self.neighbours[b])) >= 4

    def _ring_bonds(self) -> set[frozenset[int]]:
        """The tree's bonds on the way between the two ends of a bond that the tree leaves out."""
        found: set[frozenset[int]] = set()
        for a, near in enumerate(self.neighbours):
            for b in near:
                if a < b and self.parent[a] != b and self.parent[b] != a:
                    found |= self._to_top(a) ^ self._to_top(b)
        return found

    def _to_top(self, atom: int) -> set[frozenset[int]]:
        path = set()
        while (parent := self.parent[atom]) != atom:
            path.add(frozenset((atom, parent)))
            atom = parent
        return path


def breadth_first(neighbours: list[list[int]], start: int) -> dict[int, int]:
    """Reached atom to its parent, in the order of discovery; the start is its own parent."""
    parent = {start: start}
    order = [start]
    for atom in order:  # grows while it is walked
        for near in neighbours[atom]:
            if near not in parent:
                parent[near] = atom
                order.append(near)
    return parent


def _middle(neighbours: list[list[int]], heavy: list[bool]) -> int:
    def rank(atom: int) -> tuple[int, int, int]:
        heavy_root = heavy[atom] + min(2, sum(heavy[b] for b in neighbours[atom]))
        return -heavy_root, _farthest(neighbours, atom), atom

    return min((a for a, near in enumerate(neighbours) if len(near) > 1), key=rank)


def _farthest(neighbours: list[list[int]], start: int) -> int:
    depth: dict[int, int] = {}
    for atom, parent in breadth_first(neighbours, start).items():
        depth[atom] = 0 if atom == start else depth[parent] + 1
    return max(depth.values())


def _levels(root: tuple[int, int, int], placements: Iterable[Placement]) -> list[int]:
    level = dict.fromkeys(root, 0)
    for p in placements:
        level[p.atom] = 1 + max(level[p.parent], level[p.grandparent], level[p.reference])
    return [level[p.atom] for p in placements]


def by_level(root: tuple[int, int, int], placements: list[Placement]) -> tuple[Placement, ...]:
    """The placements in an order in which each one's atoms are placed before it, as many as possible at once."""
    level = _levels(root, placements)
    return tuple(placements[i] for i in sorted(range(len(placements)), key=level.__getitem__))


def neighbours_of(n_atoms: int, bonds: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The atoms bonded to each atom, ascending."""
    found: list[set[int]] = [set() for _ in range(n_atoms)]
    for a, b in bonds:
        found[a].add(b)
        found[b].add(a)
    return [sorted(near) for near in found]


def _label(atom: int, elements: Sequence[str] | None) -> str:
    return f"{'' if elements is None else elements[atom]}{atom}"


def check_graph(
    n_atoms: int, bonds: list[tuple[int, int]], elements: Sequence[str] | None, names: Sequence[str] | None
) -> None:
    """Refuse too few atoms, bonds that leave the graph, and names that repeat."""
    if n_atoms < 3:
        raise InputError(f"internal coordinates need at least three atoms: got {n_atoms}; use Cartesian positions")
    for a, b in bonds:
        if not (0 <= a < n_atoms and 0 <= b < n_atoms and a != b):
            raise InputError(f"a bond joins two different atoms in 0..{n_atoms - 1}: got ({a}, {b}); correct it")
    for what, given in (("elements", elements), ("names", names)):
        if given is not None and len(given) != n_atoms:
            raise InputError(f"`{what}` must have one entry per atom, {n_atoms}: got {len(given)}")
    repeated = [name for name, times in Counter(names or ()).items() if times > 1]
    if repeated:
        raise InputError(f"atom names must be unique: {repeated[0]!r} occurs twice; put the residue in front")


def _check_connected(neighbours: list[list[int]], labels: tuple[str, ...]) -> None:
    reached = breadth_first(neighbours, 0)
    for atom, label in enumerate(labels):
        if atom not in reached:
            raise InputError(
                f"the bonds must connect all atoms into one molecule: atom {atom} ({label}) is not connected to atom 0"
                f" ({labels[0]}); add the missing bond, or ask for `several_molecules`"
            )


def _check_root(root: tuple[int, int, int], neighbours: list[list[int]]) -> None:
    first, centre, last = root
    inside = all(0 <= a < len(neighbours) for a in root)
    if not inside or first == last or not {first, last} <= set(neighbours[centre]):
        raise InputError(f"`root` must be (end, centre, end) with the centre bonded to both ends: got {root}")
