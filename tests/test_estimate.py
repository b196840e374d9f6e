"""`nessampler estimate`: works that others produced, in the formats they write, judged without torch."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pymbar
import pytest
import xarray
from command_line import Ended, nessampler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nessampler.estimators import bar
from nessampler.exchange import estimate_works

KT = 8.31446261815324e-3 * 300  # kJ/mol
DELTA_F = 1.5


def crooks_pair(forward: int, reverse: int, seed: int = 0, width: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Works in kT of a Gaussian process: means ΔF ± σ²/2 in the two directions, of unequal counts."""
    rng = np.random.default_rng(seed)
    loss = width**2 / 2
    return DELTA_F + loss + width * rng.normal(size=forward), -DELTA_F + loss + width * rng.normal(size=reverse)


F, R = crooks_pair(400, 300)


def result_of(ended: Ended) -> dict:
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def estimate(*arguments: object) -> dict:
    return result_of(nessampler("estimate", *arguments, "--json"))


def check(result: dict, forward: np.ndarray = F, reverse: np.ndarray = R, rel: float = 1e-9) -> None:
    expected = pymbar.bar(forward, reverse)
    assert result["delta_f"]["value"] == pytest.approx(expected["Delta_f"], abs=1e-7, rel=rel)
    assert result["delta_f"]["std_error"] == pytest.approx(expected["dDelta_f"], rel=max(rel, 1e-6))


# --- formats -----------------------------------------------------------------------------------------------------


def lines(values: np.ndarray, header: str = "") -> str:
    return header + "".join(f"{float(v)!r}\n" for v in values)


def text_files(here: Path) -> list[object]:
    (here / "f.txt").write_text(lines(F, "# works of the forward process\n"))
    (here / "r.txt").write_text(lines(R))
    return [here / "f.txt", here / "r.txt", "--unit", "kT"]


def csv_columns(here: Path) -> list[object]:
    """Both directions in one file, the shorter column left blank at its end; the names carry the unit."""
    rows = [
        f"{i},{f * KT!r},{float(R[i]) * KT!r}" if i < len(R) else f"{i},{f * KT!r}," for i, f in enumerate(F.tolist())
    ]
    (here / "both.csv").write_text("run,forward (kJ/mol),reverse (kJ/mol)\n" + "\n".join(rows) + "\n")
    return [here / "both.csv", "--temperature", "300 K"]


def csv_by_number(here: Path) -> list[object]:
    rows = [f"{i};{f!r};{float(R[min(i, 299)])!r}" for i, f in enumerate(F.tolist())]
    (here / "f.csv").write_text("\n".join(rows))
    (here / "r.csv").write_text("\n".join(rows[:300]))
    return [here / "f.csv", here / "r.csv", "--column", "2", "--reverse-column", "3", "--unit", "kT"]


def names_with_units_between_white_space(here: Path) -> list[object]:
    (here / "f.dat").write_text("time (ps) work (kJ/mol)\n" + "".join(f"1.0 {w * KT!r}\n" for w in F.tolist()))
    (here / "r.dat").write_text(lines(R * KT, "work (kJ/mol)\n"))
    return [here / "f.dat", here / "r.dat", "--temperature", "300 K"]


def npy_files(here: Path) -> list[object]:
    np.save(here / "f.npy", F)
    np.save(here / "r.npy", R)
    return [here / "f.npy", here / "r.npy", "--unit", "kT"]


def npz_file(here: Path) -> list[object]:
    np.savez(here / "w.npz", forward=F, reverse=R, temperature=300.0)
    return [here / "w.npz", "--unit", "kT"]


def other_netcdf(here: Path) -> list[object]:
    for name, values in (("f", F), ("r", R)):
        data = xarray.Dataset({"W": ("run", values * KT / 4.184, {"units": "kcal/mol"}), "time": ("run", values * 0)})
        data.to_netcdf(here / f"{name}.nc", engine="scipy")
    return [here / "f.nc", here / "r.nc", "--column", "W", "--temperature", "300 K"]


def pmx_files(here: Path) -> list[object]:
    """`integA.dat` and `integB.dat`: a file name and a work a line, the reverse ones with the other sign."""
    (here / "integA.dat").write_text("".join(f"run{i}/dhdl.xvg {w * KT!r}\n" for i, w in enumerate(F.tolist())))
    (here / "integB.dat").write_text("".join(f"run{i}/dhdl.xvg {-w * KT!r}\n" for i, w in enumerate(R.tolist())))
    return [here / "integA.dat", here / "integB.dat", "--unit", "kJ/mol", "--temperature", "300 K", "--reverse-negated"]


