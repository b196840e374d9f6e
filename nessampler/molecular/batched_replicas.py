"""All replicas of one end state in one batch of torch dynamics, in segments that are on disk before the next starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openmm
import torch

from nessampler.errors import InputError
from nessampler.molecular.contexts import minimised
from nessampler.molecular.dynamics import SEGMENTS, Dynamics
from nessampler.molecular.replica_files import read_restart, save_restart, save_trajectory
from nessampler.molecular.systems import Molecule
from nessampler.molecular.torch_dynamics import LangevinMiddle, Phase

__all__ = ["run_batched"]

ARRAYS = ("positions", "x", "v", "generator")


def run_batched(
    system: openmm.System,
    molecule: Molecule,
    dynamics: Dynamics,
    folder: Path,
    state: str,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Run, or finish, the replicas of a state and leave `STATE-REPLICA.nc` in the folder.

    All replicas start from the minimised structure with velocities and noise of their own. A restart file holds the
    state of the random numbers too, so a run cut into segments is the run in one piece.

    Args:
        system: every force of it covered by torch.
        molecule: its structure.
        dynamics: how long, and how many replicas.
        folder, state: where, and under which name.
        seed: of the run; the replicas' generator derives from it and the state.
        device: of the walkers.
        progress: told the steps of all replicas together.

    Raises:
        UnsupportedForce: a force that torch does not cover.
        InputError: atoms that flew apart, or a restart file of another run.
    """
    trajectories = [folder / f"{state}-{i}.nc" for i in range(dynamics.replicas)]
    partial = folder / f"{state}.partial.npz"
    if all(path.exists() for path in trajectories):
        partial.unlink(missing_ok=True)  # where a process was killed in between
        return
    integrator = LangevinMiddle.of(
        system,
        dynamics.temperature,
        timestep=dynamics.timestep,
        friction=dynamics.friction,
        device=device,
        compile=dynamics.steps >= WORTH_COMPILING,
        replicas=dynamics.replicas,
    )
    words = np.random.SeedSequence([seed, *state.encode()]).generate_state(1, np.uint64)
    generator = torch.Generator(device).manual_seed(int(words[0] >> np.uint64(1)))
    if partial.exists():
        positions, phase = _restarted(partial, dynamics, molecule, generator)
    else:
        x = torch.as_tensor(minimised(openmm.XmlSerializer.serialize(system), molecule.positions))
        phase = integrator.start(x, dynamics.replicas, generator=generator)
        positions = np.empty((dynamics.replicas, 0, *x.shape), dtype=np.float32)
    while positions.shape[1] < dynamics.frames:
        frames = []
        for _ in range(min(-(-dynamics.frames // SEGMENTS), dynamics.frames - positions.shape[1])):
            phase = integrator.run(phase, dynamics.stride, generator=generator)
            frames.append(phase.x.cpu().numpy().astype(np.float32))
            if progress:
                progress((positions.shape[1] + len(frames)) * dynamics.stride * dynamics.replicas)
        positions = np.concatenate([positions, np.stack(frames, 1)], 1)
        arrays = (positions, phase.x.cpu().numpy(), phase.v.cpu().numpy(), generator.get_state().numpy())
        save_restart(partial, dict(zip(ARRAYS, arrays, strict=True)))
    for path, frames in zip(trajectories, positions, strict=True):
        save_trajectory(path, frames)
    partial.unlink(missing_ok=True)


WORTH_COMPILING = 2_000_000  # steps of all replicas, below which a minute of compilation does not pay


def _restarted(
    path: Path, dynamics: Dynamics, molecule: Molecule, generator: torch.Generator
) -> tuple[np.ndarray, Phase]:
    positions, x, v, state = read_restart(path, ARRAYS)
    expected = (dynamics.replicas, *molecule.positions.shape)
    if x.shape != expected or v.shape != expected or positions.shape[1] > dynamics.frames:
        raise InputError(
            f"{path} must hold {expected[0]} replicas of {expected[1]} atoms and at most {dynamics.frames} frames: "
            f"got {x.shape[:2]} and {positions.shape[1]}; remove it"
        )
    generator.set_state(torch.as_tensor(state))
    return positions, Phase(*(torch.as_tensor(part).to(generator.device) for part in (x, v)))
