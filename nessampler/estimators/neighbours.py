"""A difference as the sum over stages between neighbouring states: perturbation, and Bennett's acceptance ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from nessampler.errors import InputError
from nessampler.estimators.acceptance_ratio import bar
from nessampler.estimators.exponential_average import jarzynski
from nessampler.estimators.free_energy import Flag, FreeEnergy, estimate, no_estimate
from nessampler.estimators.works import scaled_weights

__all__ = ["neighbours"]

Array = np.ndarray


def neighbours(energies: Float[np.ndarray, "states n"], counts: Sequence[int], *, ratio: bool = True) -> FreeEnergy:
    r"""ΔF between the first and the last of several states, stage by stage, from independent samples.

    $$\Delta F = \sum_k \Delta F_{k, k+1}$$

    with each stage by `bar` where both of its states were sampled (`ratio`), else by free-energy perturbation from the
    one that was: $\Delta F_{k,k+1} = -\log\langle e^{U_k - U_{k+1}}\rangle_k$, or from above. A sample serves the
    stages on both of its sides, which are therefore not independent: the error adds up what each sample does to
    the sum, to first order.

    Args:
        energies: as of `mbar`: of every sample in every state, kT; samples of the first state come first.
        counts: samples of each state; 0 for an end that is only asked for.
        ratio: False for perturbation everywhere.

    Returns:
        `ess` holds the effective fraction of every stage's weights, the smaller of both sides; flags are of stages.

    Raises:
        InputError: energies that do not fit the counts; two neighbours, neither of which was sampled.

    References: Bennett, Efficient estimation of free energy differences from Monte Carlo data, 1976; Zwanzig,
        High-temperature equation of state by a perturbation method, 1954, J. Chem. Phys. 22, 1420; Paliwal & Shirts,
        A benchmark test set for alchemical free energy transformations, 2011, J. Chem. Theory Comput. 7, 4115.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(3, 2000)) + [[0.0], [0.5], [1.0]]
        >>> u = np.stack([0.5 * (x.ravel() - c) ** 2 + 2 * c for c in (0.0, 0.5, 1.0)])
        >>> print(neighbours(u, [2000, 2000, 2000]))  # exact: 2
        ΔF = 2.002 ± 0.014 kT (95 % interval 1.976 … 2.029; staged BAR)
    """
    u, n = np.asarray(energies, dtype=np.float64), np.asarray(counts, dtype=np.int64)
    if u.ndim != 2 or u.shape[0] != len(n) or len(n) < 2 or u.shape[1] != n.sum() or (n < 0).any():
        raise InputError(
            f"stages take energies (states, samples): got {u.shape} for counts {n.tolist()}; give a row for each state "
            "and a column for each sample, those of the first state first"
        )
    if (n == 1).any():
        raise InputError(
            f"a state has two samples at least, or none: got one of state {int((n == 1).argmax())}; leave it out, or "
            "sample it longer"
        )
    name, begins = "staged BAR" if ratio else "staged FEP", np.concatenate([[0], np.cumsum(n)])
    samples = [slice(a, b) for a, b in pairwise(begins)]
    total, flags, ess = 0.0, [], []
    influence = np.zeros(u.shape[1])  # of every sample on the sum
    for i, j in pairwise(range(len(n))):
        if not n[i] and not n[j]:
            raise InputError(
                f"a stage needs samples of one of its states: got none of states {i} and {j}; sample one of them, or "
                "leave one out"
            )
        ahead, behind = (u[j] - u[i])[samples[i]], (u[i] - u[j])[samples[j]]
        if ratio and n[i] and n[j]:
            found = bar(ahead, behind)
        else:
            found = jarzynski(ahead) if n[i] else jarzynski(behind, reverse=True)
        flags += [Flag(f.code, f"stage {i} to {j}: {f.message}") for f in found.flags]
        ess.append(min(found.ess))
        if found.delta_f is None:
            return no_estimate(n=tuple(map(int, n)), ess=tuple(ess), flags=tuple(flags), estimator=name)
        total += found.delta_f
        if ratio and n[i] and n[j]:
            shift = math.log(n[i] / n[j])
            f, r = expit(found.delta_f - shift - ahead), expit(shift - found.delta_f - behind)
            slope = float((f * (1 - f)).sum() + (r * (1 - r)).sum())
            influence[samples[i]] -= (f - f.mean()) / slope
            influence[samples[j]] += (r - r.mean()) / slope
        elif n[i]:
            influence[samples[i]] -= _share(ahead)
        else:
            influence[samples[j]] += _share(behind)
    variance = float(np.square(influence).sum())
    return estimate(total, variance, n=tuple(map(int, n)), ess=tuple(ess), flags=tuple(flags), estimator=name)


def _share(work: Array) -> Array:
    """What every work does to the logarithm of the mean weight."""
    weight = scaled_weights(work)
    return (weight / weight.mean() - 1) / len(weight)