XVG = """# This file was created Thu Nov 26 12:00:00 2026
# GROMACS - gmx mdrun, 2024.1
@    title "dH/d\\xl\\f{}"
@    xaxis  label "Time (ps)"
@    yaxis  label "dH/d\\xl\\f{} (kJ/mol [\\xl\\f{}]\\S-1\\N)"
@TYPE xy
@ subtitle "T = 300 (K) "
"""


def switching_xvg(works: np.ndarray, folder: Path, sign: float, header: str = XVG) -> None:
    """One `dhdl.xvg` a run: a parabola in λ whose trapezoidal integral along the way that λ goes is the work."""
    folder.mkdir()
    at = np.linspace(0, 1, 51)
    shape = 1 + (at - 0.5) ** 2
    shape /= np.trapezoid(shape, at)
    for i, work in enumerate(works):
        slope = sign * work * KT * shape
        rows = [f"{time:.4f} {value!r}" for time, value in zip(at * 100, slope.tolist(), strict=True)]
        (folder / f"dhdl{i}.xvg").write_text(header + "\n".join(rows) + "\n")


def gromacs_switching(here: Path) -> list[object]:
    switching_xvg(F, here / "forward", 1.0)
    switching_xvg(R, here / "reverse", -1.0)  # λ falls, so that the work is minus the integral from 0 to 1
    return [here / "forward" / "*.xvg", here / "reverse" / "*.xvg"]


def amber_steered(here: Path) -> list[object]:
    for way, works in (("f", F), ("r", R)):
        for i, work in enumerate((works * KT / 4.184).tolist()):
            rows = [f"{x:.5f} {x + 0.1:.5f} -12.5 {x * work!r}" for x in (0.0, 0.5, 1.0)]
            (here / f"{way}{i}.dat").write_text("\n".join(rows) + "\n")
    return [here / "f*.dat", here / "r*.dat", "--format", "amber", "--temperature", "300 K"]


def openmmtools_cycles(here: Path) -> list[object]:
    """The counter of protocol work goes on through a cycle."""
    for i, work in enumerate(F.tolist()):
        np.save(here / f"forward_{i}.npy", np.linspace(3.0, 3.0 + work, 5))
    for i, work in enumerate(R.tolist()):
        np.save(here / f"reverse_{i}.npy", np.linspace(-1.0, -1.0 + work, 5))
    return [here / "forward_*.npy", here / "reverse_*.npy", "--format", "openmmtools"]


def plumed_colvar(here: Path) -> list[object]:
    for way, works in (("f", F), ("r", R)):
        for i, work in enumerate((works * KT).tolist()):
            rows = "\n".join(f" {t} 0.1 0.0 {t / 10 * work!r}" for t in (0, 5, 10))
            (here / f"{way}{i}.colvar").write_text(f"#! FIELDS time d1 restraint.bias restraint.d1_work\n{rows}\n")
    options = ["--column", "restraint.d1_work", "--accumulated"]
    return [here / "f*.colvar", here / "r*.colvar", *options, "--unit", "kJ/mol", "--temperature", "300 K"]


FORMATS = [
    text_files,
    csv_columns,
    csv_by_number,
    names_with_units_between_white_space,
    npy_files,
    npz_file,
    other_netcdf,
    pmx_files,
    gromacs_switching,
    amber_steered,
    openmmtools_cycles,
    plumed_colvar,
]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_answer_as_pymbar(write: Callable[[Path], list[object]], tmp_path: Path) -> None:
    check(estimate(*write(tmp_path)))


def test_the_other_sign_of_the_reverse_works_is_not_trusted(tmp_path: Path) -> None:
    result = estimate(*pmx_files(tmp_path)[:-1])
    assert result["verdict"]["level"] == "not trusted"
    assert "crooks_violated" in {flag["code"] for flag in result["flags"]}


def test_works_in_the_wrong_unit_break_crooks_relation(tmp_path: Path) -> None:
    f, r = crooks_pair(2000, 2000)
    np.savez(tmp_path / "w.npz", forward=f * KT, reverse=r * KT)
    wrong = estimate(tmp_path / "w.npz", "--unit", "kT")
    assert "crooks_violated" in {flag["code"] for flag in wrong["flags"]}
    assert wrong["crooks"]["slope"] == pytest.approx(1 / KT, rel=0.15)
    right = estimate(tmp_path / "w.npz", "--unit", "kJ/mol", "--temperature", "300 K")
    assert right["verdict"]["level"] == "trusted"


