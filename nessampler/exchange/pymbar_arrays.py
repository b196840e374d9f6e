"""Energies of many states in pymbar's layout: `u_kn` and `N_k`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from nessampler.errors import InputError
from nessampler.estimators.works import work_values

__all__ = ["ReducedEnergies", "checked", "cross_energies", "from_u_kln", "works_between"]


class HasEnergy(Protocol):
    """A density: U in kT of walkers `(n, *event)`."""

    def energy(self, x: Any) -> Any: ...


class ReducedEnergies(NamedTuple):
    """Energies in kT of every sample in every state, samples of the first state first.

    Attributes:
        u_kn: `(states, samples)`.
        n_k: samples of each state, 0 for a state that is only asked for.
    """

    u_kn: Float[np.ndarray, "states samples"]
    n_k: Int[np.ndarray, " states"]


def checked(u_kn: npt.ArrayLike, n_k: npt.ArrayLike) -> ReducedEnergies:
    """The two arrays as float64 and integers.

    Raises:
        InputError: shapes that do not belong together, or a NaN or −inf among the energies.

    >>> checked([[0.0, 1.0], [2.0, 0.5]], [1, 1]).n_k
    array([1, 1])
    """
    u, n = np.asarray(u_kn, dtype=np.float64), np.asarray(n_k)
    if u.ndim != 2 or n.shape != (len(u),) or n.dtype.kind not in "iu" or (n < 0).any() or n.sum() != u.shape[1]:
        raise InputError(
            "u_kn is (states, samples), and N_k holds a number of samples for every state, which add up to all: got "
            f"{u.shape} and N_k {n.tolist()}"
        )
    bad = np.argwhere(np.isnan(u) | np.isneginf(u))
    if len(bad):
        raise InputError(f"an energy is finite or +inf: sample {bad[0][1]} has {u[tuple(bad[0])]} in state {bad[0][0]}")
    return ReducedEnergies(u, n.astype(np.int64))


def cross_energies(states: Sequence[HasEnergy], samples: Sequence[Any]) -> ReducedEnergies:
    """The energy of every sample in every state, such as those of two ends.

    Args:
        states: targets, in kT.
        samples: of each, `(n, *event)`; None, or an empty tensor, for a state that is not sampled.

    Raises:
        InputError: not as many sets of samples as states, or energies that are NaN or −inf.

    >>> from types import SimpleNamespace
    >>> well = lambda centre: SimpleNamespace(energy=lambda x: 0.5 * ((x - centre) ** 2).sum(-1))
    >>> cross_energies([well(0.0), well(1.0)], [np.zeros((3, 1)), np.ones((2, 1))])
    ReducedEnergies(u_kn=array([[0. , 0. , 0. , 0.5, 0.5],
           [0.5, 0.5, 0.5, 0. , 0. ]]), n_k=array([3, 2]))
    """
    if len(states) != len(samples):
        raise InputError(f"every state has its samples, or None: got {len(states)} states and {len(samples)} sets")
    given = [x for x in samples if x is not None and len(x)]
    counts = [0 if x is None else len(x) for x in samples]
    rows = [np.concatenate([work_values(state.energy(x)) for x in given]) for state in states]
    return checked(np.stack(rows), counts)


def from_u_kln(u_kln: npt.ArrayLike, n_k: npt.ArrayLike) -> ReducedEnergies:
    """Of pymbar's older layout: `u_kln[k, l, n]` is the energy in state l of sample n of state k.

    Raises:
        InputError: shapes that do not belong together.

    >>> from_u_kln(np.arange(8.0).reshape(2, 2, 2), [2, 1]).u_kn
    array([[0., 1., 4.],
           [2., 3., 6.]])
    """
    u, n = np.asarray(u_kln, dtype=np.float64), np.asarray(n_k)
    if u.ndim != 3 or n.shape != (len(u),) or u.shape[0] != u.shape[1] or (n > u.shape[2]).any():
        raise InputError(f"u_kln is (states, states, samples) with N_k samples of each: got {u.shape} and {n.tolist()}")
    return checked(np.concatenate([u[k, :, :count] for k, count in enumerate(n)], axis=1), n)


def works_between(energies: ReducedEnergies, start: int = 0, end: int = -1) -> tuple[np.ndarray, np.ndarray]:
    """Works without transport between two of the states: `u_end − u_start` of samples of either.

    Raises:
        InputError: one of the two states was not sampled.

    >>> forward, reverse = works_between(checked([[0.0, 1.0], [2.0, 0.5]], [1, 1]))
    >>> forward, reverse
    (array([2.]), array([0.5]))
    """
    u, n = energies
    places = [range(len(n))[k] for k in (start, end)]
    last = np.cumsum(n)
    for k in places:
        if n[k] == 0:
            raise InputError(f"works start at samples: state {k} has none; choose two of {np.flatnonzero(n).tolist()}")
    a, b = places
    difference = u[b] - u[a]
    return difference[last[a] - n[a] : last[a]], -difference[last[b] - n[b] : last[b]]
