"""What the command line prints of works from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from nessampler import _words as words
from nessampler.runs._console import difference_headline, facts, named

__all__ = ["page"]

WAYS = {"forward": "A → B", "reverse": "B → A"}


def page(result: Mapping[str, Any], run_dir: str | None, console: Console) -> Iterable[RenderableType]:
    """The answer, its verdict, where the works come from, what they say, the flags, and where the files are."""
    title = Text(f"{result.get('title') or 'Works'}: A → B", style="bold")
    if result.get("temperature") is not None:
        title.append(f"\n{result['temperature']:g} K", style="not bold dim")
    yield title
    yield Text()
    yield from difference_headline(result)
    yield Text()
    yield facts(_lines(result, run_dir))


def _lines(result: Mapping[str, Any], run_dir: str | None) -> Iterable[tuple[str, str]]:
    given = {way: words.get(result, "sources", way) for way in WAYS}
    yield from named("works", [f"{WAYS[way]}: {_source(source)}" for way, source in given.items() if source])
    if words.get(result, "estimators", "bar") is not None:
        yield "BAR", f"overlap {words.fixed(result.get('overlap'))}{_crooks(result)}"
    yield from named("Jarzynski", [_jarzynski(result, way) for way in WAYS if given[way]])
    if given["reverse"]:
        yield "bounds", words.bound_line(result.get("bounds"))
        yield "", f"importance-weighted: {words.weighted_line(result.get('bounds')) or 'none'}"
    else:
        yield "bound", _upper(result.get("bounds"))
        yield "", f"importance-weighted: {_upper(words.get(result, 'bounds', 'importance_weighted'))}"
    halves = _halves(result)
    if halves:
        yield "halves", halves
    flags = words.flags(result)
    yield from named("flags", [f"{flag.about}: {flag.message} [{flag.code}]" for flag in flags] or ["none"])
    if run_dir is not None:
        yield "files", run_dir
        yield "look", f"open {PurePath(run_dir, 'report.html')}"


def _source(source: Mapping[str, Any]) -> str:
    chains = "" if source.get("chains") is None else f" in {source['chains']} chain{'s' * (source['chains'] != 1)}"
    how = f", {source['how']}" if source.get("how") else ""
    return f"{words.exact(source.get('works'))}{chains} from {source.get('source')}{how}, in {source.get('unit')}"


def _crooks(result: Mapping[str, Any]) -> str:
    slope, error = words.get(result, "crooks", "slope"), words.get(result, "crooks", "std_error")
    if slope is None:
        return ""
    return f"; slope of Crooks' relation {words.plus_minus({'value': slope, 'std_error': error})}, 1 where it holds"


def _jarzynski(result: Mapping[str, Any], way: str) -> str:
    estimate = words.get(result, "estimators", f"jarzynski_{way}")
    ess, tail = words.get(result, "ess", way), words.get(result, "pareto_k", way)
    shown = words.MISSING if ess is None else f"{ess:.2g}"
    return f"{WAYS[way]}: {words.plus_minus(estimate)} kT (ESS {shown}, Pareto k {words.fixed(tail)})"


def _upper(bounds: Mapping[str, Any] | None) -> str:
    upper, limit = words.get(bounds, "upper"), words.get(bounds, "upper_limit")
    return "none" if upper is None else f"ΔF ≤ {words.fixed(upper)} kT; with sampling error {words.fixed(limit)}"


def _halves(result: Mapping[str, Any]) -> str | None:
    curve = result.get("convergence")
    if not curve or 0.5 not in curve["fractions"]:
        return None
    half = curve["fractions"].index(0.5)
    first, last = (words.plus_minus(curve[way][half]) for way in ("forward", "backward"))
    return f"first {first} kT, last {last} kT"
