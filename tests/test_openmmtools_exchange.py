"""Replica exchange by openmmtools between two force fields: the mixed system, what is counted, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from unittest import mock

import numpy as np
import openmm
import pytest

from nessampler.bench.difference_cell import difference_row
from nessampler.bench.peers import openmmtools_exchange as peer
from nessampler.bench.row import Row
from nessampler.errors import InputError
from nessampler.molecular.systems import load_structure, parameterize
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve

# Of the catalogue's 248 blocks of MD, see docs/benchmarks/differences.md; used with its own error.
SOLVATION, SOLVATION_ERROR = -22.168, 0.020


def config(system: str, seed: int = 0) -> tuple[DifferenceConfig, Path]:
    path = catalogue.find(system)
    found = resolve(load(path), run={"seed": seed}, source=str(path))
    assert isinstance(found, DifferenceConfig)
    return found, path.parent


def systems() -> tuple[openmm.System, openmm.System, np.ndarray]:
    found, folder = config("alanine-solvation")
    ends = []
    for state in (found.state_a, found.state_b):
        molecule = load_structure(folder / state.structure)  # pyright: ignore[reportAttributeAccessIssue]
        ends.append(parameterize(molecule, state.force_field, state.options, 1.0, folder))  # pyright: ignore[reportAttributeAccessIssue]
    return ends[0], ends[1], molecule.positions  # pyright: ignore[reportPossiblyUnboundVariable]


def energy(system: openmm.System, positions: np.ndarray, value: float | None = None) -> float:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    if value is not None:
        context.setParameter(peer.MIXED, value)
    return context.getState(energy=True).getPotentialEnergy()._value


def test_energies_are_mixed_linearly():
    a, b, x = systems()
    mixed, ends = peer.mixture_of(a, b), (energy(a, x), energy(b, x))
    assert abs(ends[0] - ends[1]) > 10  # kJ/mol: there is something to mix
    for value in (0.0, 0.3, 1.0):
        assert energy(mixed, x, value) == pytest.approx((1 - value) * ends[0] + value * ends[1], abs=1e-6)


def short(seed: int, out: Path) -> Row:
    found, folder = config("alanine-solvation", seed)
    with mock.patch.multiple(peer, EVERY=0.02, STATES=3):
        return difference_row(found, folder, "openmmtools", 10_000, out)


def test_a_budget_is_met_and_a_seed_repeats_its_bits(tmp_path):
    row, again, other = (short(seed, tmp_path) for seed in (0, 0, 1))
    assert row.method == row.chosen == "openmmtools"
    assert 0.95 * 10_000 < row.evaluations <= 10_000
    assert row.value is not None
    assert row.std_error is not None
    assert math.isfinite(row.value)
    assert row.std_error > 0
    assert (again.value, again.std_error) == (row.value, row.std_error)
    assert other.value != row.value
    assert row.note.startswith("3 replicas of")
    assert row.verdict in ("trusted", "caution", "not trusted")
    assert bool(row.flags) == (row.verdict != "trusted")


@pytest.mark.parametrize("system", ["lj-13", "alanine-basins"])
def test_states_without_energies_in_between_are_refused(system, tmp_path):
    found, folder = config(system)
    with pytest.raises(InputError, match=f"between two force fields on all of space: {system} has other states"):
        difference_row(found, folder, "openmmtools", 10_000, tmp_path)


@pytest.mark.slow
def test_it_agrees_with_our_own_number(tmp_path):
    found, folder = config("alanine-solvation")
    row = difference_row(found, folder, "openmmtools", 400_000, tmp_path)
    assert row.value is not None
    assert row.std_error is not None
    assert abs(row.value - SOLVATION) < 4 * math.hypot(row.std_error, SOLVATION_ERROR)
    assert row.std_error < 0.25
