"""The catalogue: every system can be run in every preset, and says nothing that is not so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from command_line import nessampler
from openmm import app

from nessampler.errors import InputError
from nessampler.methods.ladder import RUNGS
from nessampler.molecular.contexts import evaluate
from nessampler.molecular.systems import check_same_atoms, load_structure, parameterize
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.molecular_problem import _dynamics, check_molecular
from nessampler.runs.target_problem import named_targets

PRESETS = ("smoke", "quick", "full")
DIFFERENCES = [n for n in catalogue.names() if load(catalogue.root() / n / "system.toml")["kind"] == "difference"]
MOLECULES = [n for n in DIFFERENCES if "force_field" in load(catalogue.root() / n / "system.toml")["state_a"]]


def resolved(name: str, preset: str = "quick") -> DifferenceConfig:
    config = resolve(load(catalogue.root() / name / "system.toml"), preset=preset)
    assert isinstance(config, DifferenceConfig)
    return config


def test_the_catalogue_has_the_promised_systems() -> None:
    assert {"amber-to-amoeba", "alanine-solvation", "toluene-solvation", "anharmonic-wells"} <= set(catalogue.names())
    assert {"amber-to-amoeba", "alanine-solvation", "toluene-solvation"} <= set(MOLECULES)
    assert {"alanine-solvation-gbn2", "amber96-to-amber14", "amber14-to-charmm36", "alanine-basins"} <= set(MOLECULES)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", DIFFERENCES)
def test_every_system_is_valid_in_every_preset(name: str, preset: str) -> None:
    config = resolved(name, preset)
    assert (config.name, config.run.preset) == (name, preset)
    assert set(load(catalogue.root() / name / "system.toml")["presets"]) == set(PRESETS)
    if config.molecular:
        check_molecular(config, catalogue.root() / name)
    else:
        named_targets(config)


@pytest.mark.parametrize("name", MOLECULES)
def test_both_states_of_a_molecule_have_the_same_atoms(name: str) -> None:
    config = resolved(name)
    a, b = (load_structure(catalogue.root() / name / s.structure) for s in (config.state_a, config.state_b))  # pyright: ignore[reportAttributeAccessIssue]
    check_same_atoms(a, b)
    assert np.isfinite(a.positions).all()
    distances = np.linalg.norm(a.positions[:, None] - a.positions[None], axis=-1) + np.eye(len(a.positions))
    assert distances.min() > 0.08  # nm: no two atoms on one another, and no angstrom taken for a nanometre
    assert max(a.positions.max(axis=0) - a.positions.min(axis=0)) < 3


def test_the_reference_of_the_wells_is_the_quadrature() -> None:
    config = resolved("anharmonic-wells")
    a, b = named_targets(config)
    assert config.reference is not None
    assert config.reference.value == pytest.approx(a.log_z - b.log_z, abs=1e-10)
    assert config.reference.std_error == 0


def test_the_reference_of_the_wells_is_the_sum_over_a_grid() -> None:
    config, log_z = resolved("anharmonic-wells"), []
    for well in named_targets(config):
        reach = 9 / well.stiffness.sqrt()
        axes = [torch.linspace(-float(r), float(r), 101, dtype=torch.float64) for r in reach]
        cell = sum(float((axis[1] - axis[0]).log()) for axis in axes)
        grid = torch.cartesian_prod(*axes) + well.center
        energy = torch.cat([well.energy(part) for part in grid.split(500_000)])
        log_z.append(float(torch.logsumexp(-energy, 0)) + cell)
    assert config.reference is not None
    assert config.reference.value == pytest.approx(log_z[0] - log_z[1], abs=1e-10)


def test_plain_bar_struggles_between_the_wells() -> None:
    """The system is of use only while it is hard: few samples of A lie where B has its own."""
    a, b = named_targets(resolved("anharmonic-wells"))
    x = a.sample(4000, generator=torch.Generator().manual_seed(0))
    log_weight = a.energy(x) - b.energy(x)
    weight = (log_weight - log_weight.max()).exp()
    assert float(weight.sum() ** 2 / weight.square().sum()) / len(x) < 0.05


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    for name in catalogue.names():
        assert catalogue.find(name) == catalogue.root() / name / "system.toml"
    with pytest.raises(InputError, match=r"amber-to-ameba is none; did you mean amber-to-amoeba\?"):
        catalogue.find("amber-to-ameba")


PEPTIDES = ["alanine-basins"]
PEPTIDES += [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("alanine-solvation", "alanine-solvation-gbn2", "amber96-to-amber14", "amber14-to-charmm36")
]


@pytest.mark.parametrize("name", PEPTIDES)
def test_a_short_run_of_a_peptide_ends_with_a_result_and_is_not_trusted(name: str, tmp_path: Path) -> None:
    ended = nessampler("run", name, "--preset", "smoke", "--out", tmp_path / "run", "--json")
    assert ended.code == 0, ended.err
    result = json.loads(ended.out)
    assert [rung["name"] for rung in result["rungs"]] == list(RUNGS[: len(result["rungs"])])
    assert result["verdict"]["level"] != "trusted" or name.startswith("alanine-solvation")  # where plain BAR is enough
    regions = [state.get("frames_outside_region") for state in result["endstates"].values()]
    assert [outside is not None for outside in regions] == [name == "alanine-basins"] * 2
    if name == "alanine-basins":  # each end stays where it belongs, and is seen in the other's arc
        assert result["rungs"][0]["overlap"] is not None
        assert np.isfinite([result["bounds"]["lower"], result["bounds"]["upper"]]).all()


def test_the_basins_are_an_arc_and_the_rest_of_one_force_field() -> None:
    config = resolved("alanine-basins")
    a, b = config.state_a, config.state_b
    assert a.region.between == b.region.between[::-1] == (0.0, 2.15)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    assert a.force_field == b.force_field == ["amber96.xml"]  # pyright: ignore[reportAttributeAccessIssue]


def test_the_caps_of_charmm36_are_its_own_dipeptide() -> None:
    """Without caps as residues, OpenMM finds two templates for the whole molecule; one of them is CHARMM36's."""
    folder = catalogue.root() / "amber14-to-charmm36"
    molecule = load_structure(folder / "alanine-dipeptide.pdb")
    with pytest.raises(InputError, match="ALAD, AANM"):
        parameterize(molecule, ["charmm36.xml"])
    field = app.ForceField("charmm36.xml")
    for templates in field._templateSignatures.values():
        templates[:] = [t for t in templates if t.name != "AANM"]  # of small molecules, for the same atoms
    own = field.createSystem(molecule.topology, nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False)
    x = molecule.positions + 0.01 * np.random.default_rng(0).normal(size=(6, 22, 3))
    energies = [
        evaluate(openmm.XmlSerializer.serialize(system), "Reference", x, False)[0]
        for system in (own, parameterize(molecule, ["charmm36.xml", "caps-charmm36.xml"], folder=folder))
    ]
    assert energies[1] == pytest.approx(energies[0], rel=1e-9)
    assert np.ptp(energies[0]) > 10


