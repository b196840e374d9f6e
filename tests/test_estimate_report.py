"""What `nessampler estimate --out` leaves: a report like that of a run, drawn again and compared like one."""

from __future__ import annotations

import csv
import html
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from command_line import Ended, nessampler

from nessampler.estimators import bar

FIGURES = ("01-work-distributions", "02-quality", "03-estimates", "04-convergence")


def crooks_pair(seed: int = 0, delta_f: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Works in kT that obey Crooks' theorem, of unequal counts."""
    rng = np.random.default_rng(seed)
    return delta_f + 0.72 + 1.2 * rng.normal(size=300), -delta_f + 0.72 + 1.2 * rng.normal(size=200)


def estimated(
    here: Path, *options: object, seed: int = 0, one_way: bool = False, name: str = "out"
) -> tuple[Path, Ended]:
    """The folder of an estimate of works that were given as files, and what was printed."""
    paths = []
    for way, works in zip(("forward", "reverse"), crooks_pair(seed), strict=True):
        paths.append(here / f"{way}-{seed}.npy")
        np.save(paths[-1], works)
    ended = nessampler("estimate", *paths[: 1 if one_way else 2], "--unit", "kT", "--out", here / name, *options)
    return here / name, ended


def result_in(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def table(folder: Path, stem: str) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "figures" / f"{stem}.csv").open(encoding="utf-8")))


@pytest.mark.parametrize("one_way", [False, True], ids=["both directions", "one direction"])
def test_figures_and_page_show_the_works_and_the_numbers_of_the_result(one_way: bool, tmp_path: Path) -> None:
    folder, ended = estimated(tmp_path, one_way=one_way)
    assert ended.code == 0, ended.err
    result = result_in(folder)
    kinds = ("csv", "png", "svg")
    assert {p.name for p in (folder / "figures").iterdir()} == {f"{stem}.{kind}" for stem in FIGURES for kind in kinds}
    works = table(folder, FIGURES[0])
    for way, given in zip(("forward", "reverse"), crooks_pair(), strict=True):
        shown = [float(row["work_kT"]) for row in works if row["direction"] == way]
        assert shown == ([] if one_way and way == "reverse" else given.tolist())
    quality = {row["direction"]: row for row in table(folder, FIGURES[1])}
    assert float(quality["forward"]["ess"]) == result["ess"]["forward"]
    assert quality["forward"]["overlap"] == ("" if one_way else str(result["overlap"]))
    estimates = {row["name"]: row for row in table(folder, FIGURES[2])}
    names = {"Jarzynski, A → B"} if one_way else {"BAR", "Jarzynski, A → B", "Jarzynski, B → A"}
    assert set(estimates) == names | {"bounds", "bounds, weighted"}
    assert float(estimates["Jarzynski, A → B"]["value"]) == result["estimators"]["jarzynski_forward"]["value"]
    assert float(estimates["bounds"]["upper_bound"]) == result["bounds"]["upper"]
    curve = table(folder, FIGURES[3])
    assert [float(row["from_start_kT"]) for row in curve] == [p["value"] for p in result["convergence"]["forward"]]
    page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    assert result["verdict"]["text"] in page
    assert "None" not in page
    assert ("weighted by exp(−W)" in page) == one_way


@pytest.mark.parametrize("options", [(), ("--chains", 4), ("--chains", 1)], ids=str)
def test_the_report_is_drawn_again_to_the_last_byte_without_torch(options: tuple, tmp_path: Path) -> None:
    forward, reverse = crooks_pair()
    np.savez(tmp_path / "works.npz", forward=np.append(forward[:-2], [np.inf, 2.0]), reverse=reverse)
    calls = [
        ["estimate", str(tmp_path / "works.npz"), "--unit", "kT", "--out", str(tmp_path / "out"), *map(str, options)],
        ["report", str(tmp_path / "out"), "--out", str(tmp_path / "again")],
    ]
    script = (
        f"import sys; from nessampler.cli import app\nfor call in {calls!r}: app(call, standalone_mode=False)\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for file in ("report.html", *(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out/figures").iterdir())):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "out" / file).read_bytes(), file