DHDL = (
    XVG.replace('"T = 300 (K) "', '"T = 300 (K) \\xl\\f{{}} state {state}: fep-lambda = {own:.4f}"').replace(
        "\\f{}", "\\f{{}}"
    )
    + '@ s0 legend "dH/d\\xl\\f{{}} fep-lambda = {own:.4f}"\n'
    + "".join(
        f'@ s{i + 1} legend "\\xD\\f{{{{}}}}H \\xl\\f{{{{}}}} to {to:.4f}"\n' for i, to in enumerate((0.0, 0.5, 1.0))
    )
    + '@ s4 legend "pV (kJ/mol)"\n'
)


def fixed_lambda(path: Path, state: int, works: np.ndarray, toward: int) -> None:
    rows = []
    for i, work in enumerate((works * KT).tolist()):
        cells = [0.0, 0.0, 0.0]
        cells[toward] = work
        rows.append(" ".join([f"{i}.0000", "1.5", *(repr(cell) for cell in cells), "20.0"]))
    path.write_text(DHDL.format(state=state, own=state / 2) + "\n".join(rows) + "\n")


def test_gromacs_at_fixed_lambda_takes_the_difference_to_the_other_file_as_a_chain(tmp_path: Path) -> None:
    fixed_lambda(tmp_path / "a.xvg", 0, F, 1)
    fixed_lambda(tmp_path / "b.xvg", 1, R, 0)
    result = estimate(tmp_path / "a.xvg", tmp_path / "b.xvg")
    assert result["delta_f"]["value"] == pytest.approx(bar(F[None], R[None]).delta_f, abs=1e-9)
    assert result["sources"]["forward"] == {
        "source": str(tmp_path / "a.xvg"),
        "how": "ΔH from λ = 0 to 0.5",
        "unit": "kJ/mol",
        "works": 400,
        "chains": 1,
    }
    assert result["temperature"] == 300


def test_works_nc_of_a_run_gives_that_runs_answer(tmp_path: Path) -> None:
    ended = nessampler("run", "anharmonic-wells", "--preset", "smoke", "--method", "map", "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    run = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    again = estimate(tmp_path / "run" / "works.nc", "--column", "map")
    assert again["delta_f"]["value"] == pytest.approx(run["delta_f"]["value"], abs=1e-9)
    assert again["delta_f"]["std_error"] >= run["delta_f"]["std_error"] * (1 - 1e-9)  # of a chain: never less
    assert again["bounds"]["upper"] == pytest.approx(run["bounds"]["upper"], abs=1e-9)


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "r.npy", R)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines(F, "work\n").encode())))
    check(estimate("-", tmp_path / "r.npy", "--unit", "kT"))


