"""The command line: what a user can get wrong is said in one line and costs nothing; the main job runs end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mdtraj
import openmm
import pytest
from command_line import nessampler

from nessampler.methods.ladder import RUNGS
from nessampler.runs import catalogue
from nessampler.runs.config import load

WELLS = "anharmonic-wells"
MOLECULE = catalogue.root() / "alanine-solvation"


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_a_platform_that_is_not_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    absent = sorted({"CUDA", "OpenCL"} - here)
    if not absent:
        pytest.skip("every platform is here")
    monkeypatch.chdir(tmp_path)
    ended = nessampler("run", "alanine-solvation", "--set", f"md.platform={absent[0]}")
    assert ended.code == 2
    assert f"got '{absent[0]}'" in ended.err
    assert all(name in ended.err for name in here)
    assert contents(tmp_path) == {}


def test_a_usage_error_exits_with_2_too() -> None:
    for arguments in (["run"], ["run", WELLS, "--sede", "1"], ["run", WELLS, "--seed", "one"], ["walk"]):
        ended = nessampler(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert "Traceback" not in ended.err


def test_help_and_list_show_what_there_is() -> None:
    shown = nessampler("list")
    assert shown.code == 0
    for name in catalogue.names():
        assert name in shown.out
    assert "-0.297" in shown.out
    assert "log Z = 164.696 (exact)" in shown.out
    kinds = [load(catalogue.find(name))["kind"] for name in catalogue.names()]
    assert shown.out.count("difference") == kinds.count("difference") > 8
    assert shown.out.count(" density ") == kinds.count("density") > 8
    usage = nessampler("run", "--help").out
    for option in ("--method", "--preset", "--out", "--seed", "--device", "--resume", "--json", "--set"):
        assert option in usage


def test_a_run_without_out_goes_to_a_folder_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("run", WELLS, "--method", "plain", "--preset", "smoke", "--seed", 4)
    ended = nessampler(*arguments)
    assert ended.code == 0
    assert (tmp_path / "runs" / f"{WELLS}-plain-smoke-4" / "result.json").exists()
    assert "ΔF =" in ended.out
    before = contents(tmp_path)
    assert "already holds a run" in nessampler(*arguments).err
    assert contents(tmp_path) == before


# --- in processes of their own -----------------------------------------------------------------------------------

QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}
WITHOUT_OPENMM = """
import sys
sys.modules |= dict.fromkeys(["openmm", "mdtraj"])
import nessampler
from nessampler.cli import main
sys.argv[1:] = ["run", "alanine-solvation", "--out", "run"]
main()
"""


def test_without_openmm_the_package_imports_and_a_molecule_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPENMM], cwd=tmp_path, env=QUIET, capture_output=True, text=True
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: molecular systems need OpenMM and mdtraj")
    assert "pip install 'nessampler[molecular]'" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_the_main_job_runs_end_to_end_and_does_not_trust_a_short_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [Path(sys.executable).parent / "nessampler", "run", "amber-to-amoeba", "--preset", "smoke"]
    ended = subprocess.run(
        [*command, "--seed", "1", "--out", out, "--json"], cwd=tmp_path, env=QUIET, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == (out / "result.json").read_text(encoding="utf-8")
    result = json.loads(ended.stdout)

    config = load(out / "config.toml")
    assert config["run"] == {"method": "auto", "preset": "smoke", "seed": 1, "device": "cpu"}
    assert result["temperature"] == 300.0
    assert result["flags"]
    assert result["verdict"]["level"] != "trusted"
    assert [rung["name"] for rung in result["rungs"]] == list(RUNGS[: len(result["rungs"])])
    plain = result["rungs"][0]
    assert plain["overlap"] < 0.3  # the pair is a hard one
    if result["delta_f"]["value"] is not None:
        kcal = result["delta_f_kcal_per_mol"]["value"] / result["delta_f"]["value"]
        assert kcal == pytest.approx(8.31446261815324e-3 * 300 / 4.184)
        assert -15 < result["delta_f"]["value"] < 0  # -7.09 kT when sampled well

    md = config["md"]
    for state, production in (("a", 16), ("b", 6)):
        endstate = result["endstates"][f"state_{state}"]
        frames = round((1 + production) / 0.1)
        checked = md["replicas"] * round(
            0.4 * endstate["frames"] / md["replicas"]
        )  # Stein's identity, on the fit block
        spent = result["evaluations"][f"state_{state}"]["endstates"]["gradient"]
        assert spent == md["replicas"] * frames * 50 + checked
        assert endstate["replicas"] == md["replicas"] == 2
        assert endstate["frames"] == 2 * (frames - endstate["equilibration_frames"])
        for replica in range(2):
            read = mdtraj.load(str(out / f"endstates/{state}-{replica}.nc"), top=str(out / f"endstates/{state}.pdb"))
            assert (read.n_frames, read.n_atoms) == (frames, 22)
            bonds = mdtraj.compute_distances(read, [[b[0].index, b[1].index] for b in read.topology.bonds])
            assert 0.08 < bonds.min() < bonds.max() < 0.18  # nm: a molecule, in the right unit
    assert (out / "alanine-dipeptide.pdb").read_bytes() == (MOLECULE / "alanine-dipeptide.pdb").read_bytes()
    assert "Ramachandran" in (out / "report.html").read_text(encoding="utf-8")
