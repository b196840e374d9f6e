"""A run from configuration to directory, on a system whose answer is known: files, contracts, truth, repeatability."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pymbar
import pytest
import torch
from command_line import Ended, nessampler
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

import nessampler as ns
from nessampler import training
from nessampler.methods.ladder import RUNGS
from nessampler.runs import catalogue
from nessampler.runs.config import load, resolve
from nessampler.runs.directory import RunDirectory
from nessampler.runs.prepared import Prepared
from nessampler.runs.result import to_dict
from nessampler.runs.target_problem import named_targets

SYSTEM = "anharmonic-wells"
# Enough for every stage to do something.
BRIEF = ["--preset", "smoke"]
for setting in ("feat.training_steps=40", "feat.sampling_steps=8", "feat.width=16", "switching_steps=4"):
    BRIEF += ["--set", f"ladder.{setting}"]

# The contract that later work and other programs rely on.
TOP = {
    "system", "kind", "method", "seed", "version", "delta_f", "rungs", "estimators", "bounds", "ess", "overlap",
    "pareto_k", "evaluations", "seconds", "reference", "z_score", "flags",
}  # fmt: skip
RUNG = {"name", "delta_f", "overlap", "ess", "pareto_k", "bounds", "evaluations", "seconds"}
DELTA_F = {"value", "std_error", "ci95", "unit"}
ESTIMATORS = {"jarzynski_forward", "jarzynski_reverse", "bar", "plain_bar"}
FILES = {"config.toml", "model.safetensors", "metrics.csv", "works.nc", "result.json", "report.html"}
WHY_NULL = {  # which flags explain a null under which key
    "temperature": {"no_temperature"},
    "delta_f_kcal_per_mol": {"no_temperature", "no_overlap"},
    "reference": {"no_reference"},
    "z_score": {"no_reference", "no_z_score", "no_overlap"},
    "pareto_k": {"no_pareto_k"},
    "bounds": {"no_bound", "no_bound_limit", "no_weighted_bound"},
    "delta_f": {"no_overlap"},
    "value": {"no_overlap", "leaves_support", "no_finite_work"},
    "std_error": {"no_overlap", "leaves_support", "no_finite_work"},
    "ci95": {"no_overlap", "leaves_support", "no_finite_work"},
}


def undrawn(*arguments: object) -> Ended:
    """`nessampler ARGUMENTS` without the figures, which take longer than all the rest here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_report", "save_figures"):
            patch.setattr(f"nessampler.runs.difference.{name}", lambda *_, **__: None)
        return nessampler(*arguments)


def read(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)


def without_seconds(table: Any) -> Any:
    if isinstance(table, dict):
        return {k: without_seconds(v) for k, v in table.items() if k != "seconds"}
    return [without_seconds(v) for v in table] if isinstance(table, list) else table


def unexplained(node: Any, flags: frozenset[str] = frozenset(), path: tuple[str, ...] = ()) -> Iterator[str]:
    """Keys that are null, or not finite, without a flag beside or above them that says why."""
    if isinstance(node, dict):
        flags |= {flag["code"] for flag in node.get("flags", ())}
        for key, value in node.items():
            if key == "pilot" and value["std_error"] is None and "no overlap" in value["note"]:
                continue
            yield from unexplained(value, flags, (*path, key))
    elif isinstance(node, list):
        for value in node:
            yield from unexplained(value, flags, path)
    elif (node is None and not any(flags & WHY_NULL.get(key, set()) for key in path)) or (
        isinstance(node, float) and not math.isfinite(node)
    ):
        yield ".".join(path)


