"""A system's folder is data: no pickle is read, no code runs without consent, no path leads out of it."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import nessampler
from interruption import result_of
from torch import nn

import nessampler as package
from nessampler.errors import InputError
from nessampler.molecular.replica_files import read_restart
from nessampler.runs.again import reopen
from nessampler.runs.config import load, resolve, write
from nessampler.runs.system_files import file_inside
from nessampler.training import load_model

SOURCES = sorted(Path(package.__file__).parent.rglob("*.py"))
DENSITY = """name = "mine"
title = "Two wells"
kind = "density"
target = { name = "python", callable = "wells:log_density", shape = [2], files = ["height.txt"] }
sampling = { walkers = 64, pilot_walkers = 64, pilot_steps = 2, steps = 2, reverse_walkers = 0 }
base = { kind = "gaussian", scale = 2.0 }
run = { method = "ais" }
"""
DIFFERENCE = """name = "mine"
title = "A well and a stiffer one"
kind = "difference"
state_a = { label = "one", target = { name = "python", callable = "wells:log_density", shape = [2] } }
state_b = { label = "other", target = { name = "python", callable = "wells:stiffer", shape = [2] } }
chains = { chains = 16, equilibration = 10, draws = 8, interval = 1 }
run = { method = "plain" }
"""
WELLS = """
from pathlib import Path

height = Path(__file__).with_name("height.txt")
HEIGHT = float(height.read_text()) if height.exists() else 0.5


def log_density(x):
    return -HEIGHT * (x**2 - 1).square().sum(-1)


def stiffer(x):
    return 1.5 * log_density(x)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in (("system.toml", DENSITY), ("wells.py", WELLS), ("height.txt", "0.7")):
        (folder / name).write_text(content)
    (folder / "difference.toml").write_text(DIFFERENCE)
    return folder


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("density", "difference"):
        for name in ("write_report", "save_figures"):
            monkeypatch.setattr(f"nessampler.runs.{module}.{name}", lambda *_, **__: None)


# --- Python that a system names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["system.toml", "difference.toml"])
def test_code_runs_only_with_consent(folder: Path, tmp_path: Path, file: str) -> None:
    (folder / "wells.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n" + WELLS)
    ended = nessampler("run", folder / file, "--out", tmp_path / "run")
    assert ended.code == 2
    assert "run only with --allow-code: got wells:" in ended.err
    assert not (tmp_path / "it ran").exists()
    assert not (tmp_path / "run").exists()
    ended = nessampler("run", folder / file, "--out", tmp_path / "run", "--allow-code")
    assert ended.code == 0, ended.err
    assert (tmp_path / "it ran").exists()


