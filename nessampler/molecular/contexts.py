"""OpenMM contexts behind two pure functions, energies of a batch and a segment of MD, spread over processes.

OpenMM evaluates one conformation at a time. A batch is therefore cut into chunks, and chunks and replicas run in
worker processes that keep their contexts. Every function here takes and returns plain arrays and bytes, so its
result does not depend on which process ran it, or on how many there are.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import unit

from nessampler._workers import end_with_the_parent
from nessampler.errors import InputError

__all__ = ["ContextPool", "LangevinDynamics", "Segment", "check_platform", "evaluate", "minimised", "run_segment"]

_KJ_PER_MOL = unit.kilojoule_per_mole
_NM = unit.nano * unit.meter
_FORCE = unit.kilojoule_per_mole / _NM


@dataclass(frozen=True)
class LangevinDynamics:
    """Constant-temperature dynamics of one replica: kelvin, picoseconds, 1/ps."""

    temperature: float
    timestep: float
    friction: float
    seed: int


@dataclass(frozen=True)
class Segment:
    """Frames of one stretch of MD, `(frames, atoms, 3)` nm in float32, and the state to go on from."""

    positions: np.ndarray
    checkpoint: bytes


def _platform(name: str) -> tuple[openmm.Platform, dict[str, str]]:
    # One thread per context: the processes already fill the cores, and sums stay in one order.
    return openmm.Platform.getPlatformByName(name), {"Threads": "1"} if name == "CPU" else {}


def check_platform(name: str) -> None:
    """Refuse a platform that OpenMM does not have here.

    Raises:
        InputError: naming those it has.
    """
    known = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    if name not in known:
        raise InputError(f"OpenMM's platform must be one that this machine has, {', '.join(known)}: got {name!r}")


_CONTEXTS: dict[tuple[str, str], openmm.Context] = {}  # per process; AMOEBA takes seconds to build one


def _new_context(system_xml: str, platform: str, seed: int = 1) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    kind, properties = _platform(platform)
    context = openmm.Context(openmm.XmlSerializer.deserialize(system_xml), integrator, kind, properties)
    _CONTEXTS[system_xml, platform] = context
    return context


def _context(system_xml: str, platform: str) -> openmm.Context:
    return _CONTEXTS.get((system_xml, platform)) or _new_context(system_xml, platform)


def _seeded_context(system_xml: str, platform: str, seed: int) -> openmm.Context:
    """A context whose random numbers start from `seed`.

    The Reference platform has one generator per process, which any new context seeds: a one-particle system
    serves, and spares building the real one again. Elsewhere the generator belongs to the context.
    """
    if platform != "Reference":
        return _new_context(system_xml, platform, seed)
    context = _context(system_xml, platform)
    dummy = openmm.System()
    dummy.addParticle(1.0)
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.001)
    integrator.setRandomNumberSeed(seed)
    openmm.Context(dummy, integrator, openmm.Platform.getPlatformByName("Reference"))
    return context


def evaluate(system_xml: str, platform: str, x: np.ndarray, forces: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Potential energies `(n,)` in kJ/mol and, if asked for, forces `(n, atoms, 3)` in kJ/mol/nm of positions in nm."""
    context = _context(system_xml, platform)
    energy = np.empty(len(x))
    force = np.empty(x.shape) if forces else None
    for i, positions in enumerate(np.asarray(x, dtype=np.float64)):
        context.setPositions(positions)
        state = context.getState(getEnergy=True, getForces=forces)
        energy[i] = state.getPotentialEnergy().value_in_unit(_KJ_PER_MOL)
        if force is not None:
            force[i] = state.getForces(asNumpy=True).value_in_unit(_FORCE)
    return energy, force


def minimised(system_xml: str, start: np.ndarray) -> np.ndarray:
    """The nearest minimum of the energy on the Reference platform, nm."""
    context = _context(system_xml, "Reference")
    context.setPositions(np.asarray(start, dtype=np.float64))
    openmm.LocalEnergyMinimizer.minimize(context)
    return context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(_NM)


