"""The numbers behind a figure, one row per thing drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["Table", "as_csv", "rows"]

Table = Mapping[str, Sequence[Any]]
"""Columns of one length by name."""


def rows(names: Sequence[str], entries: Iterable[Sequence[Any]]) -> Table:
    """A table from its rows.

    >>> rows(["rung", "overlap"], [("plain", 0.1), ("map", 0.8)])
    {'rung': ['plain', 'map'], 'overlap': [0.1, 0.8]}
    """
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for entry in entries:
        for column, value in zip(columns.values(), entry, strict=True):
            column.append(value)
    return columns


def as_csv(table: Table) -> str:
    """Comma-separated text with a header; what is missing is an empty field.

    >>> print(as_csv({"rung": ["plain", "map"], "overlap": [None, 0.8]}), end="")
    rung,overlap
    plain,
    map,0.8
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()