@pytest.fixture(scope="session")
def auto(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    out = tmp_path_factory.mktemp("run") / "auto"
    return out, nessampler("run", SYSTEM, "--preset", "smoke", "--out", out, "--json")


@pytest.fixture(scope="session")
def feat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "feat"
    assert undrawn("run", SYSTEM, "--method", "feat", *BRIEF, "--out", out).code == 0
    return out


@pytest.fixture(scope="session")
def reference() -> float:
    a, b = named_targets(resolve(load(catalogue.root() / SYSTEM / "system.toml")))
    return a.log_z - b.log_z


# --- the contract ------------------------------------------------------------------------------------------------


def test_json_on_standard_output_is_exactly_the_file(auto: tuple[Path, Ended]) -> None:
    folder, ended = auto
    assert ended.code == 0
    assert ended.out == (folder / "result.json").read_text(encoding="utf-8")
    assert "ΔF =" in ended.err  # all else is on the other stream
    assert "verdict" in json.loads(ended.out)


def test_every_promised_file_is_there_and_nothing_else_is_left(auto: tuple[Path, Ended]) -> None:
    names = {path.name for path in auto[0].iterdir()}
    assert names >= FILES
    assert names - FILES == {"figures"}
    assert not [path for path in auto[0].rglob("*") if ".tmp" in path.name or ".part" in path.name]


def test_every_key_of_the_contract_is_there(auto: tuple[Path, Ended]) -> None:
    result = read(auto[0])
    assert result.keys() >= TOP
    assert (result["system"], result["kind"], result["method"], result["seed"]) == (SYSTEM, "difference", "auto", 0)
    assert [rung["name"] for rung in result["rungs"]] == list(RUNGS[: len(result["rungs"])])
    assert [rung["name"] for rung in result["rungs"] if rung["chosen"]] == [result["rung"]]
    for rung in result["rungs"]:
        assert rung.keys() >= RUNG
    for quantity in (result["delta_f"], *(r["delta_f"] for r in result["rungs"]), *result["estimators"].values()):
        assert quantity.keys() >= DELTA_F
        assert quantity["unit"] == "kT"
        low, high = quantity["ci95"]
        assert (low + high) / 2 == pytest.approx(quantity["value"])
        assert high - low == pytest.approx(2 * 1.96 * quantity["std_error"], rel=1e-4)
    assert result["estimators"].keys() == ESTIMATORS
    for bounds in (result["bounds"], *(r["bounds"] for r in result["rungs"])):
        assert bounds["lower"] < bounds["upper"]
    for pair in ("ess", "pareto_k"):
        assert result[pair].keys() == {"forward", "reverse"}
        assert all(rung[pair].keys() == {"forward", "reverse"} for rung in result["rungs"])
    assert all(0 < fraction <= 1 for rung in result["rungs"] for fraction in rung["ess"].values())
    for evaluations in (result["evaluations"], *(r["evaluations"] for r in result["rungs"])):
        assert evaluations["state_a"].keys() == evaluations["state_b"].keys() == {"endstates", "training", "sampling"}
        assert evaluations["networks"].keys() == {"training", "sampling"}
    assert result["reference"].keys() == {"value", "std_error", "source"}
    assert all(flag.keys() == {"code", "message"} for flag in result["flags"])


def test_what_is_said_of_the_run_is_that_of_its_chosen_rung(auto: tuple[Path, Ended]) -> None:
    result = read(auto[0])
    chosen = next(rung for rung in result["rungs"] if rung["chosen"])
    for key in ("delta_f", "bounds", "ess", "overlap", "pareto_k"):
        assert result[key] == chosen[key]
    bar = {key: result["estimators"]["bar"][key] for key in DELTA_F}
    assert bar == result["delta_f"]
    assert result["estimators"]["plain_bar"]["value"] == result["rungs"][0]["delta_f"]["value"]
    z = (result["delta_f"]["value"] - result["reference"]["value"]) / result["delta_f"]["std_error"]
    assert result["z_score"] == pytest.approx(z)


def test_every_number_is_finite_or_null_with_a_flag(auto: tuple[Path, Ended], feat: Path) -> None:
    assert list(unexplained(read(auto[0]))) == []
    assert list(unexplained(read(feat))) == []
    assert list(unexplained({"a": {"overlap": None}, "flags": []})) == ["a.overlap"]


class Slab:
    """Uniform on an interval: a density with an edge."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high, self.event_shape = low, high, torch.Size([1])

    def energy(self, x: Float[Tensor, "n 1"]) -> Float[Tensor, " n"]:
        inside = (x[:, 0] >= self.low) & (x[:, 0] <= self.high)
        return torch.where(inside, 0.0 * x[:, 0], torch.inf)

    def sample(self, n: int, seed: int) -> Tensor:
        uniform = torch.rand(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return self.low + (self.high - self.low) * uniform


@pytest.mark.parametrize(
    ("b", "method", "nulls"),
    [
        (Slab(0.0, 2.0), "plain", {"estimators.jarzynski_forward.value", "bounds.lower"}),
        (Slab(5.0, 6.0), "plain", {"delta_f.value", "overlap"}),
        (Slab(0.0, 1.0), "plain", {"pareto_k.forward", "z_score"}),
    ],
)
def test_what_cannot_be_known_is_null_and_flagged(b: Slab, method: Any, nulls: set[str]) -> None:
    a = Slab(0.0, 1.0)
    result = ns.free_energy(a, b, a.sample(400, 1), b.sample(400, 2), method=method)
    config = resolve(load(catalogue.root() / SYSTEM / "system.toml"))
    table = to_dict(config, Prepared(a, b, a.sample(1, 1), b.sample(1, 2)), result, {}, "0")
    json.dumps(table, allow_nan=False)
    assert list(unexplained(table)) == []
    for name in nulls - {"overlap"}:
        found: Any = table
        for key in name.split("."):
            found = found[key]
        assert found is None, name


# --- the truth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "cap"), [("plain", 0.35), ("map", 0.05), ("fields", 0.06), ("switching", 0.05), ("feat", 0.06)]
)
def test_every_method_finds_the_truth(tmp_path: Path, reference: float, method: str, cap: float) -> None:
    ended = undrawn("run", SYSTEM, "--method", method, *BRIEF, "--seed", 3, "--out", tmp_path / "run", "--json")
    result = json.loads(ended.out)
    value, error = result["delta_f"]["value"], result["delta_f"]["std_error"]
    assert error < cap
    assert abs(value - reference) < 4 * error
    assert abs(result["z_score"]) < 4
    assert result["rung"] == method
    bounds = result["bounds"]
    assert bounds["lower_limit"] < reference < bounds["upper_limit"]
    if method != "plain":
        assert abs(value + reference) > 4 * error  # the other sign of ΔF would be seen


def test_auto_finds_the_truth_and_is_trusted(auto: tuple[Path, Ended], reference: float) -> None:
    result = read(auto[0])
    value, error = result["delta_f"]["value"], result["delta_f"]["std_error"]
    assert error < 0.05
    assert abs(value - reference) < 4 * error
    assert result["rung"] != "plain"
    assert result["verdict"]["level"] == "trusted"
    assert error < result["estimators"]["plain_bar"]["std_error"] / 2.5


# --- the files ---------------------------------------------------------------------------------------------------


def test_stored_works_give_the_estimate_again(auto: tuple[Path, Ended]) -> None:
    result, data = read(auto[0]), arviz.from_netcdf(str(auto[0] / "works.nc"))
    for rung in result["rungs"]:
        prefix = "" if rung["block"] == "evaluate" else "pilot_"
        forward, reverse = (data[prefix + d][f"work_{rung['name']}"] for d in ("forward", "reverse"))
        own = f"draw_{rung['name']}"  # of a pilot that saw a part of the samples
        assert forward.dims in ([("chain", "draw")] if not prefix else [("chain", "draw"), ("chain", own)])
        assert forward.attrs["units"] == "kT"
        works = forward.values.ravel(), reverse.values.ravel()
        assert ns.bar(*works).delta_f == rung["delta_f"]["value"]
        assert ns.bar(*works).std_error == rung["delta_f"]["std_error"]
        assert pymbar.bar(*works)["Delta_f"] == pytest.approx(rung["delta_f"]["value"], abs=1e-6)
        assert np.array_equal(data[prefix + "forward"][f"log_weight_{rung['name']}"].values, -forward.values)
        assert not math.isclose(ns.bar(*works[::-1]).delta_f or 0.0, rung["delta_f"]["value"])


def test_the_report_stands_alone_and_draws_the_run(auto: tuple[Path, Ended]) -> None:
    report = (auto[0] / "report.html").read_text(encoding="utf-8")
    assert report.count("data:image/") >= 4
    assert "Two skewed quartic wells" in report
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//|/|\.)""", report)
    assert all(path.stat().st_size > 10_000 for path in (auto[0] / "figures").glob("*.png"))