def test_the_works_it_keeps_and_the_command_it_names_give_the_same_answer(tmp_path: Path) -> None:
    folder, _ = estimated(tmp_path, "--seed", 3)
    result = result_in(folder)
    from_works = nessampler("estimate", folder / "works.nc", "--seed", 3, "--json")
    assert json.loads(from_works.out)["delta_f"] == result["delta_f"]
    program, command, *arguments = result["command"].replace("'", "").split(" ")
    assert (program, command) == ("nessampler", "estimate")
    assert json.loads(nessampler(command, *arguments, "--json").out)["delta_f"] == result["delta_f"]
    stored = xarray.open_dataset(folder / "works.nc", group="reverse", engine="h5netcdf")["work_given"]
    assert (stored.shape, stored.attrs["units"]) == ((1, 200), "kT")


def test_estimates_are_compared_with_one_another_and_with_a_run(tmp_path: Path) -> None:
    folders = [estimated(tmp_path, seed=seed, name=f"out-{seed}")[0] for seed in range(3)]
    ended = nessampler("compare", *folders, "--out", tmp_path / "side.html", "--out", tmp_path / "side.json")
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "side.json").read_text(encoding="utf-8"))
    assert found["verdict"]["level"] == "agree"
    assert found["quantity"] == "ΔF / kT"
    assert [run["estimate"]["value"] for run in found["runs"]] == [
        pytest.approx(bar(*crooks_pair(seed)).delta_f) for seed in range(3)
    ]
    assert [run["chosen"] for run in found["runs"]] == ["BAR"] * 3
    assert found["cautions"] == []
    assert "None" not in ended.out + (tmp_path / "side.html").read_text(encoding="utf-8")
    same, _ = estimated(tmp_path, seed=0, name="the-same")
    assert "Estimates from the same files" in nessampler("compare", folders[0], same).out
    run = tmp_path / "run"
    assert nessampler("run", "anharmonic-wells", "--preset", "smoke", "--method", "plain", "--out", run).code == 0
    assert "add --force" in nessampler("compare", run, folders[0]).err
    assert nessampler("compare", run, folders[0], "--force").code == 0


@pytest.mark.parametrize(("blocked", "kept"), [("works.nc", []), ("figures", ["works.nc", "report.html"])])
def test_what_cannot_be_written_loses_neither_the_answer_nor_what_was_written(
    blocked: str, kept: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    if blocked == "figures":
        folder.mkdir()
        (folder / "figures").write_text("in the way")
    else:
        (folder / blocked / "in the way").mkdir(parents=True)
    _, ended = estimated(tmp_path)
    assert ended.code == 2
    assert "holds the result, but its report could not be written" in ended.err
    assert ended.err.count("\n") == 1
    assert "ΔF = " in ended.out
    assert result_in(folder)["delta_f"]["value"] == pytest.approx(bar(*crooks_pair()).delta_f)
    assert all((folder / name).is_file() for name in kept)
    (folder / "figures").unlink(missing_ok=True)
    if kept:
        assert nessampler("report", folder).code == 0


def test_works_that_do_not_belong_to_the_result_are_refused(tmp_path: Path) -> None:
    folder, _ = estimated(tmp_path)
    other = xarray.Dataset({"a": ("x", [1.0])})
    other.to_netcdf(folder / "works.nc", group="forward", engine="h5netcdf")
    ended = nessampler("report", folder)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "must belong to its result.json" in ended.err


@pytest.mark.parametrize("spread", [0.0, 1e-16, 1e-12])
@pytest.mark.parametrize("one_way", [False, True], ids=["both directions", "one direction"])
def test_works_that_are_all_alike_are_drawn(spread: float, one_way: bool, tmp_path: Path) -> None:
    works = 1.0 + spread * np.random.default_rng(0).normal(size=100)
    np.savez(tmp_path / "works.npz", forward=works, **({} if one_way else {"reverse": -works}))
    ended = nessampler("estimate", tmp_path / "works.npz", "--unit", "kT", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "out" / "figures").glob("*.svg"))) >= 3
