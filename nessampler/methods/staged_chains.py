"""Equilibrium samples at the states of a path by Hamiltonian chains: what staged MBAR needs for any density."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import HMC, Mass, UnitMass, Walkers
from nessampler.paths import AnnealingPath

__all__ = ["HamiltonianStates"]


@dataclass(frozen=True)
class HamiltonianStates:
    """Chains of each state of a path, which start at samples of its two ends.

    A sampler for `nessampler.methods.staged`. The leapfrog step of a state is tuned in the first half of the
    equilibration and frozen there. States nearer to A start at samples of A, the others at samples of B; a state whose
    chains do not mix between the regions that its ends live in is wrong, as in any staged calculation.

    | argument | |
    |---|---|
    | `path` | with interior energies |
    | `x_a`, `x_b` | samples of the ends, as many as there are chains |
    | `equilibration` | trajectories that are dropped |
    | `draws`, `interval` | stored states of each chain, and trajectories between them |
    | `leapfrog_steps` | of a trajectory, one gradient each |
    | `step_size`, `mass` | of the leapfrog; the size where tuning starts |
    | `acceptance` | that tuning aims at |

    Raises:
        InputError: starts of different shapes, or lengths below one.

    References: Neal, MCMC using Hamiltonian dynamics, 2011, arXiv:1206.1901.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> g = torch.Generator().manual_seed(0)
        >>> x_a, x_b = a.sample(8, generator=g), b.sample(8, generator=g)
        >>> sampler = HamiltonianStates(LinearPath(a, b), x_a, x_b, equilibration=10, draws=5, step_size=0.5)
        >>> sampler(torch.tensor([0.2, 0.8]), generator=g).shape
        torch.Size([2, 8, 5, 1])
    """

    path: AnnealingPath
    x_a: Float[Tensor, " chains *event"]
    x_b: Float[Tensor, " chains *event"]
    equilibration: int = 100
    draws: int = 50
    interval: int = 2
    leapfrog_steps: int = 10
    step_size: float = 0.1
    mass: Mass = field(default_factory=UnitMass)
    acceptance: float = 0.8

    def __post_init__(self) -> None:
        if self.x_a.shape != self.x_b.shape:
            raise InputError(
                f"as many chains start at either end: got starts {tuple(self.x_a.shape)} and {tuple(self.x_b.shape)}"
            )
        if min(self.equilibration, self.draws, self.interval, self.leapfrog_steps) < 1:
            raise InputError(
                "equilibration, draws, interval and leapfrog_steps must be 1 at least: got "
                f"{self.equilibration}, {self.draws}, {self.interval} and {self.leapfrog_steps}"
            )

    @property
    def gradients(self) -> int:
        """What one state costs."""
        return len(self.x_a) * self.leapfrog_steps * (self.equilibration + self.draws * self.interval)

    @torch.no_grad()
    def __call__(
        self, times: Float[Tensor, " states"], *, generator: torch.Generator
    ) -> Float[Tensor, "states chains draws *event"]:
        """Draws in the order of the chains' time."""
        return torch.stack([self._chains(float(t), generator) for t in times])

    def _chains(self, time: float, generator: torch.Generator) -> Tensor:
        size, draws = self.step_size, []
        walkers = HMC(self.path, size, self.leapfrog_steps, self.mass).start(time, self.x_a if time < 0.5 else self.x_b)
        for n in range(self.equilibration):
            walkers = self._moved(time, size, walkers, generator)
            if 2 * n < self.equilibration:
                assert walkers.acceptance is not None
                gain = 1.5 * (float(walkers.acceptance.mean()) - self.acceptance)
                size *= math.exp(max(-0.7, min(0.4, gain)))
        for _ in range(self.draws):
            for _ in range(self.interval):
                walkers = self._moved(time, size, walkers, generator)
            draws.append(walkers.x)
        return torch.stack(draws, 1)

    def _moved(self, time: float, size: float, walkers: Walkers, generator: torch.Generator) -> Walkers:
        return HMC(self.path, size, self.leapfrog_steps, self.mass).step(time, time, walkers, generator=generator)[0]
