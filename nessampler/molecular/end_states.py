"""Equilibrium samples of an end state: independent, restartable replicas of MD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import mdtraj
import numpy as np
import openmm
from jaxtyping import Float
from mdtraj.formats import NetCDFTrajectoryFile

from nessampler._files import write_atomically
from nessampler.errors import InputError
from nessampler.molecular.contexts import ContextPool, LangevinDynamics, Segment, run_segment
from nessampler.molecular.systems import Molecule

__all__ = ["Dynamics", "Replicas", "sample_end_states"]

SEGMENTS = 10  # restart points per replica: at most a tenth of one is lost to an interruption


@dataclass(frozen=True)
class Dynamics:
    """How an end state is sampled. Lengths in ps, per replica; the interval is between stored frames."""

    temperature: float
    timestep: float
    friction: float
    replicas: int
    equilibration: float
    production: float
    interval: float
    platform: str = "Reference"

    @property
    def stride(self) -> int:
        """Steps between stored frames."""
        return max(1, round(self.interval / self.timestep))

    @property
    def frames(self) -> int:
        """Stored frames per replica, equilibration included."""
        return round((self.equilibration + self.production) / self.interval)

    @property
    def burn_in(self) -> int:
        """Frames of the prescribed equilibration, which are stored but never used."""
        return round(self.equilibration / self.interval)

    @property
    def steps(self) -> int:
        """MD steps of all replicas together, each one gradient evaluation."""
        return self.replicas * self.frames * self.stride


@dataclass(frozen=True)
class Replicas:
    """Stored frames `(replicas, frames, atoms, 3)` in nm, float32, in time order, and the steps they cost."""

    positions: Float[np.ndarray, "replicas frames atoms 3"]
    gradient_evaluations: int


def sample_end_states(
    systems: Mapping[str, openmm.System],
    molecules: Mapping[str, Molecule],
    dynamics: Mapping[str, Dynamics],
    folder: Path,
    *,
    seed: int,
    pool: ContextPool,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Replicas]:
    """Run, or finish, the replicas of every state, all of them sharing the pool.

    Each replica is cut into segments. A finished segment is on disk before the next one starts, so an
    interrupted call with the same arguments goes on where it stopped, to the same frames. Finished replicas
    lie in `folder` as `STATE-REPLICA.nc` beside `STATE.pdb`, both of which mdtraj opens.

    Args:
        systems, molecules, dynamics: by state name, "a" and "b".
        folder: created if need be.
        seed: replica seeds derive from it, the state and the replica number.
        progress: called with steps done, steps in all and what is running.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(d.steps for d in dynamics.values())
    runs = [
        _Replica(folder, state, i, systems[state], molecules[state], dynamics[state], seed)
        for state in systems
        for i in range(dynamics[state].replicas)
    ]
    for state, molecule in molecules.items():
        _topology_file(folder / f"{state}.pdb", molecule)
    pending: dict[Future, _Replica] = {run.submit(pool): run for run in runs if not run.finished}
    if progress:
        progress(sum(r.steps_done for r in runs), total, "molecular dynamics")
    for run, segment in pool.completed(pending):
        run.store(segment)
        if not run.finished:
            pending[run.submit(pool)] = run
        if progress:
            progress(sum(r.steps_done for r in runs), total, f"molecular dynamics of state {run.state.upper()}")
    return {
        state: Replicas(np.stack([r.frames() for r in runs if r.state == state]), dynamics[state].steps)
        for state in systems
    }


