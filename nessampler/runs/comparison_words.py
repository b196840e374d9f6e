"""A comparison as rows of words, for the terminal, a page and a text file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from nessampler import _words as words
from nessampler.runs.comparison import Comparison

__all__ = ["as_markdown", "as_rows", "render"]

MOOD = {"agree": "bold green", "disagree": "bold red"}


def as_rows(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings, and one row per run."""
    density = found.kind == "density"
    unit = "log Z" if density else "ΔF / kT"
    sizes = ["ESS"] if density else ["overlap", "ESS fwd/rev"]
    counts = ["evaluations"] if density else ["evals A", "evals B"]
    columns = ["run", "method", unit, "95 % interval", "z to 1", "z to ref.", "verdict", *sizes, *counts, "time"]
    return columns, [_row(found, index, run, density) for index, run in enumerate(found.runs)]


def _row(found: Comparison, index: int, run: Mapping[str, Any], density: bool) -> list[str]:
    ess = words.effective(run["ess"]) if density else words.directions(run["ess"], "/")
    return [
        f"{index + 1} {run['label']}",
        str(run["chosen"] or words.MISSING),
        words.plus_minus(run["estimate"]),
        words.interval(run["estimate"]),
        _signed(found.z[index][0]),
        _signed(run["z_score"]),
        str(run["verdict"] or "not judged"),
        *([] if density else [words.fixed(run["overlap"])]),
        ess,
        *(words.count(n) for n in run["evaluations"].values()),
        words.duration(run["seconds"]),
    ]


def as_markdown(found: Comparison) -> str:
    """The table and the sentences as Markdown."""
    columns, entries = as_rows(found)
    lines = [columns, ["---"] * len(columns), *entries]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    sentences = [f"The runs **{found.level}**. {found.text}", *_facts(found)]
    return "\n\n".join([table, *sentences]) + "\n"


def render(found: Comparison, console: Console) -> None:
    """Print the comparison; one table where it fits, else two.

    Args:
        found: what was compared.
        console: where to print; its width decides the layout.
    """
    columns, entries = as_rows(found)
    unlimited = console.options.update(width=1000)
    for gap in (2, 1):
        whole = _table(columns, entries, gap)
        if Measurement.get(console, unlimited, whole).maximum <= console.width:
            console.print(whole)
            break
    else:
        split = columns.index("verdict") + 1
        console.print(_table([columns[0], *columns[2:split]], [[row[0], *row[2:split]] for row in entries]))
        console.print()
        console.print(_table([*columns[:2], *columns[split:]], [[*row[:2], *row[split:]] for row in entries]))
    console.print()
    verdict = Text(found.level.upper(), style=MOOD.get(found.level, "bold yellow"))
    console.print(verdict.append(f": {found.text}", style="not bold default"))
    for fact in _facts(found):
        console.print(Text(fact))


def _facts(found: Comparison) -> list[str]:
    facts = []
    if found.reference:
        source = found.reference.get("source")
        facts.append(f"Reference: {words.known(found.reference)}{f' ({source})' if source else ''}.")
    if found.settings:
        facts.append("Settings that differ: " + "; ".join(_setting(*item) for item in found.settings.items()) + ".")
    return facts + list(found.cautions)


def _setting(key: str, values: Sequence[str]) -> str:
    return f"{key} = {', '.join(words.shorten(value, 24) for value in values)}"


def _signed(z: float | None) -> str:
    return words.MISSING if z is None else f"{z:+.1f}"


def _table(columns: Sequence[str], entries: Sequence[Sequence[str]], gap: int = 2) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    for heading in columns:
        named = heading in ("run", "method", "verdict")
        table.add_column(Text(heading), justify="left" if named else "right", overflow="fold")
    for row in entries:
        table.add_row(*(Text(cell) for cell in row))
    return table
