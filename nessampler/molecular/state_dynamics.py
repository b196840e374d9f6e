"""Equilibrium samples of every state of a path by one batch of molecular dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.force_field.force_field import TorchForceField
from nessampler.molecular.force_field.target import thermal_energy
from nessampler.molecular.torch_dynamics import LangevinMiddle
from nessampler.paths import AnnealingPath

__all__ = ["LangevinStates"]


@dataclass(frozen=True)
class LangevinStates:
    r"""Langevin replicas at every state of a path, all stepped together, each with the forces of its own $U_t$.

    $$F(x) = -k_B T\, \nabla U_t(x)$$

    A sampler for `nessampler.methods.staged`. Positions are in nm; the time step and all lengths in ps. Every replica
    starts at `x`, with velocities of its own.

    | argument | |
    |---|---|
    | `path` | any over positions `(n, atoms, 3)`: an `AlchemicalPath`, or a `LinearPath` of two force fields |
    | `masses` | Da, `(atoms,)`; heavier hydrogens allow a longer step and change no average |
    | `temperature` | kelvin, the one that the path's kT is of |
    | `x` | where all start, `(atoms, 3)` |
    | `timestep`, `friction` | ps and 1/ps |
    | `chains` | replicas of each state |
    | `equilibration`, `production`, `interval` | ps per replica: dropped, stored, and between stored draws |

    Raises:
        InputError: numbers that are not positive, an interval below the time step, or (on a call) atoms that flew
            apart.

    References: see `LangevinMiddle`.
    """

    path: AnnealingPath
    masses: Float[Tensor, " atoms"]
    temperature: float
    x: Float[Tensor, "atoms 3"]
    timestep: float = 0.001
    friction: float = 1.0
    chains: int = 16
    equilibration: float = 10.0
    production: float = 100.0
    interval: float = 0.1

    def __post_init__(self) -> None:
        if self.interval < self.timestep or self.production < self.interval or self.chains < 1:
            raise InputError(
                f"dynamics stores every interval, a time step at least, of a longer production in one chain or more: "
                f"got a time step of {self.timestep} ps, an interval of {self.interval} ps, {self.production} ps and "
                f"{self.chains} chains"
            )

    @property
    def steps(self) -> int:
        """Steps of each replica, one gradient each."""
        return self._stride * (self._draws + round(self.equilibration / self.interval))

    def __call__(
        self, times: Float[Tensor, " states"], *, generator: torch.Generator
    ) -> Float[Tensor, "states chains draws atoms 3"]:
        """Draws in the order of time, float64."""
        field = _PathForces(self.path, times.repeat_interleave(self.chains), thermal_energy(self.temperature), self.x)
        dynamics = LangevinMiddle(
            cast(TorchForceField, field),
            self.masses,
            self.temperature,
            timestep=self.timestep,
            friction=self.friction,
        )
        phase = dynamics.start(self.x, len(times) * self.chains, generator=generator)
        burn_in = round(self.equilibration / self.interval) * self._stride
        phase = dynamics.run(phase, burn_in, generator=generator)
        draws = []
        for _ in range(self._draws):
            phase = dynamics.run(phase, self._stride, generator=generator)
            draws.append(phase.x)
        return torch.stack(draws, 1).unflatten(0, (len(times), self.chains))

    @property
    def _stride(self) -> int:
        return max(1, round(self.interval / self.timestep))

    @property
    def _draws(self) -> int:
        return round(self.production / self.interval)


class _PathForces:
    """The one thing that dynamics asks of a force field, for replicas at times of their own."""

    def __init__(self, path: AnnealingPath, t: Tensor, kt: float, x: Tensor) -> None:
        self._path, self._t, self._kt, self.device = path, t.to(x.device), kt, x.device

    def forces(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        """kJ/mol/nm."""
        return self._kt * self._path.energy_and_score(self._t.to(x.dtype), x)[1]
