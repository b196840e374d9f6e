"""Can the number be trusted? Overlap, tail index, correlation, Crooks' relation, convergence in time, contradictions.

Works follow the conventions of `nessampler.estimators`: kT, `(n,)` independent or `(chains, draws)` correlated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from scipy.stats import norm

from nessampler.errors import InputError
from nessampler.estimators import (
    Flag,
    FreeEnergy,
    Work,
    bar,
    bounds,
    jarzynski,
    overlap,
    pareto_k,
    statistical_inefficiency,
)
from nessampler.estimators.second_law import ONE_SIDED
from nessampler.estimators.works import checked_work

__all__ = [
    "Convergence",
    "CrooksCheck",
    "convergence",
    "crooks_check",
    "disagreement",
    "disjoint_supports",
    "overlap",
    "pareto_k",
    "statistical_inefficiency",
]

CROOKS_LIMIT = 3.72  # of |z|: one in 5,000, since at a few hundred works z is not quite normal


@dataclass(frozen=True)
class CrooksCheck:
    """How the log-ratio of the two work densities rises with the work: with slope 1 if Crooks' relation holds.

    Attributes:
        slope: fitted slope; None where the works are separated or do not vary, so that no slope is defined.
        std_error: its standard error.
        z: `(slope - 1) / std_error`.

    >>> rng = np.random.default_rng(0)
    >>> w_f, w_r = 3 + 2 * rng.normal(size=2000), 1 + 2 * rng.normal(size=2000)
    >>> crooks_check(2 * w_f, 2 * w_r, delta_f=2.0).slope  # works in half of kT: half the slope
    0.50...
    """

    slope: float | None
    std_error: float | None
    z: float | None


@dataclass(frozen=True)
class Convergence:
    """ΔF from the first and from the last part of the draws, `fractions` of them.

    Attributes:
        fractions: 1/k, 2/k, …, 1.
        forward: estimates from the first part of every chain.
        backward: estimates from the last part of every chain.

    >>> rng = np.random.default_rng(0)
    >>> found = convergence(1 + rng.normal(size=200), rng.normal(size=200), fractions=2)
    >>> found.fractions, found.forward[0].n, found.backward[1].n
    ((0.5, 1.0), (100, 100), (200, 200))
    """

    fractions: tuple[float, ...]
    forward: tuple[FreeEnergy, ...]
    backward: tuple[FreeEnergy, ...]


def crooks_check(work_forward: Work, work_reverse: Work, delta_f: float) -> CrooksCheck:
    """Fit the slope of Crooks' relation by logistic regression; exact works of either direction give 1.

        log n_F P_F(W) / (n_R P_R(-W)) = a + slope (W - ΔF)

    Membership (forward or reverse) is regressed on the work, with intercept; works of +inf carry no information and are
    left out. A wrong sign, a wrong temperature or an end state that is not sampled moves the slope. The error is the
    sandwich one, within each direction, with the statistical inefficiency of `(chains, draws)`.

    Args:
        delta_f: centre of the regression, for numerical accuracy; the intercept is free, so any estimate serves.

    Raises:
        InputError: fewer than two works in a direction, a NaN, or a −inf; or `delta_f` not finite.

    References: Entropy production fluctuation theorem and the nonequilibrium work relation for free energy
        differences, 1999, arXiv:cond-mat/9901352, eq. 2; the regression: Equilibrium free energies from
        nonequilibrium measurements using maximum-likelihood methods, 2003, doi:10.1103/PhysRevLett.91.140601.

    >>> rng = np.random.default_rng(0)
    >>> found = crooks_check(3 + 2 * rng.normal(size=2000), 1 + 2 * rng.normal(size=2000), delta_f=1.0)
    >>> round(found.slope, 2), abs(found.z) < 3
    (1.01, True)
    """
    if not math.isfinite(delta_f):
        raise InputError(
            f"`delta_f` centres the regression and must be finite: got {delta_f}; pass `bar(...).delta_f`."
        )
    forward, reverse = checked_work(work_forward, "forward"), checked_work(work_reverse, "reverse")
    samples = [(forward.values - delta_f, 1.0, forward), (-reverse.values - delta_f, 0.0, reverse)]
    x = np.concatenate([value[np.isfinite(value)] for value, _, _ in samples])
    label = np.concatenate([np.full(np.isfinite(value).sum(), member) for value, member, _ in samples])
    fitted = _logistic(x, label)
    if fitted is None:
        return CrooksCheck(None, None, None)
    intercept, slope, curvature = fitted
    influence = np.linalg.inv(curvature)[1]
    variance = 0.0
    for value, member, works in samples:
        finite = np.where(np.isfinite(value), value, 0.0)
        residual = np.where(np.isfinite(value), member - expit(intercept + slope * finite), 0.0)
        pull = residual * (influence[0] + influence[1] * finite)
        variance += works.inefficiency(pull) * pull.size * float(pull.var())
    error = math.sqrt(variance)
    return CrooksCheck(slope, error, (slope - 1) / error) if error > 0 else CrooksCheck(None, None, None)


def convergence(
    work_forward: Work, work_reverse: Work | None, fractions: int = 10, *, seed: int = 0, resamples: int = 100
) -> Convergence:
    """ΔF by `bar` from growing parts of the draws, taken from the beginning and from the end.

    Without reverse works (None) by `jarzynski`.

    The two curves agree within their errors once the beginning resembles the end; if they meet only at 1, the works
    drift and an early part should be dropped or the run made longer.

    Raises:
        InputError: as `bar`, or so many `fractions` that a part holds fewer than two works.

    References: Guidelines for the analysis of free energy calculations, 2015, doi:10.1007/s10822-015-9840-9, section 3.

    >>> rng = np.random.default_rng(0)
    >>> found = convergence(1 + rng.normal(size=200), rng.normal(size=200), fractions=4)
    >>> found.fractions, found.forward[-1] == found.backward[-1]
    ((0.25, 0.5, 0.75, 1.0), True)
    """
    directions = [checked_work(work_forward, "forward")]
    if work_reverse is not None:
        directions.append(checked_work(work_reverse, "reverse"))
    fewest = min(works.values.shape[-1] for works in directions)
    if not 1 <= fractions <= fewest // 2:
        raise InputError(
            f"`fractions` must leave two draws in the smallest part: got {fractions} parts of {fewest} draws; "
            f"choose between 1 and {fewest // 2}."
        )
    shares = [(i + 1) / fractions for i in range(fractions)]

    def estimate(share: float, last: bool) -> FreeEnergy:
        parts = (_part(works.values, share, last) for works in directions)
        shaped = [p if w.correlated else p[0] for p, w in zip(parts, directions, strict=True)]
        estimator = jarzynski if work_reverse is None else bar
        return estimator(*shaped, seed=seed, resamples=resamples)

    first = tuple(estimate(share, last=False) for share in shares)
    final = tuple(estimate(share, last=True) for share in shares)
    return Convergence(tuple(shares), first, final)


def disagreement(
    work_forward: Work,
    work_reverse: Work,
    *,
    seed: int = 0,
    base_log_z: float | None = None,
    exact: bool = True,
    systematic: float = 0.0,
) -> tuple[Flag, ...]:
    """Flags where the two directions contradict each other beyond one-sided 99.9 % limits; empty if they do not.

    "crossed_bounds": the lower bound of ΔF lies above the upper one, which no amount of dissipation can do.
    "directions_disagree": the two Jarzynski averages differ although each is unflagged; averages with heavy tails
    or few effective samples differ routinely and are not compared, since `bar` does not lean on them.
    "crooks_violated": nothing of this, but where the works overlap, their densities do not have the ratio of Crooks'
    relation, see `crooks_check`. It compares what both directions saw, whatever their tails, and so notices a mode
    that one of them lacks. Works that are not `exact`, but for an integrated log-determinant, are spared: where they
    hardly spread, their small errors are all that there is to compare. By how much these may shift either direction,
    `systematic`, limits and averages are allowed to differ besides.

    With `base_log_z` the works lead from a base to a density, and messages speak of its log Z = `base_log_z` - ΔF.

    Raises:
        InputError: fewer than two works in a direction, a NaN, or a −inf; the work is named.

    >>> rng = np.random.default_rng(0)
    >>> disagreement(3 + 2 * rng.normal(size=2000), 1 + 2 * rng.normal(size=2000))
    ()
    >>> [flag.code for flag in disagreement(-3 + rng.normal(size=2000), 1 + rng.normal(size=2000))]
    ['crossed_bounds', 'directions_disagree']
    """
    flags = []
    low, high = bounds(work_forward, work_reverse).widened(systematic).tightest_limits
    if low is not None and high is not None and low > high:
        flags.append(_crossed_bounds(low, high, base_log_z))
    forward = jarzynski(work_forward, opposite=work_reverse, seed=seed).widened(systematic)
    reverse = jarzynski(work_reverse, reverse=True, opposite=work_forward, seed=seed).widened(systematic)
    if _comparable(forward) and _comparable(reverse):
        assert forward.delta_f is not None
        assert reverse.delta_f is not None
        error = math.hypot(forward.std_error or 0.0, reverse.std_error or 0.0)
        if abs(forward.delta_f - reverse.delta_f) > float(norm.ppf(ONE_SIDED)) * error:
            flags.append(_directions_disagree(forward.delta_f, reverse.delta_f, base_log_z))
    if flags or not exact:
        return tuple(flags)
    both = bar(work_forward, work_reverse, seed=seed)
    if both.delta_f is not None and both.trusted:
        check = crooks_check(work_forward, work_reverse, both.delta_f)
        if check.z is not None and abs(check.z) > CROOKS_LIMIT:
            flags.append(_crooks_violated(check))
    return tuple(flags)


def _comparable(average: FreeEnergy) -> bool:
    """Whether it has nothing against it but what takes for granted that both directions belong together."""
    return average.delta_f is not None and all(flag.code == "unreached" for flag in average.flags)


def disjoint_supports(work_forward: Work, work_reverse: Work) -> tuple[Flag, ...]:
    """A flag where works without transport say that no sample of one state has density in the other, either way.

    Raises:
        InputError: fewer than two works in a direction, a NaN, or a −inf; the work is named.

    >>> [flag.code for flag in disjoint_supports([math.inf] * 9, [math.inf] * 9)]
    ['disjoint_supports']
    >>> disjoint_supports([0.0] * 9, [1.0] * 9)
    ()
    """
    forward, reverse = checked_work(work_forward, "forward").values, checked_work(work_reverse, "reverse").values
    if not (np.isposinf(forward).all() and np.isposinf(reverse).all()):
        return ()
    return (
        Flag(
            "disjoint_supports",
            f"none of {forward.size} samples of A lies in the support of B, and none of {reverse.size} of B in that of "
            "A: without a map that brings one onto the other there is nothing to compare; give `coordinates` in which "
            "the two regions differ by a shift and a scale, or a state in between that covers both.",
        ),
    )


def _logistic(
    x: Float[np.ndarray, " n"], label: Float[np.ndarray, " n"]
) -> tuple[float, float, Float[np.ndarray, "2 2"]] | None:
    """Intercept, slope and curvature of the log-likelihood; None without a maximum (separated or constant works)."""
    ones, zeros = x[label == 1], x[label == 0]
    if len(ones) == 0 or len(zeros) == 0 or ones.min() >= zeros.max() or zeros.min() >= ones.max():
        return None
    design = np.stack([np.ones_like(x), x], -1)
    beta = np.array([math.log(len(ones) / len(zeros)), 1.0])
    value = _log_likelihood(design @ beta, label)
    for _ in range(100):
        p = expit(design @ beta)
        curvature = (design * (p * (1 - p))[:, None]).T @ design
        if np.linalg.cond(curvature) > 1e14:
            return None
        step = np.linalg.solve(curvature, design.T @ (label - p))
        while _log_likelihood(design @ (beta + step), label) < value and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        value = _log_likelihood(design @ beta, label)
        if np.abs(step).max() <= 1e-10:
            return float(beta[0]), float(beta[1]), curvature
    return None


def _log_likelihood(logit: Float[np.ndarray, " n"], label: Float[np.ndarray, " n"]) -> float:
    return float((label * logit - np.logaddexp(0.0, logit)).sum())


def _part(values: Float[np.ndarray, "chains draws"], share: float, last: bool) -> Float[np.ndarray, "chains part"]:
    count = round(share * values.shape[1])
    return values[:, -count:] if last else values[:, :count]


def _crooks_violated(check: CrooksCheck) -> Flag:
    return Flag(
        "crooks_violated",
        f"the ratio of forward to reverse work densities rises with slope {check.slope:.2f} ± {check.std_error:.2f} "
        "where Crooks' relation asks for 1: samples of one end lack a mode that the other end knows of or belong to "
        "another density, or the works belong to different processes.",
    )


def _crossed_bounds(low: float, high: float, base: float | None) -> Flag:
    if base is not None:
        return Flag(
            "crossed_bounds",
            f"the lower limit of log Z, {base - high:.3f}, lies above the upper, {base - low:.3f}, which no weights "
            "allow; check that the samples of the target belong to the density asked for.",
        )
    return Flag(
        "crossed_bounds",
        f"the lower limit of ΔF, {low:.3f} kT, lies above the upper, {high:.3f} kT, which the second law forbids; "
        "check the sign of the reverse works and that both end states are sampled at equilibrium.",
    )


def _directions_disagree(forward: float, reverse: float, base: float | None) -> Flag:
    if base is not None:
        return Flag(
            "directions_disagree",
            f"walkers from the base give log Z = {base - forward:.3f}, walkers from samples of the target "
            f"{base - reverse:.3f}, further apart than their errors allow; modes are missing on one side, or the "
            "samples belong to another density.",
        )
    return Flag(
        "directions_disagree",
        f"forward works give ΔF = {forward:.3f} kT, reverse works {reverse:.3f} kT, further apart than their errors "
        "allow; an end state is not sampled (a basin never visited), or the works belong to different processes.",
    )
