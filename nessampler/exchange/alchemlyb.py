"""alchemlyb's data frames of reduced energies, `u_nk`, in and out.

A row is a sample, indexed by time and by the λ it was drawn at; a column is the λ it was evaluated at. `attrs` hold the
`temperature` in kelvin and the `energy_unit`. alchemlyb itself is not needed for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nessampler.errors import InputError
from nessampler.estimators.works import Work, checked_work
from nessampler.exchange.given import kt_in
from nessampler.exchange.pymbar_arrays import ReducedEnergies, checked, works_between

__all__ = ["from_u_nk", "states_of", "to_u_nk", "works_from_u_nk", "works_to_u_nk"]

State = float | tuple[float, ...]


def to_u_nk(
    u_kn: npt.ArrayLike,
    n_k: npt.ArrayLike,
    lambdas: Sequence[State] | None = None,
    *,
    temperature: float,
    names: Sequence[str] = ("fep-lambda",),
) -> pd.DataFrame:
    """Energies in pymbar's layout as a frame for `alchemlyb.estimators.MBAR` and `BAR`.

    Energies of two ends come from `cross_energies`; those of a staged calculation are `found.energies` and
    `found.counts`, at `(0, *found.times, 1)`.

    Args:
        u_kn: `(states, samples)` in kT, samples of the first state first.
        n_k: samples of each state.
        lambdas: of each state, a number, or one for each of `names`; by default evenly from 0 to 1.
        temperature: kelvin.
        names: of the components of λ.

    Raises:
        InputError: shapes that do not belong together, λ that are repeated or of the wrong length, NaN or −inf.

    >>> to_u_nk([[0.0, 1.0], [2.0, 0.5]], [1, 1], temperature=300.0)
                     0.0  1.0
    time fep-lambda
    0.0  0.0         0.0  2.0
         1.0         1.0  0.5
    """
    u, n = checked(u_kn, n_k)
    kt_in("kJ/mol", temperature)
    states: list[State] = np.linspace(0, 1, len(u)).tolist() if lambdas is None else list(lambdas)
    rows = [state if isinstance(state, tuple) else (state,) for state in states]
    if len(states) != len(u) or len(set(rows)) != len(rows) or any(len(row) != len(names) for row in rows):
        raise InputError(
            f"every state has a λ of its own, one number for each of {', '.join(names)}: "
            f"got {states} for {len(u)} states"
        )
    time = np.concatenate([np.arange(count, dtype=float) for count in n])
    components = [np.repeat([float(row[c]) for row in rows], n) for c in range(len(names))]
    index = pd.MultiIndex.from_arrays([time, *components], names=["time", *names])
    columns = [tuple(map(float, row)) if len(names) > 1 else float(row[0]) for row in rows]
    frame = pd.DataFrame(u.T, index=index, columns=pd.Index(columns, tupleize_cols=False))
    frame.attrs = {"temperature": float(temperature), "energy_unit": "kT"}
    return frame


def from_u_nk(frame: pd.DataFrame) -> ReducedEnergies:
    """A frame as pymbar's arrays in kT, states in the order of the columns.

    Raises:
        InputError: no index of time and λ, a sample of a λ without column, no unit, a missing energy.

    >>> frame = to_u_nk([[0.0, 1.0], [2.0, 0.5]], [1, 1], temperature=300.0)
    >>> from_u_nk(frame).u_kn
    array([[0. , 1. ],
           [2. , 0.5]])
    """
    states = states_of(frame)
    place = {state: k for k, state in enumerate(states)}
    if len(place) != len(states):
        raise InputError(f"the columns of u_nk are λ, each once: got {states}")
    unit = frame.attrs.get("energy_unit")
    if unit is None:
        raise InputError('u_nk says its unit: set frame.attrs["energy_unit"] to "kT", "kJ/mol" or "kcal/mol"')
    kt = kt_in(str(unit), frame.attrs.get("temperature"))
    drawn = [_state(row[1:]) for row in frame.index]
    unknown = next((state for state in drawn if state not in place), None)
    if unknown is not None:
        raise InputError(f"samples of u_nk belong to one of its columns: λ = {unknown} is none of {states}")
    at = np.array([place[state] for state in drawn])
    order = np.argsort(at, kind="stable")
    energies = frame.to_numpy(dtype=np.float64)[order].T / kt
    return checked(energies, np.bincount(at, minlength=len(states)))


def states_of(frame: pd.DataFrame) -> list[State]:
    """λ of the columns.

    Raises:
        InputError: no frame of reduced energies.
    """
    if not isinstance(frame.index, pd.MultiIndex) or frame.index.nlevels < 2 or frame.empty:
        raise InputError(
            "u_nk has an index of time and λ, as alchemlyb.parsing makes it: got levels "
            f"{list(frame.index.names)} and {len(frame)} rows"
        )
    try:
        return [_state(c if isinstance(c, tuple) else (c,)) for c in frame.columns]
    except (TypeError, ValueError) as error:
        raise InputError(f"the columns of u_nk are λ: got {list(frame.columns)}; drop the others") from error


def works_from_u_nk(
    frame: pd.DataFrame, start: State | None = None, end: State | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Works in kT between two of the states, by default the first and the last column: what `bar` takes.

    Raises:
        InputError: as `from_u_nk`; a λ that is no column, or was not sampled.

    >>> works_from_u_nk(to_u_nk([[0.0, 1.0], [2.0, 0.5]], [1, 1], temperature=300.0))
    (array([2.]), array([0.5]))
    """
    states = states_of(frame)
    chosen = [states[0] if start is None else start, states[-1] if end is None else end]
    for state in chosen:
        if state not in states:
            raise InputError(f"works lead from one column of u_nk to another: λ = {state} is none of {states}")
    return works_between(from_u_nk(frame), *(states.index(state) for state in chosen))


def works_to_u_nk(forward: Work, reverse: Work, *, temperature: float) -> pd.DataFrame:
    """Works of both directions as a frame of two states, for which alchemlyb's BAR gives what `bar` gives.

    Works fix energies up to a constant for each sample, which drops out: state 0 has energy 0.

    Raises:
        InputError: fewer than two works in a direction, a NaN, or a −inf.

    >>> works_from_u_nk(works_to_u_nk([2.0, 3.0], [0.5, 1.0], temperature=300.0))
    (array([2., 3.]), array([0.5, 1. ]))
    """
    f, r = checked_work(forward, "forward").values.ravel(), checked_work(reverse, "reverse").values.ravel()
    second = np.concatenate([f, np.zeros(r.size)])
    first = np.concatenate([np.zeros(f.size), r])
    return to_u_nk([first, second], [f.size, r.size], temperature=temperature)


def _state(row: Any) -> State:
    values = tuple(float(part) for part in row)
    return values[0] if len(values) == 1 else values