def test_model_and_metrics_hold_what_was_fitted(feat: Path) -> None:
    state = load_file(feat / "model.safetensors")
    assert {"map.matrix", "map.mean_in", "map.mean_out"} <= state.keys()
    assert any(name.startswith("feat.") for name in state)
    assert all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point())
    with (feat / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {"network", "step", "loss", "validation", "held_out_error"}
    for network in {row["network"] for row in rows}:
        steps = [int(row["step"]) for row in rows if row["network"] == network]
        assert steps == sorted(steps)
        assert len(steps) > 3


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    RunDirectory(tmp_path).write_model({"whole": whole, "again": whole, "part": whole[2:]})
    found = load_file(tmp_path / "model.safetensors")
    assert [v.tolist() for v in (found["whole"], found["again"], found["part"])] == [[0, 1, 2, 3], [0, 1, 2, 3], [2, 3]]


def test_a_method_without_training_leaves_a_header_in_metrics(tmp_path: Path) -> None:
    assert undrawn("run", SYSTEM, "--method", "plain", *BRIEF, "--out", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "metrics.csv").read_text() == "step,loss\n"
    assert load_file(tmp_path / "run" / "model.safetensors") == {}


# --- again -------------------------------------------------------------------------------------------------------


def test_the_stored_configuration_repeats_the_run(feat: Path, tmp_path: Path) -> None:
    assert undrawn("run", feat / "config.toml", "--out", tmp_path / "again").code == 0
    assert without_seconds(read(tmp_path / "again")) == without_seconds(read(feat))
    assert (tmp_path / "again" / "config.toml").read_bytes() == (feat / "config.toml").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (feat / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (feat / "metrics.csv").read_bytes()


def test_another_seed_gives_another_result(feat: Path, tmp_path: Path) -> None:
    arguments = ("run", SYSTEM, "--method", "feat", *BRIEF, "--seed", 1, "--out", tmp_path / "other")
    assert undrawn(*arguments).code == 0
    one, other = read(feat), read(tmp_path / "other")
    assert other["seed"] == 1
    assert all(
        a["delta_f"]["value"] != b["delta_f"]["value"] for a, b in zip(one["rungs"], other["rungs"], strict=True)
    )


def test_a_finished_run_is_returned_as_it_is(feat: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in feat.rglob("*")}
    ended = undrawn("run", SYSTEM, "--method", "feat", *BRIEF, "--out", feat, "--resume", "--json")
    assert ended.code == 0
    assert ended.out == (feat / "result.json").read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in feat.rglob("*")} == before


@pytest.mark.parametrize("saves", [1, 3])
def test_a_run_interrupted_in_training_goes_on_to_the_same_result(
    feat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    arguments = ("run", SYSTEM, "--method", "feat", *BRIEF, "--out", tmp_path / "run")
    save, done = training._Run.save, []

    def interrupted(self: Any, *rest: Any) -> None:
        save(self, *rest)
        done.append(self.step)
        if len(done) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "save", interrupted)
        ended = undrawn(*arguments)
    assert ended.code == 130
    assert "--resume" in ended.err
    assert (tmp_path / "run" / "training.safetensors").exists()
    assert not (tmp_path / "run" / "result.json").exists()

    steps: list[int] = []
    take = training._Run.take
    monkeypatch.setattr(training._Run, "take", lambda self, *rest: (steps.append(self.step), take(self, *rest))[1])
    assert undrawn(*arguments, "--resume").code == 0
    assert steps[0] == done[-1]  # it did not start over
    assert without_seconds(read(tmp_path / "run")) == without_seconds(read(feat))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (feat / "model.safetensors").read_bytes()
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (feat / "metrics.csv").read_bytes()
    assert not (tmp_path / "run" / "training.safetensors").exists()


def test_a_run_that_failed_at_the_very_end_goes_on(feat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("run", SYSTEM, "--method", "feat", *BRIEF, "--out", tmp_path / "run")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "write_works", full)
        ended = undrawn(*arguments)
    assert ended.code == 2
    assert "No space left on device" in ended.err.splitlines()[-1]
    monkeypatch.setattr(training._Run, "take", lambda *_: pytest.fail("trained again"))
    assert undrawn(*arguments, "--resume").code == 0
    assert without_seconds(read(tmp_path / "run")) == without_seconds(read(feat))
