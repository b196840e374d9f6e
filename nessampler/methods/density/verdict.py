"""From numbers to words: can this log Z be trusted, and was the drift worth it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from nessampler.estimators import Flag
from nessampler.methods.density.result import Attempt
from nessampler.methods.verdict import Verdict

__all__ = ["cross_check", "judge", "level_of"]

DISAGREEMENT = 4.0  # standard errors between two methods
WEAK_RESIDUAL = 0.0  # held-out R² below which a drift explains nothing
NOTHING_LEFT = 0.9  # effective fraction above which there was little to explain
ONE_WAY = " Walkers went one way only: modes that none of them reached would not show."
# Flags of a number that may be wrong by more than its error; the others ask for caution. Samples of the target that are
# none cannot harm it: they are carried back to check it, and that check is what falls.
GRAVE = frozenset(
    {
        "crooks_violated",
        "crossed_bounds",
        "directions_disagree",
        "few_effective_samples",
        "heavy_tail",
        "leaves_support",
        "methods_disagree",
        "no_finite_work",
        "no_way_back",
        "overlap_disagrees",
        "unreached",
        "walkers_off_target",
    }
)


def cross_check(reported: Attempt, attempts: Sequence[Attempt]) -> tuple[Flag, ...]:
    """Doubts that no single estimate can have: other methods that disagree, a drift that fails its held-out test."""
    flags = []
    for other in attempts:
        gap = _gap(reported, other)
        if gap is not None and gap > DISAGREEMENT:
            flags.append(
                Flag(
                    "methods_disagree",
                    f"{other.name} gives log Z = {other.log_z.value:.3f} ± {other.log_z.std_error:.3f}, {gap:.1f} "
                    "standard errors away: one of them misses a part of the target; use a wider base, more steps, or "
                    "samples of the target for walkers carried back",
                )
            )
    worst = min(reported.quality.r_squared, default=1.0)
    if worst < WEAK_RESIDUAL and reported.log_z.ess < NOTHING_LEFT:
        t = reported.quality.times[reported.quality.r_squared.index(worst)]
        flags.append(
            Flag(
                "unsolved_drift",
                f"at t = {t:.3f} the drift explains nothing on held-out walkers (R² = {worst:.2f}): more pilot walkers "
                "or a smaller dictionary would serve better",
            )
        )
    return tuple(flags)


def judge(reported: Attempt, attempts: Sequence[Attempt], flags: Sequence[Flag]) -> Verdict:
    """Weigh the estimate against its flags and the plain baseline."""
    estimate = reported.log_z
    if estimate.value is None or estimate.std_error is None:
        return Verdict("not trusted", "There is no result: no walker arrived in the support. Use a wider base.")
    words = _comparison(reported, attempts) + ("" if reported.reverse is not None else ONE_WAY)
    if not flags:
        return Verdict("trusted", words)
    named = ", ".join(dict.fromkeys(f.code for f in flags))
    return Verdict(level_of(flags), f"Read the flags before using the number ({named}). {words}")


def level_of(flags: Sequence[Flag]) -> Literal["trusted", "caution", "not trusted"]:
    """Of a number that is there.

    >>> level_of([]), level_of([Flag("islands_disagree", "")]), level_of([Flag("unreached", "")])
    ('trusted', 'caution', 'not trusted')
    """
    if not flags:
        return "trusted"
    return "not trusted" if any(f.code in GRAVE for f in flags) else "caution"


def _gap(one: Attempt, other: Attempt) -> float | None:
    a, b = one.log_z, other.log_z
    if one is other or None in (a.value, a.std_error, b.value, b.std_error) or not (a.trusted and b.trusted):
        return None  # an estimate that is flagged itself accuses nobody
    error = math.hypot(a.std_error or 0.0, b.std_error or 0.0)
    return abs((a.value or 0.0) - (b.value or 0.0)) / error if error > 0 else None


def _comparison(reported: Attempt, attempts: Sequence[Attempt]) -> str:
    own = f"{100 * reported.log_z.ess:.1f} % of {reported.log_z.n} walkers are effective"
    if reported.name == "pt":
        return f"{100 * reported.log_z.ess:.1f} % of {reported.log_z.n} draws count as independent."
    plain = next((a for a in attempts if a.name == "ais" and a is not reported), None)
    if plain is None:
        return f"{own}."
    equal = "" if reported.name == "smc" else " at equal gradient evaluations"
    return f"{own}; plain annealing{equal} has {100 * plain.log_z.ess:.1f} %."