def run_segment(
    system_xml: str,
    platform: str,
    dynamics: LangevinDynamics,
    start: np.ndarray,
    checkpoint: bytes | None,
    frames: int,
    stride: int,
) -> Segment:
    """`frames` positions, one every `stride` steps of LangevinMiddle MD.

    Without a checkpoint the replica starts from `start` (nm): minimised, with velocities from the Maxwell
    distribution. A checkpoint holds the state of the random numbers too, so a run cut into segments is the
    run in one piece.
    """
    context = _context(system_xml, platform) if checkpoint else _seeded_context(system_xml, platform, dynamics.seed)
    integrator = context.getIntegrator()
    integrator.setTemperature(dynamics.temperature)
    integrator.setFriction(dynamics.friction)
    integrator.setStepSize(dynamics.timestep)  # before the velocities, which it shifts by half a step
    if checkpoint:
        _load(context, checkpoint)
    else:
        context.setPositions(np.asarray(start, dtype=np.float64))
        openmm.LocalEnergyMinimizer.minimize(context)
        context.setVelocitiesToTemperature(dynamics.temperature, dynamics.seed)
    positions = np.empty((frames, len(start), 3), dtype=np.float32)
    for i in range(frames):
        integrator.step(stride)
        with np.errstate(over="ignore"):  # atoms that flew apart are reported below
            positions[i] = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(_NM)
    if not np.isfinite(positions).all():
        raise InputError(
            f"molecular dynamics must stay finite: at a time step of {dynamics.timestep * 1000:g} fs atoms flew apart; "
            "shorten md.timestep, or check the structure"
        )
    return Segment(positions, context.createCheckpoint())


def _load(context: openmm.Context, checkpoint: bytes) -> None:
    try:
        context.loadCheckpoint(checkpoint)
    except openmm.OpenMMException as error:
        raise InputError(
            f"a replica goes on from a checkpoint of its own system and platform: got another ({error}); remove the "
            "*.partial.npz files in endstates to sample these replicas again"
        ) from error


class ContextPool:
    """Processes that run `evaluate` and `run_segment`; one process, or none given, means here and now.

    The pool starts on first use. Scripts that ask for several processes need the usual
    `if __name__ == "__main__":` guard, as the workers are spawned.

    Example:
        >>> spring = openmm.HarmonicBondForce()
        >>> _ = spring.addBond(0, 1, 0.1, 1000.0)
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(2)], system.addForce(spring)
        >>> x = np.array([[[0.0, 0.0, 0.0], [0.15, 0.0, 0.0]]])
        >>> with ContextPool(1) as pool:
        ...     energy, forces = pool.evaluate(openmm.XmlSerializer.serialize(system), "Reference", x, forces=True)
        >>> energy.round(6), forces[0, 1].round(6)  # kJ/mol and kJ/mol/nm
        (array([1.25]), array([-50.,   0.,   0.]))
    """

    CHUNK = 64  # conformations per task: small enough to balance, large enough to hide the transfer

    def __init__(self, processes: int | None = None) -> None:
        self.processes = max(1, processes if processes is not None else (os.cpu_count() or 1))
        self._executor: ProcessPoolExecutor | None = None

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        """Run in a worker, or at once when there is only one process."""
        if self.processes == 1:
            done: Future = Future()
            try:
                done.set_result(function(*args))
            except Exception as error:
                done.set_exception(error)
            return done
        if self._executor is None:
            spawn = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self.processes, mp_context=spawn, initializer=end_with_the_parent)
        return self._executor.submit(function, *args)

    def evaluate(
        self, system_xml: str, platform: str, x: np.ndarray, forces: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """`evaluate`, chunk by chunk over the processes."""
        if self.processes == 1:
            return evaluate(system_xml, platform, x, forces)
        pieces = [x[i : i + self.CHUNK] for i in range(0, max(1, len(x)), self.CHUNK)]
        results = [f.result() for f in [self.submit(evaluate, system_xml, platform, p, forces) for p in pieces]]
        energy = np.concatenate([e for e, _ in results])
        return energy, np.concatenate([f for _, f in results]) if forces else None

    @staticmethod
    def completed(pending: dict[Future, Any]) -> Iterator[tuple[Any, Any]]:
        """Yield `(key, result)` as futures finish; what is added to `pending` meanwhile is waited for too."""
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), future.result()

    def close(self) -> None:
        """End the worker processes; the pool starts anew if it is used again."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def __enter__(self) -> ContextPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
