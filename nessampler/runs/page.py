"""One self-contained HTML page and its figures as files: the answer first, then what it rests on."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from nessampler import _words as words
from nessampler import plots
from nessampler._files import write_atomically
from nessampler.plots import Table

__all__ = [
    "Answer",
    "DataTable",
    "Panel",
    "Report",
    "captioned",
    "drawn",
    "rendered",
    "save_figures",
    "write_files",
    "write_report",
]

OURS = re.compile(r"\d\d-[a-z0-9-]+\.(png|svg|csv)")


@dataclass(frozen=True)
class Panel:
    """A figure for the report, drawn by the room that owns its data.

    Attributes:
        title: heading.
        figure: drawn with `matplotlib.figure.Figure`, without pyplot.
        alt: what the figure shows, for those who cannot see it.
        caption: how to read it.
        table: the numbers it was drawn from.
    """

    title: str
    figure: Figure
    alt: str
    caption: str
    table: Table | None = None

    @cached_property
    def svg(self) -> bytes:
        """The figure's file for the page, drawn once."""
        return drawn(self.figure, "svg")


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
        return {"trusted": "good", "they agree": "good", "caution": "caution"}.get(self.level, "bad")


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


@dataclass(frozen=True)
class Report:
    """A finished run as people look at it.

    Attributes:
        result: the contents of `result.json`.
        answer: what stands on top.
        panels: figures, in order.
        tables: numbers, in order; empty ones are left out.
        config: the resolved configuration as text.
        command: what makes this page again, where it is not the run.
    """

    result: Mapping[str, Any]
    answer: Answer
    panels: Sequence[Panel]
    tables: Sequence[DataTable]
    config: str | None = None
    command: str | None = None


def write_report(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write a report as one HTML file that needs nothing else, and return its path.

    The file appears whole or not at all, and the same input gives the same bytes.
    """
    return _written(Path(path), rendered(report).encode("utf-8"))


def write_files(report: Report, directory: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write `report.html` and `figures/` under a directory that exists, and return both paths.

    >>> from tempfile import TemporaryDirectory
    >>> answer = Answer("", "", "", "ΔF", None, None, None, "not judged", None, [])
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in write_files(Report({}, answer, [], []), folder)]
    ['report.html', 'figures']
    """
    folder = Path(directory)
    page = write_report(report, folder / "report.html")
    save_figures(report, folder)
    return page, folder / "figures"


def rendered(report: Report) -> str:
    """The page of a report."""
    source = files("nessampler.runs").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    result = report.result
    return environment.from_string(source).render(
        title=result.get("title") or result.get("system") or "run",
        answer=report.answer,
        panels=[(panel, _svg_uri(panel)) for panel in report.panels],
        tables=[table for table in report.tables if table.rows],
        flags=words.flags(result),
        command=report.command or words.command(result),
        repeatable=report.command is None,
        again=words.again(result),
        settings=words.settings(result),
        config=report.config or _as_json(result.get("config")),
        version=result.get("version"),
    )


def save_figures(report: Report, directory: str | os.PathLike[str]) -> list[Path]:
    """Save every figure as `figures/01-….svg` and `.png` under a directory, its numbers as `.csv` beside them.

    Figures of an earlier report that this one has not are removed.
    """
    folder = Path(directory) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, panel in enumerate(report.panels, start=1):
        stem = f"{index:02d}-{_slug(panel.title)}"
        contents = {"svg": panel.svg, "png": drawn(panel.figure, "png")}
        if panel.table is not None:
            contents["csv"] = plots.as_csv(panel.table).encode("utf-8")
        written += [_written(folder / f"{stem}.{kind}", content) for kind, content in contents.items()]
    for old in {path for path in folder.iterdir() if OURS.fullmatch(path.name)} - set(written):
        old.unlink()
    return written


def captioned(title: str, figure: Figure, caption: str, table: Table | None = None) -> Panel:
    """A panel of a figure that carries its own alternative text."""
    return Panel(title, figure, str(figure.get_label()), caption, table)


def drawn(figure: Figure, kind: str) -> bytes:
    """The figure's file, with nothing in it that changes from day to day."""
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    buffer = io.BytesIO()
    with rc_context(plots.STYLE):
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def _svg_uri(panel: Panel) -> str:
    """An image of its own rather than inline markup: the identifiers of two figures cannot clash."""
    return "data:image/svg+xml;base64," + base64.b64encode(panel.svg).decode("ascii")


def _as_json(config: Mapping[str, Any] | None) -> str | None:
    return json.dumps(config, indent=2, ensure_ascii=False) if config else None


def _slug(title: str) -> str:
    return "-".join("".join(c if c.isascii() and c.isalnum() else " " for c in title.lower()).split()) or "figure"


def _written(path: Path, content: bytes) -> Path:
    return write_atomically(path, lambda temporary: temporary.write_bytes(content))
