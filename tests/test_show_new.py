"""`nessampler show` and `nessampler new`: what a system is, and how one of one's own begins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import nessampler

from nessampler.runs import catalogue
from nessampler.runs.config import load, resolve
from nessampler.runs.difference import check_difference

KINDS = ("density", "difference", "molecule")
ROOT = Path(__file__).parent.parent


def shown(*arguments: object) -> dict:
    ended = nessampler("show", *arguments, "--json")
    assert ended.code == 0
    return json.loads(ended.out)


# show ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue.names())
def test_every_system_of_the_catalogue_is_shown_with_its_reference_and_presets(name):
    found, entry = shown(name), load(catalogue.root() / name / "system.toml")
    assert (found["name"], found["title"], found["kind"]) == (name, entry["title"], entry["kind"])
    assert found["reference"] == entry.get("reference")
    assert [*found["presets"]] == [*entry["presets"]]
    assert "system.toml" in found["files"]
    for preset in found["presets"].values():
        assert preset["planned"]
        assert all(n > 0 for n in preset["planned"].values())
    ended = nessampler("show", name)
    assert ended.code == 0
    assert entry["title"] in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100


def test_a_molecule_is_shown_with_states_settings_and_steps_of_dynamics():
    found = shown("amber-to-amoeba")
    assert found["state_b"]["force_field"] == ["amoeba2018.xml"]
    assert found["temperature"] == "300 K"
    # 4 replicas of 800 + 20 ps of A and of 350 + 20 ps of B by 2 fs; a frame every 0.5 ps
    planned = found["presets"]["quick"]["planned"]
    assert planned == {"md_steps_a": 1_640_000, "frames_a": 6400, "md_steps_b": 740_000, "frames_b": 2800}
    text = nessampler("show", "amber-to-amoeba").out
    for part in (
        "amber14-all.xml",
        "ΔF = -7.108 ± 0.016 kT: 10 ns of AMOEBA2018",
        "md.production_a",
        "1,640,000",
        "350 ps",
    ):
        assert part in re.sub(r"\s+", " ", text)


def test_one_preset_is_shown_whole_and_all_by_what_differs():
    whole = nessampler("show", "funnel-10", "--preset", "smoke").out
    brief = nessampler("show", "funnel-10").out
    assert "sampling.leapfrog_steps" in whole
    assert "sampling.leapfrog_steps" not in brief
    assert "sampling.walkers" in brief
    assert [*shown("funnel-10", "--preset", "smoke")["presets"]] == ["smoke"]


def test_a_folder_and_a_file_are_shown_too(tmp_path):
    assert nessampler("new", tmp_path / "mine").code == 0
    assert shown(tmp_path / "mine") == shown(tmp_path / "mine" / "system.toml")
    assert shown(tmp_path / "mine")["name"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["phi4-9"], "phi4-9 is none; did you mean phi4-8"),
        (["phi4-8", "--preset", "tiny"], "preset must be one of smoke, quick, full: got 'tiny'"),
    ],
)
def test_what_cannot_be_shown_is_named(arguments, message):
    ended = nessampler("show", *arguments)
    assert ended.code == 2
    assert message in ended.err


# new -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_template_is_valid_in_every_preset_and_says_what_to_edit(kind, tmp_path):
    ended = nessampler("new", tmp_path / "mine", "--kind", kind)
    assert ended.code == 0
    assert f"nessampler run {tmp_path / 'mine'} --preset smoke" in ended.out
    assert "Edit" in ended.out
    path = tmp_path / "mine" / "system.toml"
    assert path.read_text().count("#") > 10
    for preset in ("smoke", "quick", "full"):
        config = resolve(load(path), preset=preset)
        assert config.name == "mine"
        assert all((path.parent / name).is_file() for name in config.files if not name.endswith(".xml"))
        if config.kind == "difference":
            check_difference(config, path.parent)


@pytest.mark.parametrize("kind", ["density", "difference"])
def test_a_template_runs_at_once(kind, tmp_path):
    assert nessampler("new", tmp_path / "mine", "--kind", kind).code == 0
    ended = nessampler("run", tmp_path / "mine", "--preset", "smoke", "--out", tmp_path / "run", "--json")
    assert ended.code == 0
    result = json.loads(ended.out)
    assert result["system"] == "mine"
    if kind == "density":
        assert abs(result["log_z"]["value"]) < 4 * result["log_z"]["std_error"] < 0.5


@pytest.mark.slow
def test_the_template_of_a_molecule_runs_at_once(tmp_path):
    assert nessampler("new", tmp_path / "mine", "--kind", "molecule").code == 0
    ended = nessampler("run", tmp_path / "mine", "--preset", "smoke", "--out", tmp_path / "run", "--json")
    assert ended.code == 0
    assert -30 < json.loads(ended.out)["delta_f"]["value"] < -15


def test_a_copy_has_the_files_and_the_words_of_its_original_under_its_own_name(tmp_path):
    ended = nessampler("new", tmp_path / "mine", "--from", "amber14-to-charmm36")
    assert ended.code == 0
    assert "[reference], which holds for the original only" in ended.out
    original = catalogue.root() / "amber14-to-charmm36"
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {
        "system.toml",
        "alanine-dipeptide.pdb",
        "caps-charmm36.xml",
    }
    text = (tmp_path / "mine" / "system.toml").read_text()
    assert text == (original / "system.toml").read_text().replace('name = "amber14-to-charmm36"', 'name = "mine"', 1)
    again = nessampler("new", tmp_path / "third", "--from", tmp_path / "mine")
    assert again.code == 0
    assert 'name = "third"' in (tmp_path / "third" / "system.toml").read_text()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    ended = nessampler("new", tmp_path / "mine")
    assert ended.code == 2
    assert "exists already; choose another name" in ended.err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a b"], "letters, digits, dots, dashes and underscores: got 'a b'"),
        ([".hidden"], "got '.hidden'"),
        (["mine", "--from", "amber-to-amoba"], "did you mean amber-to-amoeba"),
        (["mine", "--kind", "protein"], "protein"),
    ],
)
def test_what_cannot_be_made_is_named(arguments, message, tmp_path):
    ended = nessampler("new", tmp_path / arguments[0], *arguments[1:])
    assert ended.code == 2
    assert message in ended.err
    assert not any(tmp_path.iterdir())


def test_a_name_of_the_catalogue_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = nessampler("new", "phi4-8")
    assert "nessampler run ./phi4-8 --preset smoke" in ended.out
    assert shown("./phi4-8")["kind"] == "difference"


def test_neither_command_imports_torch(tmp_path):
    code = (
        "import sys; from nessampler.cli import app\n"
        f"for words in (['show', 'amber-to-amoeba'], ['new', {str(tmp_path / 'mine')!r}]):\n"
        "    app(words, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'openmm' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
