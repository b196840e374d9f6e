"""Langevin dynamics of many replicas at once, with forces of the torch force field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.captured import CapturedStep
from nessampler.molecular.force_field.force_field import TorchForceField
from nessampler.molecular.force_field.target import thermal_energy

__all__ = ["Forces", "LangevinMiddle", "Phase", "maxwell"]


class Forces(Protocol):
    """What moves replicas: a `TorchForceField`, or a mixture of several."""

    @property
    def device(self) -> torch.device: ...

    @property
    def capturable(self) -> bool:
        """Whether nothing in `forces` waits for the GPU, so that a CUDA graph can record it."""
        ...

    def forces(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        """kJ/mol/nm, in the precision of x."""
        ...


@dataclass(frozen=True)
class Phase:
    """Positions in nm and velocities in nm/ps of every replica, float64, `(n, atoms, 3)` each."""

    x: Float[Tensor, "n atoms 3"]
    v: Float[Tensor, "n atoms 3"]


class LangevinMiddle:
    r"""Constant-temperature dynamics of independent replicas, one evaluation of forces a step.

    $$v \leftarrow v + \tfrac{\Delta t}{m} F(x), \quad x \leftarrow x + \tfrac{\Delta t}{2} v, \quad
      v \leftarrow e^{-\gamma\Delta t} v + \sqrt{\tfrac{k_BT}{m}(1 - e^{-2\gamma\Delta t})}\,\xi, \quad
      x \leftarrow x + \tfrac{\Delta t}{2} v$$

    The same discretisation as `openmm.LangevinMiddleIntegrator`, velocities half a step behind positions. OpenMM steps
    one replica at a time; here thousands share every operation, which pays where forces are dear and cores or a GPU
    would idle (`docs/benchmarks/force_field.md`). Positions are float64; forces come in the force field's precision.
    On a GPU, steps of a compiled force field are replayed as one CUDA graph, if the generator is on the GPU as well.

    | symbol | argument | |
    |---|---|---|
    | F | `force_field` | kJ/mol/nm |
    | m | `masses` | Da, `(atoms,)` |
    | T | `temperature` | kelvin |
    | $\Delta t$ | `timestep` | ps |
    | $\gamma$ | `friction` | 1/ps |

    Raises:
        InputError: a temperature, time step, friction or mass that is not positive.

    References:
        Zhang et al., Unified efficient thermostat scheme for the canonical ensemble with holonomic or isokinetic
        constraints via molecular dynamics, 2019, J. Phys. Chem. A 123, 6056.

    Example:
        >>> spring = openmm.HarmonicBondForce()
        >>> _ = spring.addBond(0, 1, 0.1, 1000.0)
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(2)], system.addForce(spring)
        >>> dynamics = LangevinMiddle.of(system, 300.0, timestep=0.002, friction=1.0)
        >>> generator = torch.Generator().manual_seed(0)
        >>> phase = dynamics.start(torch.tensor([[0.0, 0, 0], [0.1, 0, 0]]), 4, generator=generator)
        >>> dynamics.run(phase, 10, generator=generator).x.shape
        torch.Size([4, 2, 3])
    """

    def __init__(
        self,
        force_field: Forces,
        masses: Float[Tensor, " atoms"],
        temperature: float,
        *,
        timestep: float,
        friction: float,
    ) -> None:
        if not (timestep > 0 and friction > 0 and bool((masses > 0).all())):
            raise InputError(
                f"dynamics needs a positive time step, friction and masses: got {timestep} ps, {friction} / ps and a "
                f"smallest mass of {float(masses.min())} Da"
            )
        self.force_field, self.timestep = force_field, timestep
        self.masses = masses.to(force_field.device, torch.float64)[:, None]
        self.thermal_speed = (thermal_energy(temperature) / self.masses).sqrt()
        self.kept = math.exp(-friction * timestep)
        self.accepted = torch.zeros(2, 0, dtype=torch.float64)  # of swaps: nothing is exchanged
        self._captured: tuple[torch.Generator, torch.Size, CapturedStep] | None = None

    @classmethod
    def of(
        cls,
        system: openmm.System,
        temperature: float,
        *,
        timestep: float,
        friction: float,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        replicas: int | None = None,
    ) -> LangevinMiddle:
        """Of an `openmm.System`, with its masses; forces are compiled for so many replicas, if that is given."""
        field = TorchForceField(system, device=device, dtype=dtype, compile=compile)
        if replicas is not None:
            field.chunk_size = field.chunk_for(replicas)
        masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]
        return cls(field, torch.tensor(masses), temperature, timestep=timestep, friction=friction)

    def start(self, x: Float[Tensor, "atoms 3"], n: int, *, generator: torch.Generator) -> Phase:
        """n replicas at x, with velocities of their own."""
        positions = x.to(self.masses).expand(n, *x.shape).clone()
        return Phase(positions, maxwell(positions.shape, self.thermal_speed, generator))

    def run(
        self,
        phase: Phase,
        steps: int,
        *,
        generator: torch.Generator,
        progress: Callable[[int], None] | None = None,
    ) -> Phase:
        """Every replica this many steps further.

        Args:
            phase: where they are.
            steps: of the time step.
            generator: source of randomness; with the phase it is all there is to restart from.
            progress: told the steps done.

        Raises:
            InputError: atoms that flew apart.
        """
        if self._capturable(generator):
            x, v = self._recorded(phase, generator).run(phase.x, phase.v, steps, progress)
        else:
            x, v = phase.x.clone(), phase.v.clone()
            for step in range(steps):
                self._step(x, v, generator)
                if progress:
                    progress(step + 1)
        if not bool(torch.isfinite(x).all()):
            raise InputError(
                f"molecular dynamics must stay finite: at a time step of {self.timestep * 1000:g} fs atoms flew apart; "
                "shorten md.timestep, or check the structure"
            )
        return Phase(x, v)

    def _step(self, x: Tensor, v: Tensor, generator: torch.Generator) -> None:
        """In place."""
        h = self.timestep
        v += h / self.masses * self.force_field.forces(x)
        x += 0.5 * h * v
        v *= self.kept
        v += maxwell(v.shape, math.sqrt(1 - self.kept**2) * self.thermal_speed, generator)
        x += 0.5 * h * v

    def _capturable(self, generator: torch.Generator) -> bool:
        here = self.masses.device
        same = generator.device.type == here.type and generator.device.index in (None, here.index)
        return here.type == "cuda" and same and self.force_field.capturable

    def _recorded(self, phase: Phase, generator: torch.Generator) -> CapturedStep:
        """The last one, if it is of as many replicas and of the same generator."""
        if self._captured is None or self._captured[0] is not generator or self._captured[1] != phase.x.shape:
            step = CapturedStep(lambda x, v: self._step(x, v, generator), phase.x, phase.v, generator)
            self._captured = (generator, phase.x.shape, step)
        return self._captured[2]


def maxwell(shape: torch.Size, speed: Float[Tensor, "atoms 1"], generator: torch.Generator) -> Tensor:
    """Normal velocities of these widths."""
    return speed * torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device).to(
        speed.device
    )
