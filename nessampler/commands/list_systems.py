"""`nessampler list`: the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["list_systems"]


def list_systems() -> None:
    """Show the catalogue of ready-to-run systems."""
    from nessampler.runs import catalogue
    from nessampler.runs.config import load

    table = Table(box=None, header_style="bold")
    for heading, whole in (("system", True), ("kind", True), ("what", False), ("reference", False)):
        table.add_column(heading, no_wrap=whole)
    for name in catalogue.names():
        entry = load(catalogue.root() / name / "system.toml")
        states = " → ".join(entry[state].get("label", "?") for state in ("state_a", "state_b") if state in entry)
        title = ": ".join(filter(None, [entry.get("title", ""), states]))
        table.add_row(name, entry.get("kind", "?"), title, _reference(entry))
    Console().print(table)


def _reference(entry: Mapping[str, Any]) -> str:
    from nessampler._words import known

    reference = entry.get("reference")
    if not reference:
        return "none"
    quantity = "log Z" if entry.get("kind") == "density" else "ΔF"
    return f"{quantity} = {known(reference)}"
