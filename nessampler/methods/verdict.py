"""From numbers to words: can this result be trusted, and was the transport worth it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from nessampler.estimators import Flag, FreeEnergy

__all__ = ["Verdict", "judge"]

GOOD_OVERLAP = 0.3  # plain BAR above this is a result nobody would question


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
    named = ", ".join(dict.fromkeys(f.code for f in flags))
    doubt = "The estimate itself" if own else "The estimate is sound, but the sampling behind it"
    level = (
        "not trusted" if any(f.code in ("poor_overlap", "no_overlap", "crossed_bounds") for f in flags) else "caution"
    )
    return Verdict(level, f"{doubt} is flagged ({named}): read the flags before using the number. {comparison}")


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
