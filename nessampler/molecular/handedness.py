"""Which way round the neighbours of every tetrahedral atom are: mirror images, and equal atoms numbered crosswise."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.molecular.topology_tree import BondGraph, bond_graph

__all__ = ["check_same_handedness", "handedness", "handedness_flags", "hands_of_samples", "tetrahedral"]

NEARLY_ALL = 0.9  # of the samples of a state: those that are left may have been caught turning
FEW = 0.01  # of the samples of a state: what they shift ΔF by, about their share, is below its usual errors
TOLD = 0.001  # a share below it would round to nothing, and is told as a count


def tetrahedral(graph: BondGraph) -> dict[int, tuple[int, ...]]:
    """Atoms with four neighbours, and these in ascending order."""
    return {i: tuple(near) for i, near in enumerate(graph.neighbours) if len(near) == 4}


def handedness(graph: BondGraph, positions: Float[np.ndarray, "n atoms 3"]) -> Int[np.ndarray, "n centres"]:
    """Sign of the volume that the four neighbours of each tetrahedral atom span, in ascending order of the atoms.

    It is the same for all conformations of a molecule, since no thermal motion turns such a centre inside out, and
    opposite for its mirror image.

    >>> graph = BondGraph(("C", "H", "F", "Cl", "Br"), ("C", "H", "F", "Cl", "Br"), ((0, 1), (0, 2), (0, 3), (0, 4)))
    >>> x = np.array([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    >>> handedness(graph, np.stack([x, -x])).tolist()
    [[-1], [1]]
    """
    corners = np.array(list(tetrahedral(graph).values()), dtype=int).reshape(-1, 4)
    edges = positions[:, corners[:, 1:]] - positions[:, corners[:, :1]]
    return np.sign(np.linalg.det(edges)).astype(int)


def check_same_handedness(
    topology: Any, positions_a: Float[np.ndarray, "atoms 3"], positions_b: Float[np.ndarray, "atoms 3"]
) -> None:
    """No continuous map leads from a molecule to its mirror image: both structures must be of the same hand.

    Raises:
        InputError: naming the first centre that differs, and whether two equal atoms are numbered the other way round.
    """
    graph = bond_graph(topology)
    signs = handedness(graph, np.stack([positions_a, positions_b]))
    _check_agreement(graph, signs[0] != signs[1], "both structures")


def handedness_flags(
    topology: Any, structure: Float[np.ndarray, "atoms 3"], samples: Float[np.ndarray, "n atoms 3"], name: str
) -> tuple[Flag, ...]:
    r"""A flag where samples of the state `name` have turned a centre of its structure inside out.

    The other hand is as large a part of the density as this one. If samples of one state alone are there, a share q of
    them, they are carried to where the other state has none, and ΔF is off by up to $-\log(1 - q)$, whatever the
    overlap: `mirror_image`, which is not to be trusted; `few_mirror_images` up to a hundredth.
    """
    graph = bond_graph(topology)
    return _turned_flags(graph, handedness(graph, samples) != handedness(graph, structure[None]), name)


def hands_of_samples(
    graph: BondGraph, a: Float[np.ndarray, "n atoms 3"], b: Float[np.ndarray, "m atoms 3"]
) -> tuple[Flag, ...]:
    """Flags of states whose samples are of both hands at a centre; the right one is that of most samples of A.

    The energy of a mirror image is that of the molecule, so that nothing else tells one from the other.

    Raises:
        InputError: a centre at which nearly all samples of A are of one hand and nearly all of B of the other.

    >>> graph = BondGraph(("C", "H", "F", "Cl", "Br"), ("C", "H", "F", "Cl", "Br"), ((0, 1), (0, 2), (0, 3), (0, 4)))
    >>> x = np.array([[0.0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    >>> [flag.message[:24] for flag in hands_of_samples(graph, np.stack([x, x]), np.stack([x, -x]))]
    ['50% of the samples of B ']
    >>> hands_of_samples(graph, x[None], -x[None])
    Traceback (most recent call last):
    nessampler.errors.InputError: samples of both states must have the same handedness: B is the mirror image of A ...
    """
    signs = {"A": handedness(graph, a), "B": handedness(graph, b)}
    usual = np.where(signs["A"].mean(0) < 0, -1, 1)
    turned = {name: own != usual for name, own in signs.items()}
    shares = {name: own.mean(0) for name, own in turned.items()}
    opposite = (shares["A"] < 1 - NEARLY_ALL) & (shares["B"] > NEARLY_ALL)
    _check_agreement(graph, opposite, "samples of both states")
    return tuple(flag for name, own in turned.items() for flag in _turned_flags(graph, own, name))


def _check_agreement(graph: BondGraph, differs: Bool[np.ndarray, " centres"], what: str) -> None:
    centres = tetrahedral(graph)
    differ = [centre for centre, apart in zip(centres, differs, strict=True) if apart]
    if not differ:
        return
    first = differ[0]
    where = graph.names[first]
    equal = _equal_neighbours(graph, first, centres[first])
    if len(differ) == len(centres):
        raise InputError(
            f"{what} must have the same handedness: B is the mirror image of A at all {len(centres)} "
            f"tetrahedral atoms, {where} first; reflect the coordinates of one of them"
        )
    if equal is not None:
        one, other = (graph.names[i] for i in equal)
        raise InputError(
            f"{what} must number equal atoms the same way round: {one} and {other} at {where} are exchanged "
            "between A and B; exchange their coordinates in one of the two"
        )
    raise InputError(
        f"{what} must have the same handedness: they are mirror images at {where}, whose four neighbours are "
        "all different, so A and B are two molecules; take the same stereoisomer for both"
    )


def _turned_flags(graph: BondGraph, turned: Bool[np.ndarray, "n centres"], name: str) -> tuple[Flag, ...]:
    if not turned.any():
        return ()
    worst = int(turned.mean(0).argmax())
    count, n = int(turned[:, worst].sum()), len(turned)
    share, centre = count / n, graph.names[list(tetrahedral(graph))[worst]]
    told = f"{share:.0%}" if share > FEW else f"{share:.1%}" if share >= TOLD else f"{count} in {n:,}"
    return (
        Flag(
            "mirror_image" if share > FEW else "few_mirror_images",
            f"{told} of the samples of {name} have the handedness of the mirror image at {centre}, and coordinates and "
            "maps hold for one hand only; sample at a lower temperature or with a smaller step, and start from the "
            "right stereoisomer.",
        ),
    )


def _equal_neighbours(graph: BondGraph, centre: int, near: tuple[int, ...]) -> tuple[int, int] | None:
    """Two neighbours whose branches look the same, if there are any: by refining colours from the elements."""
    colours: list[Any] = [(element, i == centre) for i, element in enumerate(graph.elements)]
    around = graph.neighbours
    for _ in range(len(colours)):
        seen = [
            (own, tuple(sorted(repr(colours[j]) for j in near_i))) for own, near_i in zip(colours, around, strict=True)
        ]
        names = {colour: k for k, colour in enumerate(sorted(set(seen), key=repr))}
        refined = [names[colour] for colour in seen]
        if len(set(refined)) == len(set(colours)):
            break
        colours = refined
    pairs = ((i, j) for k, i in enumerate(near) for j in near[k + 1 :] if colours[i] == colours[j])
    return next(pairs, None)
