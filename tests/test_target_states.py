"""States of a difference that are densities by name: what is refused, exact samples and chains, and the answer."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Ended, nessampler

from nessampler.errors import InputError
from nessampler.methods.difference import free_energy
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ladder import RUNGS
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, TargetState, load, resolve, write
from nessampler.runs.target_problem import check_targets, prepare_targets
from nessampler.targets.lennard_jones import LennardJonesCluster, pair_sums
from nessampler.targets.phi4 import Phi4

WELLS = """
name = "pair"
title = "Two atoms"
kind = "difference"

[state_a]
label = "trap"
target = { name = "lennard-jones", atoms = 2, strength = 0.0 }

[state_b]
label = "pair"
target = { name = "lennard-jones", atoms = 2, strength = 0.5 }
relative_cost = 2.0

[samples]
a = 2000

[chains]
chains = 40
equilibration = 100
draws = 50
interval = 4
leapfrog_steps = 6
step_size = 0.3

[ladder]
switching_steps = 4
tuning_samples = 40
feat = { training_steps = 30, sampling_steps = 16, width = 16, depth = 1 }
"""
"""A is sampled exactly, B by chains; the interaction changes the distance alone, so a quadrature knows the answer."""


def pair(*settings: str, **changes: Any) -> DifferenceConfig:
    config = resolve(tomllib.loads(WELLS) | changes, settings=settings)
    assert isinstance(config, DifferenceConfig)
    return config


def exact(strength: float) -> float:
    """ΔF by the trapezoidal rule over the distance, pair energy as documented: ordered pairs, so twice."""
    r = torch.linspace(1e-3, 15, 300_001, dtype=torch.float64)
    sixth = (strength / r).pow(6)
    free = r.square() * (-0.25 * r.square()).exp()
    bound = free * (-8 * strength * (sixth * sixth - sixth)).exp()
    return -math.log(float(torch.trapezoid(bound, r) / torch.trapezoid(free, r)))


def undrawn(*arguments: object) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nessampler.runs.difference.save_figures", lambda *_, **__: None)
        return nessampler(*arguments)


def written(folder: Path, text: str = WELLS) -> Path:
    folder.mkdir()
    (folder / "system.toml").write_text(text)
    return folder


# --- the answer --------------------------------------------------------------------------------------------------


def test_a_run_from_exact_samples_and_chains_finds_the_exact_difference(tmp_path: Path) -> None:
    ended = undrawn("run", written(tmp_path / "pair"), "--method", "map", "--seed", 5, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    value, error = result["delta_f"]["value"], result["delta_f"]["std_error"]
    assert abs(value - exact(0.5)) < 4 * error
    assert error < 0.03
    assert abs(value - exact(0.7)) > 6 * error  # negative control: the atoms of another target
    ends = result["endstates"]
    assert (ends["state_a"]["frames"], ends["state_b"]["frames"]) == (2000, 40 * 50)
    assert ends["state_b"]["r_hat"] < 1.1
    assert ends["state_b"]["acceptance"] > 0.5
    # One gradient to start, one per leapfrog step of every chain, and what tells whether they are samples of B:
    # energies of the first samples of both ends, and Stein's identity.
    spent = result["evaluations"]["state_b"]["endstates"]
    assert (spent["energy"], spent["gradient"]) == (16 + 200, 40 * (1 + 6 * (100 + 50 * 4)) + 800)
    assert result["evaluations"]["state_a"]["endstates"] == {"energy": 16 + 200, "gradient": 800}
    assert "chains of state B" in ended.err + ended.out or "Hamiltonian chains" in ended.err + ended.out


def test_two_exact_ends_give_independent_samples_and_the_exact_difference() -> None:
    weak, strong = ({"name": "curie-weiss", "spins": 3, "stiffness": 2.0, "coupling": c} for c in (0.2, 0.6))
    states = {"state_a": {"label": "weak", "target": weak}, "state_b": {"label": "strong", "target": strong}}
    config = pair(**states)
    prepared = prepare_targets(config, Path())
    assert prepared.samples_a.shape == (2000, 3)
    assert (prepared.evaluations[1].gradient, tuple(prepared.flags)) == (0, ())
    result = free_energy(
        prepared.target_a, prepared.target_b, prepared.samples_a, prepared.samples_b, method="plain"
    ).delta_f
    known = prepared.target_a.log_z - prepared.target_b.log_z  # pyright: ignore[reportAttributeAccessIssue]
    assert result.delta_f is not None
    assert result.std_error is not None
    assert abs(result.delta_f - known) < 4 * result.std_error
    assert result.std_error < 0.05 < abs(known)


def test_chains_are_repeated_by_their_seed_alone_and_tell_how_far_they_are() -> None:
    told: list[tuple[int, int, str]] = []
    short = pair("chains.draws=10", "chains.equilibration=20")
    first = prepare_targets(short, Path(), progress=lambda *at: told.append(at))
    assert told[0][:2] == (1, 60)
    assert told[-1] == (60, 60, "chains of state B")
    assert torch.equal(first.samples_b, prepare_targets(short, Path()).samples_b)
    other = prepare_targets(pair("chains.draws=10", "chains.equilibration=20", "run.seed=1"), Path())
    assert not torch.equal(first.samples_b, other.samples_b)
    assert first.samples_a.shape == (1, 2000, 2, 3)  # beside chains, independent draws count as one of them
    assert first.samples_b.shape == (40, 10, 2, 3)


def test_chains_that_have_not_mixed_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lattice deep in its ordered phase: chains keep the sign that they started with, unless they may reverse."""
    ordered = {"label": "ordered", "target": {"name": "phi4", "size": 4, "quartic": 0.1, "mass_squared": -1.0}}
    short = ("chains.equilibration=20", "chains.interval=1", "chains.draws=20")
    with monkeypatch.context() as patch:
        patch.delattr(Phi4, "mirror")
        prepared = prepare_targets(pair(*short, state_a=ordered, state_b=ordered), Path())
    assert {"chains_disagree"} <= {flag.code for flag in prepared.flags}
    assert {flag.message[:7] for flag in prepared.flags} == {"state A", "state B"}
    assert prepared.endstates["state_b"]["r_hat"] > 1.5
    crossing = prepare_targets(pair(*short, "chains.equilibration=60", state_a=ordered, state_b=ordered), Path())
    assert crossing.endstates["state_b"]["r_hat"] < 1.2
    mixed = prepare_targets(pair(), Path())
    assert (mixed.flags, mixed.endstates["state_b"]["r_hat"] < 1.1) == ((), True)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["state_b.target.name=rign"], r"`state_b.target.name` must be one of.*did you mean ring\?"),
        (["state_b.target.atom=2"], r"unknown parameter `state_b.target.atom`; did you mean `atoms`\?"),
        (["state_a.target.strength=-1.0"], "strength >= 0"),
        (["state_b.target.atoms=3"], "same coordinates: A has 2 × 3, B has 3 × 3; name two densities"),
        (["state_b.target={name = 'funnel', dimension = 3}"], "A has 2 × 3, B has 3"),
        (["state_b.target={name = 'logistic', data = 'absent.csv'}"], "absent.csv does not exist"),
        (["chains.chains=2", "chains.draws=8"], "at least 10 samples: state B gives 2 chains of 8 draws"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path: Path, settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_targets(pair(*settings), tmp_path)
    words = [word for setting in settings for word in ("--set", setting)]
    ended = undrawn("run", written(tmp_path / "pair"), *words, "--out", tmp_path / "run")
    assert ended.code != 0
    assert not (tmp_path / "run").exists()


def test_a_density_without_exact_samples_needs_chains() -> None:
    given = tomllib.loads(WELLS)
    del given["chains"]
    config = resolve(given)
    assert isinstance(config, DifferenceConfig)
    with pytest.raises(InputError, match=r"state B \(pair\) has neither; add a table \[chains\]"):
        check_targets(config, Path())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["state_b.target.name=3"], "`state_b.target.name`"),
        (["state_b.tarjet=3"], r"unknown key `state_b.tarjet`; did you mean `target`\?"),
        (["chains.draws=3"], "chains.draws.*greater than or equal to 8"),
        (["chains.drows=3"], r"unknown key `chains.drows`; did you mean `draws`\?"),
        (["state_b.force_field=['x.xml']"], r"unknown key `state_b.force_field`"),
    ],
)
def test_a_bad_table_is_refused_by_name(settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        pair(*settings)


def test_a_density_and_a_molecule_make_no_difference() -> None:
    molecule = {"label": "pair", "force_field": ["x.xml"], "structure": "x.pdb"}
    with pytest.raises(InputError, match="of one kind"):
        pair(state_b=molecule)


def test_a_resolved_file_of_targets_read_back_is_equal(tmp_path: Path) -> None:
    config = pair("state_b.target.trap=2.5")
    assert isinstance(config.state_b, TargetState)
    assert config.state_b.target.parameters == {"atoms": 2, "strength": 0.5, "trap": 2.5}
    write(config, tmp_path / "config.toml")
    assert resolve(load(tmp_path / "config.toml")) == config


def test_the_data_of_a_state_travel_with_the_run() -> None:
    config = pair("state_b.target={name = 'logistic', data = 'points.csv'}")
    assert config.files == ("points.csv",)


# --- walkers that are no vectors ---------------------------------------------------------------------------------


def test_every_rung_runs_on_particles_and_agrees_with_quadrature() -> None:
    """Two atoms with a weak interaction: their distance is the only thing that it changes."""
    trap, pair_ = LennardJonesCluster(2, strength=0.0), LennardJonesCluster(2, strength=0.5)
    draws = trap.sample(20_000, generator=torch.Generator().manual_seed(1))
    keep = torch.rand(len(draws), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight = (trap.energy(draws) - pair_.energy(draws)).exp()
    bound = math.exp(2 * 0.5)  # two atoms of strength λ lie at -2 λ at least
    accepted = draws[keep < weight / bound]
    effort = Effort(switching_steps=3, tuning_samples=40, feat=Training(steps=10, width=8, depth=1, sampling_steps=8))
    result = free_energy(trap, pair_, draws[:1000], accepted[:1000], effort=effort)
    assert [rung.name for rung in result.rungs] == list(RUNGS[: len(result.rungs)])
    for rung in result.rungs[:2]:
        assert rung.estimate.delta_f is not None
        assert rung.estimate.std_error is not None
        assert abs(rung.estimate.delta_f - exact(0.5)) < 4 * rung.estimate.std_error
        assert rung.estimate.std_error < 0.1


def test_rungs_with_steps_run_on_lattices() -> None:
    """Two nearly Gaussian fields; plain BAR is the witness."""
    a, b = Phi4(4, quartic=0.02, mass_squared=1.0), Phi4(4, quartic=0.03, mass_squared=1.2)
    config = pair(
        "chains.equilibration=40",
        "chains.interval=2",
        state_a={"label": "a", "target": {"name": "phi4", "size": 4, "quartic": 0.02, "mass_squared": 1.0}},
        state_b={"label": "b", "target": {"name": "phi4", "size": 4, "quartic": 0.03, "mass_squared": 1.2}},
    )
    prepared = prepare_targets(config, Path())
    assert prepared.samples_a.shape == (40, 50, 4, 4)
    effort = Effort(switching_steps=3, tuning_samples=40, feat=Training(steps=10, width=8, depth=1, sampling_steps=8))
    for method in ("switching", "feat"):
        found = free_energy(a, b, prepared.samples_a, prepared.samples_b, method=method, effort=effort)
        rung, witness = found.delta_f, found.estimators["plain_bar"]
        assert rung.delta_f is not None
        assert witness.delta_f is not None
        assert rung.std_error is not None
        assert witness.std_error is not None
        assert abs(rung.delta_f - witness.delta_f) < 4 * math.hypot(rung.std_error, witness.std_error)
        assert rung.std_error < 0.3


# --- clusters ----------------------------------------------------------------------------------------------------


def test_the_trap_alone_is_sampled_exactly_and_its_constant_known() -> None:
    trap = LennardJonesCluster(4, strength=0.0, trap=2.5)
    x = trap.sample(4000, generator=torch.Generator().manual_seed(0))
    assert abs(float(x.var()) - 0.4) < 4 * 0.4 * math.sqrt(2 / x.numel())
    assert trap.log_z == pytest.approx(6 * math.log(2 * math.pi / 2.5))
    for other in (LennardJonesCluster(4), LennardJonesCluster(4, strength=0.0, free_center=True)):
        assert not hasattr(other, "sample")


def test_heaps_to_start_from_have_no_touching_atoms_and_differ() -> None:
    cluster = LennardJonesCluster(38, strength=0.7)
    x = cluster.start(6, generator=torch.Generator().manual_seed(0))
    assert min(float(torch.pdist(heap).min()) for heap in x) > 0.7
    assert float((x[0] - x[1]).abs().max()) > 0.7
    assert bool((cluster.energy(x) < 38 * 10).all())


def test_sums_over_pairs_give_slope_and_energies_at_other_strengths() -> None:
    cluster = LennardJonesCluster(9, strength=0.8)
    x = cluster.start(700, generator=torch.Generator().manual_seed(3))  # more than are held at once
    sums = pair_sums(x, torch.full((700,), 0.8, dtype=torch.float64))
    other = 8 * 0.5 * (sums.repulsion * (0.5 / 0.8) ** 12 - sums.attraction * (0.5 / 0.8) ** 6)
    expected = LennardJonesCluster(9, strength=0.5).energy(x) - 0.5 * x.square().sum((1, 2))
    torch.testing.assert_close(other, expected)
    h = 1e-5
    above, below = (LennardJonesCluster(9, strength=0.8 + d).energy(x) for d in (h, -h))
    slope = 8 * (13 * sums.repulsion - 7 * sums.attraction)
    torch.testing.assert_close(slope, (above - below) / (2 * h), rtol=1e-6, atol=1e-5)
    assert not bool(sums.overlap.any())


def test_the_smallest_cluster_of_the_catalogue_runs_end_to_end(tmp_path: Path) -> None:
    ended = undrawn("run", "lj-13", "--preset", "smoke", "--method", "map", "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["delta_f"]["value"] is None  # no map of coordinates makes a liquid of a gas
    assert "no_overlap" in {flag["code"] for flag in result["flags"]}
    assert result["endstates"]["state_b"]["acceptance"] > 0.5


@pytest.mark.parametrize("atoms", [13, 38, 55, 79])
def test_clusters_of_the_catalogue_are_the_published_pair_of_states(atoms: int) -> None:
    name = f"lj-{atoms}"
    config = resolve(load(catalogue.root() / name / "system.toml"))
    assert isinstance(config, DifferenceConfig)
    a, b = check_targets(config, catalogue.root() / name)
    assert isinstance(a, LennardJonesCluster)
    assert isinstance(b, LennardJonesCluster)
    assert (a.strength, b.strength, a.trap, b.trap) == (0.0, 1.0, 1.0, 1.0)
    assert a.event_shape == b.event_shape == (atoms, 3)
    assert not b.free_center  # the centre of mass adds the same to both states
