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
from nessampler.molecular.weakened import WeakenedExchange

__all__ = ["run_batched", "swaps_of"]

ARRAYS = ("positions", "x", "v", "generator", "accepted")


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
    integrator = _engine(system, dynamics, device)
    words = np.random.SeedSequence([seed, *state.encode()]).generate_state(1, np.uint64)
    generator = torch.Generator(device).manual_seed(int(words[0] >> np.uint64(1)))
    if partial.exists():
        positions, phase, accepted = _restarted(partial, dynamics, molecule, generator)
        integrator.accepted = torch.as_tensor(accepted)
    else:
        x = torch.as_tensor(minimised(openmm.XmlSerializer.serialize(system), molecule.positions))
        phase = integrator.start(x, dynamics.replicas, generator=generator)
        positions = np.empty((dynamics.replicas, 0, *x.shape), dtype=np.float32)
    while positions.shape[1] < dynamics.frames:
        frames = []
        for _ in range(min(-(-dynamics.frames // SEGMENTS), dynamics.frames - positions.shape[1])):
            phase = integrator.run(phase, dynamics.stride, generator=generator)
            frames.append(phase.x[: dynamics.replicas].cpu().numpy().astype(np.float32))
            if progress:
                progress((positions.shape[1] + len(frames)) * dynamics.steps // dynamics.frames)
        positions = np.concatenate([positions, np.stack(frames, 1)], 1)
        state_now = (phase.x.cpu(), phase.v.cpu(), generator.get_state(), integrator.accepted)
        arrays = (positions, *(part.numpy() for part in state_now))
        save_restart(partial, dict(zip(ARRAYS, arrays, strict=True)))
    if dynamics.exchange:  # before the trajectories, which say that all is done
        save_restart(_swaps(folder, state), {"accepted": integrator.accepted.numpy()})
    for path, frames in zip(trajectories, positions, strict=True):
        save_trajectory(path, frames)
    partial.unlink(missing_ok=True)


def swaps_of(folder: Path, state: str, replicas: int) -> tuple[tuple[float, ...], int]:
    """Of a finished state and its weakened companions: the fractions of swaps that were accepted, by gap, and the
    energies they took, of both replicas in both states.

    Raises:
        InputError: the file that says so is missing or damaged.
    """
    (total, tried), *_ = read_restart(_swaps(folder, state), ("accepted",))
    fractions = tuple(float(a / max(n, 1.0)) for a, n in zip(total, tried, strict=True))
    return fractions, round(4 * replicas * float(tried.sum()))


def _swaps(folder: Path, state: str) -> Path:
    return folder / f"{state}-exchange.npz"


def _engine(system: openmm.System, how: Dynamics, device: torch.device | str) -> LangevinMiddle | WeakenedExchange:
    compiled = how.steps >= WORTH_COMPILING
    if how.exchange:
        return WeakenedExchange(system, how, device, compiled)
    return LangevinMiddle.of(
        system,
        how.temperature,
        timestep=how.timestep,
        friction=how.friction,
        device=device,
        compile=compiled,
        replicas=how.replicas,
    )


WORTH_COMPILING = 2_000_000  # steps of all replicas, below which a minute of compilation does not pay


def _restarted(
    path: Path, dynamics: Dynamics, molecule: Molecule, generator: torch.Generator
) -> tuple[np.ndarray, Phase, np.ndarray]:
    positions, x, v, state, accepted = read_restart(path, ARRAYS)
    expected = (dynamics.replicas * (1 + dynamics.exchange), *molecule.positions.shape)
    if x.shape != expected or v.shape != expected or positions.shape[1] > dynamics.frames:
        raise InputError(
            f"{path} must hold {expected[0]} replicas of {expected[1]} atoms and at most {dynamics.frames} frames: "
            f"got {x.shape[:2]} and {positions.shape[1]}; remove it"
        )
    generator.set_state(torch.as_tensor(state))
    return positions, Phase(*(torch.as_tensor(part).to(generator.device) for part in (x, v))), accepted
