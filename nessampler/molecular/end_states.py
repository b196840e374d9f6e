"""Equilibrium samples of an end state: independent, restartable replicas of MD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import torch
from jaxtyping import Float

from nessampler.errors import InputError
from nessampler.molecular.batched_replicas import run_batched, swaps_of
from nessampler.molecular.contexts import ContextPool, LangevinDynamics, Segment, run_segment
from nessampler.molecular.dynamics import SEGMENTS, Dynamics
from nessampler.molecular.replica_files import (
    read_restart,
    read_trajectory,
    save_restart,
    save_topology,
    save_trajectory,
)
from nessampler.molecular.systems import Molecule

__all__ = ["Dynamics", "Replicas", "sample_end_states"]


@dataclass(frozen=True)
class Replicas:
    """Stored frames `(replicas, frames, atoms, 3)` in nm, float32, in time order, and the steps they cost.

    Of replicas that have weakened companions, `accepted` is the fraction of swaps that was, by gap, and
    `energy_evaluations` what these took.

    Example:
        >>> run = Replicas(np.zeros((4, 100, 22, 3), dtype=np.float32), gradient_evaluations=20_000)
        >>> run.positions.reshape(-1, 22, 3).shape  # of all replicas
        (400, 22, 3)
    """

    positions: Float[np.ndarray, "replicas frames atoms 3"]
    gradient_evaluations: int
    accepted: tuple[float, ...] = ()
    energy_evaluations: int = 0


def sample_end_states(
    systems: Mapping[str, openmm.System],
    molecules: Mapping[str, Molecule],
    dynamics: Mapping[str, Dynamics],
    folder: Path,
    *,
    seed: int,
    pool: ContextPool,
    progress: Callable[[int, int, str], None] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Replicas]:
    """Run, or finish, the replicas of every state, all of them sharing the pool.

    Each replica is cut into segments. A finished segment is on disk before the next one starts, so an
    interrupted call with the same arguments goes on where it stopped, to the same frames. Finished replicas
    lie in `folder` as `STATE-REPLICA.nc` beside `STATE.pdb`, both of which mdtraj opens. On the platform "torch" all
    replicas of a state are one batch in this process; elsewhere the pool shares out single replicas.

    Args:
        systems, molecules, dynamics: by state name, "a" and "b".
        folder: created if need be.
        seed: replica seeds derive from it, the state and the replica number.
        progress: called with steps done, steps in all and what is running.
        device: of batches in torch.

    Raises:
        InputError: a platform that this machine has not, atoms that fly apart, or files in `folder` that are damaged or
            belong to other molecules or lengths; the file is named.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from nessampler.molecular import load_structure
        >>> from nessampler.runs import catalogue
        >>> molecule = load_structure(catalogue.find("alanine-solvation").with_name("alanine-dipeptide.pdb"))
        >>> springs = openmm.HarmonicBondForce()
        >>> _ = [springs.addBond(i, i + 1, 0.1, 1000.0) for i in range(21)]
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(22)], system.addForce(springs)
        >>> how = Dynamics(300.0, 0.001, friction=1.0, replicas=2, equilibration=0.0, production=0.02, interval=0.01)
        >>> with TemporaryDirectory() as folder, ContextPool(1) as pool:
        ...     found = sample_end_states({"a": system}, {"a": molecule}, {"a": how}, Path(folder), seed=0, pool=pool)
        >>> found["a"].positions.shape, found["a"].gradient_evaluations
        ((2, 2, 22, 3), 40)
    """
    folder.mkdir(parents=True, exist_ok=True)
    total, before = sum(d.steps for d in dynamics.values()), 0
    for state, molecule in molecules.items():
        save_topology(folder / f"{state}.pdb", molecule)
    for state, how in dynamics.items():
        if how.platform == "torch":
            batch = _Told(progress, before, total, f"molecular dynamics of state {state.upper()}")
            run_batched(systems[state], molecules[state], how, folder, state, seed=seed, device=device, progress=batch)
            before += how.steps
    runs = [
        _Replica(folder, state, i, systems[state], molecules[state], dynamics[state], seed)
        for state in systems
        for i in range(dynamics[state].replicas)
    ]
    pending: dict[Future, _Replica] = {run.submit(pool): run for run in runs if not run.finished}
    if progress:
        progress(sum(r.steps_done for r in runs), total, "molecular dynamics")
    for run, segment in pool.completed(pending):
        run.store(segment)
        if not run.finished:
            pending[run.submit(pool)] = run
        if progress:
            progress(sum(r.steps_done for r in runs), total, f"molecular dynamics of state {run.state.upper()}")
    return {state: _read(runs, folder, state, dynamics[state]) for state in systems}


def _read(runs: list[_Replica], folder: Path, state: str, how: Dynamics) -> Replicas:
    """What a finished state left behind."""
    frames = np.stack([r.frames() for r in runs if r.state == state])
    accepted, energies = swaps_of(folder, state, how.replicas) if how.exchange else ((), 0)
    return Replicas(frames, how.steps, accepted, energies)


@dataclass(frozen=True)
class _Told:
    """Progress of one state as progress of all."""

    progress: Callable[[int, int, str], None] | None
    before: int
    total: int
    what: str

    def __call__(self, steps: int) -> None:
        if self.progress:
            self.progress(self.before + steps, self.total, self.what)


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
        if self.finished:
            self.partial.unlink(missing_ok=True)  # where a process was killed in between
        self.done = dynamics.frames if self.finished else len(self._stored()[0])

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
            checkpoint = np.frombuffer(segment.checkpoint, dtype=np.uint8)
            save_restart(self.partial, {"positions": positions, "checkpoint": checkpoint})
        else:
            save_trajectory(self.trajectory, positions)
            self.partial.unlink(missing_ok=True)

    def frames(self) -> np.ndarray:
        return read_trajectory(self.trajectory, self.dynamics.frames, len(self.molecule.positions))

    def _stored(self) -> tuple[np.ndarray, bytes | None]:
        if not self.partial.exists():
            return np.empty((0, len(self.molecule.positions), 3), dtype=np.float32), None
        positions, checkpoint = read_restart(self.partial, ("positions", "checkpoint"))
        atoms = self.molecule.positions.shape
        if positions.shape[1:] != atoms or not 0 < len(positions) < self.dynamics.frames:
            raise InputError(
                f"{self.partial} must hold fewer than {self.dynamics.frames} frames of {atoms[0]} atoms: "
                f"got {positions.shape[:2]}; remove it"
            )
        return positions, checkpoint.tobytes()
