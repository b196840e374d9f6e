"""The command line: what a user can get wrong is said in one line and costs nothing; the main job runs end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import openmm
import pytest
import tomli_w
from command_line import nessampler

from nessampler.methods.ladder import RUNGS
from nessampler.runs import catalogue
from nessampler.runs.config import load, resolve, write

WELLS = "anharmonic-wells"
MOLECULE = catalogue.root() / "alanine-solvation"
Arguments = list[object]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def molecule(here: Path, **changes: Any) -> Path:
    """A copy of a molecular system, with other keys in its tables."""
    folder = here / "mine"
    folder.mkdir()
    table = tomllib.loads((MOLECULE / "system.toml").read_text(encoding="utf-8"))
    for name, change in changes.items():
        table[name] = table[name] | change if isinstance(change, dict) else change
    (folder / "system.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    (folder / "alanine-dipeptide.pdb").write_bytes((MOLECULE / "alanine-dipeptide.pdb").read_bytes())
    return folder


def atom_lines(here: Path) -> tuple[list[str], list[int]]:
    lines = (MOLECULE / "alanine-dipeptide.pdb").read_text().splitlines(keepends=True)
    return lines, [i for i, line in enumerate(lines) if line.startswith(("ATOM", "HETATM"))]


def with_structure(here: Path, lines: list[str], state: str) -> Path:
    folder = molecule(here, **{state: {"structure": "other.pdb"}})
    (folder / "other.pdb").write_text("".join(lines))
    return folder


# --- bad input: what is run in an empty folder, and what is said -------------------------------------------------


def not_toml(here: Path) -> Arguments:
    (here / "system.toml").write_text("name = ")
    return ["system.toml"]


def unknown_key_in_the_file(here: Path) -> Arguments:
    return [molecule(here, md={"replica": 3})]


def unknown_force_field(here: Path) -> Arguments:
    return [molecule(here, state_a={"force_field": ["amber41-all.xml"]})]


def force_field_without_templates(here: Path) -> Arguments:
    return [molecule(here, state_a={"force_field": ["amber14/tip3p.xml"]})]


def atoms_in_another_order(here: Path) -> Arguments:
    lines, atoms = atom_lines(here)
    i, j = (next(k for k in atoms if lines[k][12:16].strip() == name) for name in ("CA", "CB"))
    lines[i], lines[j] = lines[j], lines[i]
    return [with_structure(here, lines, "state_b")]


def fewer_atoms(here: Path) -> Arguments:
    lines, atoms = atom_lines(here)
    middle = {k for k in atoms if lines[k][17:20] == "ALA"}
    rest = [line for k, line in enumerate(lines) if k not in middle and not line.startswith(("CONECT", "TER"))]
    return [with_structure(here, rest, "state_b")]


def nan_coordinates(here: Path) -> Arguments:
    lines, atoms = atom_lines(here)
    lines[atoms[4]] = lines[atoms[4]][:30] + "     nan" + lines[atoms[4]][38:]
    return [with_structure(here, lines, "state_a")]


def structure_missing(here: Path) -> Arguments:
    return [molecule(here, state_a={"structure": "none.pdb"})]


def structure_that_is_none(here: Path) -> Arguments:
    return [with_structure(here, ["not a structure\n"], "state_a")]


def structure_outside(here: Path) -> Arguments:
    (here / "outside.pdb").write_bytes((MOLECULE / "alanine-dipeptide.pdb").read_bytes())
    return [molecule(here, state_a={"structure": "../outside.pdb"})]


def force_field_outside(here: Path) -> Arguments:
    (here / "outside.xml").write_text("<ForceField/>")
    return [molecule(here, state_a={"force_field": ["amber14-all.xml", "../outside.xml"]})]


def constraints_on(here: Path) -> Arguments:
    return [molecule(here, state_a={"options": {"constraints": "HBonds"}})]


def rigid_water_on(here: Path) -> Arguments:
    return [molecule(here, state_a={"options": {"rigidWater": True}})]


def unknown_option(here: Path) -> Arguments:
    return [molecule(here, state_a={"options": {"polarisation": "mutual"}})]


def states_of_two_kinds(here: Path) -> Arguments:
    folder = molecule(here)
    table = load(folder / "system.toml") | {"state_b": load(catalogue.root() / WELLS / "system.toml")["state_b"]}
    (folder / "system.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    return [folder]


def file_in_the_way(here: Path) -> Arguments:
    (here / "taken").write_text("precious")
    return [WELLS, "--out", "taken"]


def file_in_the_way_further_up(here: Path) -> Arguments:
    (here / "taken").write_text("precious")
    return [WELLS, "--out", "taken/run"]


def stored(here: Path, *settings: str, seed: int = 0) -> None:
    (here / "run").mkdir()
    table = load(catalogue.root() / WELLS / "system.toml")
    write(resolve(table, run={"seed": seed}, settings=settings), here / "run" / "config.toml")
    (here / "run" / "training.safetensors").write_bytes(b"hours of work")


def existing_run(here: Path) -> Arguments:
    stored(here)
    return [WELLS, "--out", "run"]


def resumed_with_another_seed(here: Path) -> Arguments:
    stored(here, seed=1)
    return [WELLS, "--out", "run", "--resume"]


def resumed_with_other_settings(here: Path) -> Arguments:
    stored(here, "ladder.switching_steps=3")
    return [WELLS, "--out", "run", "--resume"]


def damaged_run(here: Path) -> Arguments:
    stored(here)
    (here / "run" / "config.toml").write_text("name = ")
    return [WELLS, "--out", "run", "--resume"]


def folder_without_system(here: Path) -> Arguments:
    (here / "empty").mkdir()
    return ["empty"]


def given(*arguments: object) -> Callable[[Path], Arguments]:
    return lambda here: list(arguments)


def setting(text: str, system: str = WELLS) -> Callable[[Path], Arguments]:
    return given(system, "--set", text)


BAD = {
    "unknown system": (given("alanine-solvatoin"), "alanine-solvatoin is none; did you mean alanine-solvation?"),
    "missing file": (given("nowhere/system.toml"), "nowhere/system.toml is none"),
    "folder without system": (folder_without_system, "empty/system.toml does not exist"),
    "not TOML": (not_toml, "system.toml must be a TOML file"),
    "unknown key": (setting("ladder.swiching_steps=3"), "did you mean `switching_steps`?"),
    "unknown key in the file": (unknown_key_in_the_file, "unknown key `md.replica`; did you mean `replicas`?"),
    "unknown preset": (given(WELLS, "--preset", "tiny"), "preset must be one of smoke, quick, full: got 'tiny'"),
    "unknown method": (given(WELLS, "--method", "magic"), "got 'magic'"),
    "negative seed": (given(WELLS, "--seed", "-1"), "`run.seed`"),
    "unknown device": (given(WELLS, "--device", "abacus"), "device must be one that PyTorch can use here"),
    "device without data": (given(WELLS, "--device", "meta"), "device must be one that PyTorch can use here"),
    "setting without value": (setting("md.replicas"), "such as md.replicas=8: got 'md.replicas'"),
    "setting without key": (setting("=8"), "--set takes KEY=VALUE"),
    "brackets in a message": (given("[/bold]x[red]"), "[/bold]x[red] is none"),
    "negative temperature": (setting("temperature=-300 K", "alanine-solvation"), "must be positive: got '-300 K'"),
    "wrong unit": (setting("temperature=27 C", "alanine-solvation"), "unit must be one of K, kelvin: got '27 C'"),
    "number without unit": (setting("temperature=300", "alanine-solvation"), "a number and a unit in quotes"),
    "blocks of more than all": (setting("ladder.blocks=[0.5,0.5,0.5]"), "add up to 1"),
    "a well that is not finite": (setting("state_a.coupling=nan"), "state_a.coupling"),
    "a well without bottom": (setting("state_a.stiffness=[1.0,-2.0,4.0]"), "the well must be bounded"),
    "wells of two dimensions": (setting("state_a={label='x',center=[0],stiffness=[1],quartic=[0],skew=[0],coupling=0}"),
                                "A has 1, B has 3"),
    "states of two kinds": (states_of_two_kinds, "must be of one kind"),
    "unknown force field": (unknown_force_field, "could not load amber41-all.xml"),
    "force field without templates": (force_field_without_templates, "cannot describe this molecule"),
    "atoms in another order": (atoms_in_another_order, "in A but"),
    "fewer atoms": (fewer_atoms, "A has 22, B has 12"),
    "NaN coordinates": (nan_coordinates, "atom ACE1:"),
    "structure missing": (structure_missing, "none.pdb does not"),
    "structure that is none": (structure_that_is_none, "other.pdb"),
    "structure outside": (structure_outside, "in the system's folder"),
    "force field outside": (force_field_outside, "in the system's folder"),
    "constraints on": (constraints_on, "needs every bond flexible"),
    "rigid water on": (rigid_water_on, "needs every bond flexible"),
    "unknown option": (unknown_option, "polarisation"),
    "too short": (setting("md.production_a=2 ps", "alanine-solvation"), "at least 10 samples"),
    "target unknown": (setting("target.name=gmm-4O", "gmm-40-linear"), "got 'gmm-4O'; did you mean gmm-40?"),
    "parameter unknown": (setting("target.sise=9", "phi4-8"), "unknown parameter `target.sise`; did you mean `size`?"),
    "parameter of the wrong type": (setting("target.size=eight", "phi4-8"), "`target.size`: Input should be a val"),
    "parameter that is not finite": (setting("target.quartic=nan", "phi4-8"), "`target.quartic`: Input should be"),
    "parameter out of range": (setting("target.quartic=-1.0", "phi4-8"), "the action must have a floor"),
    "parameter missing": (setting("target.name=phi4", "funnel-10"), "`target.size` is required for phi4"),
    "data missing": (setting("target.data=none.csv", "logistic"), "none.csv does not exist"),
    "data outside": (setting("target.data=../lgcp-1600/fpines.csv", "logistic"), "in the system's folder"),
    "free field for a mixture": (setting("base={kind='free-field'}", "gmm-40-linear"), "field base is for lattices"),
    "prior of a mixture": (setting("base={kind='prior'}", "gmm-40-linear"), "a prior base is for posteriors"),
    "Laplace for a lattice": (setting("base={kind='laplace'}", "phi4-8"), "a Laplace base is for vectors"),
    "mixture path for a lattice": (setting("path={kind='mixture'}", "phi4-8"), "mixture path is for Gaussian mix"),
    "mixture path from elsewhere": (setting("base={kind='pilot'}", "gmm-40"), "from a Gaussian about the origin"),
    "scales that are too few": (setting("base.scale=[1.0,2.0,3.0]", "gmm-40-linear"), "one number or 2 of them: got 3"),
    "scale that is negative": (setting("base.scale=-1.0", "gmm-40-linear"), "positive scales"),
    "means of another dimension": (setting("base={kind='mixture',scale=1.0,means=[[0.0]]}", "gmm-40-linear"),
                                   "rows of 2 numbers: got shape (1, 1)"),
    "means of a funnel": (setting("base={kind='mixture',scale=1.0}", "funnel-10"), "has none; give `base.means`"),
    "kernel of another method": (
        given("phi4-8", "--method", "lsq", "--set", "sampling.kernel=inertial"),
        "kernel = 'inertial' is for plain annealing",
    ),
    "method of a difference": (given("phi4-8", "--method", "switching"), "got 'switching'"),
    "file in the way": (file_in_the_way, "taken is not"),
    "file in the way further up": (file_in_the_way_further_up, "taken/run is not"),
    "existing run": (existing_run, "run already holds a run: add --resume"),
    "resumed with another seed": (resumed_with_another_seed, "same settings: run/config.toml differs in run"),
    "resumed with other settings": (resumed_with_other_settings, "differs in ladder"),
    "damaged run": (damaged_run, "run/config.toml must be a TOML file"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_told_in_one_line_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[[Path], Arguments], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = build(tmp_path)
    before = contents(tmp_path)
    ended = nessampler("run", *arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert said in ended.err
    assert contents(tmp_path) == before


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
