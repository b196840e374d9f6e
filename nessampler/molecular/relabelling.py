"""Equal atoms renamed: one conformation out of all that differ by names only, found from the bond graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.internal_coordinates import proper_dihedral
from nessampler.molecular.topology_tree import BondGraph, bond_graph, breadth_first

__all__ = ["MirrorPair", "Relabelling", "SymmetricRotor"]

BLIND = 1e-6  # kT
Energy = Callable[[Tensor], Tensor]
Permutation = tuple[int, ...]  # entry i is the atom whose position label i takes


@dataclass(frozen=True)
class SymmetricRotor:
    r"""A bond whose ends look the same after a turn: methyl, carboxylate, amide NH2, phenyl, or two of them.

    Among all renamings the representative is the one whose first atoms' torsion is nearest to `centre`:
    $\min_{ij} |\tau_{ij} - c|$ over the equal atoms i of one end and j of the other.

    Attributes:
        axis: the two atoms of the bond.
        heads: the equal atoms at each end; one atom that stays where the end has no symmetry.
        permutations: of all atoms, in the order of `heads[0]` × `heads[1]`; the first is the identity.
        centre: c in rad.
    """

    axis: tuple[int, int]
    heads: tuple[tuple[int, ...], tuple[int, ...]]
    permutations: tuple[Permutation, ...]
    centre: float = math.pi

    @property
    def order(self) -> int:
        """How many renamings there are, the identity included."""
        return len(self.permutations)

    @property
    def rests_on(self) -> set[int]:
        """The atoms that decide."""
        return {*self.axis, *self.heads[0], *self.heads[1]}

    def choose(self, x: Float[Tensor, "n atoms 3"]) -> Int[Tensor, " n"]:
        """Which of the permutations gives the representative."""
        torsions = self._torsions(x)
        return (torch.remainder(torsions - self.centre + math.pi, 2 * math.pi) - math.pi).abs().argmin(-1)

    def seen_in(self, x: Float[Tensor, "m atoms 3"]) -> SymmetricRotor:
        """With the centre at the sampled torsions, nearest to the first frame's as it is named."""
        fold = math.lcm(len(self.heads[0]), len(self.heads[1]))
        torsions = self._torsions(x.double())
        phase = torch.atan2((fold * torsions).sin().mean(), (fold * torsions).cos().mean())
        wanted = torsions[0, 0]
        turn = 2 * math.pi / fold
        return replace(self, centre=float(phase / fold + turn * torch.round((wanted - phase / fold) / turn)))

    def _torsions(self, x: Tensor) -> Float[Tensor, "n pairs"]:
        first, second = torch.tensor(list(product(*self.heads)), device=x.device).T
        a, b = (torch.full_like(first, atom) for atom in self.axis)
        return proper_dihedral(x, first, a, b, second)


@dataclass(frozen=True)
class MirrorPair:
    """Two equal atoms at a tetrahedral centre, as in CH2: renaming them mirrors the centre's chirality.

    The representative has a signed volume of one sign. Molecular dynamics never leaves it, but two structures may
    name the pair differently.

    Attributes:
        centre: their common neighbour.
        heads: the pair.
        others: the centre's other two neighbours.
        permutations: of all atoms: the identity and the exchange.
        sign: of the representative.
    """

    centre: int
    heads: tuple[int, int]
    others: tuple[int, int]
    permutations: tuple[Permutation, ...]
    sign: float = 1.0

    order = 2

    @property
    def rests_on(self) -> set[int]:
        """The atoms that decide."""
        return {self.centre, *self.heads, *self.others}

    def choose(self, x: Float[Tensor, "n atoms 3"]) -> Int[Tensor, " n"]:
        """Which of the permutations gives the representative."""
        return (self.sign * self._volume(x) < 0).long()

    def seen_in(self, x: Float[Tensor, "m atoms 3"]) -> MirrorPair:
        """With the sign that most of these frames have."""
        return replace(self, sign=-1.0 if float(self._volume(x).sign().sum()) < 0 else 1.0)

    def _volume(self, x: Tensor) -> Float[Tensor, " n"]:
        p, q = (x[:, head] - x[:, self.centre] for head in self.heads)
        across = x[:, self.others[0]] - x[:, self.others[1]]
        return (p * torch.linalg.cross(q, across)).sum(-1)


