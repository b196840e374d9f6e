"""ΔF as the exponential average of works of one direction, and the tail of the weights it leans on."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float

from nessampler.estimators.acceptance_ratio import bennett_root
from nessampler.estimators.blocks import block_bootstrap
from nessampler.estimators.free_energy import Flag, FreeEnergy, estimate, no_estimate
from nessampler.estimators.works import Rows, Work, checked_work, effective_fraction, scaled_weights

__all__ = ["jarzynski", "pareto_k", "second_moment"]

# The logarithm of a mean that rests on 100 samples has standard error 0.1. Below that, runs that by luck met no large
# weight look better than they are, and better than those that did (docs/benchmarks/calibration.md).
FEWEST_EFFECTIVE = 100
HEAVIEST_TAIL = 0.7
LARGEST_GROWTH = 2.0  # of the weights' variance, once works of the other direction have a say
ROUNDING = 1e-9


def jarzynski(
    work: Work, *, reverse: bool = False, opposite: Work | None = None, seed: int = 0, resamples: int = 200
) -> FreeEnergy:
    """ΔF from works of one direction by Jarzynski's equality.

        ΔF = -log E_F[exp(-W_F)] = +log E_R[exp(-W_R)]

    The error of independent works is that of a mean, to first order: `sqrt((1/ess - 1) / n)`; nothing is gained by a
    bootstrap, which knows no more of an unseen tail. For `(chains, draws)` the variance is multiplied by the weights'
    statistical inefficiency, and the block bootstrap's error is reported if it is larger: both err on the low side.

    Works of +inf are weights of zero and belong to the mean. What biases it (by `-log P(return)`) are paths of the
    *opposite* direction that leave the support, since no path of this direction can be their mirror image. Nor do works
    know of weights that are rare and large. The opposite direction meets both often: where it was run, pass its works
    as `opposite`. The value becomes None with the flag "leaves_support" if one of them is +inf. And by Crooks' relation
    both directions together give the second moment of this direction's weights `w = exp(ΔF - W)`, with ΔF from BAR:

        E_F[w²] = Σ_F,R w² / (n_F + n_R w),   w = exp(ΔF - W_F) or exp(ΔF + W_R)

    If the variance is more than doubled by it, the flag is "unreached". Value and error use this direction alone.

    Args:
        work: works in kT, `(n,)` or `(chains, draws)`, or an ensemble.
        reverse: whether these are works of B → A; the result is ΔF = F_B − F_A all the same.
        opposite: works of the opposite direction, which say what this one cannot reach.
        seed: of the block bootstrap.
        resamples: of the block bootstrap.

    Raises:
        InputError: fewer than two works, a NaN, or a −inf; the work is named.

    References: Nonequilibrium equality for free energy differences, 1997, arXiv:cond-mat/9610209, eq. 2;
        Pareto smoothed importance sampling, 2024, arXiv:1507.02646; Statistically optimal analysis of samples from
        multiple equilibrium states, 2008, arXiv:0801.1426, eq. 14, of which the second moment is a case.

    >>> works = 1.5 + np.random.default_rng(0).normal(size=4000)
    >>> print(jarzynski(works))  # exact: 1.5 - 1/2
    ΔF = 0.991 ± 0.021 kT (95 % interval 0.950 … 1.032; Jarzynski)
    """
    works = checked_work(work, "reverse" if reverse else "forward")
    n, sign = works.values.size, -1.0 if reverse else 1.0
    weight = scaled_weights(works.values)
    k, ess = pareto_k(works.values), effective_fraction(weight)
    nothing = partial(no_estimate, n=(n,), ess=(ess,), estimator="Jarzynski", pareto_k=k)
    if ess == 0:
        return nothing(flags=(_NO_FINITE_WORK,))
    g = works.inefficiency(weight)
    flags: list[Flag] = []
    if k is not None and k > HEAVIEST_TAIL:
        flags.append(_heavy_tail(k))
    if ess * n / g < FEWEST_EFFECTIVE:
        flags.append(_few_effective(ess * n / g))
    if opposite is not None:
        mirror = checked_work(opposite, "forward" if reverse else "reverse").values
        if np.isposinf(mirror).any():
            return nothing(flags=(_leaves_support(mirror), *flags))
        flags += _unreached(works.values, mirror, ess)

    mean = float(weight.mean())
    variance = g * float(weight.var()) / (n - 1) / mean**2
    if works.correlated:
        resampled, caught = block_bootstrap(_log_mean, [replace(works, values=weight)], [g], resamples, seed)
        flags += caught
        variance = max(variance, resampled)
    delta_f = sign * (float(works.values.min()) - math.log(mean))
    return estimate(delta_f, variance, n=(n,), ess=(ess,), flags=tuple(flags), estimator="Jarzynski", pareto_k=k)


def pareto_k(work: Work) -> float | None:
    """Tail index k of the weights `exp(-work)`: of a generalised Pareto law fitted to the largest of them.

    Above 0.7 an average of the weights is not to be trusted, its error included. None where no tail can be fitted:
    fewer than 25 works, or fewer than five distinct largest weights (constant works have no tail at all).

    Raises:
        InputError: fewer than two works, a NaN, or a −inf; the work is named.

    References: Pareto smoothed importance sampling, 2024, arXiv:1507.02646; fitted by ArviZ.

    >>> pareto_k(np.zeros(100)) is None
    True
    """
    log_weight = -checked_work(work, "any").values.ravel()
    if log_weight.max() == -np.inf or log_weight.max() == log_weight.min():
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", FutureWarning)
        from arviz import psislw  # a slow import, needed here only

        k = float(np.asarray(psislw(log_weight)[1]))
    return k if math.isfinite(k) else None


def _log_mean(weight: Rows) -> Float[np.ndarray, " _"]:
    with np.errstate(divide="ignore"):
        return np.log(weight.mean(-1))


_NO_FINITE_WORK = Flag(
    "no_finite_work",
    "every work is +inf, no path arrived in the support; start closer, use a map, or smaller steps.",
)


def _leaves_support(opposite: Rows) -> Flag:
    share = float(np.isposinf(opposite).mean())
    return Flag(
        "leaves_support",
        f"{share:.3g} of the opposite works are +inf: their paths leave the support, no path of this direction mirrors "
        "them, and its average is biased by -log P(return); use `bar`, which stays right.",
    )


def second_moment(work: Rows, opposite: Rows) -> float:
    """Second moment of the weights `exp(ΔF - work)`, whose mean is 1, from works of both directions, see `jarzynski`.

    >>> rng = np.random.default_rng(0)  # of lognormal weights it is exp(σ²)
    >>> second_moment(rng.normal(0.5, 1.0, size=(1, 9000)), rng.normal(0.5, 1.0, size=(1, 9000)))
    2.7...
    """
    root = bennett_root(work.reshape(1, -1), opposite.reshape(1, -1), math.log(work.size / opposite.size))[0]
    log_weight = root - np.concatenate([work.ravel(), -opposite.ravel()])
    log_weight = log_weight[np.isfinite(log_weight)]
    shared = np.logaddexp(math.log(work.size), math.log(opposite.size) + log_weight)
    with np.errstate(over="ignore"):
        return float(np.exp(2 * log_weight - shared).sum())


def _unreached(works: Rows, opposite: Rows, ess: float) -> list[Flag]:
    """A flag where paths of the opposite direction would weigh more, this way, than those that were run this way."""
    own, both = 1 / ess - 1, second_moment(works, opposite) - 1
    if both <= LARGEST_GROWTH * own + ROUNDING:
        return []
    return [
        Flag(
            "unreached",
            f"by the opposite works, the variance of these weights is {both:.2g} times their squared average, "
            f"not {own:.2g}: the largest weights were not met, the average errs to the side of more work, and its "
            "error is too small; use `bar`, which has both directions.",
        )
    ]


def _heavy_tail(k: float) -> Flag:
    return Flag(
        "heavy_tail",
        f"Pareto k of the weights is {k:.2f} (above {HEAVIEST_TAIL}): the largest weights rule the average and larger "
        "ones were not seen; use works of both directions and `bar`, a better drift or map, or slower switching.",
    )


def _few_effective(n: float) -> Flag:
    return Flag(
        "few_effective_samples",
        f"{n:.1f} effective samples (at least {FEWEST_EFFECTIVE} wanted): value and error lean on a few works; take "
        "more works, or make them narrower by a better drift or map, or slower switching.",
    )
