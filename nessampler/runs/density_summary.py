"""What the command line prints at the end of a density's run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from nessampler import _words as words
from nessampler.runs._console import facts, named, verdict_line

__all__ = ["page"]


def page(result: Mapping[str, Any], run_dir: str | None, console: Console) -> Iterable[RenderableType]:
    """The answer, its verdict, the attempts, the bounds, the flags, and where the files are."""
    yield _title(result)
    yield Text()
    yield _headline(result)
    yield verdict_line(result)
    yield Text()
    if words.attempts(result):
        yield _attempts(result)
        correlated = any(attempt.get("name") == "pt" for attempt in words.attempts(result))
        yield Text(
            f"ESS: effective part of {'correlated draws' if correlated else 'fresh walkers'}, without resampling "
            "except for smc. evals: energies and gradients of the target, pilot and training included.",
            style="dim",
        )
        yield Text()
    yield facts(_lines(result, run_dir))


def _title(result: Mapping[str, Any]) -> Text:
    title = Text(str(result.get("title") or result.get("system") or "run"), style="bold")
    settings = [f"{key} {result[key]}" for key in ("system", "method", "preset", "seed") if result.get(key) is not None]
    settings += [f"{words.exact(result['dimension'])} dimensions"] if result.get("dimension") else []
    settings += [f"knows {result['knowledge']}"] if result.get("knowledge") else []
    return title.append("\n" + " · ".join(settings), style="not bold dim") if settings else title


def _headline(result: Mapping[str, Any]) -> Text:
    log_z = result.get("log_z")
    if words.get(log_z, "value") is None:
        return Text("log Z: no value can be given", style="bold")
    line = Text(f"log Z = {words.plus_minus(log_z)}", style="bold")
    line.append(f"  (95 % interval {words.interval(log_z)})", style="not bold")
    line.append("\nESS   = ", style="bold")
    line.append(words.effective(result.get("ess")), style="bold")
    return line.append(f"  of {words.exact(result.get('walkers'))} walkers", style="not bold")


def _attempts(result: Mapping[str, Any]) -> Table:
    attempts = words.attempts(result)
    columns: dict[str, Sequence[str]] = {
        "log Z\n": [words.plus_minus(a.get("log_z")) for a in attempts],
        "ESS\n": [words.effective(a.get("ess")) for a in attempts],
        "ESS\nrev": [words.fixed(words.get(a, "ess", "reverse")) for a in attempts],
        "Pareto\nk": [words.fixed(a.get("pareto_k")) for a in attempts],
        "evals\n": [words.count(words.calls(a.get("evaluations"), "target", *words.DENSITY_STAGES)) for a in attempts],
        "time\n": [words.duration(a.get("seconds")) for a in attempts],
    }
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(Text("attempt"), overflow="fold", vertical="top")
    for heading in columns:
        table.add_column(Text(heading), justify="right", overflow="fold")
    for index, attempt in enumerate(attempts):
        mark = "▶" if attempt.get("chosen") else " "
        cells = (Text(values[index]) for values in columns.values())
        table.add_row(Text(f"{mark} {attempt.get('name')}"), *cells, style="bold" if attempt.get("chosen") else "")
    return table


def _lines(result: Mapping[str, Any], run_dir: str | None) -> Iterable[tuple[str, str]]:
    yield from named("attempts", _attempt_lines(result))
    yield "bounds", words.bound_line(result.get("bounds"), "log Z", "")
    weighted = words.weighted_line(result.get("bounds"), "log Z", "")
    if weighted:
        yield "", f"importance-weighted: {weighted}"
    yield "reverse", f"samples of the target: {result.get('target_samples') or 'none'}"
    reference = words.reference_line(result, "")
    if reference:
        yield "reference", reference
    if result.get("seconds"):
        yield "time", words.stage_times(result, words.DENSITY_STAGES)
    flags = words.flags(result)
    yield from named("flags", [f"{flag.about}: {flag.message} [{flag.code}]" for flag in flags] or ["none"])
    if run_dir is not None:
        yield "files", run_dir
        yield "look", f"open {PurePath(run_dir, 'report.html')}"
        yield "draws", f'az.from_netcdf("{PurePath(run_dir, "samples.nc")}").posterior["x"]'


def _attempt_lines(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for attempt in words.attempts(result):
        said = "; ".join(filter(None, [attempt.get("description"), attempt.get("note")]))
        lines.append(f"{'▶ ' if attempt.get('chosen') else ''}{attempt.get('name')}: {said}".rstrip(": "))
    return lines
