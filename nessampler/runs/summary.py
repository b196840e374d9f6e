"""What the command line prints at the end of a run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from nessampler import _words as words
from nessampler.runs import density_summary, works_summary
from nessampler.runs._console import difference_headline, facts, named

__all__ = ["render"]

ASCII = str.maketrans(
    {"Δ": "d", "→": "->", "±": "+/-", "−": "-", "–": "-", "≤": "<=", "▶": ">", "—": "-", "…": "...", "·": "|", "─": "-"}
)


def render(result: Mapping[str, Any], run_dir: str | None, console: Console) -> None:
    """Print the answer, its verdict, the rungs or attempts, the bounds, the flags, and where the files are.

    Readable at 80 columns (rungs then come as two tables) and without colour.

    Args:
        result: the contents of `result.json`.
        run_dir: the run's directory, None if nothing was written.
        console: where to print; its width decides the layout.

    Example:
        >>> result = {"title": "two wells", "delta_f": {"value": 1.0, "std_error": 0.1, "ci95": [0.8, 1.2]}}
        >>> render(result, None, Console(width=60))
        two wells: A → B
        <BLANKLINE>
        ΔF = 1.00 ± 0.10 kT  (95 % interval 0.80 to 1.20)
        ...
    """
    compose = {"density": density_summary.page, "works": works_summary.page}.get(str(result.get("kind")), _page)
    page = Group(*compose(result, run_dir, console))
    if not console.options.ascii_only:
        console.print(page)
        return
    with console.capture() as captured:  # a log in an old code page must not lose the result of a long run
        console.print(page)
    plain = captured.get().translate(ASCII)
    console.file.write(plain.encode(console.encoding, "replace").decode(console.encoding))


def _page(result: Mapping[str, Any], run_dir: str | None, console: Console) -> Iterable[RenderableType]:
    yield _title(result)
    yield Text()
    yield from difference_headline(result)
    yield Text()
    if words.rungs(result):
        yield from _rung_tables(result, console)
        yield Text()
    yield facts(_fact_lines(result, run_dir))


def _title(result: Mapping[str, Any]) -> Text:
    states = " → ".join(words.state_label(result, state) for state in ("state_a", "state_b"))
    title = Text(f"{result.get('title') or result.get('system') or 'run'}: {states}", style="bold")
    settings = [f"{key} {result[key]}" for key in ("system", "method", "preset", "seed") if result.get(key) is not None]
    if result.get("temperature") is not None:
        settings.append(f"{result['temperature']:g} K")
    if settings:
        title.append("\n" + " · ".join(settings), style="not bold dim")
    return title


# --- the rungs ---------------------------------------------------------------------------------------------------


def _rung_tables(result: Mapping[str, Any], console: Console) -> Iterable[RenderableType]:
    answer, quality = _answer_columns(result), _quality_columns(result)
    unlimited = console.options.update(width=1000)
    for gap in (2, 1):
        together = _table(result, {**answer, **quality}, gap)
        if Measurement.get(console, unlimited, together).maximum <= console.width:
            yield together
            break
    else:
        yield _table(result, answer)
        yield Text()
        yield _table(result, quality)
    yield Text()
    yield Text(
        "ESS: effective part of the samples. fwd: A → B, rev: B → A. evals: energies and gradients for training and "
        "sampling on this rung; end-state MD stands below.",
        style="dim",
    )


def _answer_columns(result: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    rungs, scale = words.rungs(result), words.kcal_factor(result)
    columns: dict[str, Sequence[str]] = {"ΔF\nkT": [words.plus_minus(rung.get("delta_f")) for rung in rungs]}
    if scale is not None:
        columns["ΔF\nkcal/mol"] = [words.plus_minus(rung.get("delta_f"), scale) for rung in rungs]
    columns["95 % interval\nkT"] = [words.interval(rung.get("delta_f")) for rung in rungs]
    return columns


def _quality_columns(result: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    rungs = words.rungs(result)
    own = ("training", "sampling")
    return {
        "over-\nlap": [words.fixed(rung.get("overlap")) for rung in rungs],
        "ESS\nfwd/rev": [words.directions(rung.get("ess"), "/") for rung in rungs],
        "Pareto k\nfwd/rev": [words.directions(rung.get("pareto_k"), "/") for rung in rungs],
        "evals\nA": [words.count(words.calls(rung.get("evaluations"), "state_a", *own)) for rung in rungs],
        "evals\nB": [words.count(words.calls(rung.get("evaluations"), "state_b", *own)) for rung in rungs],
        "time\n": [words.duration(rung.get("seconds")) for rung in rungs],
    }


def _table(result: Mapping[str, Any], columns: Mapping[str, Sequence[str]], gap: int = 2) -> Table:
    rungs = words.rungs(result)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(Text("rung"), overflow="fold", vertical="top")
    for heading in columns:
        table.add_column(Text(heading), justify="right", overflow="fold")
    for index, rung in enumerate(rungs):
        style = "bold" if rung.get("chosen") else ("dim" if words.is_pilot(rung) else "")
        name = "\n  ".join(
            filter(None, [f"{'▶' if rung.get('chosen') else ' '} {rung.get('name')}", words.status(rung)])
        )
        table.add_row(Text(name), *(Text(values[index]) for values in columns.values()), style=style)
    return table


# --- the rest ----------------------------------------------------------------------------------------------------


def _fact_lines(result: Mapping[str, Any], run_dir: str | None) -> Iterable[tuple[str, str]]:
    yield from named("rungs", _rung_lines(result))
    yield "bounds", words.bound_line(result.get("bounds"))
    weighted = words.weighted_line(result.get("bounds"))
    if weighted:
        yield "", f"importance-weighted: {weighted}"
    estimators = words.estimators(result)
    for name, key, way in (("Jarzynski", "jarzynski_forward", "A → B"), ("", "jarzynski_reverse", "B → A")):
        if key in estimators:
            yield name, f"{way}: {words.plus_minus(estimators[key])} kT"
    reference = words.reference_line(result)
    if reference:
        yield "reference", reference
    yield from named("end states", _endstate_lines(result))
    if result.get("seconds"):
        yield "time", words.stage_times(result)
    flags = words.flags(result)
    yield from named("flags", [f"{flag.about}: {flag.message} [{flag.code}]" for flag in flags] or ["none"])
    if run_dir is not None:
        yield "files", run_dir
        yield "look", f"open {PurePath(run_dir, 'report.html')}"
        yield "plot", f'az.from_netcdf("{PurePath(run_dir, "works.nc")}")'


def _rung_lines(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for rung in words.rungs(result):
        if rung.get("chosen"):
            lines.append(": ".join(filter(None, [f"▶ {rung.get('name')} is the chosen rung", rung.get("description")])))
        elif words.is_pilot(rung):
            lines.append(f"{rung.get('name')}: {words.pilot_note(rung)}")
    return lines


def _endstate_lines(result: Mapping[str, Any]) -> list[str]:
    lines = []
    for state in ("state_a", "state_b"):
        phrases = [words.endstate_line(words.get(result, "endstates", state) or {})]
        evaluations = words.calls(result.get("evaluations"), state, "endstates")
        phrases += [f"{words.count(evaluations)} evaluations"] if evaluations else []
        if any(phrases):
            lines.append(f"{words.state_label(result, state)}: {', '.join(filter(None, phrases))}")
    return lines
