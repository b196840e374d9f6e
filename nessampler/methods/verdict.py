"""From numbers to words: can this result be trusted, and was the transport worth it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from nessampler.estimators import Flag, FreeEnergy

__all__ = ["Verdict", "judge", "judge_states", "judge_works", "level_of"]

GOOD_OVERLAP = 0.3  # plain BAR above this is a result nobody would question

DECISIVE = {
    "copies_disagree",
    "crooks_violated",
    "crossed_bounds",
    "far_end",
    "mirror_image",
    "no_overlap",
    "no_way_back",
    "overlap_disagrees",
    "poor_overlap",
}


class Verdict(NamedTuple):
    """A level and one or two sentences."""

    level: Literal["trusted", "caution", "not trusted"]
    text: str


def judge(estimate: FreeEnergy, plain: FreeEnergy, chosen: str, flags: Sequence[Flag]) -> Verdict:
    """Weigh the reported estimate against plain BAR and the flags."""
    if estimate.delta_f is None or estimate.std_error is None:
        return Verdict(
            "not trusted",
            "There is no result: forward and reverse works do not overlap. Sample longer, choose better coordinates, "
            "or add intermediate states.",
        )
    comparison = _comparison(estimate, plain, chosen)
    if not flags:
        return Verdict("trusted", comparison)
    own = [f for f in flags if f in estimate.flags]
    doubt = "The estimate itself" if own else "The estimate is sound, but the sampling behind it"
    return Verdict(
        level_of(flags), f"{doubt} is flagged ({_codes(flags)}): read the flags before using the number. {comparison}"
    )


def judge_works(estimate: FreeEnergy, flags: Sequence[Flag]) -> Verdict:
    """Weigh an estimate from given works: BAR's from both directions, or Jarzynski's from one."""
    if estimate.delta_f is None or estimate.std_error is None:
        missing = (
            "forward and reverse works do not overlap"
            if len(estimate.n) == 2
            else "no path arrived in the support of the end state"
        )
        return Verdict("not trusted", f"There is no result: {missing}. Switch more slowly, or add intermediate states.")
    if len(estimate.n) == 2:
        said = (
            f"BAR gives ± {estimate.std_error:.3f} kT from {estimate.n[0]:,} forward and {estimate.n[1]:,} reverse "
            f"works, and their overlap is {estimate.overlap or 0.0:.2f}."
        )
    else:
        said = (
            f"Jarzynski's average of {estimate.n[0]:,} works, {estimate.ess[0] * estimate.n[0]:.0f} of them effective, "
            f"gives ± {estimate.std_error:.3f} kT. Works of one direction cannot show what their paths missed: reverse "
            "works would check it."
        )
    if not flags:
        return Verdict("trusted", said)
    return Verdict(
        level_of(flags), f"The works are flagged ({_codes(flags)}): read the flags before using the number. {said}"
    )


def judge_states(estimate: FreeEnergy, flags: Sequence[Flag]) -> Verdict:
    """Weigh MBAR over samples of states between the ends.

    >>> from nessampler.estimators import mbar
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2, 500)) + [[0.0], [9.0]]
    >>> u = 0.5 * (x.reshape(1, -1) - [[0.0], [9.0]]) ** 2
    >>> apart = mbar(u, [500, 500])
    >>> judge_states(apart, apart.flags).level
    'not trusted'
    """
    if estimate.delta_f is None or estimate.std_error is None:
        return Verdict("not trusted", "There is no result: nothing connects the two ends. Put states in between.")
    said = f"MBAR over {sum(n > 0 for n in estimate.n)} states gives ± {estimate.std_error:.3f} kT."
    if not flags:
        return Verdict("trusted", said)
    return Verdict(
        level_of(flags), f"The states are flagged ({_codes(flags)}): read the flags before using the number. {said}"
    )


def level_of(flags: Sequence[Flag]) -> Literal["trusted", "caution", "not trusted"]:
    """Of a difference that is there."""
    if not flags:
        return "trusted"
    return "not trusted" if any(flag.code in DECISIVE for flag in flags) else "caution"


def _codes(flags: Sequence[Flag]) -> str:
    return ", ".join(dict.fromkeys(flag.code for flag in flags))


def _comparison(estimate: FreeEnergy, plain: FreeEnergy, chosen: str) -> str:
    error = estimate.std_error or 0.0
    if plain.delta_f is None or plain.std_error is None:
        return f"Plain BAR finds no overlap between the states; the {chosen} rung gives ± {error:.3f} kT."
    already = f"Plain BAR is already good here (overlap {plain.overlap:.2f}, ± {plain.std_error:.3f} kT)"
    if chosen == "plain":
        if (plain.overlap or 0.0) >= GOOD_OVERLAP:
            return f"{already}: no transport is needed."
        return f"Plain BAR is reported (overlap {plain.overlap:.2f}, ± {plain.std_error:.3f} kT)."
    gain = (plain.std_error / error) ** 2 if error > 0 else float("inf")
    if (plain.overlap or 0.0) >= GOOD_OVERLAP:
        change = f"lowers the variance {gain:.1f} times" if gain > 1 else "does no better on these samples"
        return f"{already}: transport is not needed. The {chosen} rung {change}."
    return (
        f"The {chosen} rung gives ± {error:.3f} kT where plain BAR gives ± {plain.std_error:.3f} "
        f"(overlap {estimate.overlap:.2f} against {plain.overlap:.2f}): a variance {gain:.0f} times smaller."
    )
