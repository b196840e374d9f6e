"""Equilibrium samples of every state of a path by one batch of molecular dynamics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.force_field.target import thermal_energy
from nessampler.molecular.path_forces import forces_of_states
from nessampler.molecular.torch_dynamics import LangevinMiddle, Phase
from nessampler.paths import AnnealingPath

__all__ = ["LangevinStates", "StateDraws", "Swaps", "exchange"]


@dataclass(frozen=True)
class StateDraws:
    """Draws of every state in the order of time, where the replicas are after them, and how often neighbours swapped.

    Attributes:
        x: nm, float64.
        phase: of all replicas, state by state; the next draws go on from here.
        accepted: the accepted fraction of the swaps between a state and the next; NaN where none was tried.
    """

    x: Float[Tensor, "states chains draws atoms 3"]
    phase: Phase
    accepted: Float[Tensor, " gaps"]


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
    | `swap` | whether neighbouring states `exchange` their replicas at every interval |

    With `swap`, the chains of a state still have its density, but replicas of all states pass through them: what is
    slow in one state happens in another. Correlations hide in the order of the replicas, so errors are best taken from
    whole chains, which never meet one another.

    Raises:
        InputError: numbers that are not positive, an interval below the time step, or (on a call) atoms that flew
            apart.

    References: see `LangevinMiddle` and `exchange`.
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
    swap: bool = False
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        phase = self.start(times, generator=generator)
        return self.advance(times, phase, self._draws, generator=generator).x

    def start(self, times: Float[Tensor, " states"], *, generator: torch.Generator) -> Phase:
        """Replicas of all states after equilibration."""
        dynamics = self.dynamics(times)
        phase = dynamics.start(self.x, len(times) * self.chains, generator=generator)
        for k in range(round(self.equilibration / self.interval)):
            phase = self._interval(dynamics, times, phase, k, generator)[0]
        return phase

    def advance(
        self, times: Float[Tensor, " states"], phase: Phase, draws: int, *, generator: torch.Generator, first: int = 0
    ) -> StateDraws:
        """So many more draws of every replica; from the phase and the generator's state a run can be resumed.

        Args:
            times: of the states.
            phase: of all replicas, state by state.
            draws: of every replica.
            generator: source of randomness.
            first: which pairs swap first, see `exchange`.
        """
        dynamics, kept, swaps = self.dynamics(times), [], []
        for k in range(first, first + draws):
            phase, accepted = self._interval(dynamics, times, phase, k, generator)
            kept.append(phase.x)
            swaps.append(accepted)
        x = torch.stack(kept, 1).unflatten(0, (len(times), self.chains))
        return StateDraws(x, phase, torch.stack(swaps).nanmean(0))

    def _interval(
        self, dynamics: LangevinMiddle, times: Tensor, phase: Phase, k: int, generator: torch.Generator
    ) -> tuple[Phase, Float[Tensor, " gaps"]]:
        phase = dynamics.run(phase, self._stride, generator=generator)
        if not self.swap:
            return phase, torch.full((len(times) - 1,), torch.nan, dtype=torch.float64)
        shape = (len(times), self.chains)
        swaps = exchange(self.path, times, phase.x.unflatten(0, shape), k % 2, generator=generator)
        # One temperature and one set of masses: velocities are as good in one state as in the other.
        source = swaps.source.flatten()
        return Phase(phase.x[source], phase.v[source]), swaps.accepted

    def dynamics(self, times: Float[Tensor, " states"]) -> LangevinMiddle:
        """What steps all replicas; the same object for the same times, since it may keep what it recorded on a GPU."""
        key = tuple(times.tolist())
        if self._kept.get("times") != key:
            t = times.to(self.x.device).repeat_interleave(self.chains)
            forces = forces_of_states(self.path, t, thermal_energy(self.temperature))
            options = {"timestep": self.timestep, "friction": self.friction}
            self._kept.update(times=key, dynamics=LangevinMiddle(forces, self.masses, self.temperature, **options))
        return self._kept["dynamics"]

    @property
    def _stride(self) -> int:
        return max(1, round(self.interval / self.timestep))

    @property
    def _draws(self) -> int:
        return round(self.production / self.interval)


@dataclass(frozen=True)
class Swaps:
    """Which replica comes to which place, as indices into the flattened replicas, and the accepted fraction by gap."""

    source: Int[Tensor, "states chains"]
    accepted: Float[Tensor, " gaps"]


def exchange(
    path: AnnealingPath,
    times: Float[Tensor, " states"],
    x: Float[Tensor, "states chains *event"],
    first: int,
    *,
    generator: torch.Generator,
) -> Swaps:
    r"""Swaps between neighbouring states of a path, chain by chain, which leave every state's density as it is.

    $$P = \min\big(1, \exp[U_k(x_k) + U_{k+1}(x_{k+1}) - U_k(x_{k+1}) - U_{k+1}(x_k)]\big)$$

    Pairs are `(first, first + 1)`, `(first + 2, first + 3)`, ...: 0 and 1 in turn let a replica reach every state.

    Args:
        path: kT.
        times: of the states.
        x: the replicas' positions.
        first: 0 or 1.
        generator: source of randomness.

    References:
        Sugita & Okamoto, Replica-exchange molecular dynamics method for protein folding, 1999, Chem. Phys. Lett. 314,
        141; Fukunishi, Watanabe & Takada, On the Hamiltonian replica exchange method for efficient sampling of
        biomolecular systems, 2002, J. Chem. Phys. 116, 9058.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> x = torch.tensor([[[9.0]], [[-9.0]]], dtype=torch.float64)  # either belongs to the other end
        >>> exchange(path, torch.tensor([0.0, 1.0]), x, 0, generator=torch.Generator().manual_seed(0)).source
        tensor([[1],
                [0]])
    """
    states, chains = x.shape[:2]
    source = torch.arange(states * chains, device=x.device).view(states, chains)
    accepted = torch.full((states - 1,), torch.nan, dtype=torch.float64)
    low = torch.arange(first, states - 1, 2, device=x.device)
    if not len(low):
        return Swaps(source, accepted)
    pair = torch.cat([low, low + 1])
    replicas = x[pair].flatten(0, 1)
    with torch.no_grad():
        here, there = (
            path.energy(times.to(x)[place].repeat_interleave(chains), replicas).to(torch.float64).view(2, -1, chains)
            for place in (pair, torch.cat([low + 1, low]))
        )
    gain = (here - there).sum(0)
    uniform = torch.rand(gain.shape, generator=generator, dtype=torch.float64, device=generator.device).to(x.device)
    swapped = uniform.log() < gain
    source[low], source[low + 1] = (
        torch.where(swapped, source[low + 1], source[low]),
        torch.where(swapped, source[low], source[low + 1]),
    )
    accepted[low.cpu()] = swapped.double().mean(1).cpu()
    return Swaps(source, accepted)
