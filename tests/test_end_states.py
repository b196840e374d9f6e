"""End-state MD: the same frames however it is cut, spread or interrupted; and what is found out about them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
import pytest
from mdtraj.formats import NetCDFTrajectoryFile
from openmm import app

from nessampler.errors import InputError
from nessampler.estimators import statistical_inefficiency
from nessampler.molecular import end_states
from nessampler.molecular.contexts import ContextPool, LangevinDynamics, run_segment
from nessampler.molecular.end_states import Dynamics, Replicas, sample_end_states
from nessampler.molecular.equilibration import Equilibrated, equilibrated
from nessampler.molecular.systems import Molecule

GAS_CONSTANT = 8.31446261815324e-3  # kJ/mol/K
STIFFNESS = {"a": 1000.0, "b": 2500.0}  # kJ/mol/nm²
BRIEF = Dynamics(
    temperature=300.0, timestep=0.01, friction=5.0, replicas=2, equilibration=0.4, production=2.0, interval=0.1
)


def trap(atoms: int, stiffness: float) -> openmm.System:
    """Independent atoms, each bound to the origin by a spring."""
    system, force = openmm.System(), openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    force.addGlobalParameter("k", stiffness)
    for i in range(atoms):
        system.addParticle(12.0)
        force.addParticle(i)
    system.addForce(force)
    return system


def gas(atoms: int) -> Molecule:
    topology = app.Topology()
    chain = topology.addChain()
    for i in range(atoms):
        residue = topology.addResidue("C", chain)
        topology.addAtom("C", app.Element.getBySymbol("C"), residue, str(i))
    return Molecule(topology, 0.05 + 0.01 * np.arange(3.0 * atoms).reshape(atoms, 3))


def sample(
    folder: Path, dynamics: Dynamics = BRIEF, *, atoms: int = 3, processes: int = 1, seed: int = 5, **options: Any
) -> dict[str, Replicas]:
    systems = {s: trap(atoms, k) for s, k in STIFFNESS.items()}
    molecules, both = dict.fromkeys("ab", gas(atoms)), dict.fromkeys("ab", dynamics)
    with ContextPool(processes) as pool:
        return sample_end_states(systems, molecules, both, folder, seed=seed, pool=pool, **options)


def same(one: dict[str, Replicas], other: dict[str, Replicas]) -> bool:
    return all(np.array_equal(one[s].positions, other[s].positions) for s in "ab")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Replicas]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, sample(folder)


@pytest.fixture
def finished(whole: tuple[Path, dict[str, Replicas]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "endstates"))


# --- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
def test_a_run_in_segments_is_the_run_in_one_piece(platform: str) -> None:
    xml, start = openmm.XmlSerializer.serialize(trap(3, 1000.0)), gas(3).positions
    dynamics, other = (LangevinDynamics(300.0, 0.01, 5.0, seed) for seed in (11, 12))

    def run(which: LangevinDynamics, checkpoint: bytes | None, frames: int) -> end_states.Segment:
        return run_segment(xml, platform, which, start, checkpoint, frames, 3)

    piece = run(dynamics, None, 12).positions
    first = run(dynamics, None, 5)
    stranger = run(other, None, 4)  # another replica in the same process must leave no trace
    second = run(dynamics, first.checkpoint, 7)
    assert np.array_equal(piece, np.concatenate([first.positions, second.positions]))
    assert not np.array_equal(stranger.positions, first.positions[:4])
    assert not np.array_equal(run(dynamics, None, 7).positions, second.positions)  # a fresh start is no continuation


def test_segments_leave_no_seam(
    whole: tuple[Path, dict[str, Replicas]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end_states, "SEGMENTS", 1)
    assert same(sample(tmp_path), whole[1])


def test_the_number_of_processes_changes_no_bit(whole: tuple[Path, dict[str, Replicas]], tmp_path: Path) -> None:
    assert same(sample(tmp_path, processes=2), whole[1])


def test_replicas_and_seeds_differ(whole: tuple[Path, dict[str, Replicas]], tmp_path: Path) -> None:
    positions = whole[1]["a"].positions
    assert positions.shape == (2, BRIEF.frames, 3, 3)
    assert np.abs(positions[0] - positions[1]).min(axis=(1, 2))[1:].max() > 0
    assert not np.array_equal(positions[0], positions[1])
    assert not same(sample(tmp_path, seed=6), whole[1])


def test_steps_are_counted(whole: tuple[Path, dict[str, Replicas]]) -> None:
    assert whole[1]["a"].gradient_evaluations == 2 * 24 * 10


def test_positions_have_the_variance_of_the_boltzmann_law(tmp_path: Path) -> None:
    long = Dynamics(350.0, 0.01, 5.0, replicas=2, equilibration=2.0, production=60.0, interval=0.2)
    sampled = sample(tmp_path, long, atoms=40)
    for state, stiffness in STIFFNESS.items():
        kept = sampled[state].positions[:, long.burn_in :].astype(np.float64)
        variance = np.square(kept).mean(axis=1).ravel()  # 240 independent values
        per_coordinate = variance * stiffness / (GAS_CONSTANT * 350.0)
        error = per_coordinate.std(ddof=1) / per_coordinate.size**0.5
        assert error < 0.01
        assert abs(per_coordinate.mean() - 1) < 4 * error
        assert abs(per_coordinate.mean() - 1.05) > 4 * error  # 333 K or 367 K would be seen


# --- files -------------------------------------------------------------------------------------------------------


def test_trajectories_open_with_the_topology_beside_them(whole: tuple[Path, dict[str, Replicas]]) -> None:
    folder, sampled = whole
    assert sorted(p.name for p in folder.iterdir()) == ["a-0.nc", "a-1.nc", "a.pdb", "b-0.nc", "b-1.nc", "b.pdb"]
    for state in "ab":
        for replica in range(2):
            read = mdtraj.load(str(folder / f"{state}-{replica}.nc"), top=str(folder / f"{state}.pdb"))
            np.testing.assert_allclose(read.xyz, sampled[state].positions[replica], rtol=1e-6)


def test_frames_survive_the_trip_through_the_file(finished: Path, whole: tuple[Path, dict[str, Replicas]]) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in finished.glob("*.nc")}
    assert same(sample(finished), whole[1])
    assert {p.name: p.stat().st_mtime_ns for p in finished.glob("*.nc")} == before  # read, not sampled again


def test_a_lost_trajectory_is_sampled_again_to_the_same_frames(
    finished: Path, whole: tuple[Path, dict[str, Replicas]]
) -> None:
    (finished / "a-1.nc").unlink()
    assert same(sample(finished), whole[1])


@pytest.mark.parametrize("calls", [2, 7, 15])
def test_an_interrupted_run_goes_on_to_the_same_frames(
    whole: tuple[Path, dict[str, Replicas]], tmp_path: Path, calls: int
) -> None:
    seen: list[int] = []

    def interrupt(done: int, total: int, what: str) -> None:
        seen.append(done)
        if len(seen) == calls:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path, progress=interrupt)
    assert list(tmp_path.glob("*.partial.npz"))
    resumed: list[int] = []
    assert same(sample(tmp_path, progress=lambda done, total, what: resumed.append(done)), whole[1])
    assert resumed[0] == seen[-1]  # nothing that was finished is done again
    assert resumed[-1] == 2 * 2 * 24 * 10
    assert not list(tmp_path.glob("*.partial.npz"))


def interrupted(folder: Path) -> Path:
    """A run that left a partial file; its path."""

    def stop(done: int, total: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(folder, progress=stop)
    (partial,) = folder.glob("*.partial.npz")
    return partial


def test_a_damaged_restart_file_is_refused_by_name(tmp_path: Path) -> None:
    partial = interrupted(tmp_path)
    content = partial.read_bytes()
    with np.load(partial) as file:
        stored = dict(file)
    for damaged in (b"", b"not a restart file", content[:60], content[: len(content) // 2], content[:-1]):
        partial.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{partial.name}.*remove it"):
            sample(tmp_path)
    for positions in (stored["positions"][:, :2], np.repeat(stored["positions"], 20, axis=0), stored["positions"][:0]):
        np.savez(partial, positions=positions, checkpoint=stored["checkpoint"])
        with pytest.raises(InputError, match=f"{partial.name} must hold fewer than 24 frames of 3 atoms"):
            sample(tmp_path)


def shorter(path: Path) -> None:
    with NetCDFTrajectoryFile(str(path)) as file:
        frames = file.read()[0]
    with NetCDFTrajectoryFile(str(path), "w", force_overwrite=True) as file:
        file.write(frames[:-1])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def garbage(path: Path) -> None:
    path.write_bytes(b"not a trajectory")


@pytest.mark.parametrize(
    ("damage", "said"),
    [(shorter, r"must hold 24 frames of 3 atoms: got \(23, 3\)"), (cut, "cut off"), (garbage, "not a trajectory")],
)
def test_a_damaged_trajectory_is_refused_by_name(finished: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(finished / "b-0.nc")
    with pytest.raises(InputError, match=f"b-0.nc.*{said}.*remove it"):
        sample(finished)


def test_dynamics_that_fly_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"200 fs.*shorten md\.timestep"):
        sample(tmp_path, Dynamics(300.0, 0.2, 0.01, replicas=1, equilibration=0.4, production=400.0, interval=40.0))


# --- what is found out -------------------------------------------------------------------------------------------

REPLICAS, FRAMES, BURN_IN = 4, 600, 20


def series(seed: int, memory: float) -> np.ndarray:
    """Stationary autoregressive series of unit variance, one a replica."""
    noise = np.random.default_rng(seed).normal(size=(REPLICAS, FRAMES))
    found = noise.copy()
    for t in range(1, FRAMES):
        found[:, t] = memory * found[:, t - 1] + (1 - memory**2) ** 0.5 * noise[:, t]
    return found


def judged(**observables: np.ndarray) -> Equilibrated:
    frames = np.zeros((*observables["energy"].shape, 1, 3), dtype=np.float32)
    frames[..., 0, 0] = np.arange(frames.shape[1])
    return equilibrated(frames, BURN_IN, observables, "A")


def codes(found: Equilibrated) -> set[str]:
    return {flag.code for flag in found.flags}


@pytest.mark.parametrize("seed", range(5))
def test_healthy_replicas_are_not_flagged(seed: int) -> None:
    found = judged(energy=series(seed, 0.5), torsion=series(seed + 100, 0.8))
    assert codes(found) == set()
    assert found.slowest == "torsion"
    assert found.inefficiency == statistical_inefficiency(series(seed + 100, 0.8)[:, found.discarded :])
    assert found.r_hat is not None
    assert found.r_hat < 1.05


def test_the_prescribed_equilibration_and_a_transient_are_dropped() -> None:
    transient = 30 * np.exp(-np.arange(FRAMES) / 25.0)
    found = judged(energy=series(0, 0.3) + transient)
    assert BURN_IN + 40 < found.discarded < FRAMES // 2
    assert found.positions[:, 0, 0, 0].tolist() == [found.discarded] * REPLICAS
    assert codes(found) == set()
    assert judged(energy=series(0, 0.3)).discarded < found.discarded


def test_an_energy_that_drifts_to_the_end_is_flagged() -> None:
    found = judged(energy=series(0, 0.3) + 30 * np.linspace(1, 0, FRAMES) ** 2)
    assert "equilibration" in codes(found)
    assert found.positions.shape[1] >= (FRAMES - BURN_IN) // 2  # something is kept to look at


def test_replicas_in_different_basins_are_flagged() -> None:
    torsion = series(1, 0.5)
    torsion[2] += 3.0
    found = judged(energy=series(0, 0.5), torsion=torsion)
    assert "replicas_disagree" in codes(found)
    assert any("torsion" in flag.message for flag in found.flags)


def test_replicas_frozen_in_different_basins_are_flagged() -> None:
    frozen = np.repeat([[0.0], [0.0], [1.0], [0.0]], FRAMES, axis=1)
    found = judged(energy=series(0, 0.5), torsion=frozen)
    assert "replicas_disagree" in codes(found)
    constant = judged(energy=series(0, 0.5), torsion=np.ones((REPLICAS, FRAMES)))
    assert codes(constant) == set()


def test_a_coordinate_crossed_a_few_times_is_flagged() -> None:
    found = judged(energy=series(0, 0.5), torsion=np.sign(series(3, 0.99)))
    assert "slow_coordinate" in codes(found)
    assert found.slowest == "torsion"
    assert any("torsion" in flag.message and flag.code == "slow_coordinate" for flag in found.flags)


def test_a_single_replica_is_flagged_as_such() -> None:
    found = judged(energy=series(0, 0.3)[:1])
    assert codes(found) == {"single_replica"}
    assert found.r_hat is None