class _Replica:
    """One replica on disk: a partial file while it runs, a trajectory when it is done."""

    def __init__(
        self,
        folder: Path,
        state: str,
        index: int,
        system: openmm.System,
        molecule: Molecule,
        dynamics: Dynamics,
        seed: int,
    ) -> None:
        self.state = state
        self.dynamics = dynamics
        self.xml = openmm.XmlSerializer.serialize(system)
        self.molecule = molecule
        self.trajectory = folder / f"{state}-{index}.nc"
        self.partial = folder / f"{state}-{index}.partial.npz"
        words = np.random.SeedSequence([seed, *state.encode(), index]).generate_state(1)
        self.langevin = LangevinDynamics(
            dynamics.temperature, dynamics.timestep, dynamics.friction, int(words[0] % (2**31 - 1)) + 1
        )
        self.done = dynamics.frames if self.trajectory.exists() else len(self._stored()[0])

    @property
    def finished(self) -> bool:
        return self.trajectory.exists()

    @property
    def steps_done(self) -> int:
        return self.done * self.dynamics.stride

    def submit(self, pool: ContextPool) -> Future:
        positions, checkpoint = self._stored()
        frames = min(-(-self.dynamics.frames // SEGMENTS), self.dynamics.frames - len(positions))
        return pool.submit(
            run_segment,
            self.xml,
            self.dynamics.platform,
            self.langevin,
            self.molecule.positions,
            checkpoint,
            frames,
            self.dynamics.stride,
        )

    def store(self, segment: Segment) -> None:
        positions = np.concatenate([self._stored()[0], segment.positions])
        self.done = len(positions)
        if self.done < self.dynamics.frames:
            write_atomically(self.partial, lambda path: _save_npz(path, positions, segment.checkpoint))
        else:
            write_atomically(self.trajectory, lambda path: _save_trajectory(path, positions))
            self.partial.unlink(missing_ok=True)

    def frames(self) -> np.ndarray:
        try:
            with NetCDFTrajectoryFile(str(self.trajectory)) as file:
                angstrom = np.asarray(file.read()[0])
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise InputError(
                f"{self.trajectory} is not a trajectory ({error}); remove it to sample this replica again"
            ) from error
        expected = (self.dynamics.frames, len(self.molecule.positions), 3)
        if angstrom.shape != expected:
            raise InputError(
                f"{self.trajectory} must hold {expected[0]} frames of {expected[1]} atoms: got {angstrom.shape[:2]}; "
                "remove it to sample this replica again"
            )
        if not angstrom[-1, -1].any():  # netCDF fills what is missing with zeros, without a word
            raise InputError(f"{self.trajectory} is cut off; remove it to sample this replica again")
        return angstrom / np.float32(10.0)

    def _stored(self) -> tuple[np.ndarray, bytes | None]:
        if not self.partial.exists():
            return np.empty((0, len(self.molecule.positions), 3), dtype=np.float32), None
        try:
            with np.load(self.partial, allow_pickle=False) as file:
                positions, checkpoint = file["positions"], file["checkpoint"].tobytes()
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise InputError(f"{self.partial} is not a restart file of this run ({error}); remove it") from error
        atoms = self.molecule.positions.shape
        if positions.shape[1:] != atoms or not 0 < len(positions) < self.dynamics.frames:
            raise InputError(
                f"{self.partial} must hold fewer than {self.dynamics.frames} frames of {atoms[0]} atoms: "
                f"got {positions.shape[:2]}; remove it"
            )
        return positions, checkpoint


def _save_npz(path: Path, positions: np.ndarray, checkpoint: bytes) -> None:
    with path.open("wb") as file:
        np.savez(file, positions=positions, checkpoint=np.frombuffer(checkpoint, dtype=np.uint8))


def _save_trajectory(path: Path, positions: np.ndarray) -> None:
    with NetCDFTrajectoryFile(str(path), "w") as file:
        file.write(positions * np.float32(10.0))  # AMBER's unit is the angstrom


def _topology_file(path: Path, molecule: Molecule) -> None:
    topology = mdtraj.Topology.from_openmm(molecule.topology)
    frame = mdtraj.Trajectory(molecule.positions[None].astype(np.float32), topology)
    write_atomically(path, lambda temporary: frame.save_pdb(str(temporary)))
