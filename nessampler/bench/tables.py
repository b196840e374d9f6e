"""What a bench found, as a tidy table and in words."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scipy.stats import binom, norm
from scipy.stats import t as student_t

from nessampler.bench.row import Row
from nessampler.bench.suites import DEGREES, KINDS

__all__ = ["Summary", "count", "summaries", "to_csv", "to_markdown", "winners"]

COVERAGE = 0.95
UPPER = 0.5 + COVERAGE / 2  # quantile that a two-sided interval reaches to
SHORTEST = 0.1  # seconds: starting up is no property of a method
MANY = 1e6  # times as large, beyond which nobody wants digits
FAMILY = 0.05  # probability that any interval of a table of honest ones is named for covering too seldom
NESTED = ("metrics", "origin")  # of a row
GATE = "not trusted"  # a verdict that counts as no answer, as `nessampler run` says

BRIEF = ("system", "method", "answers", "within 95 %", "error at the budget", "CPU s", "chosen")
DRAWS = {  # columns of the summary, where any method of the table has such a metric
    "energy_w1_kT": "energy W1 (kT)",
    "w2": "W2",
    "w2_of_true_samples": "W2 of true samples",
    "modes_tv": "TV of modes",
    "modes_missing": "modes missing",
    "rhat": "R-hat",
    "torsion_kl_worst": "worst torsion KL",
}


@dataclass(frozen=True)
class Summary:
    """A method on a system over its seeds.

    Attributes:
        answers: how many seeds gave a number that the run itself does not reject.
        draws_only: whether the method gives none by its nature, only draws.
        referenced: whether the system has a reference; without one there are claims only.
        claimed: root mean square of the standard errors.
        rms: root mean square distance to the reference.
        validated: the larger of `claimed` and, where there is a reference, the distance to it beyond the reference's
            own error: what one may rely on.
        budget: evaluations that a cell was given; None for the preset's sizes.
        at_budget: `validated`, had the method spent the budget: times sqrt(spent / budget), as errors
            fall as 1 / sqrt(N). Without a budget it is `validated` itself.
        covered: seeds whose 95 % interval, widened by the reference's error, holds the reference; Student's interval
            where the error is the spread of a few islands or copies.
        intervals: how many there are.
        evaluations, cpu_seconds: means.
    """

    system: str
    method: str
    seeds: int
    answers: int
    draws_only: bool
    referenced: bool
    claimed: float | None
    rms: float | None
    validated: float | None
    budget: int | None
    at_budget: float | None
    covered: int | None
    intervals: int
    evaluations: float
    fields: float
    cpu_seconds: float
    chosen: tuple[str, ...]
    metrics: Mapping[str, float]


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """One for each system and method, in the order of the rows."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.system, row.method), []).append(row)
    return [_summary(*key, group) for key, group in groups.items()]


def _summary(system: str, method: str, group: Sequence[Row]) -> Summary:
    sound = [r for r in group if r.value is not None and r.std_error is not None and r.verdict != GATE]
    known = [r for r in sound if r.error is not None]
    claimed = _rms([r.std_error for r in sound if r.std_error is not None])
    rms = _rms([r.error for r in known if r.error is not None])
    own = known[0].reference_error or 0.0 if known else 0.0
    beyond = None if rms is None else math.sqrt(max(0.0, rms**2 - own**2))
    validated = claimed if beyond is None or claimed is None else max(claimed, beyond)
    # What was given up or refused has spent nobody knows what.
    spent, budget = _mean([r.evaluations for r in group if r.evaluations] or [0.0]), group[0].budget
    at_budget = validated if validated is None or not budget else validated * math.sqrt(spent / budget)
    held = [_holds(r) for r in known if r.z is not None]
    return Summary(
        system,
        method,
        len(group),
        len(sound),
        all(r.draws_only for r in group),
        any(r.reference is not None for r in group),
        claimed,
        rms,
        validated,
        budget,
        at_budget,
        sum(held) if held else None,
        len(held),
        spent,
        _mean([float(r.fields) for r in group]),
        _mean([r.cpu_seconds for r in group]),
        tuple(dict.fromkeys(r.chosen for r in group)),
        _metrics([r for r in group if r in sound or r.draws_only]),
    )


def _holds(row: Row) -> bool:
    assert row.z is not None
    degrees = DEGREES.get(row.chosen)
    return abs(row.z) < float(norm.ppf(UPPER) if degrees is None else student_t.ppf(UPPER, degrees))


def winners(found: Sequence[Summary]) -> dict[str, Summary]:
    """By system, the method of the smallest error at the budget that answered on every seed; `auto` is no method."""
    best: dict[str, Summary] = {}
    for s in found:
        if s.method == "auto" or s.at_budget is None or s.answers < s.seeds:
            continue
        if s.system not in best or s.at_budget < _at_budget(best[s.system]):
            best[s.system] = s
    return best