def test_states_that_are_bonded_differently_are_refused(tmp_path: Path) -> None:
    """The same atoms in the same order are not yet the same molecule."""
    source = catalogue.root() / "toluene-solvation"
    lines = (source / "toluene.pdb").read_text().splitlines(keepends=True)
    for file in source.glob("*.xml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "toluene.pdb").write_text("".join(lines))
    swapped = {
        "CONECT    6    4    5    7\n": "CONECT    6    4    7\n",
        "CONECT    5    3    6   12\n": "CONECT    5    3   12\n",
    }
    (tmp_path / "open.pdb").write_text("".join(swapped.get(line, line) for line in lines))
    table = load(source / "system.toml")
    table["state_b"] = {**table["state_b"], "structure": "open.pdb"}
    config = resolve(table, preset="smoke")
    assert isinstance(config, DifferenceConfig)
    with pytest.raises(InputError, match="same bonds: atom 4"):
        check_molecular(config, tmp_path)


def test_each_state_may_have_replicas_interval_and_platform_of_its_own() -> None:
    table = load(catalogue.root() / "alanine-solvation" / "system.toml")
    table["presets"]["quick"]["md"] = {
        "interval": "1 ps", "interval_b": "5 ps", "production_b": "100 ps", "replicas_a": 7, "platform_b": "torch",
    }  # fmt: skip
    config = resolve(table, preset="quick")
    assert isinstance(config, DifferenceConfig)
    dynamics = [_dynamics(config, state) for state in "ab"]
    assert [d.interval for d in dynamics] == [1.0, 5.0]
    assert dynamics[1].frames - dynamics[1].burn_in == 20
    assert [(d.replicas, d.platform) for d in dynamics] == [(7, "Reference"), (4, "torch")]
