"""One self-contained HTML page: the answer first, then what it rests on. What is on it is decided elsewhere."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler import plots
from nessampler._files import write_atomically

__all__ = ["Answer", "DataTable", "Panel", "captioned", "save_panels", "write_page"]


@dataclass(frozen=True)
class Panel:
    """A figure for the report, drawn by the room that owns its data.

    Attributes:
        title: heading.
        figure: drawn with `matplotlib.figure.Figure`, without pyplot.
        alt: what the figure shows, for those who cannot see it.
        caption: how to read it.
    """

    title: str
    figure: Figure
    alt: str
    caption: str


@dataclass(frozen=True)
class Answer:
    """What stands on top.

    Attributes:
        subject: what the page is about, for its title.
        line: what was compared or sampled, under the title.
        quantity: what the number is, as HTML that is ours.
        unknown: what to call it where there is no number.
        value: the number with its error; None where there is none.
        converted, at: the same in other units, and under which condition.
        level, text: the verdict.
        facts: sentences that belong to the answer.
    """

    subject: str
    line: str
    quantity: str
    unknown: str
    value: str | None
    converted: str | None
    at: str | None
    level: str
    text: str | None
    facts: Sequence[str]

    @property
    def mood(self) -> str:
        """The style of the box."""
        return {"trusted": "good", "caution": "caution"}.get(self.level, "bad")


@dataclass(frozen=True)
class DataTable:
    """A table of the page; the first cell of a row is its heading."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marked: int | None = None

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold nothing but numbers, to be aligned on the right."""
        return [
            all(re.fullmatch(r"[-+]?[\d,.]+[kMGT]?( [±/] [\d.]+| to -?[\d.]+)?|—", row[column]) for row in self.rows)
            for column in range(len(self.columns))
        ]


def write_page(
    path: Path, result: Mapping[str, Any], answer: Answer, panels: Iterable[Panel], tables: Iterable[DataTable]
) -> Path:
    """Write a finished run as one HTML file that needs nothing else.

    The file appears whole or not at all, and the same input gives the same bytes.
    """
    source = files("nessampler.runs").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(source).render(
        title=result.get("title") or result.get("system") or "run",
        answer=answer,
        panels=[(panel, _svg_uri(panel.figure)) for panel in panels],
        tables=[table for table in tables if table.rows],
        flags=words.flags(result),
        command=words.command(result),
        config=json.dumps(result["config"], indent=2, ensure_ascii=False) if result.get("config") else None,
        version=result.get("version"),
    )
    return _written(path, page.encode("utf-8"))


def save_panels(directory: Path, panels: Iterable[Panel]) -> list[Path]:
    """Save figures as `figures/01-….png` under a directory."""
    folder = directory / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _written(folder / f"{index:02d}-{_slug(panel.title)}.png", _drawn(panel.figure, "png"))
        for index, panel in enumerate(panels, start=1)
    ]


def captioned(title: str, figure: Figure, caption: str) -> Panel:
    """A panel of a figure that carries its own alternative text."""
    return Panel(title, figure, str(figure.get_label()), caption)


def _drawn(figure: Figure, kind: str) -> bytes:
    """The figure's file, with nothing in it that changes from day to day."""
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with rc_context(plots.STYLE):
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _svg_uri(figure: Figure) -> str:
    """An image of its own rather than inline markup: the identifiers of two figures cannot clash."""
    return "data:image/svg+xml;base64," + base64.b64encode(_drawn(figure, "svg")).decode("ascii")


def _slug(title: str) -> str:
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in title.lower()).split()) or "figure"


def _written(path: Path, content: bytes) -> Path:
    return write_atomically(path, lambda temporary: temporary.write_bytes(content))
