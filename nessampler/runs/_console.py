"""What summaries of both kinds print alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from nessampler import _words as words

__all__ = ["difference_headline", "facts", "named", "verdict_line"]

MOOD = {"trusted": "bold green", "caution": "bold yellow", "not trusted": "bold red"}


def difference_headline(result: Mapping[str, Any]) -> Iterable[Text]:
    """ΔF in kT, in kcal/mol where the temperature is known, and the verdict."""
    delta_f, molar = result.get("delta_f"), result.get("delta_f_kcal_per_mol")
    if words.get(delta_f, "value") is None:
        yield Text("ΔF: no value can be given", style="bold")
    else:
        line = Text(f"ΔF = {words.plus_minus(delta_f)} kT", style="bold")
        yield line.append(f"  (95 % interval {words.interval(delta_f)})", style="not bold")
    if words.get(molar, "value") is not None:
        line = Text(f"   = {words.plus_minus(molar)} kcal/mol", style="bold")
        yield line.append(f"  (95 % interval {words.interval(molar)})", style="not bold")
    yield verdict_line(result)


def verdict_line(result: Mapping[str, Any]) -> Text:
    """The level in capitals, and the sentence."""
    level = words.get(result, "verdict", "level") or "not judged"
    verdict = Text(level.upper(), style=MOOD.get(level, "bold"))
    return verdict.append(
        f": {words.get(result, 'verdict', 'text') or 'no verdict was given.'}", style="not bold default"
    )


def facts(lines: Iterable[tuple[str, str]]) -> Table:
    """Names on the left, text beside them."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="bold", min_width=10)
    grid.add_column(overflow="fold")
    for name, text in lines:
        grid.add_row(Text(name), Text(text))
    return grid


def named(name: str, lines: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Several lines under one name."""
    for index, line in enumerate(lines):
        yield (name if index == 0 else ""), line
