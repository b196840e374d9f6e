"""A comparison as a page with its figure."""

from __future__ import annotations

import shlex

from nessampler import plots
from nessampler.runs.comparison import Comparison
from nessampler.runs.comparison_words import as_rows
from nessampler.runs.page import Answer, DataTable, Panel, Report, captioned

__all__ = ["compose", "figure_panel"]


def compose(found: Comparison) -> Report:
    """The page of a comparison; `page.write_report` makes a file of it."""
    columns, entries = as_rows(found)
    far = found.largest
    answer = Answer(
        subject="comparison",
        line="; ".join(dict.fromkeys(str(run["system"]) for run in found.runs)),
        quantity=f"The largest distance between two of {len(found.runs)} runs",
        unknown="the distance between runs",
        value=None if far is None else f"{far[0]:.1f} standard errors",
        converted=None,
        at=None,
        level={"agree": "they agree", "disagree": "they disagree"}.get(found.level, found.level),
        text=found.text,
        facts=list(found.cautions),
    )
    note = "z: distance in standard errors of both, to the first run and to the reference. ESS: effective part."
    numbers = [[str(i + 1), *(f"{z:+.2f}" if z is not None else "—" for z in row)] for i, row in enumerate(found.z)]
    settings = [[key, *values] for key, values in found.settings.items()]
    names = [str(index + 1) for index in range(len(found.runs))]
    tables = [
        DataTable("Runs", columns, entries, note),
        DataTable("Distances between runs in standard errors", ["run", *names], numbers),
        DataTable("Settings that differ", ["key", *names], settings),
    ]
    command = shlex.join(["nessampler", "compare", *(str(run["run"]) for run in found.runs)])
    result = {"title": "Runs side by side", "version": found.runs[0]["version"]}
    return Report(result, answer, [figure_panel(found)], tables, command=command)


def figure_panel(found: Comparison) -> Panel:
    """Every run's value with its interval."""
    caption = "Value of every run with its 95 % interval; line and band: the reference."
    figure = plots.comparison(found.runs, found.reference, found.quantity)
    return captioned(found.quantity.partition(" ")[0] + " by run", figure, caption, plots.comparison_table(found.runs))
