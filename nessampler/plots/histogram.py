"""Where the bulk of samples lies, how finely it can be binned, and what is left outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nessampler._words import Real

__all__ = ["edges", "outside", "window"]


ROUNDING = 1e-9
"""Samples closer than this to one another differ by rounding."""


def window(samples: Sequence[np.ndarray], anchors: Sequence[Real]) -> tuple[Real, Real]:
    """The bulk of each sample and the anchors; one wild walker must not flatten the picture."""
    ends = list(anchors)
    for sample in samples:
        finite = sample[np.isfinite(sample)]
        if finite.size:
            low, first, middle, third, high = np.quantile(finite, [0, 0.25, 0.5, 0.75, 1])
            reach = 3.5 * (third - first)
            ends += [max(low, middle - reach), min(high, middle + reach)]
    if not ends:
        return -1.0, 1.0
    low, high = min(ends), max(ends)
    spread = high - low
    margin = 0.05 * spread if spread > ROUNDING * max(1.0, abs(low), abs(high)) else 0.5
    return float(low - margin), float(high + margin)


def edges(samples: Sequence[np.ndarray], low: Real, high: Real, crossing: Real | None) -> np.ndarray:
    """Bins of the finer Freedman–Diaconis width, within what the eye can use; one edge lies where the curves cross."""
    counts = [20.0]
    for sample in samples:
        inside = sample[(sample >= low) & (sample <= high)]
        if inside.size > 1:
            spread = float(np.subtract(*np.quantile(inside, [0.75, 0.25])))
            if spread > 0:
                counts.append((high - low) / (2 * spread * inside.size ** (-1 / 3)))
    bins = int(min(70.0, max(counts)))
    width = (high - low) / bins
    shift = 0.0 if crossing is None else (crossing - low) % width
    return low + shift - width + width * np.arange(bins + 2)


def outside(forward: np.ndarray, negated_reverse: np.ndarray, low: Real, high: Real) -> str:
    phrases = []
    for word, work in (("forward", forward), ("reverse", negated_reverse)):
        away = int(((work < low) | (work > high)).sum())
        if away:
            infinite = int(np.isinf(work).sum())
            phrases.append(f"{away:,} of {work.size:,} {word}{f' ({infinite:,} infinite)' if infinite else ''}")
    return f"off axis: {', '.join(phrases)}" if phrases else ""
