"""The catalogue: every system can be run in every preset, and says nothing that is not so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nessampler.errors import InputError
from nessampler.molecular.systems import check_same_atoms, load_structure
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.molecular_problem import check_molecular
from nessampler.runs.prepared import check_analytic

PRESETS = ("smoke", "quick", "full")
DIFFERENCES = [n for n in catalogue.names() if load(catalogue.root() / n / "system.toml")["kind"] == "difference"]
MOLECULES = [n for n in DIFFERENCES if "force_field" in load(catalogue.root() / n / "system.toml")["state_a"]]


def resolved(name: str, preset: str = "quick") -> DifferenceConfig:
    return resolve(load(catalogue.root() / name / "system.toml"), preset=preset)


def test_the_catalogue_has_the_promised_systems() -> None:
    assert {"amber-to-amoeba", "alanine-solvation", "toluene-solvation", "anharmonic-wells"} <= set(catalogue.names())
    assert {"amber-to-amoeba", "alanine-solvation", "toluene-solvation"} <= set(MOLECULES)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", DIFFERENCES)
def test_every_system_is_valid_in_every_preset(name: str, preset: str) -> None:
    config = resolved(name, preset)
    assert (config.name, config.run.preset) == (name, preset)
    assert set(load(catalogue.root() / name / "system.toml")["presets"]) == set(PRESETS)
    if config.molecular:
        check_molecular(config, catalogue.root() / name)
    else:
        check_analytic(config)


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
    a, b = check_analytic(config)
    assert config.reference is not None
    assert config.reference.value == pytest.approx(a.log_z - b.log_z, abs=1e-10)
    assert config.reference.std_error == 0


def test_the_reference_of_the_wells_is_the_sum_over_a_grid() -> None:
    config, log_z = resolved("anharmonic-wells"), []
    for well in check_analytic(config):
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
    a, b = check_analytic(resolved("anharmonic-wells"))
    x = a.sample(4000, generator=torch.Generator().manual_seed(0))
    log_weight = a.energy(x) - b.energy(x)
    weight = (log_weight - log_weight.max()).exp()
    assert float(weight.sum() ** 2 / weight.square().sum()) / len(x) < 0.05


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    for name in catalogue.names():
        assert catalogue.find(name) == catalogue.root() / name / "system.toml"
    with pytest.raises(InputError, match=r"amber-to-ameba is none; did you mean amber-to-amoeba\?"):
        catalogue.find("amber-to-ameba")
