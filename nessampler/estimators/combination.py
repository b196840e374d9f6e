"""One ΔF from several transports between the same ends, each with works of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nessampler.errors import InputError
from nessampler.estimators.acceptance_ratio import bar, bennett_root
from nessampler.estimators.blocks import block_resamples
from nessampler.estimators.free_energy import Flag, FreeEnergy, estimate, no_estimate
from nessampler.estimators.works import Work, WorkSample, checked_work

__all__ = ["Combination", "combine"]

Directions = tuple[WorkSample, WorkSample]


@dataclass(frozen=True)
class Combination:
    """The combined estimate and what went into it.

    Attributes:
        delta_f: the weighted mean, with its error; numbers and effective fractions of works are those of `each`.
        each: BAR of every transport by itself.
        weights: of the transports, not negative, adding up to one.
        covariance: of the transports' estimates, kT².

    >>> rng = np.random.default_rng(0)
    >>> works = [(1 + s**2 / 2 + s * rng.normal(size=500), s**2 / 2 - 1 + s * rng.normal(size=500)) for s in (1, 2)]
    >>> found = combine(works, same_samples=False)
    >>> found.weights[0] > found.weights[1], round(sum(found.weights), 12), found.covariance.shape
    (True, 1.0, (2, 2))
    """

    delta_f: FreeEnergy
    each: tuple[FreeEnergy, ...]
    weights: tuple[float, ...]
    covariance: Float[np.ndarray, "k k"]


def combine(
    works: Sequence[tuple[Work, Work]], *, same_samples: bool, seed: int = 0, resamples: int = 400
) -> Combination:
    """ΔF from several transports (maps, paths, networks) between the same ends: the best weighted mean of their BARs.

        ΔF = Σ_k w_k ΔF_k,   w = argmin wᵀ C w  with  Σ_k w_k = 1, w ≥ 0

    C is the covariance of the estimates. Transports that start from the *same samples* make correlated errors: then C
    comes from blocks of draws that are resampled together for all of them, draw by draw, so `works[k]` must list the
    same samples in the same order. Otherwise C is diagonal. Without the sign constraint the weights would be those of
    the best linear unbiased estimate; with it, noise in C cannot blow up the mean of estimates that nearly agree.

    Transports without an estimate (no overlap) get weight zero.

    Args:
        works: forward and reverse works of every transport in kT, `(n,)` or `(chains, draws)`.
        same_samples: whether all transports carried the same samples of A and of B.
        seed: of the block bootstrap.
        resamples: of the block bootstrap.

    Raises:
        InputError: no transport; works that `bar` refuses; same samples, but works of different shapes.

    References: Aitken, On least squares and linear combination of observations, 1936, Proc. R. Soc. Edinb. 55, 42;
        Künsch, The jackknife and the bootstrap for general stationary observations, 1989,
        doi:10.1214/aos/1176347265.

    >>> rng = np.random.default_rng(0)
    >>> works = [(1 + s**2 / 2 + s * rng.normal(size=500), s**2 / 2 - 1 + s * rng.normal(size=500)) for s in (1, 2)]
    >>> found = combine(works, same_samples=False)  # exact: 1
    >>> abs(found.delta_f.delta_f - 1) < 3 * found.delta_f.std_error < 3 * found.each[0].std_error
    True
    """
    if not works:
        raise InputError("a combination needs the works of one transport or more: got none")
    samples = [(checked_work(forward, "forward"), checked_work(reverse, "reverse")) for forward, reverse in works]
    if same_samples:
        _check_shapes(samples)
    each = tuple(bar(*pair, seed=seed) for pair in works)
    usable = [k for k, one in enumerate(each) if one.std_error is not None]
    if not usable:
        flags = tuple(dict.fromkeys(flag for one in each for flag in one.flags))
        nothing = no_estimate(n=(), ess=(), flags=flags, estimator="combined BAR")
        return Combination(nothing, each, (0.0,) * len(each), np.full((len(each),) * 2, np.nan))
    found, caught = [each[k] for k in usable], []
    errors = np.array([one.std_error for one in found], dtype=np.float64)
    correlation = np.eye(len(usable))
    if same_samples and len(usable) > 1:
        correlation, caught = _correlation([samples[k] for k in usable], found, seed, resamples)
    covariance = correlation * np.outer(errors, errors)
    weights = _best_weights(covariance)
    value = float(weights @ np.array([one.delta_f for one in found], dtype=np.float64))
    flags = tuple(dict.fromkeys([*caught, *(f for k, one in enumerate(found) if weights[k] > 0 for f in one.flags)]))
    combined = estimate(
        value, float(weights @ covariance @ weights), n=(), ess=(), flags=flags, estimator="combined BAR"
    )
    full_weights, full = np.zeros(len(each)), np.full((len(each),) * 2, np.nan)
    full_weights[usable] = weights
    full[np.ix_(usable, usable)] = covariance
    return Combination(combined, each, tuple(full_weights.tolist()), full)


def _correlation(
    samples: Sequence[Directions], each: Sequence[FreeEnergy], seed: int, resamples: int
) -> tuple[Float[np.ndarray, "k k"], list[Flag]]:
    """Correlation of the BAR estimates over resamples in which all transports see the same draws."""
    shift = float(np.log(samples[0][0].values.size / samples[0][1].values.size))
    flat = [(forward.values.ravel(), reverse.values.ravel()) for forward, reverse in samples]

    def roots(forward: np.ndarray, reverse: np.ndarray) -> np.ndarray:
        drawn = forward.astype(int), reverse.astype(int)
        found = [
            bennett_root(f[drawn[0]], r[drawn[1]], shift, one.delta_f) for (f, r), one in zip(flat, each, strict=True)
        ]
        return np.stack(found, -1)

    # What is resampled are the places of the works, which all transports share.
    places = [
        WorkSample(np.arange(w.values.size, dtype=float).reshape(w.values.shape), w.correlated) for w in samples[0]
    ]
    g = [max(pair[i].inefficiency(np.minimum(pair[i].values, 1e3)) for pair in samples) for i in (0, 1)]
    values, _, flags = block_resamples(roots, places, g, resamples, seed)
    values = values[np.isfinite(values).all(-1)]
    deviation = values - values.mean(0)
    covariance = deviation.T @ deviation
    scale = np.sqrt(np.maximum(np.diag(covariance), np.finfo(float).tiny))
    return covariance / np.outer(scale, scale), flags


def _best_weights(covariance: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " k"]:
    """Weights of least variance on the simplex: what would be negative is left out, the most negative first."""
    if bool((np.diag(covariance) == 0).any()):  # an estimate without error needs no company
        best = (np.diag(covariance) == 0).astype(float)
        return best / best.sum()
    active = np.arange(len(covariance))
    while True:
        inverse = np.linalg.pinv(covariance[np.ix_(active, active)], hermitian=True, rcond=1e-10).sum(1)
        weights = inverse / inverse.sum()
        if (weights >= 0).all() or len(active) == 1:
            full = np.zeros(len(covariance))
            full[active] = weights
            break
        active = np.delete(active, int(weights.argmin()))
    single = np.eye(len(covariance))[int(np.diag(covariance).argmin())]
    return full if full @ covariance @ full <= single @ covariance @ single else single


def _check_shapes(samples: Sequence[Directions]) -> None:
    first = tuple(works.values.shape for works in samples[0])
    for k, pair in enumerate(samples):
        if (shapes := tuple(works.values.shape for works in pair)) != first:
            raise InputError(
                f"transports of the same samples have works of one shape: got {first} for the first and {shapes} for "
                f"transport {k}; pass the same samples through each, or same_samples=False"
            )
