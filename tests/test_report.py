"""What a finished run shows: the numbers of `result.json`, all of them, in a page and in a terminal."""

import base64
import copy
import csv
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from rich.cells import cell_len
from rich.console import Console

from nessampler import _words as words
from nessampler import plots
from nessampler.errors import InputError
from nessampler.plots import ConvergenceCurve
from nessampler.runs.page import Panel, Report, save_figures, write_report
from nessampler.runs.report import compose
from nessampler.runs.summary import render

SCRIPT = '<script>alert("x")</script>'


def quantity(value: float, error: float, unit: str = "kT", flags: tuple = ()) -> dict[str, Any]:
    ci95 = [value - 1.96 * error, value + 1.96 * error]
    return {"value": value, "std_error": error, "ci95": ci95, "unit": unit, "flags": list(flags)}


def unknown(unit: str = "kT", flags: tuple = ()) -> dict[str, Any]:
    return {"value": None, "std_error": None, "ci95": None, "unit": unit, "flags": list(flags)}


def flag(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def bounds(lower: float, upper: float) -> dict[str, Any]:
    return {
        "lower": lower,
        "upper": upper,
        "lower_limit": lower - 0.11,
        "upper_limit": upper + 0.12,
        "importance_weighted": {
            "lower": lower + 0.5,
            "upper": upper - 0.3,
            "lower_limit": lower + 0.41,
            "upper_limit": upper - 0.22,
            "group_size": [16, 12],
        },
    }


def evaluations(training: int, sampling: int, networks: int = 0) -> dict[str, Any]:
    def state(scale: int) -> dict[str, Any]:
        return {
            "endstates": {"energy": 2_800 * scale, "gradient": 1_400_000 * scale},
            "training": {"energy": training * scale, "gradient": 0},
            "sampling": {"energy": sampling * scale, "gradient": sampling * scale},
        }

    return {
        "state_a": state(2),
        "state_b": state(1),
        "networks": {"training": networks, "sampling": 2 * networks},
    }


def rung(name: str, description: str, delta_f: dict, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "chosen": False,
        "block": "evaluate",
        "delta_f": delta_f,
        "overlap": 0.39,
        "ess": {"forward": 0.21, "reverse": 0.13},
        "pareto_k": {"forward": 0.82, "reverse": 0.91},
        "bounds": bounds(-8.12, -6.53),
        "evaluations": evaluations(0, 2_800),
        "pilot": {"std_error": 0.08, "cost": 712_345.0, "note": "pays"},
        "seconds": 12.3,
        "flags": [],
        **changes,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    heavy_tail = flag("pareto_k", "The tail of exp(-work) is too heavy for the Jarzynski average; trust BAR instead.")
    chosen_bounds = bounds(-7.72, -6.61)
    rungs = [
        rung(
            "plain",
            "no map, no switching",
            quantity(-7.1312, 0.2134),
            overlap=0.05,
            ess={"forward": 0.004, "reverse": 0.011},
            bounds=bounds(-31.4, 14.9),
            seconds=0.4,
            flags=[flag("overlap", "Overlap 0.05 is below 0.06: do not use the plain estimate on its own.")],
        ),
        rung(
            "map",
            "affine map, conditional on 5 torsions",
            quantity(-7.0712, 0.0534),
            evaluations=evaluations(1_400, 2_800),
            pilot={"std_error": 0.061, "cost": 812_000.0, "note": "pays"},
        ),
        rung(
            "switching",
            "the map, then 20 Langevin steps",
            quantity(-7.0934, 0.0312),
            chosen=True,
            overlap=0.61,
            ess={"forward": 0.42, "reverse": 0.38},
            pareto_k={"forward": 0.41, "reverse": 0.52},
            bounds=chosen_bounds,
            evaluations=evaluations(1_400, 26_400),
            pilot={"std_error": 0.034, "cost": 840_000.0, "note": "pays"},
            seconds=754.0,
        ),
        rung(
            "feat",
            "learned velocity and score on analytic fields",
            quantity(-7.12, 0.14),
            block="select",
            evaluations=evaluations(64_000, 5_000, networks=1_250_000),
            pilot={
                "std_error": 0.14,
                "cost": 2_312_345.0,
                "note": "does not pay: twice the variance at three times the cost",
            },
            seconds=5400.0,
        ),
    ]
    return {
        "system": "amber-to-amoeba",
        "title": "Alanine dipeptide, vacuum",
        "kind": "difference",
        "method": "auto",
        "preset": "quick",
        "seed": 3,
        "version": "0.1.0",
        "labels": {"state_a": "amber14", "state_b": "AMOEBA2018"},
        "temperature": 300.0,
        "delta_f": quantity(-7.0934, 0.0312),
        "delta_f_kcal_per_mol": quantity(-7.0934 * 0.596161, 0.0312 * 0.596161, "kcal/mol"),
        "rung": "switching",
        "verdict": {
            "level": "trusted",
            "text": "Forward and reverse works overlap well and the replicas agree. The bounds contain the estimate.",
        },
        "rungs": rungs,
        "estimators": {
            "jarzynski_forward": quantity(-7.0114, 0.0612, flags=(heavy_tail,)),
            "jarzynski_reverse": quantity(-7.1523, 0.0711, flags=(heavy_tail,)),
            "bar": quantity(-7.0934, 0.0312),
            "plain_bar": quantity(-7.1312, 0.2134),
        },
        "bounds": chosen_bounds,
        "ess": {"forward": 0.42, "reverse": 0.38},
        "overlap": 0.61,
        "pareto_k": {"forward": 0.41, "reverse": 0.52},
        "evaluations": evaluations(66_800, 37_000, networks=1_250_000),
        "seconds": {"endstates": 2120.0, "training": 3300.0, "sampling": 1160.0, "total": 6580.0},
        "endstates": {
            state: {
                "replicas": 4,
                "frames": 2800,
                "equilibration_frames": 20,
                "statistical_inefficiency": inefficiency,
                "r_hat": 1.01,
                "time_step_fs": 2.0,
                "crossings": {"phi": 31, "psi": 44},
            }
            for state, inefficiency in (("state_a", 3.2), ("state_b", 6.1))
        },
        "reference": {"value": -7.1, "std_error": 0.015, "source": "MBAR over 12 windows, this repository"},
        "z_score": 0.19,
        "flags": [
            flag("slow_torsion", "The torsion phi crossed its barrier only 3 times in AMOEBA2018: run the ends longer.")
        ],
    }


@pytest.fixture
def works() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(7)

    def gaussian(spread: float, delta_f: float = -7.09) -> tuple[np.ndarray, np.ndarray]:
        """Works that obey Crooks' theorem exactly: mean ΔF ± variance/2."""
        return tuple(sign * delta_f + 0.5 * spread**2 + spread * rng.standard_normal((4, 700)) for sign in (1, -1))

    plain = gaussian(4.5)
    plain[0][0, :40] = rng.uniform(1e3, 1e9, 40)
    plain[0][1, :3] = np.inf
    return {"plain": plain, "map": gaussian(1.6), "switching": gaussian(1.0)}


@pytest.fixture
def nasty() -> dict[str, Any]:
    """One rung, nothing converged, nothing known, and labels that try to break out."""
    gone = flag("support", f"Every reverse path left the support {SCRIPT}; widen the basin.")
    return {
        "system": f"mine {SCRIPT} & co; rm -rf",
        "title": f"a very long title {SCRIPT} " + "with many words and no end " * 6,
        "kind": "difference",
        "method": "plain",
        "preset": "quick",
        "seed": 0,
        "version": "0.1.0",
        "labels": {"state_a": f"[red]{SCRIPT}$x^2", "state_b": "unbroken" * 20},
        "temperature": None,
        "delta_f": unknown(flags=(gone,)),
        "delta_f_kcal_per_mol": None,
        "rung": "plain",
        "verdict": {"level": "not trusted", "text": "No reverse path returned."},
        "rungs": [
            rung(
                "plain",
                SCRIPT,
                unknown(),
                chosen=True,
                overlap=None,
                ess={"forward": None, "reverse": None},
                pareto_k={"forward": None, "reverse": None},
                bounds={
                    "lower": None,
                    "upper": 3.0,
                    "lower_limit": None,
                    "upper_limit": 3.2,
                    "importance_weighted": None,
                },
                pilot=None,
                flags=[gone],
            )
        ],
        "estimators": {"jarzynski_forward": unknown(flags=(gone,)), "jarzynski_reverse": unknown()},
        "bounds": {"lower": None, "upper": None, "lower_limit": None, "upper_limit": None, "importance_weighted": None},
        "ess": {"forward": None, "reverse": None},
        "overlap": None,
        "pareto_k": {"forward": None, "reverse": None},
        "evaluations": {},
        "seconds": {},
        "endstates": {},
        "reference": None,
        "z_score": None,
        "flags": [gone],
    }


class Page(HTMLParser):
    """What a browser would find: tags with attributes, tables as lists of rows, and the visible text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another tag"
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._open and self._open[-1] == "caption":
            self._caption += data
        if self._open and self._open[-1] in ("th", "td"):
            self._rows[-1][-1] += data

    def attributes(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


CONVERGENCE = ConvergenceCurve(
    np.linspace(0.1, 1, 10), np.linspace(-7.3, -7.09, 10), np.linspace(0.1, 0.03, 10), np.linspace(-6.9, -7.09, 10)
)
METRICS = [{"step": 10 * i, "loss": 0.9**i, "grad_norm": 2.0} for i in range(60)]


def panel(name: str = "Ramachandran") -> Panel:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [1, 0])
    return Panel(name, figure, f"{name} alt {SCRIPT}", f"{name} caption")


def read(folder, result, works, **options: Any) -> Page:
    return Page(write_report(compose(result, works, **options), folder / "report.html").read_text(encoding="utf-8"))


def printed(result: dict, width: int, run_dir: str | None = "runs/demo") -> str:
    stream = io.StringIO()
    render(result, run_dir, Console(file=stream, width=width))
    return stream.getvalue()


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def agrees(shown: str, value: float) -> bool:
    """Whether a printed number is the value rounded to the decimals shown."""
    return shown == f"{value:.{len(shown.partition('.')[2])}f}"


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["result", "nasty"])
def test_the_page_is_accessible_and_needs_nothing_from_outside(kind, request, works, tmp_path):
    page = read(
        tmp_path, request.getfixturevalue(kind), works, metrics=METRICS, convergence=CONVERGENCE, panels=[panel()]
    )
    images = page.attributes("img")
    assert len(images) == 7
    assert all(len(image["alt"] or "") > 20 for image in images)
    assert page.attributes("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.attributes("caption")) == len(page.attributes("table")) == len(page.tables) >= 4
    assert all(cell.get("scope") in ("col", "row") for cell in page.attributes("th"))
    assert len(page.attributes("figcaption")) == len(page.attributes("figure")) == len(images)
    assert not page.attributes("script", "link", "iframe", "object", "base")
    for attributes in page.attributes(*{tag for tag, _ in page.tags}):
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/svg+xml;base64,"))
        assert not any(name.startswith("on") for name in attributes)


def test_the_drawings_are_svg_without_links_or_scripts(result, works, tmp_path):
    for image in read(tmp_path, result, works).attributes("img"):
        drawing = base64.b64decode((image["src"] or "").partition(",")[2], validate=True).decode("utf-8")
        assert "<svg" in drawing
        assert "<script" not in drawing
        assert not re.search(r'href="(?!#)', drawing)


def test_markup_in_labels_and_flags_is_shown_and_not_run(nasty, works, tmp_path):
    source = write_report(compose(nasty, works, panels=[panel()]), tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in source
    page = Page(source)
    assert page.text.count(SCRIPT) >= 5
    assert "'mine <script>" in page.text  # the command is quoted for the shell
    assert "unbroken" * 20 in page.text


def test_the_page_opens_with_the_answer_its_interval_and_its_verdict(result, works, tmp_path):
    opening = flat(read(tmp_path, result, works).text).partition("Figures")[0]
    for said in (
        "is -7.093 ± 0.031 kT, or -4.229 ± 0.019 kcal/mol at 300 K: trusted.",
        result["verdict"]["text"],
        "95 % interval: -7.155 to -7.032 kT",
        "Chosen rung: switching (the map, then 20 Langevin steps).",
        "Reference: -7.100 ± 0.015 kT (MBAR over 12 windows, this repository); this result is +0.2 standard errors",
    ):
        assert said in opening


def test_the_tables_hold_the_numbers_of_the_result(result, works, tmp_path):
    tables = read(tmp_path, result, works).tables
    head, *rows = tables["Rungs"]
    factor = result["delta_f_kcal_per_mol"]["value"] / result["delta_f"]["value"]
    assert len(rows) == len(result["rungs"])
    for cells, entry in zip(rows, result["rungs"], strict=True):
        row = dict(zip(head, cells, strict=True))
        value, error = row["ΔF / kT"].split(" ± ")
        assert agrees(value, entry["delta_f"]["value"])
        assert agrees(error, entry["delta_f"]["std_error"])
        assert float(row["ΔF / kcal/mol"].split()[0]) == pytest.approx(factor * entry["delta_f"]["value"], abs=0.006)
        assert all(map(agrees, row["95 % interval / kT"].split(" to "), entry["delta_f"]["ci95"]))
        assert agrees(row["overlap"], entry["overlap"])
        assert all(map(agrees, row["ESS"].split(" / "), entry["ess"].values()))
        assert all(map(agrees, row["Pareto k"].split(" / "), entry["pareto_k"].values()))
        assert row["what it is"] == entry["description"]
    assert [row[0] for row in rows] == ["plain", "map", "switching, chosen", "feat, pilot only"]
    limits = [result["bounds"][key] for key in ("lower_limit", "lower", "upper", "upper_limit")]
    assert all(map(agrees, tables["Bounds on ΔF in kT"][1][1:], limits))
    shown = {row[0]: [cell.replace(",", "") for cell in row[1:]] for row in tables["Evaluations"][1:]}
    assert shown["rung feat: training"] == ["128000", "0", "64000", "0", "1250000"]
    assert shown["whole run: end-state MD"] == ["5600", "2800000", "2800", "1400000", "—"]
    assert "crossings" in [row[0] for row in tables["End states"]]
    assert tables["The choice of the rung"][4][-1] == result["rungs"][3]["pilot"]["note"]


def test_every_flag_is_told_once_in_words(result, works, tmp_path):
    told = flat(read(tmp_path, result, works).text).partition(" Flags ")[2]
    for message in (
        result["flags"][0]["message"],
        result["rungs"][0]["flags"][0]["message"],
        result["estimators"]["jarzynski_forward"]["flags"][0]["message"],
    ):
        assert told.count(message) == 1


def test_no_kcal_per_mol_is_shown_where_the_result_refuses_it(result, works, tmp_path):
    result["delta_f_kcal_per_mol"] = None  # as for two states at different temperatures
    assert "kcal" not in read(tmp_path, result, works).text
    assert "kcal" not in printed(result, 120)


def test_an_unknown_value_is_a_dash_and_the_page_says_so(nasty, works, tmp_path):
    page = read(tmp_path, nasty, works)
    assert "No value of ΔF can be given: not trusted." in flat(page.text)
    assert page.tables["Rungs"][1][1:6] == ["—"] * 5
    assert not re.search(r"\b(None|nan|inf)\b", page.text)


def test_the_same_input_gives_the_same_bytes_and_another_does_not(result, works, tmp_path):
    def written(name: str) -> bytes:
        options = {"metrics": METRICS, "convergence": CONVERGENCE, "panels": [panel()]}
        return write_report(compose(copy.deepcopy(result), works, **options), tmp_path / name).read_bytes()

    first = written("a.html")
    assert written("b.html") == first
    works["map"][0][0, 0] += 3.0
    assert written("c.html") != first


def test_a_failed_write_leaves_the_old_report_and_no_debris(result, works, tmp_path, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    def refuse(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("nessampler._files.os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(compose(result, works), tmp_path / "report.html")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("report.html", "old")]


def test_panels_of_other_rooms_follow_ours_with_their_words(result, works, tmp_path):
    page = read(tmp_path, result, works, panels=[panel("Ramachandran"), panel("Shifts")])
    assert [image["alt"] for image in page.attributes("img")][-2:] == [
        f"{n} alt {SCRIPT}" for n in ("Ramachandran", "Shifts")
    ]
    assert page.text.index("Cost") < page.text.index("Ramachandran caption") < page.text.index("Shifts caption")


def test_figures_are_saved_in_the_order_of_the_report_with_their_numbers(result, works, tmp_path):
    def report() -> Report:
        return compose(result, works, convergence=CONVERGENCE, panels=[panel("φ and ψ: A/B")])

    stale = tmp_path / "figures" / "09-of-an-earlier-report.png"
    stale.parent.mkdir()
    stale.touch()
    (stale.parent / "mine.png").touch()
    paths = save_figures(report(), tmp_path)
    names = ["01-work-distributions", "02-quality", "03-estimates", "04-convergence", "05-cost", "06-and-a-b"]
    kinds = {name: ["svg", "png", "csv"] for name in names} | {"06-and-a-b": ["svg", "png"]}
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in kinds[name]]
    assert {path.name for path in stale.parent.iterdir()} == {"mine.png", *(path.name for path in paths)}
    first = [path.read_bytes() for path in paths]
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".csv": b""}
    assert all(content.startswith(starts[path.suffix]) for path, content in zip(paths, first, strict=True))
    assert [path.read_bytes() for path in save_figures(report(), tmp_path)] == first


def test_the_numbers_of_a_figure_are_those_it_was_drawn_from(result, works, tmp_path):
    save_figures(compose(result, works, metrics=METRICS, convergence=CONVERGENCE), tmp_path)

    def numbers(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader((tmp_path / "figures" / name).open(encoding="utf-8")))

    stored = numbers("01-work-distributions.csv")
    assert len(stored) == sum(work.size for pair in works.values() for work in pair)
    mapped = [float(row["work_kT"]) for row in stored if (row["rung"], row["direction"]) == ("map", "reverse")]
    assert mapped == works["map"][1].ravel().tolist()
    assert [float(row["pareto_k"]) for row in numbers("02-quality.csv")[:2]] == [0.82, 0.91]
    values = [float(row["value"]) for row in numbers("03-estimates.csv") if row["value"]]
    assert values[:4] == [entry["delta_f"]["value"] for entry in result["rungs"]]
    assert [float(row["from_end_kT"]) for row in numbers("04-convergence.csv")] == CONVERGENCE.backward.tolist()
    assert sum(int(row["evaluations"]) for row in numbers("05-cost.csv") if row["what"] == "map") == 3 * (1_400 + 5_600)
    assert [float(row["loss"]) for row in numbers("06-training.csv")] == [row["loss"] for row in METRICS]


def test_the_command_repeats_the_run(result, works, tmp_path):
    assert words.command(result) == "nessampler run amber-to-amoeba --preset quick --seed 3"
    result |= {"method": "switching", "config": {"switching": {"steps": 20}}}
    page = read(tmp_path, result, works)
    assert "nessampler run amber-to-amoeba --method switching --preset quick --seed 3" in page.text
    assert json.dumps(result["config"], indent=2) in page.text


# --- the terminal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", ["result", "nasty"])
def test_no_line_of_the_summary_is_wider_than_the_terminal(kind, width, request):
    lines = printed(request.getfixturevalue(kind), width, "/a/long/" + "path/" * 30).splitlines()
    assert len(lines) > 15
    assert max(map(cell_len, lines)) <= width
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize(("width", "tables"), [(80, 2), (120, 1)])
def test_the_summary_tells_the_answer_the_rungs_and_the_flags(width, tables, result):
    text = printed(result, width)
    words_only = flat(text)
    for said in (
        "ΔF = -7.093 ± 0.031 kT (95 % interval -7.155 to -7.032)",
        "= -4.229 ± 0.019 kcal/mol (95 % interval -4.265 to -4.192)",
        f"TRUSTED: {result['verdict']['text']}",
        "▶ switching is the chosen rung: the map, then 20 Langevin steps",
        f"feat: not climbed, numbers from the pilot samples only: {result['rungs'][3]['pilot']['note']}",
        "-7.72 ≤ ΔF ≤ -6.61 kT",
        "A → B: -7.011 ± 0.061 kT",
        "B → A: -7.152 ± 0.071 kT",
        "-7.100 ± 0.015 kT (MBAR over 12 windows, this repository); this result is +0.2 standard errors from it",
        "AMOEBA2018: 4 replicas, 2,800 frames, 20 more discarded as equilibration",
        "runs/demo",
        "open runs/demo/report.html",
        'az.from_netcdf("runs/demo/works.nc")',
        *(f"{flag.message} [{flag.code}]" for flag in words.flags(result)),
    ):
        assert said in words_only
    assert len(words.flags(result)) == 3
    assert len(re.findall(r"^rung\b", text, re.MULTILINE)) == tables
    rows = re.findall(r"^▶ switching +(.*)", text, re.MULTILINE)
    assert len(rows) == tables
    assert flat(" ".join(rows)).strip() == (
        "-7.093 ± 0.031 -4.229 ± 0.019 -7.155 to -7.032 0.61 0.42/0.38 0.41/0.52 108k 54k 12.6 min"
    )


def test_the_summary_survives_a_terminal_without_unicode(result):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    render(result, "runs/demo", Console(file=stream, width=80))
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert "dF = -7.093 +/- 0.031 kT" in text
    assert "?" not in text


def test_rich_markup_in_labels_is_text(nasty):
    assert "[red]<script>" in printed(nasty, 120)


# --- the figures -------------------------------------------------------------------------------------------------


def test_wild_and_infinite_works_are_counted_and_do_not_stretch_the_axis(works, result):
    figure = plots.work_histograms(works, result["delta_f"])
    plain = figure.axes[0]
    low, high = plain.get_xlim()
    assert -60 < low < -25
    assert 15 < high < 40
    assert plain.get_title("right") == "off axis: 43 of 2,800 forward (3 infinite)"
    assert figure.axes[1].get_title("right") == ""


def test_histograms_are_normalised_by_all_walkers_and_change_order_at_delta_f(works, result):
    figure = plots.work_histograms(works, result["delta_f"])
    for axes, (forward, _) in zip(figure.axes, works.values(), strict=True):
        outlines = [step for step in axes.patches if isinstance(step, StepPatch) and not step.get_fill()]
        (heights, edges, _), (reverse_heights, *_) = (outline.get_data() for outline in outlines)
        inside = np.mean((forward >= edges[0]) & (forward <= edges[-1]))
        assert np.sum(heights * np.diff(edges)) == pytest.approx(inside, abs=1e-12)
        crossing = result["delta_f"]["value"]
        assert np.abs(edges - crossing).min() < 1e-9
        left, right = edges[:-1] < crossing - 1e-9, edges[:-1] > crossing - 1e-9
        assert heights[left].sum() < reverse_heights[left].sum()
        assert heights[right].sum() > reverse_heights[right].sum()
        line = next(line for line in axes.lines if line.get_label().startswith("ΔF"))
        assert list(line.get_xdata()) == [crossing, crossing]


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_work_that_is_not_a_number_is_refused(bad, works, result):
    works["map"][1][2, 5] = bad
    with pytest.raises(InputError, match="'map' holds"):
        plots.work_histograms(works, result["delta_f"])


def test_works_that_are_all_infinite_still_give_a_figure(nasty):
    infinite = np.full((2, 5), np.inf)
    figure = plots.work_histograms({"plain": (infinite, infinite)}, nasty["delta_f"])
    assert "no finite work" in [text.get_text() for text in figure.axes[0].texts]


def test_estimates_are_drawn_where_they_are_and_the_far_ones_as_arrows(result):
    result["estimators"]["jarzynski_forward"] = quantity(250.0, 3.0)
    figure = plots.estimates(result)
    markers = [line for line in figure.axes[0].lines if line.get_marker() in ("D", "o") and len(line.get_xdata()) == 1]
    drawn = sorted(float(line.get_xdata()[0]) for line in markers)
    expected = [entry["delta_f"]["value"] for entry in result["rungs"]]
    expected += [value["value"] for name, value in result["estimators"].items() if name != "jarzynski_forward"]
    assert drawn == sorted(expected)
    assert [float(line.get_xdata()[0]) for line in markers if line.get_marker() == "D"] == [result["delta_f"]["value"]]
    low, high = figure.axes[0].get_xlim()
    assert low > -10
    assert high < -5
    arrows = [line for line in figure.axes[0].lines if line.get_marker() == ">" and line.get_color() == plots.FORWARD]
    assert [float(line.get_xdata()[0]) for line in arrows] == [high]
    assert "Jarzynski, A → B 250.0 ± 3.0" in figure.get_label()


def test_cost_bars_are_as_long_as_the_counts(result):
    figure = plots.cost(result)
    for axes, state in zip(figure.axes, ("state_a", "state_b"), strict=True):
        widths = [bar.get_width() for bar in axes.patches]
        expected = [words.calls(result["evaluations"], state, "endstates")]
        for entry in result["rungs"]:
            counted = entry["evaluations"][state]
            expected += [sum(counted[stage].values()) for stage in ("training", "sampling")]
        assert widths == expected
        totals = [expected[0], *(sum(expected[i : i + 2]) for i in range(1, len(expected), 2))]
        assert [text.get_text() for text in axes.texts] == [words.count(total) for total in totals]
        starts = [bar.get_x() for bar in axes.patches]
        assert starts == [0, *(start for training in expected[1::2] for start in (0, training))]


def test_the_limit_of_pareto_k_is_drawn_and_what_lies_above_it_is_said(result):
    figure = plots.quality(result)
    tails = figure.axes[-1]
    assert any(list(line.get_xdata()) == [0.7, 0.7] for line in tails.lines)
    forward, reverse = (line for line in tails.lines if line.get_label() in ("forward", "reverse"))
    assert list(forward.get_xdata()) == [entry["pareto_k"]["forward"] for entry in result["rungs"]]
    assert list(reverse.get_xdata()) == [entry["pareto_k"]["reverse"] for entry in result["rungs"]]
    said = figure.get_label()
    assert "switching, chosen: overlap 0.61, ESS 0.42 / 0.38, Pareto k 0.41 / 0.52;" in said
    assert said.count("(above 0.7)") == 3
    assert "nothing was estimated" in plots.quality({}).get_label()


def test_a_dollar_sign_in_a_label_is_not_mathematics(result):
    result["labels"]["state_a"] = r"$\nosuchcommand$ A"
    figure = plots.cost(result)
    figure.savefig(io.BytesIO(), format="png")
    figure.axes[0].set_title(result["labels"]["state_a"])  # negative control: unescaped it cannot be drawn
    with pytest.raises(ValueError, match="nosuchcommand"):
        figure.savefig(io.BytesIO(), format="png")


def test_training_curves_skip_what_is_not_a_number():
    figure = plots.training_curves([{"step": 0, "loss": 1.0, "phase": "a"}, {"step": 5, "loss": None, "ess": 0.5}])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "ess"]
    assert list(figure.axes[1].lines[0].get_xdata()) == [5.0]
    assert plots.training_curves([]).get_label() == "Nothing was trained in this run."


def test_convergence_wants_arrays_of_one_length():
    with pytest.raises(InputError, match=r"\[2, 2, 2, 1\]"):
        plots.convergence(np.ones(2), np.ones(2), np.ones(2), np.ones(1))


def test_drawing_leaves_the_callers_matplotlib_settings_alone(result, works, tmp_path):
    before = dict(matplotlib.rcParams)
    write_report(compose(result, works, metrics=METRICS), tmp_path / "report.html")
    assert dict(matplotlib.rcParams) == before
