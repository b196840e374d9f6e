"""Everything that works of one or both directions can say about ΔF."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from nessampler.diagnostics import Convergence, CrooksCheck, convergence, crooks_check, disagreement, disjoint_supports
from nessampler.errors import InputError
from nessampler.estimators import Bounds, Flag, FreeEnergy, bar, bounds, jarzynski
from nessampler.estimators.second_law import ONE_SIDED
from nessampler.estimators.works import Work, checked_work, work_values
from nessampler.exchange.given import LARGEST, GivenWorks, kt_in
from nessampler.exchange.reading import in_chains
from nessampler.methods.verdict import Verdict, judge_works

__all__ = ["WorksEstimate", "estimate_given", "estimate_works"]

PARTS = 10
"""Points of the convergence curves; the first and the last half are compared."""
FEWEST_DRAWS = 4 * PARTS
CURVE_RESAMPLES = 30  # the curves are twenty estimates, whose bootstraps would take most of the time


@dataclass(frozen=True)
class WorksEstimate:
    """ΔF from given works, with all that speaks for it and against it; energies in kT.

    Attributes:
        delta_f: by BAR from works of both directions, by Jarzynski's average from one.
        estimators: every estimate by name: `bar`, `jarzynski_forward`, `jarzynski_reverse`.
        bounds: second-law bounds; from one direction the upper one alone.
        crooks: slope of Crooks' relation, 1 if the two directions belong together; None from one direction.
        convergence: from growing parts of the works; None where they are too few.
        flags: reasons not to trust the number.
        verdict: in words.
        works: forward and reverse works in kT, the latter None where there are none.
        temperature: kelvin, None if unknown.

    >>> found = estimate_works([2.0, 4.0] * 50)  # one direction: an upper bound, and no lower one
    >>> found.bounds.upper, found.bounds.lower, sorted(found.estimators)
    (3.0, None, ['jarzynski_forward'])
    """

    delta_f: FreeEnergy
    estimators: dict[str, FreeEnergy]
    bounds: Bounds
    crooks: CrooksCheck | None
    convergence: Convergence | None
    flags: tuple[Flag, ...]
    verdict: Verdict
    works: tuple[np.ndarray, np.ndarray | None]
    temperature: float | None = None

    def __str__(self) -> str:
        return f"{replace(self.delta_f, flags=self.flags)}\n{self.verdict.text}"


def estimate_works(
    forward: Work,
    reverse: Work | None = None,
    *,
    unit: str = "kT",
    temperature: float | None = None,
    reverse_negated: bool = False,
    chains: int | None = None,
    seed: int = 0,
) -> WorksEstimate:
    """ΔF = F_B − F_A from works that were done elsewhere, with bounds, checks and a verdict.

    With works of both directions the answer is Bennett's, and Jarzynski's average of either direction stands beside
    it; with forward works alone it is Jarzynski's, which cannot know of paths that were never taken.

    Args:
        forward: works of A → B, `(n,)` independent or `(chains, draws)` correlated; +inf is a path of zero weight.
        reverse: works of B → A, counted as what that process costs: on average not less than −ΔF.
        unit: "kT", "kJ/mol" or "kcal/mol".
        temperature: kelvin; needed for works that are not in kT.
        reverse_negated: the reverse works are stored with the other sign, as −W.
        chains: cut one-dimensional works into this many time series, one after another.
        seed: of the bootstraps.

    Raises:
        InputError: fewer than two works, NaN, −inf, a work beyond 1e100 kT, an unknown unit, or no temperature.

    References: see `bar`, `jarzynski`, `bounds`, `crooks_check`, `convergence`.

    >>> rng = np.random.default_rng(0)
    >>> found = estimate_works(3 + 2 * rng.normal(size=2000), 1 + 2 * rng.normal(size=2000))  # exact: 1
    >>> print(found)
    ΔF = 0.984 ± 0.034 kT (95 % interval 0.917 … 1.051; BAR)
    BAR gives ± 0.034 kT from 2,000 forward and 2,000 reverse works, and their overlap is 0.46.
    """
    kt = kt_in(unit, temperature)
    w_f = _prepared(forward, "forward", kt, chains)
    if reverse is None:
        return _one_direction(w_f, temperature, seed)
    return _both(w_f, _prepared(reverse, "reverse", -kt if reverse_negated else kt, chains), temperature, seed)


def estimate_given(
    forward: GivenWorks,
    reverse: GivenWorks | None = None,
    *,
    reverse_negated: bool = False,
    chains: int | None = None,
    seed: int = 0,
) -> WorksEstimate:
    """The same of works as they were read, each in the unit that is settled for it.

    Raises:
        InputError: as `estimate_works`; works of two temperatures, or of an unknown unit.

    >>> given = GivenWorks(np.linspace(1.0, 4.0, 100), "kJ/mol", 300.0, "w.csv")
    >>> estimate_given(given).delta_f.n
    (100,)
    """
    temperatures = {one.temperature for one in (forward, reverse) if one is not None and one.temperature is not None}
    if len(temperatures) > 1:
        low, high = sorted(temperatures)
        raise InputError(f"forward and reverse works belong to one temperature: got {low:g} K and {high:g} K")
    temperature = next(iter(temperatures), None)
    in_kt = [None if one is None else one.values / kt_in(one.unit or "", temperature) for one in (forward, reverse)]
    assert in_kt[0] is not None
    return estimate_works(
        in_kt[0], in_kt[1], temperature=temperature, reverse_negated=reverse_negated, chains=chains, seed=seed
    )


def _prepared(work: Work, direction: str, scale: float, chains: int | None) -> np.ndarray:
    values = work_values(work) / scale
    values = values if chains is None else in_chains(values, chains)
    checked_work(values, direction)
    beyond = np.argwhere(np.isfinite(values) & (np.abs(values) > LARGEST))
    if len(beyond):
        index = beyond[0].tolist()
        raise InputError(
            f"a work is an energy, at most {LARGEST:g} kT: the {direction} work at index "
            f"{index[0] if len(index) == 1 else index} is {values[tuple(index)]:.3g}; a path of zero weight is inf"
        )
    return values


def _both(forward: np.ndarray, reverse: np.ndarray, temperature: float | None, seed: int) -> WorksEstimate:
    best = bar(forward, reverse, seed=seed)
    estimators = {
        "bar": best,
        "jarzynski_forward": jarzynski(forward, opposite=reverse, seed=seed),
        "jarzynski_reverse": jarzynski(reverse, reverse=True, opposite=forward, seed=seed),
    }
    crooks = None if best.delta_f is None else crooks_check(forward, reverse, best.delta_f)
    apart = disjoint_supports(forward, reverse) if best.delta_f is None else ()
    curve = _curve(forward, reverse, seed)
    flags = (
        *best.flags,
        *apart,
        *disagreement(forward, reverse, seed=seed, exact=False),  # Crooks' relation is asked below, in other words
        *(_off_crooks(crooks) if crooks is not None and best.trusted else ()),
        *_drift(curve),
    )
    return WorksEstimate(
        delta_f=best,
        estimators=estimators,
        bounds=bounds(forward, reverse),
        crooks=crooks,
        convergence=curve,
        flags=flags,
        verdict=judge_works(best, flags),
        works=(forward, reverse),
        temperature=temperature,
    )


def _one_direction(forward: np.ndarray, temperature: float | None, seed: int) -> WorksEstimate:
    found = jarzynski(forward, seed=seed)
    both = bounds(forward, forward)  # of which the lower ones would be those of reverse works
    curve = _curve(forward, None, seed)
    flags = (*found.flags, *_drift(curve))
    return WorksEstimate(
        delta_f=found,
        estimators={"jarzynski_forward": found},
        bounds=replace(
            both,
            lower=None,
            lower_limit=None,
            importance_weighted_lower=None,
            importance_weighted_lower_limit=None,
        ),
        crooks=None,
        convergence=curve,
        flags=flags,
        verdict=judge_works(found, flags),
        works=(forward, None),
        temperature=temperature,
    )


def _curve(forward: np.ndarray, reverse: np.ndarray | None, seed: int) -> Convergence | None:
    fewest = min(works.shape[-1] for works in (forward, reverse) if works is not None)
    if fewest < FEWEST_DRAWS:
        return None
    return convergence(forward, reverse, PARTS, seed=seed, resamples=CURVE_RESAMPLES)


def _off_crooks(found: CrooksCheck) -> tuple[Flag, ...]:
    if found.slope is None or found.z is None or abs(found.z) <= float(norm.ppf(ONE_SIDED)):
        return ()
    return (
        Flag(
            "crooks_violated",
            f"Crooks' relation has slope {found.slope:.2f} ± {found.std_error:.2f} where it must be 1: forward and "
            "reverse works belong to different processes, an end state is not sampled, the reverse works have the "
            "other sign, or the unit or temperature is wrong (near 300 K works in kJ/mol read as kT have 0.40, those "
            "in kcal/mol 1.7).",
        ),
    )


def _drift(curve: Convergence | None) -> tuple[Flag, ...]:
    if curve is None:
        return ()
    half = curve.fractions.index(0.5)
    first, last = curve.forward[half], curve.backward[half]
    if not (first.trusted and last.trusted) or first.delta_f is None or last.delta_f is None:
        return ()
    error = math.hypot(first.std_error or 0.0, last.std_error or 0.0)
    if abs(first.delta_f - last.delta_f) <= float(norm.ppf(ONE_SIDED)) * error:
        return ()
    return (
        Flag(
            "drift",
            f"the first half of the works gives ΔF = {first.delta_f:.3f} kT, the last half {last.delta_f:.3f}, further "
            "apart than their errors allow; the works change with time: drop the beginning, or give correlated works "
            "as chains.",
        ),
    )
