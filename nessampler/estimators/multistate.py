"""Bennett's estimator for many states at once, by pymbar."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from nessampler.errors import InputError
from nessampler.estimators.acceptance_ratio import LOWEST_OVERLAP
from nessampler.estimators.free_energy import Flag, FreeEnergy, estimate, no_estimate

__all__ = ["mbar"]

FEWEST_EFFECTIVE = 50
"""Samples that must carry an end state for its free energy and the error of it to mean something."""


def mbar(energies: Float[np.ndarray, "states n"], counts: Sequence[int]) -> FreeEnergy:
    r"""ΔF between the first and the last of several states, from independent samples of all or some of them.

    $$F_i = -\log \sum_{n} \frac{e^{-U_i(x_n)}}{\sum_k N_k\, e^{F_k - U_k(x_n)}}$$

    solved by pymbar, with its asymptotic error.

    Args:
        energies: of every sample in every state, kT; samples of the first state come first, then those of the second.
        counts: $N_k$, 0 for a state that is only asked for.

    Returns:
        `ess` holds the effective fraction of all samples that carries each state, `overlap` the smallest one between
        all sampled states on one side of a cut and all on the other; of two states it is that of `bar`.

    Raises:
        InputError: energies that do not fit the counts, or NaN and −inf among them; fewer than two states sampled.

    References: Shirts & Chodera, Statistically optimal analysis of samples from multiple equilibrium states, 2008,
        J. Chem. Phys. 129, 124105.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 4000)) + [[0.0], [1.0]]
        >>> u = np.stack([0.5 * x.ravel() ** 2, 0.5 * (x.ravel() - 1) ** 2 + 2])
        >>> print(mbar(u, [4000, 4000]))  # exact: 2
        ΔF = 2.000 ± 0.011 kT (95 % interval 1.978 … 2.023; MBAR)
    """
    u, n = np.asarray(energies, dtype=np.float64), np.asarray(counts, dtype=np.int64)
    if u.ndim != 2 or u.shape[0] != len(n) or u.shape[1] != n.sum() or (n < 0).any():
        raise InputError(f"MBAR takes energies (states, samples): got {u.shape} for counts {n.tolist()}")
    if np.count_nonzero(n) < 2:
        raise InputError(f"MBAR connects samples of two states or more: got counts {n.tolist()}")
    bad = np.argwhere(np.isnan(u) | np.isneginf(u))
    if len(bad):
        raise InputError(f"an energy is finite or +inf: sample {bad[0][1]} has {u[tuple(bad[0])]} in state {bad[0][0]}")
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # its banner about an optional dependency
    from pymbar import MBAR

    solved = MBAR(u, n, solver_protocol="robust")
    found = solved.compute_free_energy_differences()
    value, error = float(found["Delta_f"][0, -1]), float(found["dDelta_f"][0, -1])
    effective = np.asarray(solved.compute_effective_sample_number())
    shared = _smallest_overlap(np.asarray(solved.weights()), n)
    flags = []
    if shared < LOWEST_OVERLAP:
        flags.append(_gap(shared))
    for name, k in (("first", 0), ("last", -1)):
        if effective[k] < FEWEST_EFFECTIVE:
            flags.append(_far(name, float(effective[k])))
    about: dict[str, Any] = {
        "n": tuple(int(k) for k in n),
        "ess": tuple(float(e) / u.shape[1] for e in effective),
        "estimator": "MBAR",
        "overlap": min(1.0, shared),
    }
    if not math.isfinite(error):
        return no_estimate(flags=(*flags, _disconnected()), **about)
    return estimate(value, error**2, flags=tuple(flags), **about)


def _smallest_overlap(weights: Float[np.ndarray, "n states"], counts: np.ndarray) -> float:
    """Over all cuts of the chain of sampled states: were it sampled by two states, how much would these overlap?

    Mixed elements of the overlap matrix shrink as states are added between others; this does not.
    """
    sampled = np.flatnonzero(counts)
    below = np.clip(np.cumsum((weights * counts)[:, sampled], axis=1)[:, :-1], 0, 1)  # that a sample is of the lower
    lower = np.cumsum(counts[sampled])[:-1]
    return float(((below * (1 - below)).sum(0) * (1 / lower + 1 / (counts.sum() - lower))).min())


def _gap(overlap: float) -> Flag:
    return Flag(
        "poor_overlap",
        f"the states on either side of a gap overlap by {overlap:.3f}, below {LOWEST_OVERLAP}: value and error lean on "
        "a few samples; put a state in between.",
    )


def _disconnected() -> Flag:
    return Flag(
        "no_overlap",
        "no sample of one part of the states has any weight in the rest, so nothing connects the two ends and MBAR has "
        "no error: put states in between.",
    )


def _far(name: str, effective: float) -> Flag:
    return Flag(
        "far_end",
        f"about {effective:.0f} samples carry the {name} state (at least {FEWEST_EFFECTIVE} wanted): it lies outside "
        "of what was sampled; put states nearer to it.",
    )