def to_csv(rows: Sequence[Row]) -> str:
    """Every cell, a line each; metrics have a column each."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    text = io.StringIO()
    tables = [row.to_dict() for row in rows]
    plain = [k for k in tables[0] if k not in NESTED] if tables else []
    origin = list(dict.fromkeys(name for row in rows for name in row.origin))
    heads = [*plain, *origin, "error", "z", "method_kind", "ess_per_evaluation", "ess_per_second", *metrics]
    writer = csv.DictWriter(text, heads, lineterminator="\n")
    writer.writeheader()
    for row, table in zip(rows, tables, strict=True):
        table = {k: v for k, v in table.items() if k not in NESTED} | _flat(row.origin)
        found = {"flags": " ".join(row.flags), "error": row.error, "z": row.z, "method_kind": KINDS.get(row.chosen)}
        writer.writerow(table | found | _efficiency(row) | row.metrics)
    return text.getvalue()


def _efficiency(row: Row) -> dict[str, float | None]:
    """Effective draws of walkers that went forward, or of chains, for an evaluation and a second of a processor."""
    effective = row.metrics.get("effective_draws")
    spent = {"ess_per_evaluation": row.evaluations, "ess_per_second": row.cpu_seconds}
    return {name: effective / n if effective is not None and n > 0 else None for name, n in spent.items()}


def _flat(origin: Mapping[str, Any]) -> dict[str, Any]:
    return {k: " ".join(v) if isinstance(v, list) else v for k, v in origin.items()}


def to_markdown(rows: Sequence[Row], *, brief: bool = False) -> str:
    """A line for each system and method, the winners in bold, and a sentence for each system.

    Args:
        rows: of one budget.
        brief: only the columns that fit a terminal.
    """
    found = summaries(rows)
    best = winners(found)
    shown = [name for name in DRAWS if any(name in s.metrics for s in found)]
    lines = [_line(s, shown, wins=best.get(s.system) is s) for s in found]
    heads = [head for head in lines[0] if not brief or head in BRIEF] if lines else []
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    table += [f"| {' | '.join(line[head] for head in heads)} |" for line in lines]
    sentences = [*_sentences(found, best), *_of_auto(found, best), *_of_intervals(found)]
    sentences += [] if brief else _of_origins(rows)
    return "\n".join(table) + "\n\n" + "\n".join(f"- {line}" for line in sentences) + "\n"


def _line(s: Summary, shown: Sequence[str], *, wins: bool) -> dict[str, str]:
    """By head of the column."""
    return {
        "system": s.system,
        "method": f"**{s.method}**" if wins else s.method,
        "answers": "no log Z" if s.draws_only else f"{s.answers} of {s.seeds}",
        "claimed error": _number(s.claimed),
        "distance to the reference": _number(s.rms) if s.referenced else "no reference",
        "within 95 %": "" if s.covered is None else f"{s.covered} of {s.intervals}",
        "evaluations": count(s.evaluations),
        "of the budget": f"{s.evaluations / s.budget:.0%}" if s.budget else "",
        "error at the budget": _number(s.at_budget),
        "fields": count(s.fields),
        "CPU s": f"{s.cpu_seconds:.0f}",
        "ESS": _number(s.metrics.get("ess", s.metrics.get("ess_forward"))),
        **{DRAWS[name]: _number(s.metrics.get(name)) for name in shown},
        "chosen": ", ".join(s.chosen) if s.method == "auto" else "",
    }


def _sentences(found: Sequence[Summary], best: Mapping[str, Summary]) -> list[str]:
    lines = []
    for system in dict.fromkeys(s.system for s in found):
        if system not in best:
            lines.append(f"{system}: no method answered on every seed.")
            continue
        first = best[system]
        others = [s for s in found if s.system == system and s.at_budget and s is not first and s.method != "auto"]
        others = [s for s in others if s.answers == s.seeds]
        second = min(others, key=_at_budget, default=None)
        where = " at the budget" if first.budget else ""
        has = "has the smallest error" if first.referenced else "claims the smallest error"
        kind = f" ({KINDS[first.method]})" if first.method in KINDS else ""
        line = f"{system}: {first.method}{kind} {has}{where}, ± {_number(first.at_budget)}"
        line += "" if first.referenced else " (no reference: by claims only)"
        if second is not None and first.at_budget:
            ratio = _at_budget(second) / first.at_budget
            evaluations = _factor(ratio**2)
            line += f"; {second.method} follows with {_factor(ratio)} times it, or {evaluations} times the evaluations"
        quick = min((first, *others), key=_at_one_second)
        if quick is not first:
            line += f"; at equal processor time {quick.method}, {_factor(_ratio_of_times(first, quick))} times less"
        auto = next((s for s in found if s.system == system and s.method == "auto"), None)
        if auto is not None and auto.at_budget is not None and first.at_budget:
            line += f"; auto took {', '.join(auto.chosen)}: {auto.at_budget / first.at_budget:.2g} times the best"
        lines.append(line + ".")
    return lines


def _of_auto(found: Sequence[Summary], best: Mapping[str, Summary]) -> list[str]:
    """Its error beside that of the best method of each system, over all of them."""
    autos = {s.system: s for s in found if s.method == "auto"}
    # Seeds without an answer are no small error: such a system counts as lost.
    ratios = [
        _at_budget(auto) / _at_budget(best[system]) if auto.answers == auto.seeds else math.inf
        for system, auto in autos.items()
        if best.get(system, auto) is not auto
    ]
    if not ratios:
        return []
    silent = [system for system, auto in autos.items() if auto.answers < auto.seeds]
    line = (
        f"auto: its error is {median(ratios):.2g} times that of the best method, in the median of {len(ratios)} systems"
    )
    return [line + (f"; not every seed answers on {', '.join(silent)}." if silent else ".")]


def _of_intervals(found: Sequence[Summary]) -> list[str]:
    """Which claims of 95 % do not hold, all being asked at once (Bonferroni): by system, and by method over all."""
    asked = [s for s in found if s.covered is not None]
    if not asked:
        return []
    held, tries = sum(s.covered or 0 for s in asked), sum(s.intervals for s in asked)
    pairs = {f"{s.method} on {s.system}": (s.covered or 0, s.intervals) for s in asked}
    methods = dict.fromkeys(s.method for s in asked)
    pooled = {m: _sums([(s.covered or 0, s.intervals) for s in asked if s.method == m]) for m in methods}
    by_pair, by_method = _too_few(pairs), _too_few(pooled)
    line = f"intervals: {held} of {tries} hold the reference; of system and method {by_pair}; of methods {by_method}."
    return [line]


def _of_origins(rows: Sequence[Row]) -> list[str]:
    """By which code, and where; several commits are no mistake, but a reader must know."""
    known = {name: [str(row.origin.get(name) or "unknown") for row in rows] for name in ("commit", "machine", "cores")}
    commits, machines = Counter(known["commit"]), Counter(zip(known["machine"], known["cores"], strict=True))
    code = ", ".join(f"{commit} ({n})" if len(commits) > 1 else commit for commit, n in commits.items())
    where = ", ".join(f"{machine}, {cores} cores" for machine, cores in machines)
    return [f"cells: {len(rows)}, of commit {code}, on {where}."]


def _sums(pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(k for k, _ in pairs), sum(n for _, n in pairs)


def _too_few(counts: Mapping[str, tuple[int, int]]) -> str:
    """Binomial, a level that all of them share; of a few intervals even none that holds is no evidence."""
    level = FAMILY / len(counts)
    few = [f"{name} ({k} of {n})" for name, (k, n) in counts.items() if binom.cdf(k, n, COVERAGE) < level]
    mute = sum(binom.cdf(0, n, COVERAGE) >= level for _, n in counts.values())
    told = f"too few in {', '.join(few)}" if few else "in none too few"
    doubt = f", of {mute} of which it could not be told" if mute else ""
    return f"{told} ({FAMILY:.0%} shared by {len(counts)}{doubt})"


def _at_one_second(s: Summary) -> float:
    """Error, had it spent one second of a processor; errors fall as the root of time."""
    return math.inf if s.validated is None else s.validated * math.sqrt(max(s.cpu_seconds, SHORTEST))


def _ratio_of_times(one: Summary, other: Summary) -> float:
    """Of the times that both take for one error."""
    return (_at_one_second(one) / _at_one_second(other)) ** 2


def _at_budget(s: Summary) -> float:
    return math.inf if s.at_budget is None else s.at_budget


def _metrics(rows: Sequence[Row]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    values = {name: [v for row in rows if (v := row.metrics.get(name)) is not None] for name in names}
    return {name: _mean(v) for name, v in values.items() if v}


def _rms(values: Sequence[float]) -> float | None:
    return math.sqrt(sum(v * v for v in values) / len(values)) if values else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _factor(value: float) -> str:
    if value > MANY:
        return "more than a million"
    return f"{value:.2g}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"


def count(n: float) -> str:
    """Of evaluations, in thousands or millions.

    >>> count(212_345), count(1_000_000)
    ('212 k', '1.00 M')
    """
    return f"{n / 1e6:.2f} M" if n >= 0.995e6 else f"{n / 1e3:.0f} k"