def test_chains_lengthen_the_error_of_correlated_works(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    slow = np.zeros((2, 4, 500))
    for i in range(1, 500):
        slow[..., i] = 0.9 * slow[..., i - 1] + np.sqrt(1 - 0.81) * rng.normal(size=(2, 4))
    np.save(tmp_path / "f.npy", slow[0].ravel() + 1)
    np.save(tmp_path / "r.npy", slow[1].ravel())
    plain = estimate(tmp_path / "f.npy", tmp_path / "r.npy", "--unit", "kT")
    chained = estimate(tmp_path / "f.npy", tmp_path / "r.npy", "--unit", "kT", "--chains", 4)
    assert chained["sources"]["forward"]["chains"] == 4
    assert 2 < chained["delta_f"]["std_error"] / plain["delta_f"]["std_error"] < 7  # sqrt(19) without end


def test_one_direction_is_jarzynski_and_says_what_it_cannot_know(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", F / 2)
    result = estimate(tmp_path / "f.npy", "--unit", "kT")
    expected = pymbar.other_estimators.exp(F / 2)
    assert result["delta_f"]["value"] == pytest.approx(expected["Delta_f"], abs=1e-9)
    assert result["bounds"]["lower"] is None
    assert result["bounds"]["upper"] == pytest.approx(F.mean() / 2)
    assert "one direction" in result["verdict"]["text"]


def test_works_of_plus_infinity_stay(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text(lines(np.append(F, np.inf)))
    (tmp_path / "r.txt").write_text(lines(R))
    result = estimate(tmp_path / "f.txt", tmp_path / "r.txt", "--unit", "kT")
    assert result["sources"]["forward"]["works"] == 401
    assert result["delta_f"]["value"] == pytest.approx(bar(np.append(F, np.inf), R).delta_f, abs=1e-9)
    assert result["bounds"]["upper"] is None


def test_out_holds_the_result_and_is_not_written_over(tmp_path: Path) -> None:
    arguments = [*text_files(tmp_path), "--out", tmp_path / "out"]
    printed = nessampler("estimate", *arguments)
    assert printed.code == 0
    assert "TRUSTED" in printed.out
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    check(result)
    again = nessampler("estimate", *arguments)
    assert (again.code, again.out) == (2, "")
    assert "already holds a result" in again.err


def test_torch_is_not_imported(tmp_path: Path) -> None:
    calls = [["estimate", *(str(a) for a in write(tmp_path))] for write in (npz_file, other_netcdf)]
    script = (
        f"import sys; from nessampler.cli import app\nfor call in {calls!r}: app(call, standalone_mode=False)\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("ΔF = ") == 2


def test_python_and_command_agree(tmp_path: Path) -> None:
    found = estimate_works(F * KT, R * KT, unit="kJ/mol", temperature=300.0)
    check({"delta_f": {"value": found.delta_f.delta_f, "std_error": found.delta_f.std_error}})
    assert found.verdict.level == "trusted"


# --- bad input ---------------------------------------------------------------------------------------------------


def written(name: str, content: str | bytes) -> Callable[[Path], list[object]]:
    def write(here: Path) -> list[object]:
        path = here / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [path, "--unit", "kT"]

    return write


def saved(array: np.ndarray, *options: object, cut: int = 0, pickle: bool = False) -> Callable[[Path], list[object]]:
    def write(here: Path) -> list[object]:
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=pickle)
        content = stream.getvalue()
        (here / "w.npy").write_bytes(content[: len(content) - cut])
        return [here / "w.npy", *(options or ("--unit", "kT"))]

    return write


def cut_netcdf(here: Path) -> list[object]:
    xarray.Dataset({"W": ("run", F)}).to_netcdf(here / "w.nc", engine="h5netcdf")
    (here / "w.nc").write_bytes((here / "w.nc").read_bytes()[:-400])
    return [here / "w.nc", "--unit", "kT"]


def cut_npz(here: Path) -> list[object]:
    np.savez(here / "w.npz", forward=F, reverse=R)
    (here / "w.npz").write_bytes((here / "w.npz").read_bytes()[:900])
    return [here / "w.npz", "--unit", "kT"]


def two_temperatures(here: Path) -> list[object]:
    switching_xvg(F[:2], here / "f", 1.0)
    switching_xvg(R[:2], here / "r", -1.0, XVG.replace("300", "310"))
    return [here / "f" / "*.xvg", here / "r" / "*.xvg"]


def cut_xvg(here: Path) -> list[object]:
    switching_xvg(F[:3], here / "f", 1.0)
    path = here / "f" / "dhdl1.xvg"
    path.write_text(path.read_text().rstrip().rsplit(" ", 1)[0] + "\n")
    return [here / "f" / "*.xvg"]


def short_xvg(here: Path) -> list[object]:
    """A run that ended early, between two lines: its rows alone do not show it."""
    switching_xvg(F[:3], here / "f", 1.0)
    path = here / "f" / "dhdl2.xvg"
    path.write_text("\n".join(path.read_text().splitlines()[:-20]) + "\n")
    return [here / "f" / "*.xvg"]


def expanded_ensemble(here: Path) -> list[object]:
    legends = '@ s0 legend "Thermodynamic state"\n@ s1 legend "dH/d\\xl\\f{} fep-lambda = 0.0000"\n'
    (here / "d.xvg").write_text(XVG + legends + "0.0 0 2.0\n1.0 1 2.0\n")
    return [here / "d.xvg"]


def exchanged_xvg(here: Path) -> list[object]:
    header = XVG + '@ s0 legend "dH/d\\xl\\f{} fep-lambda = 1.0000"\n'
    switching_xvg(F[:3], here / "f", 1.0, header)
    return [here / "f" / "*.xvg"]


def several_slopes(here: Path) -> list[object]:
    legends = '@ s0 legend "dH/d\\xl\\f{} coul-lambda = 0.0000"\n@ s1 legend "dH/d\\xl\\f{} vdw-lambda = 0.0000"\n'
    (here / "d.xvg").write_text(XVG + legends + "0.0 1.0 2.0\n1.0 1.0 2.0\n")
    return [here / "d.xvg"]


def many_differences(here: Path) -> list[object]:
    fixed_lambda(here / "a.xvg", 0, F, 1)
    return [here / "a.xvg"]


def in_files(count: int) -> Callable[[Path], list[object]]:
    def write(here: Path) -> list[object]:
        for i in range(count):
            (here / f"{i}.txt").write_text("1\n2\n")
        return [*sorted(here.glob("*.txt")), "--unit", "kT"]

    return write


def mixed_chains(here: Path) -> list[object]:
    np.save(here / "1.npy", np.ones((2, 30)))
    np.save(here / "2.npy", np.ones((2, 40)))
    return [here / "*.npy", "--unit", "kT"]


def out_is_a_file(here: Path) -> list[object]:
    (here / "out").write_text("")
    return [*text_files(here), "--out", here / "out"]


BAD = {
    "missing": (lambda here: [here / "no.csv", "--unit", "kT"], "no.csv does not exist"),
    "folder": (lambda here: [here, "--unit", "kT"], "is a folder"),
    "pattern matches nothing": (lambda here: [here / "*.xvg"], "matches none"),
    "empty file": (written("w.csv", ""), "w.csv is empty"),
    "white space": (written("w.csv", " \n\n"), "w.csv is empty"),
    "comments only": (written("w.csv", "# work\n"), "no line of numbers"),
    "one work": (written("w.csv", "work\n1.0\n"), "two or more: got shape (1,)"),
    "NaN": (written("w.csv", "1\n2\nnan\n4\n"), "forward work at index 2 is nan"),
    "minus infinity": (written("w.csv", "1\n-inf\n3\n"), "forward work at index 1 is -inf"),
    "NaN in chains": (saved(np.array([[1.0, 2.0], [3.0, np.nan]])), "chain 1, draw 1 is nan"),
    "huge": (written("w.csv", "1\n1e200\n"), "index 1 is 1e+200"),
    "not a number": (written("w.csv", "work\n1.0\ntwo\n"), "line 3: column work must hold a number: got 'two'"),
    "hole in a column": (written("w.csv", "a,work\n1,2\n1,\n1,3\n"), "line 3: column work must hold a number: got ''"),
    "decimal comma": (written("w.csv", "work;x\n1,5;a\n2,5;b\n"), "no column of numbers"),
    "rows of two lengths": (written("w.csv", "1,2\n1,2,3\n"), "line 2: 3 columns where the first row has 2"),
    "too few names": (written("w.csv", "a,b\n1,2,3\n1,2,3\n"), "names 2 columns and has 3"),
    "several columns": (written("w.csv", "a,b\n1,2\n1,2\n"), "2 columns that may hold works (a, b): name one"),
    "no names": (written("w.csv", "1 2\n1 2\n"), "2 columns that may hold works (1, 2)"),
    "unknown column": (
        lambda here: [*written("w.csv", "time,work\n1,2\n1,2\n")(here), "--column", "wrok"],
        "has no column 'wrok' (--column) among its 2; did you mean 'work'?",
    ),
    "column beyond": (
        lambda here: [*written("w.csv", "1 2\n1 2\n")(here), "--column", "3"],
        "has no column '3' (--column) among its 2",
    ),
    "column of an array": (saved(F, "--unit", "kT", "--column", "w"), "is a single array"),
    "bytes": (written("w.csv", b"\xff\xfe\x00\x01" * 20), "neither text in UTF-8 nor a format known here"),
    "zero bytes": (written("w.csv", b"1\n2\n\0\0"), "it holds zero bytes"),
    "picture": (written("w.npy", b"\x89PNG\r\n\x1a\n0000"), "not a whole .npy or .npz file"),
    "cut npy": (saved(F, cut=100), "not a whole .npy or .npz file"),
    "cut npz": (cut_npz, "not a whole .npy or .npz file"),
    "cut netCDF": (cut_netcdf, "not a whole netCDF file"),
    "text called netCDF": (written("w.nc", "1\n2\n"), "not a whole netCDF file"),
    "pickle": (saved(np.array([{"a": 1}, None], dtype=object), pickle=True), "holds Python objects"),
    "complex": (saved(F + 1j), "works are real numbers"),
    "three dimensions": (saved(F.reshape(4, 10, 10)), "has shape (4, 10, 10)"),
    "no unit": (saved(F, "--seed", 0), "works need a unit"),
    "unknown unit": (saved(F, "--unit", "eV"), "got unit 'eV'"),
    "no temperature": (saved(F, "--unit", "kJ/mol"), 'such as --temperature "300 K"'),
    "temperature without unit": (saved(F, "--unit", "kJ/mol", "--temperature", "300"), "the unit must be one of K"),
    "negative temperature": (saved(F, "--unit", "kJ/mol", "--temperature", "-3 K"), "a temperature is positive"),
    "contradicting unit": (
        lambda here: [*many_differences(here), "--column", "4", "--unit", "kcal/mol"],
        "says its works are in kJ/mol: got unit kcal/mol",
    ),
    "contradicting temperature": (
        lambda here: [*many_differences(here), "--column", "4", "--temperature", "310 K"],
        "was made at 300 K: got 310 K",
    ),
    "two temperatures": (two_temperatures, "got 300 K and 310 K"),
    "cut xvg": (cut_xvg, "dhdl1.xvg line 58: 1 columns where the first row has 2"),
    "short xvg": (short_xvg, "dhdl2.xvg has 31 points, "),
    "expanded ensemble": (expanded_ensemble, "is of an expanded ensemble"),
    "xvg without header": (written("d.xvg", "0 1.5\n1 2.5\n"), "does not say what its columns are"),
    "exchanged xvg": (exchanged_xvg, "start at λ = 0: "),
    "several dH/dλ": (several_slopes, "has 2 columns of dH/dλ"),
    "several ΔH": (many_differences, "has ΔH to 2 other λ: name a column with --column (4 to 0.5, 5 to 1"),
    "three files": (in_files(3), "got 3 files; put a pattern in quotes"),
    "chains of two lengths": (mixed_chains, "2 files have from 30 to 40 draws"),
    "chains that do not divide": (saved(F, "--unit", "kT", "--chains", 7), "400 works do not make 7 chains"),
    "chains of chains": (saved(F.reshape(4, 100), "--unit", "kT", "--chains", 2), "come as 4 chains already"),
    "unknown format": (saved(F, "--unit", "kT", "--format", "hdf"), "formats are text, numpy"),
    "amber of two columns": (
        lambda here: [*written("w.dat", "1 2\n1 2\n")(here)[:1], "--format", "amber"],
        "in the last of four columns or more",
    ),
    "accumulated over one point": (
        lambda here: [*written("w.dat", "1\n")(here), "--accumulated"],
        "two points or more along a run",
    ),
    "standard input twice": (lambda here: ["-", "-", "--unit", "kT"], "standard input can be read once"),
    "out is a file": (out_is_a_file, "--out must be a folder that can be written"),
}


@pytest.mark.parametrize(("write", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_status_2(
    write: Callable[[Path], list[object]], message: str, tmp_path: Path
) -> None:
    ended = nessampler("estimate", *write(tmp_path))
    assert ended.code == 2, ended.out
    assert ended.out == ""
    assert message in ended.err
    assert ended.err.count("\n") == 1


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.text('0123456789.,;-+einfa \t\n#@"', max_size=200).map(str.encode),
        st.sampled_from([b"\x93NUMPY", b"PK\x03\x04", b"CDF\x01", b"\x89HDF\r\n\x1a\n"]).flatmap(
            lambda start: st.binary(max_size=120).map(lambda rest: start + rest)
        ),
    ),
    suffix=st.sampled_from(["csv", "xvg", "npy", "nc", "dat"]),
    options=st.sampled_from([[], ["--accumulated"], ["--format", "amber"], ["--column", "1"], ["--chains", "2"]]),
)
def test_no_file_gives_a_traceback(content: bytes, suffix: str, options: list[str], tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    unit = [] if "amber" in options else ["--unit", "kJ/mol"]
    assert nessampler("estimate", path, *unit, "--temperature", "300 K", *options).code in (0, 2)


@settings(max_examples=60, deadline=None)
@given(
    forward=st.lists(st.floats(-1e12, 1e90) | st.just(np.inf), min_size=2, max_size=60),
    reverse=st.lists(st.floats(-1e12, 1e90) | st.just(np.inf), min_size=2, max_size=60),
)
def test_any_works_give_finite_numbers_or_none(forward: list[float], reverse: list[float]) -> None:
    for found in (estimate_works(forward, reverse), estimate_works(forward)):
        assert found.delta_f.delta_f is None or np.isfinite(found.delta_f.delta_f)
        assert found.delta_f.std_error is None or np.isfinite(found.delta_f.std_error)
