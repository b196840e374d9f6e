"""ΔF from works of both directions by Bennett's acceptance ratio, and the overlap it leans on."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from nessampler.estimators.blocks import block_bootstrap
from nessampler.estimators.free_energy import Flag, FreeEnergy, estimate, no_estimate
from nessampler.estimators.works import Rows, Work, checked_work, effective_fraction, scaled_weights

__all__ = ["bar", "bennett_root", "overlap"]

LOWEST_OVERLAP = 0.06
# Below a hundredth of a shared sample (or one in a million) the root only marks the middle of a gap.
FEWEST_SHARED = 0.01
NO_OVERLAP = 1e-6


def bar(work_forward: Work, work_reverse: Work, *, seed: int = 0, resamples: int = 200) -> FreeEnergy:
    """ΔF from works of both directions by Bennett's acceptance ratio, the estimator of least variance.

        Σ_F f(M + W_F - ΔF) = Σ_R f(-M + W_R + ΔF),   f(x) = 1 / (1 + e^x),   M = log(n_F / n_R)

    The error of independent works is Bennett's, `var f_F / (n_F <f_F>²) + var f_R / (n_R <f_R>²)`, as in pymbar.
    If either array is `(chains, draws)`, each term is multiplied by the statistical inefficiency of its Fermi function,
    and the moving-block bootstrap's error is reported if it is larger: both err on the low side for short runs.
    Where the overlap is poor, Bennett's error is too small and the two-state MBAR error, if larger, stands for it.

    Works of +inf belong to the sums (f = 0) and leave the estimate unbiased, whichever side they are on.

    Args:
        work_forward: works of A → B in kT, `(n_F,)` or `(chains, draws)`, or an ensemble.
        work_reverse: works of B → A likewise; the counts need not be equal.
        seed: of the block bootstrap.
        resamples: of the block bootstrap.

    Raises:
        InputError: fewer than two works in a direction, a NaN, or a −inf; the work is named.

    References: Efficient estimation of free energy differences from Monte Carlo data, 1976,
        doi:10.1016/0021-9991(76)90078-4, eq. 10a; Equilibrium free energies from nonequilibrium measurements using
        maximum-likelihood methods, 2003, doi:10.1103/PhysRevLett.91.140601, eq. 8.

    >>> rng = np.random.default_rng(0)
    >>> print(bar(3 + 2 * rng.normal(size=2000), 1 + 2 * rng.normal(size=2000)))  # exact: 1
    ΔF = 0.984 ± 0.034 kT (95 % interval 0.917 … 1.051; BAR)
    """
    forward, reverse = checked_work(work_forward, "forward"), checked_work(work_reverse, "reverse")
    n = n_f, n_r = forward.values.size, reverse.values.size
    ess = effective_fraction(scaled_weights(forward.values)), effective_fraction(scaled_weights(reverse.values))
    shift = math.log(n_f / n_r)
    delta_f = float(bennett_root(forward.values.reshape(1, -1), reverse.values.reshape(1, -1), shift)[0])
    fermi = expit(delta_f - shift - forward.values), expit(shift - delta_f - reverse.values)
    shared = sum(float((f * (1 - f)).sum()) for f in fermi) if math.isfinite(delta_f) else 0.0
    common = min(1.0, shared * (1 / n_f + 1 / n_r))
    if shared < FEWEST_SHARED or common < NO_OVERLAP:
        return no_estimate(n=n, ess=ess, flags=(_no_overlap(common),), estimator="BAR", overlap=common)

    flags: list[Flag] = []
    g = forward.inefficiency(fermi[0]), reverse.inefficiency(fermi[1])
    variance = sum(g_i * float(f.var()) / (f.size * float(f.mean()) ** 2) for g_i, f in zip(g, fermi, strict=True))
    if common < LOWEST_OVERLAP:
        flags.append(_poor_overlap(common))
        variance = max(variance, max(g) * (1 / shared - 1 / n_f - 1 / n_r))
    if forward.correlated or reverse.correlated:
        root = partial(bennett_root, shift=shift, start=delta_f)
        resampled, caught = block_bootstrap(root, (forward, reverse), g, resamples, seed)
        flags += caught
        variance = max(variance, resampled)
    return estimate(delta_f, variance, n=n, ess=ess, flags=tuple(flags), estimator="BAR", overlap=common)


def overlap(work_forward: Work, work_reverse: Work, delta_f: float) -> float:
    """Two-state overlap of forward and reverse works, 0 (none) to 1 (the same distribution).

        (1/n_F + 1/n_R) Σ f (1 - f)     f the Fermi functions of `bar` at ΔF, summed over all works

    Equal to the scalar of pymbar's overlap matrix, for equal counts twice its mixed element; 0.06 is the usual floor.

    Raises:
        InputError: fewer than two works in a direction, a NaN, or a −inf; the work is named.

    References: Guidelines for the analysis of free energy calculations, 2015, doi:10.1007/s10822-015-9840-9.

    >>> overlap([0.5, 0.5], [-0.5, -0.5], delta_f=0.5)
    1.0
    """
    forward, reverse = checked_work(work_forward, "forward").values, checked_work(work_reverse, "reverse").values
    shift = math.log(forward.size / reverse.size) - delta_f
    f, r = expit(-shift - forward), expit(shift - reverse)
    return min(1.0, float((f * (1 - f)).sum() + (r * (1 - r)).sum()) * (1 / forward.size + 1 / reverse.size))


def bennett_root(forward: Rows, reverse: Rows, shift: float, start: float | None = None) -> Float[np.ndarray, " _"]:
    """The root of Bennett's equation in every row, by Newton steps on its logarithm inside a shrinking bracket.

    Rows without a finite work on either side have none: NaN.
    """
    solvable = np.isfinite(forward).any(-1) & np.isfinite(reverse).any(-1)
    root = np.full(len(forward), np.nan)
    if not solvable.any():
        return root
    forward, reverse = forward[solvable], reverse[solvable]
    # Outside all finite works by this much, one side outweighs the other whatever the counts.
    margin = 2 + abs(shift) + math.log(forward.shape[1]) + math.log(reverse.shape[1])
    low = np.minimum(forward.min(-1), np.min(-reverse, -1, where=np.isfinite(reverse), initial=np.inf)) - margin
    high = np.maximum(np.max(forward, -1, where=np.isfinite(forward), initial=-np.inf), -reverse.min(-1)) + margin
    x = (low + high) / 2 if start is None else np.clip(start, low, high)
    last = high - low
    for _ in range(200):
        above, up = _log_mean_fermi(x[:, None] - shift - forward)
        below, down = _log_mean_fermi(shift - x[:, None] - reverse)
        value, slope = above - below + shift, up + down
        low, high = np.where(value < 0, x, low), np.where(value < 0, high, x)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            step = -value / slope
        # Newton's step must stay inside and shrink, or be the last one; otherwise halve the bracket.
        final = np.abs(step) <= 1e-8 + 1e-15 * np.abs(x)
        good = (x + step > low) & (x + step < high) & (np.abs(step) < last / 2)
        step = np.where(final | good, step, (low + high) / 2 - x)
        last, x = np.abs(step), x + step
        if final.all():
            break
    root[solvable] = x
    return root


def _log_mean_fermi(x: Rows) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
    """`log mean f` and its derivative, `Σ f (1 - f) / Σ f`, per row, with `f = expit(x)` that may all underflow."""
    largest = np.minimum(x.max(-1, keepdims=True), 0.0)
    small = np.exp(-np.abs(x))
    f = np.exp(np.minimum(x, 0.0) - largest) / (1 + small)
    total = f.sum(-1)
    slope = (f * np.where(x > 0, small, 1.0) / (1 + small)).sum(-1) / total
    return largest[:, 0] + np.log(total / x.shape[-1]), slope


def _no_overlap(common: float) -> Flag:
    return Flag(
        "no_overlap",
        f"forward and reverse works share no region (overlap {common:.1e}): ΔF lies between its bounds, no number is "
        "better than another; use a map, windows in between, or slower switching.",
    )


def _poor_overlap(common: float) -> Flag:
    return Flag(
        "poor_overlap",
        f"overlap {common:.3f} of forward and reverse works is below {LOWEST_OVERLAP}: value and error lean on a few "
        "works; use a map, a window in between, slower switching, or more works.",
    )