@dataclass(frozen=True)
class Relabelling:
    r"""Conformations mapped to the representative of their orbit under renaming of equal atoms.

    $$x \mapsto x_{\pi(x)}, \qquad \pi(x) \in G, \quad U(x_\pi) = U(x), \qquad
    \log Z = \log Z_\text{representatives} + \log |G|$$

    Renaming keeps volumes, so log|det| is 0: if x has the density $e^{-U}$ on all of space, the result has the density
    $|G| e^{-U} / Z$ on the representatives (`is_representative`). Between two states of one molecule $\log|G|$ cancels,
    provided that both are renamed, or both are sampled over the same part of the orbit.

    Found automatically (`from_topology`), where nothing but names changes and no stereocentre is inverted:

    | group | renamings |
    |---|---|
    | three equal atoms of one bond on a tetrahedral atom (methyl, NH3+, CF3) | 3, turns only |
    | two equal branches on an atom with three neighbours (NH2, carboxylate, nitro, phenyl, guanidinium) | 2 |
    | the same at both ends of a bond (ethane 3 × 3, toluene 3 × 2) | their product |
    | two equal atoms of one bond on a tetrahedral atom (CH2) | 2, a mirror pair |

    Left alone: branches with tetrahedral atoms (the methyl groups of isopropyl among one another), symmetries of the
    whole molecule (water, methane, a macrocycle), and exchanges of whole molecules.

    Bonds do not tell charges or improper torsions, which a force field may give unequally to equal atoms; charges
    fitted to one conformation often are. With an `energy`, `from_topology` keeps what the energy is blind to.

    Attributes:
        atoms: how many.
        symmetries: in the order in which they are applied: those that move larger branches first.

    Example:
        >>> from nessampler.molecular.topology_tree import BondGraph
        >>> bonds = ((0, 1), (0, 2), (0, 3), (0, 4), (4, 5))
        >>> methanol = Relabelling.from_graph(BondGraph(tuple("CabcOH"), tuple("CHHHOH"), bonds))
        >>> methanol.order, methanol.symmetries[0].axis
        (3, (0, 4))
    """

    atoms: int
    symmetries: tuple[SymmetricRotor | MirrorPair, ...]

    @classmethod
    def from_topology(
        cls,
        topology: Any,
        reference: Float[Tensor, "m atoms 3"] | None = None,
        *,
        energy: Energy | None = None,
    ) -> Relabelling:
        """Of an `openmm.app.Topology`; one or more molecules.

        Args:
            topology: with elements and bonds.
            reference: sampled frames; representatives are then centred where they are, named as the first one. A
                fit block, never evaluation samples. Without, rotors are centred at 180° and mirror pairs have
                positive volume.
            energy: in kT, such as a target's; renamings that change it by more than 1e-6 are left out. It is compared
                near the first frames of the reference.

        Raises:
            InputError: frames of another shape, or an energy without a reference.
        """
        if energy is not None and reference is None:
            raise InputError("energies are compared at sampled frames: got `energy` without `reference`; give both")
        found = cls.from_graph(bond_graph(topology), reference, energy=energy)
        if reference is None:
            return found
        return replace(found, symmetries=tuple(s.seen_in(reference) for s in found.symmetries))

    @classmethod
    def from_graph(
        cls, graph: BondGraph, reference: Float[Tensor, "m atoms 3"] | None = None, *, energy: Energy | None = None
    ) -> Relabelling:
        """Of a bond graph, with representatives where they are without a reference."""
        search = _Search(graph)
        candidates = search.candidates()
        if reference is not None:
            cls(len(graph.names), ())._check_shape(reference)
        if reference is not None and energy is not None:
            x = _perturbed(reference)
            candidates = [
                s for s in candidates if all(change <= BLIND for change in _changes(energy, x, s.permutations))
            ]
        return cls(len(graph.names), search.compatible(candidates))

    @property
    def order(self) -> int:
        """How many conformations an orbit has."""
        return math.prod(symmetry.order for symmetry in self.symmetries)

    def __call__(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        """The representatives; differentiable."""
        return _renamed(x, self.permutation(x))

    def permutation(self, x: Float[Tensor, "n atoms 3"]) -> Int[Tensor, "n atoms"]:
        """π(x): entry i is the atom whose position label i takes."""
        self._check_shape(x)
        x = x.detach()
        total = torch.arange(self.atoms, device=x.device).expand(len(x), -1)
        for symmetry in self.symmetries:
            choices = torch.tensor(symmetry.permutations, device=x.device)
            step = choices[symmetry.choose(_renamed(x, total))]
            total = total.gather(1, step)
        return total

    def is_representative(self, x: Float[Tensor, "n atoms 3"]) -> Bool[Tensor, " n"]:
        """Whether renaming leaves x as it is."""
        return (self.permutation(x) == torch.arange(self.atoms, device=x.device)).all(-1)

    def spread(self, x: Float[Tensor, "n atoms 3"], *, generator: torch.Generator) -> Float[Tensor, "n atoms 3"]:
        """x with random names: uniform over the orbit, whatever part of it was sampled."""
        self._check_shape(x)
        for symmetry in self.symmetries:
            choices = torch.tensor(symmetry.permutations, device=x.device)
            chosen = torch.randint(symmetry.order, (len(x),), generator=generator, device=generator.device)
            x = _renamed(x, choices[chosen.to(x.device)])
        return x

    def check(self, energy: Energy, x: Float[Tensor, "n atoms 3"]) -> None:
        """Whether an energy in kT, such as a target's, is blind to every renaming, near x.

        Raises:
            InputError: naming the atoms whose exchange changes the energy by more than 1e-6 kT.
        """
        self._check_shape(x)
        x = _perturbed(x)
        for symmetry in self.symmetries:
            changes = _changes(energy, x, symmetry.permutations)
            for permutation, change in zip(symmetry.permutations, changes, strict=True):
                if not change <= BLIND:
                    raise InputError(
                        f"renaming equal atoms must not change the energy: for atoms {sorted(_moved(permutation))} it"
                        f" changes by {change:.3g} kT; give `energy` to `from_topology`, which leaves such atoms alone,"
                        " or give equal atoms equal parameters"
                    )

    def _check_shape(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[1:] != (self.atoms, 3) or not x.is_floating_point():
            raise InputError(
                f"positions must be (n, {self.atoms}, 3) and floating point: got {tuple(x.shape)} of {x.dtype}"
            )


class _Search:
    """Which renamings a bond graph allows, and which of them get along."""

    def __init__(self, graph: BondGraph) -> None:
        self.elements, self.neighbours = graph.elements, graph.neighbours
        self.identity = tuple(range(len(graph.names)))

    def candidates(self) -> list[SymmetricRotor | MirrorPair]:
        """Everything the graph allows, those that move more atoms first."""
        pairs = self._pairs()
        moved = {atom for pair in pairs for atom in pair.heads}
        return sorted([*self._rotors(moved), *pairs], key=lambda s: -len(_moved(*s.permutations)))

    def compatible(self, found: list[SymmetricRotor | MirrorPair]) -> tuple[SymmetricRotor | MirrorPair, ...]:
        """As many as possible, one per bond. A later renaming must not touch what an earlier one is decided by."""
        orbits = {frozenset(_moved(*s.permutations)) for s in found}
        kept: list[SymmetricRotor | MirrorPair] = []
        for symmetry in found:
            taken = isinstance(symmetry, SymmetricRotor) and any(
                isinstance(k, SymmetricRotor) and k.axis == symmetry.axis for k in kept
            )
            if not taken and all(_may_follow(symmetry, earlier, orbits) for earlier in kept):
                kept.append(symmetry)
        return tuple(kept)

    def _rotors(self, moved: set[int]) -> list[SymmetricRotor]:
        """Per bond: both ends together, and each end alone for where the other one is spoken for."""
        found: list[SymmetricRotor] = []
        ends = {
            (a, b): self._end(a, b)
            for a in self.identity
            for b in self.neighbours[a]
            if min(len(self.neighbours[a]), len(self.neighbours[b])) > 1
        }
        moved = moved | {atom for end in ends.values() for permutation in end[1] for atom in _moved(permutation)}
        for (a, b), (heads, turns) in ends.items():
            if a > b:
                continue
            others, other_turns = ends[b, a]
            still = (self._reference(a, b, moved),), (self._reference(b, a, moved),)
            both = tuple(_after(s, t) for s in turns for t in other_turns)
            if len(turns) > 1 and len(other_turns) > 1:
                found.append(SymmetricRotor((a, b), (heads, others), both))
            if len(turns) > 1:
                found.append(SymmetricRotor((a, b), (heads, still[1]), turns))
            if len(other_turns) > 1:
                found.append(SymmetricRotor((a, b), (still[0], others), other_turns))
        return found

    def _pairs(self) -> list[MirrorPair]:
        found: list[MirrorPair] = []
        for centre, near in enumerate(self.neighbours):
            equal = [(p, q) for p, q in combinations(near, 2) if self._are_equal_leaves(p, q)]
            if len(near) == 4 and len(equal) == 1:
                ((p, q),) = equal
                first, second = (atom for atom in near if atom not in (p, q))
                swap = self._permutation({p: q, q: p})
                found.append(MirrorPair(centre, (p, q), (first, second), (self.identity, swap)))
        return found

    def _end(self, b: int, a: int) -> tuple[tuple[int, ...], tuple[Permutation, ...]]:
        """The equal atoms at b, seen along the bond from a, and what turns them; no atoms where nothing does."""
        heads = [atom for atom in self.neighbours[b] if atom != a]
        if len(heads) == 3 and all(self._are_equal_leaves(heads[0], h) for h in heads):
            i, j, k = heads
            turns = self.identity, self._permutation({i: j, j: k, k: i}), self._permutation({i: k, j: i, k: j})
            return (i, j, k), turns
        if len(heads) == 2 and self._look_alike(*heads) and self._is_bridge(a, b):
            swap = self._exchange(heads[0], heads[1], b, a)
            if swap is not None:
                return (heads[0], heads[1]), (self.identity, self._permutation(swap))
        return (), (self.identity,)

    def _exchange(self, p: int, q: int, b: int, a: int) -> dict[int, int] | None:
        """The renaming that exchanges two branches of b and leaves what they share; None if they are not equal."""
        colours = self._colours(fixed=(a, b))
        swap, still, todo = {p: q, q: p}, {b}, [(p, q)]
        if colours[p] != colours[q]:
            return None
        for u, v in todo:  # grows while it is walked
            left, right = ({w for w in self.neighbours[one] if w not in swap and w not in still} for one in (u, v))
            still |= left & right
            pairs = [sorted(side - still, key=lambda w: (colours[w], w)) for side in (left, right)]
            if [colours[w] for w in pairs[0]] != [colours[w] for w in pairs[1]]:
                return None
            for one, other in zip(*pairs, strict=True):
                swap |= {one: other, other: one}
                todo.append((one, other))
        tetrahedral = any(len(self.neighbours[atom]) > 3 for atom in swap)
        return None if tetrahedral or not self._keeps_bonds(swap) else swap

    def _keeps_bonds(self, swap: dict[int, int]) -> bool:
        return all(
            {swap.get(w, w) for w in self.neighbours[atom]} == set(self.neighbours[image]) and swap.get(image) == atom
            for atom, image in swap.items()
        )

    def _colours(self, fixed: tuple[int, ...]) -> list[int]:
        """A number per atom that differs where element, bonds or surroundings differ."""
        kinds = [(e, i if i in fixed else -1) for i, e in enumerate(self.elements)]
        colours = _ranks(kinds)
        while True:
            around = [tuple(sorted(colours[w] for w in near)) for near in self.neighbours]
            finer = _ranks(list(zip(colours, around, strict=True)))
            if finer == colours:
                return colours
            colours = finer

    def _reference(self, b: int, a: int, moved: set[int]) -> int:
        """A neighbour of b to measure from: one that no renaming moves, heavy, the first."""
        return min(
            (atom for atom in self.neighbours[b] if atom != a),
            key=lambda atom: (atom in moved, len(self.neighbours[atom]) == 1, atom),
        )

    def _is_bridge(self, a: int, b: int) -> bool:
        cut = [[w for w in near if {i, w} != {a, b}] for i, near in enumerate(self.neighbours)]
        return b not in breadth_first(cut, a)

    def _are_equal_leaves(self, p: int, q: int) -> bool:
        return self.elements[p] == self.elements[q] and len(self.neighbours[p]) == len(self.neighbours[q]) == 1

    def _look_alike(self, p: int, q: int) -> bool:
        seen = [(self.elements[a], sorted(self.elements[w] for w in self.neighbours[a])) for a in (p, q)]
        return seen[0] == seen[1]

    def _permutation(self, changed: dict[int, int]) -> Permutation:
        return tuple(changed.get(atom, atom) for atom in self.identity)


def _may_follow(
    later: SymmetricRotor | MirrorPair, earlier: SymmetricRotor | MirrorPair, orbits: set[frozenset[int]]
) -> bool:
    """The earlier choice must not depend on the later one, and renaming by both must be a group of their product."""
    if _moved(*later.permutations) & earlier.rests_on:
        return False
    for e, t in product(earlier.permutations, later.permutations):
        there = _after(_after(e, t), _inverse(e))
        if there not in later.permutations and frozenset(_moved(there)) not in orbits:
            return False
    return True


def _perturbed(x: Float[Tensor, "m atoms 3"]) -> Float[Tensor, "n atoms 3"]:
    """A few frames, shaken by 0.005 nm: in a structure that has the symmetry itself, renaming could change nothing."""
    few = x[:4].detach().double()
    shake = torch.randn(few.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return few + 0.005 * shake.to(few.device)


def _changes(energy: Energy, x: Float[Tensor, "n atoms 3"], permutations: tuple[Permutation, ...]) -> list[float]:
    """The largest change of energy by each renaming; NaN if there is one."""
    before = energy(x)
    return [float((energy(x[:, list(permutation)]) - before).abs().max()) for permutation in permutations]


def _ranks(keys: list[Any]) -> list[int]:
    rank = {key: i for i, key in enumerate(sorted(set(keys)))}
    return [rank[key] for key in keys]


def _renamed(x: Float[Tensor, "n atoms 3"], permutation: Int[Tensor, "n atoms"]) -> Float[Tensor, "n atoms 3"]:
    return x.gather(1, permutation[..., None].expand(-1, -1, 3))


def _moved(*permutations: Permutation) -> set[int]:
    return {i for permutation in permutations for i, atom in enumerate(permutation) if i != atom}


def _after(first: Permutation, second: Permutation) -> Permutation:
    """One renaming, then another: x[first][second]."""
    return tuple(first[i] for i in second)


def _inverse(permutation: Permutation) -> Permutation:
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))
