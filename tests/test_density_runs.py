"""A density from its file to its run directory: what is built, what is written, and that it is true."""

from __future__ import annotations

import io
import json
import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest
import tomli_w
import torch
from command_line import Ended, nessampler
from rich.cells import cell_len
from rich.console import Console
from safetensors.torch import load_file
from torch.distributions import Independent, StudentT

import nessampler as ns
from nessampler.errors import InputError
from nessampler.kernels import DenseMass, SpectralMass
from nessampler.methods.density.bases import check_proper, fitted_normal, fitted_spectrum, laplace, pilot_base
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.sample import sample_density
from nessampler.paths import LinearPath, MixturePath
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import check_density, prepare_density
from nessampler.runs.density_targets import TARGETS, build_target
from nessampler.runs.summary import render
from nessampler.targets import Gaussian
from nessampler.targets.callable import as_target
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField, Phi4

WELLS = """
name = "wells"
title = "Two lopsided modes"
kind = "density"

[target]
name = "mixture"
means = [[-2.0, 0.0], [2.0, 1.0]]
scales = [1.0, 0.7]
weights = [0.3, 0.7]

[base]
kind = "gaussian"
scale = 3.0

[sampling]
walkers = 600
pilot_walkers = 400
pilot_steps = 8
steps = 10
reverse_walkers = 300
"""
LATTICE = """
name = "tiny"
title = "A tiny lattice"
kind = "density"
target = { name = "phi4", size = 4, quartic = 0.8 }
base = { kind = "free-field", mass_squared = 1.0 }
sampling = { walkers = 300, pilot_walkers = 400, pilot_steps = 6, steps = 8 }
"""
DENSITIES = [n for n in catalogue.names() if load(catalogue.root() / n / "system.toml")["kind"] == "density"]
FILES = {"config.toml", "model.safetensors", "metrics.csv", "samples.nc", "result.json", "report.html", "figures"}
TOP = {
    "system", "title", "kind", "method", "preset", "seed", "version", "dimension", "knowledge", "log_z", "chosen",
    "verdict", "attempts", "ess", "pareto_k", "bounds", "quality", "target_samples", "evaluations", "seconds",
    "reference", "z_score", "flags",
}  # fmt: skip
ATTEMPT = {
    "name", "description", "chosen", "log_z", "walkers", "ess", "pareto_k", "bounds", "quality", "evaluations",
    "seconds", "note", "flags",
}  # fmt: skip
WHY_NULL = {  # which flags explain a null under which key
    "reference": {"no_reference"},
    "z_score": {"no_reference", "no_z_score"},
    "pareto_k": {"no_pareto_k"},
    "reverse": {"no_reverse"},
    "reverse_error": {"no_reverse"},
    "bounds": {"no_bounds", "no_bound", "no_bound_limit", "no_weighted_bound"},
    "quality": {"no_quality"},
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def system(text: str, folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "system.toml").write_text(tomli_w.dumps(tomllib.loads(text) | changes), encoding="utf-8")
    return folder


def config(text: str, *settings: str, **changes: Any) -> DensityConfig:
    found = resolve(tomllib.loads(text) | changes, settings=settings)
    assert isinstance(found, DensityConfig)
    return found


def of(name: str, preset: str = "quick") -> DensityConfig:
    found = resolve(load(catalogue.root() / name / "system.toml"), preset=preset)
    assert isinstance(found, DensityConfig)
    return found


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def unexplained(node: Any, flags: frozenset[str] = frozenset(), path: tuple[str, ...] = ()) -> Iterator[str]:
    """Keys that are null without a flag beside or above them that says why."""
    if isinstance(node, dict):
        flags |= {flag["code"] for flag in node.get("flags", ())}
        for key, value in node.items():
            yield from unexplained(value, flags, (*path, key))
    elif isinstance(node, list):
        for value in node:
            yield from unexplained(value, flags, path)
    elif node is None and not any(flags & WHY_NULL.get(key, set()) for key in path):
        yield ".".join(path)


def without_seconds(table: Any) -> Any:
    if isinstance(table, dict):
        return {k: without_seconds(v) for k, v in table.items() if k != "seconds"}
    return [without_seconds(v) for v in table] if isinstance(table, list) else table


def undrawn(*arguments: object) -> Ended:
    """`nessampler ARGUMENTS` without the figures."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_report", "save_figures"):
            patch.setattr(f"nessampler.runs.density.{name}", lambda *_, **__: None)
        return nessampler(*arguments)


@pytest.fixture(scope="module")
def wells(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    here = tmp_path_factory.mktemp("wells")
    reference = {"value": 0.0, "std_error": 0.0, "source": "normalised"}
    folder = system(WELLS, here / "mine", reference=reference)
    return here / "run", nessampler("run", folder, "--method", "ais", "--out", here / "run", "--json")


@pytest.fixture(scope="module")
def lattice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("lattice")
    assert nessampler("run", system(LATTICE, here / "mine"), "--method", "lsq", "--out", here / "run").code == 0
    return here / "run"


# --- a run -------------------------------------------------------------------------------------------------------


def test_every_promised_file_is_there_and_json_is_the_file(wells: tuple[Path, Ended]) -> None:
    folder, ended = wells
    assert ended.code == 0
    assert ended.out == (folder / "result.json").read_text(encoding="utf-8")
    assert "log Z =" in ended.err
    assert {path.name for path in folder.iterdir()} == FILES


def test_every_key_of_the_contract_is_there_and_every_null_has_its_flag(
    wells: tuple[Path, Ended], lattice: Path
) -> None:
    for folder, name in ((wells[0], "ais"), (lattice, "lsq")):
        result = read(folder)
        assert result.keys() >= TOP
        assert result["kind"] == "density"
        assert result["chosen"] == name
        for attempt in result["attempts"]:
            assert attempt.keys() >= ATTEMPT
            assert attempt["log_z"].keys() >= {"value", "std_error", "ci95"}
            assert attempt["ess"].keys() == {"forward", "forward_error", "reverse", "reverse_error"}
        chosen = next(a for a in result["attempts"] if a["chosen"])
        assert all(result[key] == chosen[key] for key in ("log_z", "ess", "bounds", "quality", "pareto_k"))
        assert all(flag.keys() == {"code", "message"} for flag in result["flags"])
        assert list(unexplained(result)) == []
        assert result["evaluations"]["target"]["sampling"]["gradient"] > 0
    assert list(unexplained({"bounds": None, "flags": []})) == ["bounds"]  # negative control


def test_a_run_finds_the_truth_within_its_errors_and_bounds(wells: tuple[Path, Ended]) -> None:
    result = read(wells[0])
    value, error = result["log_z"]["value"], result["log_z"]["std_error"]
    assert error < 0.05
    assert abs(value) < 4 * error
    assert result["z_score"] == pytest.approx(value / error)
    assert result["bounds"]["lower_limit"] < 0 < result["bounds"]["upper_limit"]
    assert result["bounds"]["lower"] < result["bounds"]["upper"]
    assert result["target_samples"] == "exact"
    assert 0.2 < result["ess"]["forward"] <= 1
    assert 0 < result["ess"]["forward_error"] < 0.1


def test_stored_walkers_and_draws_give_the_averages_of_the_target(wells: tuple[Path, Ended]) -> None:
    result, data = read(wells[0]), arviz.from_netcdf(str(wells[0] / "samples.nc"))
    x, log_weight = data["walkers"]["x"].values[0], data["sample_stats"]["log_weight"].values[0]
    assert x.shape == (600, 2)
    weight = np.exp(log_weight - log_weight.max())
    assert weight.sum() ** 2 / np.square(weight).sum() / 600 == pytest.approx(result["ess"]["forward"])
    exact = 0.3 * -2.0 + 0.7 * 2.0
    mean = np.average(x[:, 0], weights=weight)
    error = np.sqrt(np.square(weight * (x[:, 0] - mean)).sum()) / weight.sum()
    assert error < 0.2
    assert abs(mean - exact) < 4 * error
    assert abs(x[:, 0].mean() + exact) > 4 * error  # negative control: the other sign would be seen
    assert data["posterior"]["x"].shape == (4, 150, 2)
    draws = data["posterior"]["x"].values.reshape(-1, 2)
    assert {tuple(row) for row in draws} <= {tuple(row) for row in x}
    assert abs(draws[:, 0].mean() - mean) < 4 * error


def test_the_ess_of_fresh_walkers_carries_no_doubt_about_them(wells: tuple[Path, Ended]) -> None:
    for attempt in read(wells[0])["attempts"]:
        assert "dependent_walkers" not in {flag["code"] for flag in attempt["flags"]}


def test_a_solved_drift_is_stored_and_its_quality_reported(lattice: Path) -> None:
    state, quality = load_file(lattice / "model.safetensors"), read(lattice)["quality"]
    assert state
    assert all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point())
    assert len(quality["r_squared"]) == len(quality["times"]) > 2
    assert max(quality["r_squared"]) > 0.5
    assert len(quality["times"]) - 1 <= len(quality["acceptance"]) <= len(quality["times"])


def test_the_report_stands_alone_and_opens_with_the_answer(wells: tuple[Path, Ended], lattice: Path) -> None:
    for folder, panels in ((wells[0], ("Log-weights", "Samples")), (lattice, ("Magnetisation", "Two-point function"))):
        report, value = (folder / "report.html").read_text(encoding="utf-8"), read(folder)["log_z"]["value"]
        assert "log Z is <strong>" in report
        assert report.index(f"{value:.1f}"[:-1]) < report.index("<h2")
        for panel in (*panels, "Along the path", "Estimates", "Cost"):
            assert f"<h3>{panel}</h3>" in report
        assert report.count("data:image/svg+xml") == len(list((folder / "figures").glob("*.png"))) >= 5
        assert "<script" not in report
        assert "nessampler run" in report


def test_the_stored_configuration_repeats_the_run(wells: tuple[Path, Ended], tmp_path: Path) -> None:
    assert undrawn("run", wells[0] / "config.toml", "--out", tmp_path / "again").code == 0
    assert without_seconds(read(tmp_path / "again")) == without_seconds(read(wells[0]))
    again = undrawn("run", wells[0] / "config.toml", "--seed", 1, "--out", tmp_path / "other")
    assert again.code == 0
    assert read(tmp_path / "other")["log_z"]["value"] != read(wells[0])["log_z"]["value"]


def test_a_finished_run_is_returned_as_it_is(wells: tuple[Path, Ended]) -> None:
    before = {path: path.stat().st_mtime_ns for path in wells[0].rglob("*")}
    ended = undrawn("run", wells[0] / "config.toml", "--out", wells[0], "--resume", "--json")
    assert ended.out == wells[1].out
    assert {path: path.stat().st_mtime_ns for path in wells[0].rglob("*")} == before


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_fits_the_terminal_and_tells_the_answer(wells: tuple[Path, Ended], width: int) -> None:
    stream = io.StringIO()
    render(read(wells[0]), "runs/wells", Console(file=stream, width=width))
    text = stream.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    assert "\x1b" not in text
    for said in ("log Z = ", "▶ ais", "≤ log Z ≤", "samples of the target: exact", "runs/wells/report.html"):
        assert said in text
    raw = io.BytesIO()
    plain = io.TextIOWrapper(raw, encoding="ascii")
    render(read(wells[0]), None, Console(file=plain, width=width))
    plain.flush()
    assert "log Z = " in raw.getvalue().decode("ascii")


# --- from the file to the problem --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_of_the_catalogue_is_valid_in_every_preset(name: str) -> None:
    for preset in ("smoke", "quick", "full"):
        chosen = of(name, preset)
        assert (chosen.name, chosen.run.preset) == (name, preset)
    target = check_density(of(name), catalogue.root() / name)
    reference = of(name).reference
    if reference is not None and hasattr(target, "log_z"):
        assert reference.value == pytest.approx(target.log_z, abs=1e-9)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        assert not hasattr(target, "log_z")


def test_the_catalogue_has_the_promised_densities() -> None:
    assert set(DENSITIES) >= {
        "gmm-40", "gmm-40-linear", "gmm-50d", "gmm-200d", "gmm-200d-linear", "phi4-8", "phi4-16", "phi4-20", "phi4-32",
        "phi4-64", "phi4-128", "phi4-8-ordered", "phi4-16-ordered", "phi4-20-ordered", "phi4-32-ordered", "phi4-3d-8",
        "funnel-10", "many-well-32", "student-50d", "logistic", "lgcp-1600",
    }  # fmt: skip


def test_knowledge_of_the_modes_is_owned_up_to_even_where_the_file_is_silent() -> None:
    here = catalogue.root()
    for name in ("gmm-40", "gmm-50d", "gmm-200d"):
        assert prepare_density(of(name), here / name).problem.knowledge == "the modes"
    for name in ("gmm-40-linear", "phi4-8", "logistic"):
        assert prepare_density(of(name), here / name).problem.knowledge == ""
    for name in ("phi4-8-ordered", "phi4-32-ordered"):
        assert prepare_density(of(name, "smoke"), here / name).problem.knowledge == ""
        told = resolve(load(here / name / "system.toml"), settings=["base.magnetisation=0.66"])
        assert prepare_density(told, here / name).problem.knowledge == "the magnetisation"  # pyright: ignore[reportArgumentType]
    told = config(WELLS, "base={kind='mixture', scale=1.0}")
    assert told.knowledge == ""
    assert prepare_density(told, Path()).problem.knowledge == "the modes"


def test_tables_of_the_file_become_base_path_and_mass() -> None:
    mixture = prepare_density(config(WELLS, "path.kind=mixture"), Path()).problem
    assert isinstance(mixture.path, MixturePath)
    assert mixture.path.start_scale == 3.0
    field = prepare_density(config(LATTICE, "numerics.dtype=float32"), Path()).problem
    assert isinstance(field.path.start, FreeField)
    assert isinstance(field.mass, SpectralMass)
    assert field.dtype == torch.float32
    assert (field.target_samples, field.origin) == (None, None)
    prepared = prepare_density(config(WELLS, "base.kind=pilot", "base.steps=20"), Path())
    assert isinstance(prepared.problem.path.start, Normal)
    assert prepared.evaluations.gradient >= 256 * 20 * 5  # what the base cost is counted
    posterior = prepare_density(of("logistic"), catalogue.root() / "logistic")
    assert isinstance(posterior.problem.mass, DenseMass)
    assert posterior.evaluations.gradient > 0


def test_couplings_one_by_one_lead_to_the_same_log_z() -> None:
    effort = DensityEffort(walkers=1500, pilot_walkers=800, pilot_steps=8, steps=10, reverse_walkers=0)
    both = []
    for kind in ("linear", "couplings"):
        problem = prepare_density(config(LATTICE, f"path.kind={kind}"), Path()).problem
        assert isinstance(problem.path, LinearPath) == (kind == "linear")
        both.append(sample_density(problem, method="lsq", seed=1, effort=effort).log_z)
    one, other = both
    assert one.value is not None
    assert other.value is not None
    assert one.std_error is not None
    assert other.std_error is not None
    assert abs(one.value - other.value) < 4 * math.hypot(one.std_error, other.std_error) < 0.05


def test_every_target_can_be_named_and_its_parameters_reach_it() -> None:
    minimal: dict[str, dict[str, Any]] = {
        "mixture": {"means": [[0.0]], "scales": [1.0]},
        "random-mixture": {"modes": 2, "dimension": 3, "scale": 1.0, "spread": 2.0},
        "student-mixture": {"means": [[0.0, 1.0]]},
        "ring": {"radius": 2.0, "width": 0.4},
        "phi4": {"size": 4, "quartic": 1.0, "dimensions": 3},
        "phi4-umbrella": {"size": 4, "quartic": 1.0, "stiffness": 5.0, "center": 0.6},
        "curie-weiss": {"spins": 3, "stiffness": 1.0, "coupling": 1.0},
        "lennard-jones": {"atoms": 3},
    }
    data = {"logistic": {"data": "ionosphere.csv"}, "cox": {"data": "fpines.csv", "cells": 4}}
    folder = {"logistic": catalogue.root() / "logistic", "cox": catalogue.root() / "lgcp-1600"}
    for name in set(TARGETS) - {"python"}:  # which has a callable to find: tests/test_safety.py
        target = build_target(name, minimal.get(name, data.get(name, {})), folder.get(name, Path()))
        x = 2 * torch.randn(4, *target.event_shape, generator=seeded(7), dtype=torch.float64)
        assert bool(torch.isfinite(target.energy(x)).all())
    assert build_target("phi4", minimal["phi4"], Path()).event_shape == (4, 4, 4)
    with pytest.raises(InputError, match=r"unknown parameter `target.scal`; did you mean `scale`"):
        build_target("random-mixture", minimal["random-mixture"] | {"scal": 1.0}, Path())
    with pytest.raises(InputError, match="gmm-40 takes none"):
        build_target("gmm-40", {"modes": 3}, Path())
    with pytest.raises(InputError, match="rows of one length"):
        build_target("mixture", {"means": [[0.0], [1.0, 2.0]], "scales": [1.0, 1.0]}, Path())


def test_the_data_of_a_density_travel_with_the_run(tmp_path: Path) -> None:
    small = ["walkers=64", "pilot_walkers=64", "steps=3", "reverse_walkers=0"]
    settings = [word for setting in small for word in ("--set", f"sampling.{setting}")]
    assert undrawn("run", "logistic", "--method", "ais", *settings, "--out", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "ionosphere.csv").exists()
    assert undrawn("run", tmp_path / "run" / "config.toml", "--out", tmp_path / "again").code == 0
    assert without_seconds(read(tmp_path / "again")) == without_seconds(read(tmp_path / "run"))


def test_a_learned_base_is_fitted_by_counted_particles_and_tells_its_choice() -> None:
    told: list[str] = []
    chosen = config(WELLS, "base={kind='learned', wide_scale=3.0, pilots=512, rounds=0}")
    prepared = prepare_density(chosen, Path(), say=told.append)
    assert prepared.evaluations.gradient > 512 * 5
    assert any(line.startswith("base 1: ") for line in told)
    x = prepared.problem.path.start.sample(2000, generator=torch.Generator().manual_seed(0))  # pyright: ignore[reportAttributeAccessIssue]
    weight = prepared.problem.path.start.energy(x) - prepared.problem.target.energy(x)
    assert float(weight.exp().sum() ** 2 / (2 * weight).exp().sum()) > 0.3 * len(x)
    with pytest.raises(InputError, match="a Learned base is for vectors: got phi4"):
        prepare_density(config(LATTICE, "base={kind='learned', wide_scale=3.0}"), Path())


def test_a_base_about_the_modes_is_found_by_counted_searches_and_needs_no_telling() -> None:
    told: list[str] = []
    chosen = config(WELLS, "base={kind='laplace-mixture', wide_scale=3.0, starts=40, inflation=1.2}")
    prepared = prepare_density(chosen, Path(), say=told.append)
    assert prepared.problem.knowledge == ""
    assert prepared.evaluations.gradient > 40 * 3
    assert told[0].startswith("40 searches found ")
    x = prepared.problem.path.start.sample(2000, generator=torch.Generator().manual_seed(0))  # pyright: ignore[reportAttributeAccessIssue]
    weight = prepared.problem.path.start.energy(x) - prepared.problem.target.energy(x)
    assert float(weight.exp().sum() ** 2 / (2 * weight).exp().sum()) > 0.3 * len(x)
    with pytest.raises(InputError, match="a Laplace-mixture base is for vectors: got phi4"):
        prepare_density(config(LATTICE, "base={kind='laplace-mixture', wide_scale=3.0}"), Path())


# --- bases -------------------------------------------------------------------------------------------------------


def test_a_laplace_base_of_a_normal_is_that_normal() -> None:
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    normal = Normal(torch.tensor([1.0, -3.0]), covariance)
    base = laplace(normal, inflation=1.5).target
    assert isinstance(base, Normal)
    torch.testing.assert_close(base.mean, normal.mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(base.cholesky @ base.cholesky.T, 2.25 * covariance)


def test_a_normal_is_normalised_and_drawn_as_it_says() -> None:
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    normal = Normal(torch.tensor([1.0, -3.0], dtype=torch.float64), covariance)
    expected = torch.distributions.MultivariateNormal(normal.mean, covariance)
    x = normal.sample(20_000, generator=seeded(1))
    torch.testing.assert_close(normal.energy(x[:9]), -expected.log_prob(x[:9]))
    point = x[:3].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(-expected.log_prob(point).sum(), point)
    torch.testing.assert_close(normal.energy_and_score(x[:3])[1], -gradient)
    assert float((torch.cov(x.T) - covariance).abs().max()) < 4 * 2 * math.sqrt(2 / 20_000)
    torch.testing.assert_close(normal.laplacian(x[:1]), torch.linalg.inv(covariance).trace()[None])
    with pytest.raises(InputError, match="positive definite"):
        Normal(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


def test_a_fitted_spectrum_is_that_of_the_field_it_was_drawn_from() -> None:
    field = FreeField.massive(6, mass_squared=0.5)
    base = fitted_spectrum(field.sample(20_000, generator=seeded(2))).target
    assert isinstance(base, FreeField)
    assert float((base.precision / field.precision - 1).abs().max()) < 4 * math.sqrt(2 / 20_000)
    assert abs(base.log_z - field.log_z) < 0.1
    other = FreeField.massive(6, mass_squared=0.6)
    assert float((base.precision / other.precision - 1).abs().max()) > 0.05  # negative control


def test_pilot_chains_find_the_width_of_a_target() -> None:
    target = Gaussian(torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0]))
    base = pilot_base(target, steps=60, inflation=1.0, generator=seeded(3)).target
    assert isinstance(base, Normal)
    assert float((base.mean - target.mean).abs().max()) < 0.3
    torch.testing.assert_close(base.cholesky.diagonal().float(), target.scale, rtol=0.15, atol=0)
    assert isinstance(pilot_base(Phi4(4, quartic=0.9), lattice=True, steps=10, generator=seeded(4)).target, FreeField)
    samples = fitted_normal(torch.randn(500, 3, 2, generator=seeded(5))).target
    assert samples.event_shape == (3, 2)


def test_an_improper_density_is_found_by_the_pilot() -> None:
    class Slope:
        event_shape = torch.Size([1])

        def energy(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0]

    with pytest.raises(InputError, match="not to be normalisable"):
        pilot_base(Slope(), generator=seeded(6))


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("log_density", [lambda x: 0 * x.sum(-1), lambda x: -x[:, 1]])
def test_an_improper_density_is_found_whoever_gives_the_base(log_density, given: bool) -> None:
    base = Gaussian(torch.zeros(2), torch.ones(2)) if given else None
    with pytest.raises(InputError, match="not to be normalisable; check that its energy grows in every direction"):
        ns.sample(log_density, dim=2, method="ais", base=base, effort=BRIEF)


@pytest.mark.parametrize("scale", [None, 1.0, 10.0])
def test_a_density_that_is_flat_along_one_line_is_not_trusted(scale: float | None) -> None:
    """The other directions keep steps short: chains wander and do not run away."""
    base = None if scale is None else Gaussian(torch.zeros(2), torch.full((2,), scale))
    found = ns.sample(lambda x: -0.5 * x[:, 0].square(), dim=2, method="ais", base=base, effort=BRIEF)
    assert found.verdict.level == "not trusted"


def test_heavy_tails_are_no_improper_density() -> None:
    for freedom in (1.0, 2.0):
        cauchy = StudentT(torch.full((2,), freedom, dtype=torch.float64))
        check_proper(as_target(Independent(cauchy, 1)), Gaussian(torch.zeros(2), torch.ones(2)), generator=seeded(7))


# --- one call ----------------------------------------------------------------------------------------------------

BRIEF = DensityEffort(walkers=600, pilot_walkers=300, pilot_steps=6, steps=8, reverse_walkers=200)


def test_one_call_samples_a_callable_and_a_distribution() -> None:
    found = ns.sample(lambda x: -0.5 * (x - 2.0).square().sum(-1) / 0.25, dim=2, method="ais", effort=BRIEF, seed=1)
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert found.log_z.std_error < 0.05
    assert abs(found.log_z.value - math.log(2 * math.pi * 0.25)) < 4 * found.log_z.std_error + 1e-3
    mean, error = found.expect(lambda x: x[:, 0])
    assert abs(float(mean) - 2.0) < 4 * float(error)
    normal = ns.sample(torch.distributions.Normal(torch.zeros(2), 2.0), method="ais", effort=BRIEF)
    assert normal.log_z.value is not None
    assert abs(normal.log_z.value) < 0.1
    assert normal.origin_of_target_samples == "exact"


@pytest.mark.parametrize(
    ("density", "options", "said"),
    [
        (lambda x: -x.square().sum(-1), {}, "needs the shape of one point"),
        (lambda x: -x.square().sum(), {"dim": 2}, "batched"),
        (lambda x: x.sqrt().sum(-1), {"dim": 2}, "must be a number"),
        (torch.distributions.Poisson(torch.ones(2)), {}, "discrete"),
        (lambda x: -x.square().sum(-1), {"dim": 2, "base": object()}, "must have `sample"),
    ],
)
def test_one_call_refuses_what_cannot_be_sampled(density: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ns.sample(density, effort=BRIEF, **options)


def test_a_run_by_parallel_tempering_says_that_its_draws_are_correlated(tmp_path: Path) -> None:
    folder = system(LATTICE, tmp_path / "mine", sampling={"walkers": 160, "steps": 8})
    ended = nessampler("run", folder, "--method", "pt", "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert "ESS: effective part of correlated draws" in ended.out
    result = read(tmp_path / "run")
    (attempt,) = result["attempts"]
    assert attempt["diagnostics"].keys() == {"swap_acceptance", "round_trips", "rhat"}
    assert list(unexplained(result)) == []
    assert "dependent_walkers" in {flag["code"] for flag in attempt["flags"]}
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "of 160 draws of the target, which are correlated and have no weights" in report
