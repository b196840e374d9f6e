"""What results claim, held against the truth over many seeds: coverage, z-scores, errors, bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import binom, binomtest, chi2, kstest

__all__ = ["FAMILY", "Cell", "failures", "tables"]

FAMILY = 0.01  # chance that anything at all is called wrong where everything is right
Z95 = 1.959964
FEWEST = 20  # results below which nothing is tested
OUTSIDE = 0.001  # chance of a one-sided 99.9 % limit to lie on the wrong side


@dataclass(frozen=True)
class Cell:
    """All seeds of one estimator of one method on one problem.

    Attributes:
        rows: with value, error, truth and trusted, and where they exist limits and tightest.
    """

    problem: str
    method: str
    estimator: str
    rows: tuple[dict, ...]

    @cached_property
    def trusted(self) -> list[dict]:
        """Seeds with a number that nothing speaks against."""
        return [row for row in self.answered if row["trusted"]]

    @cached_property
    def answered(self) -> list[dict]:
        """Seeds with a number."""
        return [row for row in self.rows if row["value"] is not None and row["error"]]

    @cached_property
    def conservative(self) -> bool:
        """Whether a systematic error that adds in quadrature makes the claimed error an upper limit."""
        shares = [(row.get("systematic", 0.0) / row["error"]) ** 2 for row in self.answered]
        return bool(shares) and float(np.median(shares)) > 0.02

    @property
    def p_values(self) -> dict[str, float]:
        """Of the claims, tested on trusted seeds; none where these are few.

        Coverage is binomial; the z-scores are held against the unit normal by Kolmogorov and Smirnov; the sum of their
        squares, chi-squared, says whether claimed errors agree with the scatter about the truth.
        """
        z, n = scores(self.trusted), len(self.trusted)
        if n < FEWEST:
            return {}
        within = int((np.abs(z) <= Z95).sum())
        if self.conservative:
            return {"coverage": float(binom.cdf(within, n, 0.95)), "errors": float(chi2.sf((z**2).sum(), n))}
        tail = float(chi2.cdf((z**2).sum(), n))
        return {
            "coverage": float(binomtest(within, n, 0.95).pvalue),
            "normal": float(kstest(z, "norm").pvalue),
            "errors": 2 * min(tail, 1 - tail),
        }

    def outside(self, limits: str) -> tuple[int, int]:
        """How many limits there are, and how many of them lie on the wrong side of the truth."""
        given = [
            sign * (row[limits][side] - row["truth"])
            for row in self.rows
            for side, sign in ((0, 1.0), (1, -1.0))
            if row.get(limits) and row[limits][side] is not None
        ]
        return len(given), sum(beyond > 0 for beyond in given)


def scores(rows: Sequence[dict]) -> np.ndarray:
    """Distances to the truth in standard errors; those of Student's intervals are as many times longer."""
    return np.array([(row["value"] - row["truth"]) / _reach(row) for row in rows])


def _reach(row: dict) -> float:
    low, high = row.get("interval") or (-Z95 * row["error"], Z95 * row["error"])
    return (high - low) / 2 / Z95


def failures(cells: Sequence[Cell]) -> list[tuple[str, str, str, str, float]]:
    """Claims that do not hold at the family-wise level, Bonferroni over all that were tested."""
    tested = [(c.problem, c.method, c.estimator, name, p) for c in cells for name, p in c.p_values.items()]
    return [entry for entry in tested if entry[-1] < FAMILY / len(tested)]


def tables(cells: Sequence[Cell]) -> str:
    """Estimates, bounds, and what failed, in Markdown."""
    tested, wrong = sum(len(c.p_values) for c in cells), failures(cells)
    level = FAMILY / max(1, tested)
    said = "; ".join(f"{p} / {m} / {e}: {claim} (p = {value:.1e})" for p, m, e, claim, value in wrong) or "none"
    lines = [f"{tested} claims tested, each at {level:.1e}. Claims that fail: {said}.", ""]
    lines += [*_estimates(cells, {entry[:3] for entry in wrong}), "", *_bounds(cells)]
    return "\n".join(lines)


def _estimates(cells: Sequence[Cell], wrong: set[tuple[str, ...]]) -> Iterator[str]:
    columns = "problem | method | estimator | seeds | unflagged | cover, unflagged | 95 % intervals that cover, all"
    columns += " | mean z | std z | KS p | claimed error | claimed / scatter | claims"
    yield from _head(columns)
    for cell in sorted(cells, key=lambda c: c.problem):
        n, some = len(cell.rows), cell.trusted
        shown = f"{cell.problem} | {cell.method} | {cell.estimator} | {n} | {len(some)}"
        shown += f" | {_covered(some)} | {_covered(cell.answered)}"
        if len(some) < FEWEST:
            yield f"| {shown} | – | – | – | – | – | – |"
            continue
        z, p = scores(some), cell.p_values
        errors, values = np.array([[row["error"], row["value"] - row["truth"]] for row in some]).T
        claimed = float(np.sqrt((errors**2).mean()))
        ks = f"{p['normal']:.2f}" if "normal" in p else "–"
        shown += f" | {z.mean():+.2f} | {z.std(ddof=1):.2f} | {ks} | {claimed:.4f}"
        shown += f" | {claimed / float(np.sqrt((values**2).mean())):.2f}"
        verdict = "**fail**" if (cell.problem, cell.method, cell.estimator) in wrong else "hold"
        yield f"| {shown} | {verdict}{' (conservative)' if cell.conservative else ''} |"


def _bounds(cells: Sequence[Cell]) -> Iterator[str]:
    yield from _head("limits at 99.9 % | given | on the wrong side | expected at most | chance of as many")
    for name, limits in (("second law", "limits"), ("the tightest, importance-weighted included", "tightest")):
        counts = [cell.outside(limits) for cell in cells]
        given, out = sum(n for n, _ in counts), sum(k for _, k in counts)
        yield f"| {name} | {given} | {out} | {OUTSIDE * given:.1f} | {float(binom.sf(out - 1, given, OUTSIDE)):.2g} |"


def _covered(rows: Sequence[dict]) -> str:
    return f"{float((np.abs(scores(rows)) <= Z95).mean()):.1%}" if rows else "–"


def _head(columns: str) -> list[str]:
    return [f"| {columns} |", f"|{'---|' * len(columns.split('|'))}"]
