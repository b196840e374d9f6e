"""Replicas of an end state that turn where its barriers are low: exchange with the same state, weakened."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from nessampler.molecular.dynamics import Dynamics
from nessampler.molecular.force_field.target import TorchForceFieldTarget
from nessampler.molecular.state_dynamics import LangevinStates
from nessampler.molecular.torch_dynamics import Phase
from nessampler.paths.scheduled import ScheduledPath

__all__ = ["WeakenedExchange", "only", "weakened_path"]

STIFF = (openmm.HarmonicBondForce, openmm.HarmonicAngleForce)
BETWEEN_SWAPS = 0.2  # ps


def weakened_path(
    system: openmm.System,
    temperature: float,
    weakest: float,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
) -> ScheduledPath:
    r"""From a state to the same one with all but its bonds and angles weakened.

    $$U_t = V_\mathrm{stiff} + w^t\, V_\mathrm{loose}$$

    Torsions, nonbonded forces and the solvent see a temperature of $T / w$ at t = 1, bonds and angles that of the
    state, so far fewer states suffice than with a temperature for all.

    Args:
        system: covered by torch.
        temperature: kelvin.
        weakest: w, between 0 and 1.
        device, dtype, compile: as for `TorchForceField`.

    References:
        Wang, Friesner & Berne, Replica exchange with solute scaling: a more efficient version of replica exchange with
        solute tempering (REST2), 2011, J. Phys. Chem. B 115, 9431.
    """

    options = {"device": device, "dtype": dtype, "compile": compile}
    stiff, loose = (
        TorchForceFieldTarget(only(system, lambda f, own=own: isinstance(f, STIFF) == own), temperature, **options)
        for own in (True, False)
    )

    def schedule(t: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(t), weakest**t], -1)

    return ScheduledPath([stiff, loose], schedule, _Weakened(stiff, loose, 1.0), _Weakened(stiff, loose, weakest))


def only(system: openmm.System, wanted: Callable[[openmm.Force], bool]) -> openmm.System:
    """A copy with the forces that are wanted."""
    kept = deepcopy(system)
    for k in reversed(range(kept.getNumForces())):
        if not wanted(kept.getForce(k)):
            kept.removeForce(k)
    return kept


@dataclass(frozen=True)
class _Weakened:
    """One state of the path."""

    stiff: TorchForceFieldTarget
    loose: TorchForceFieldTarget
    weight: float

    @property
    def event_shape(self) -> torch.Size:
        return self.stiff.event_shape

    def energy(self, x: Tensor) -> Tensor:
        return self.stiff.energy(x) + self.weight * self.loose.energy(x)


@dataclass
class WeakenedExchange:
    """An engine for the replicas of one end state, each with weakened companions that it is exchanged with.

    A ladder is a replica of the state and of every weakened one; ladders never meet. The first replicas of a phase, as
    many as `how.replicas`, are those of the state itself.

    Args:
        system: of the state.
        how: with `exchange` weakened states down to `weakest`.
        device, compile: as for `TorchForceField`.

    Attributes:
        accepted: sums of the accepted fractions of swaps between a state and the next, and how often each was tried.
    """

    system: openmm.System
    how: Dynamics
    device: torch.device | str = "cpu"
    compile: bool = False

    def __post_init__(self) -> None:
        options = {"device": self.device, "compile": self.compile}
        path = weakened_path(self.system, self.how.temperature, self.how.weakest, **options)
        self.times = torch.linspace(0, 1, self.how.exchange + 1, dtype=torch.float64)
        masses = [self.system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(path.start.event_shape[0])]
        self.accepted = torch.zeros(2, self.how.exchange, dtype=torch.float64)
        self._stride = _divisor(self.how.stride, max(1, round(BETWEEN_SWAPS / self.how.timestep)))
        self._states = LangevinStates(
            path,
            torch.tensor(masses),
            self.how.temperature,
            torch.zeros(*path.start.event_shape, dtype=torch.float64, device=self.device),
            self.how.timestep,
            self.how.friction,
            self.how.replicas,
            0.0,
            self._stride * self.how.timestep,
            self._stride * self.how.timestep,
            swap=True,
        )

    def start(self, x: Float[Tensor, "atoms 3"], n: int, *, generator: torch.Generator) -> Phase:
        """All replicas of all states at x, with velocities of their own; n is that of the ladders."""
        return self._states.dynamics(self.times).start(x, n * len(self.times), generator=generator)

    def run(self, phase: Phase, steps: int, *, generator: torch.Generator) -> Phase:
        """Every replica this many steps further, swaps of even and of odd pairs as chance has it.

        Raises:
            InputError: atoms that flew apart.
        """
        for _ in range(steps // self._stride):
            first = int(torch.randint(2, (1,), generator=generator, device=generator.device))
            drawn = self._states.advance(self.times, phase, 1, first=first, generator=generator)
            phase, tried = drawn.phase, drawn.accepted.isfinite()
            self.accepted += torch.stack([drawn.accepted.nan_to_num(), tried.to(torch.float64)])
        return phase


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is not above `most`; n itself where that would be steps of next to nothing.

    >>> _divisor(500, 100), _divisor(30, 100), _divisor(503, 100)
    (100, 30, 503)
    """
    largest = max(k for k in range(1, min(n, most) + 1) if n % k == 0)
    return largest if largest == n or 4 * largest > most else n
