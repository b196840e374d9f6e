"""Samples of several states as one sample of another: weights from the states' mixture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from nessampler.errors import InputError

__all__ = ["mixture_weights"]


def mixture_weights(
    energies: Float[np.ndarray, "states n"],
    counts: Sequence[int],
    free_energies: Float[np.ndarray, " states"],
    target: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    r"""Weights that make the samples of several states a sample of the density $e^{-U}$.

    $$w_n \propto \frac{e^{-U(x_n)}}{\sum_k N_k\, e^{F_k - U_k(x_n)}}, \qquad \sum_n w_n = 1$$

    The free energies may come from anywhere: MBAR's own make these the weights of MBAR, and those of a transport
    between the states are as much sharper as the transport is. An energy that all states and the target share drops
    out, so that of biased states the biases alone are needed, with the target's energy 0.

    | symbol | argument | |
    |---|---|---|
    | $U_k(x_n)$ | `energies` | of every sample in every state, kT |
    | $N_k$ | `counts` | samples of each state, in the order of the samples |
    | $F_k$ | `free_energies` | up to a constant, kT |
    | $U(x_n)$ | `target` | kT; +inf where it has no density |

    Raises:
        InputError: shapes that do not belong together, energies that are NaN or −inf, or no sample with weight.

    References:
        Shirts & Chodera, Statistically optimal analysis of samples from multiple equilibrium states, 2008, J. Chem.
        Phys. 129, 124105, eq. 15; Geyer, Estimating normalizing constants and reweighting mixtures, 1994.

    Example:
        >>> m = np.array([-1.0, 1.0, 1.0])  # one sample under a bias of 2 m, two under -2 m
        >>> weights = mixture_weights(np.stack([2 * m, -2 * m]), [1, 2], np.zeros(2), np.zeros(3))
        >>> weights.round(3)
        array([0.493, 0.253, 0.253])
    """
    u, n, f, own = (np.asarray(v, dtype=np.float64) for v in (energies, counts, free_energies, target))
    if u.ndim != 2 or n.shape != (len(u),) or f.shape != (len(u),) or own.shape != u.shape[1:] or n.sum() != u.shape[1]:
        raise InputError(
            "energies are (states, samples), with a count and a free energy for every state and a target energy for "
            f"every sample: got {u.shape}, {n.tolist()}, {f.shape} and {own.shape}"
        )
    for name, values in (("a state", u), ("the target", own)):
        if np.isnan(values).any() or np.isneginf(values).any():
            raise InputError(f"an energy is finite or +inf: of {name} some are not")
    known = n > 0
    mixture = np.asarray(logsumexp(np.log(n[known])[:, None] + f[known, None] - u[known], axis=0))
    log_weight = np.where(np.isposinf(own), -np.inf, -own - mixture)
    total = np.asarray(logsumexp(log_weight))
    if not np.isfinite(total):
        raise InputError("no sample has weight in the target: its density is zero wherever the states were sampled")
    return np.exp(log_weight - total)
