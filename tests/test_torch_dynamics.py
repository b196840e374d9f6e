"""Batched Langevin dynamics: OpenMM's own steps, the right temperature, and runs that go on where they stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

openmm = pytest.importorskip("openmm")
from openmm import unit  # noqa: E402

from nessampler.errors import InputError  # noqa: E402
from nessampler.molecular.batched_replicas import run_batched  # noqa: E402
from nessampler.molecular.contexts import ContextPool  # noqa: E402
from nessampler.molecular.dynamics import Dynamics  # noqa: E402
from nessampler.molecular.end_states import sample_end_states  # noqa: E402
from nessampler.molecular.force_field import TorchForceField, UnsupportedForce  # noqa: E402
from nessampler.molecular.force_field.target import thermal_energy  # noqa: E402
from nessampler.molecular.replica_files import read_trajectory  # noqa: E402
from nessampler.molecular.systems import load_structure, parameterize  # noqa: E402
from nessampler.molecular.torch_dynamics import LangevinMiddle, Phase  # noqa: E402
from nessampler.runs import catalogue  # noqa: E402
from nessampler.runs.config import load, resolve  # noqa: E402
from nessampler.runs.molecular_problem import check_molecular  # noqa: E402

PDB = catalogue.find("alanine-solvation").parent / "alanine-dipeptide.pdb"


@pytest.fixture(scope="module")
def dipeptide():
    molecule = load_structure(PDB)
    return molecule, parameterize(molecule, ["amber14-all.xml"], {}, 4.0, PDB.parent)


def wells(stiffness: float, n: int = 3) -> openmm.System:
    force = openmm.CustomExternalForce("k/2*(x^2+y^2+z^2)")
    force.addGlobalParameter("k", stiffness)
    system = openmm.System()
    for i in range(n):
        system.addParticle(12.0)
        force.addParticle(i, [])
    system.addForce(force)
    return system


def test_without_noise_the_steps_are_those_of_openmm(dipeptide):
    molecule, system = dipeptide
    integrator = openmm.LangevinMiddleIntegrator(1e-12, 1e-9, 0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(molecule.positions)
    velocities = np.random.default_rng(0).normal(scale=0.3, size=molecule.positions.shape)
    masses = np.array([system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(len(velocities))])
    velocities -= masses @ velocities / masses.sum()  # OpenMM takes the drift out, torch leaves it
    context.setVelocities(velocities)
    integrator.step(25)
    expected = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)

    dynamics = LangevinMiddle.of(system, 1e-12, timestep=0.001, friction=1e-9, dtype=torch.float64)
    start = Phase(torch.as_tensor(molecule.positions)[None], torch.as_tensor(velocities)[None])
    found = dynamics.run(start, 25, generator=torch.Generator().manual_seed(0)).x[0].numpy()
    moved = np.abs(expected - molecule.positions).max()
    assert np.abs(found - expected).max() < 1e-6 * moved


def test_positions_have_the_variance_of_their_temperature():
    stiffness, temperature, n = 800.0, 350.0, 4000
    dynamics = LangevinMiddle.of(wells(stiffness), temperature, timestep=0.02, friction=2.0)
    generator = torch.Generator().manual_seed(1)
    x = dynamics.run(dynamics.start(torch.zeros(3, 3), n, generator=generator), 150, generator=generator).x
    expected = thermal_energy(temperature) / stiffness
    square = x.square().flatten()
    error = float(square.std() / len(square) ** 0.5)
    assert error < 0.01 * expected
    assert abs(float(square.mean()) - expected) < 4 * error
    # A thermostat 5 % too warm would be seen.
    assert abs(float(square.mean()) - 1.05 * expected) > 4 * error


def test_velocities_have_the_variance_of_their_temperature():
    dynamics = LangevinMiddle.of(wells(100.0), 300.0, timestep=0.002, friction=1.0)
    v = dynamics.start(torch.zeros(3, 3), 20_000, generator=torch.Generator().manual_seed(2)).v
    square, expected = v.square().flatten(), thermal_energy(300.0) / 12.0
    error = float(square.std() / len(square) ** 0.5)
    assert error < 0.01 * expected
    assert abs(float(square.mean()) - expected) < 4 * error


def test_atoms_that_fly_apart_are_reported():
    dynamics = LangevinMiddle.of(wells(1e9), 300.0, timestep=1.0, friction=0.1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    with pytest.raises(InputError, match="shorten md"):
        dynamics.run(dynamics.start(torch.ones(3, 3), 2, generator=generator), 300, generator=generator)


@pytest.mark.parametrize("wrong", [{"timestep": 0.0}, {"friction": -1.0}, {"masses": torch.tensor([1.0, 0.0, 1.0])}])
def test_dynamics_needs_positive_numbers(wrong):
    given = {"timestep": 0.001, "friction": 1.0, "masses": torch.ones(3), **wrong}
    with pytest.raises(InputError, match="positive"):
        LangevinMiddle(TorchForceField(wells(1.0)), given.pop("masses"), 300.0, **given)


SHORT = Dynamics(
    temperature=300.0,
    timestep=0.001,
    friction=1.0,
    replicas=5,
    equilibration=0.0,
    production=0.12,
    interval=0.004,
    platform="torch",
)


def test_an_interrupted_batch_ends_where_the_whole_one_does(dipeptide, tmp_path: Path):
    molecule, system = dipeptide
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    run_batched(system, molecule, SHORT, tmp_path / "whole", "a", seed=7)

    def stop(steps: int) -> None:
        if steps > 5 * 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batched(system, molecule, SHORT, tmp_path / "cut", "a", seed=7, progress=stop)
    assert (tmp_path / "cut" / "a.partial.npz").exists()
    assert not (tmp_path / "cut" / "a-0.nc").exists()
    run_batched(system, molecule, SHORT, tmp_path / "cut", "a", seed=7)
    for i in range(5):
        whole, cut = (batched_frames(tmp_path / name / f"a-{i}.nc") for name in ("whole", "cut"))
        assert np.array_equal(whole, cut)
    first, second = (batched_frames(tmp_path / "whole" / f"a-{i}.nc") for i in (0, 1))
    assert np.abs(first[-1] - second[-1]).max() > 1e-3  # replicas go their own ways
    assert not (tmp_path / "cut" / "a.partial.npz").exists()


def batched_frames(path: Path) -> np.ndarray:
    return read_trajectory(path, 30, 22)


def test_another_seed_gives_other_frames(tmp_path: Path, dipeptide):
    molecule, system = dipeptide
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        run_batched(system, molecule, SHORT, tmp_path / str(seed), "a", seed=seed)
    one, two = (batched_frames(tmp_path / str(seed) / "a-0.nc") for seed in (1, 2))
    assert not np.allclose(one, two, atol=1e-4)


def test_a_restart_file_of_another_run_is_refused(tmp_path: Path, dipeptide):
    molecule, system = dipeptide
    (tmp_path / "a.partial.npz").write_bytes(b"not one")
    with pytest.raises(InputError, match="not a restart file"):
        run_batched(system, molecule, SHORT, tmp_path, "a", seed=1)
    arrays = {"positions": np.zeros((2, 3, 22, 3)), "x": np.zeros((2, 22, 3)), "v": np.zeros((2, 22, 3))}
    arrays["accepted"] = np.zeros((2, 0))
    np.savez(tmp_path / "a.partial.npz", **arrays, generator=torch.Generator().get_state().numpy())
    with pytest.raises(InputError, match="5 replicas"):
        run_batched(system, molecule, SHORT, tmp_path, "a", seed=1)


def test_a_force_without_torch_term_is_refused_before_anything_is_written(tmp_path: Path, dipeptide):
    molecule, _ = dipeptide
    with pytest.raises(UnsupportedForce, match="Amoeba"):
        run_batched(
            parameterize(molecule, ["amoeba2018.xml"], {}, 4.0, PDB.parent), molecule, SHORT, tmp_path, "b", seed=1
        )
    assert not list(tmp_path.iterdir())


def test_end_states_may_be_sampled_by_either_engine(dipeptide, tmp_path: Path):
    molecule, system = dipeptide
    told: list[tuple[int, int, str]] = []
    by_openmm = replace(SHORT, platform="Reference", replicas=2, production=0.02)
    with ContextPool(1) as pool:
        found = sample_end_states(
            {"a": system, "b": system},
            dict.fromkeys("ab", molecule),
            {"a": SHORT, "b": by_openmm},
            tmp_path,
            seed=1,
            pool=pool,
            progress=lambda *said: told.append(said),
        )
    assert found["a"].positions.shape == (5, 30, 22, 3)
    assert found["b"].positions.shape == (2, 5, 22, 3)
    assert found["a"].gradient_evaluations == 5 * 30 * 4
    total = SHORT.steps + by_openmm.steps
    assert {said[1] for said in told} == {total}
    assert [said[0] for said in told] == sorted(said[0] for said in told)
    assert told[-1][0] == total


def test_a_run_in_torch_is_refused_where_torch_lacks_a_force():
    folder = catalogue.find("amber-to-amoeba").parent
    config = resolve(load(folder / "system.toml"), settings=["md.platform=torch"])
    with pytest.raises(InputError, match=r'"torch" cannot run state B: .*Amoeba.*set md\.platform="Reference"'):
        check_molecular(config, folder)