def test_the_run_directory_repeats_the_run_with_consent_again(folder: Path, tmp_path: Path) -> None:
    assert nessampler("run", folder, "--out", tmp_path / "run", "--allow-code").code == 0
    for name in ("wells.py", "height.txt"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes()
        (folder / name).unlink()
    again = ("run", tmp_path / "run" / "config.toml", "--out", tmp_path / "again")
    assert "only with --allow-code" in nessampler(*again).err
    assert nessampler(*again, "--allow-code").code == 0
    one, other = result_of(tmp_path / "run"), result_of(tmp_path / "again")
    assert one["log_z"] == other["log_z"]
    with pytest.raises(InputError, match="only with --allow-code"):
        reopen(tmp_path / "run")
    reopen(tmp_path / "run", allow_code=True)


def test_the_density_is_the_one_that_was_written(folder: Path, tmp_path: Path) -> None:
    settings = ("--set", "sampling.walkers=1000", "--set", "sampling.steps=8")
    assert nessampler("run", folder, "--out", tmp_path / "run", "--allow-code", *settings).code == 0
    x = np.linspace(-4, 4, 4001)
    exact = 2 * np.log(np.trapezoid(np.exp(-0.7 * (x**2 - 1) ** 2), x))
    found = result_of(tmp_path / "run")["log_z"]
    assert found["std_error"] < 0.1
    assert abs(found["value"] - exact) < 4 * found["std_error"]


def test_a_density_in_numpy_asks_for_no_gradient_where_none_is_needed(folder: Path, tmp_path: Path) -> None:
    (folder / "wells.py").write_text(
        "import numpy as np\nfrom nessampler.targets.numpy_density import NumpyDensity\n"
        "def log_density(x):\n    return -0.7 * np.einsum('ni->n', (np.asarray(x) ** 2 - 1) ** 2)\n"
        "alone = NumpyDensity(log_density, 2)\n"
    )
    (folder / "alone.toml").write_text(DENSITY.replace("wells:log_density", "wells:alone"))
    walks = ("--allow-code", "--set", "sampling.kernel=walk")
    for name, options in (("alone.toml", walks), ("system.toml", walks), ("system.toml", ("--allow-code",))):
        ended = nessampler("run", folder / name, "--out", tmp_path / f"{name} {len(options)}", *options)
        assert ended.code == 0, ended.err
    ended = nessampler("run", folder / "alone.toml", "--allow-code", "--out", tmp_path / "without")
    assert ended.code == 2
    assert "needs a gradient" in ended.err
    assert "random walks" in ended.err


def test_a_module_is_never_an_installed_one(folder: Path) -> None:
    (folder / "wells.py").unlink()
    text = DENSITY.replace("wells:log_density", "os:getcwd")
    (folder / "system.toml").write_text(text)
    ended = nessampler("run", folder, "--allow-code")
    assert "os.py does not exist" in ended.err


def test_a_configuration_with_code_is_compared_but_not_run_when_a_run_is_resumed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    config = resolve(load(folder / "system.toml"), allow_code=True)
    write(config, out / "config.toml")
    (out / "wells.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    other = nessampler("run", "anharmonic-wells", "--out", out, "--resume")
    assert "must go on with the same settings" in other.err
    assert not (tmp_path / "it ran").exists()


# --- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/../../secret", "link", "folder/secret", "\0", "x" * 5000]
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    with pytest.raises(InputError, match="must lie in the system's folder") as caught:
        file_inside(folder, name)
    assert "\n" not in str(caught.value)


def test_names_and_links_that_stay_inside_are_taken(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("1")
    (tmp_path / "link").symlink_to("data/x")
    for name in ("data/x", "link", "data/../link", "not/yet/there"):
        assert file_inside(tmp_path, name) == tmp_path / name


# --- files that are read -------------------------------------------------------------------------------------------


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    trap, sprung = tmp_path / "trap", tmp_path / "sprung"
    np.savez(trap.with_suffix(".npz"), positions=np.array([Trap(sprung)], dtype=object))
    with pytest.raises(InputError, match="is not a restart file"):
        read_restart(trap.with_suffix(".npz"), ("positions",))
    trap.write_bytes(pickle.dumps(Trap(sprung)))
    for read_file in (lambda path: read_restart(path, ("positions",)), lambda path: load_model(nn.Linear(1, 1), path)):
        with pytest.raises(InputError):
            read_file(trap)
    assert not sprung.exists()
    pickle.loads(trap.read_bytes())  # a control: the trap works
    assert sprung.exists()


def test_no_source_reads_pickles_or_evaluates_text() -> None:
    banned = re.compile(
        r"^\s*(?:import|from) (?:pickle|shelve|dill|joblib|marshal)\b|\btorch\.load\(|(?<![\w.])(?:eval|exec)\("
    )
    arrays = re.compile(r"\bnp\.load\((?!.*allow_pickle=False)")
    assert len(SOURCES) > 100
    for path in SOURCES:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not banned.search(line), f"{path}: {line}"
            assert not arrays.search(line), f"{path}: {line}"


def test_a_title_is_text_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nessampler.runs import page

    monkeypatch.setattr(page, "drawn", lambda *_: b"")
    monkeypatch.setattr("nessampler.runs.density.write_report", page.write_report)
    arguments = ("run", "gmm-40-linear", "--method", "ais", "--preset", "smoke", "--set", "sampling.walkers=64")
    settings = ("--set", "sampling.steps=2", "--set", "title=<script>alert(1)</script>")
    assert nessampler(*arguments, *settings, "--out", tmp_path / "run").code == 0
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in report
    assert "<script>alert(1)" not in report
