"""Random-walk Metropolis: for densities without gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.kernels.mass import Mass, UnitMass
from nessampler.kernels.protocol import Walkers
from nessampler.paths import Path

__all__ = ["RandomWalk"]


@dataclass(frozen=True)
class RandomWalk:
    r"""Gaussian proposals accepted by Metropolis at the later of an interval's two times, $s$; log ratio as for `HMC`.

    $$\log B(x|x') - \log F(x'|x) = U_s(x') - U_s(x)$$

    Args:
        path: energies only.
        scale: of the proposal, a number, one per coordinate, or a function of $s$ that gives either.
        repeats: proposals per step.
        mass: whose inverse is the covariance of a proposal of scale 1, or a function of $s$ that gives it.

    References:
        Neal, Annealed importance sampling, 2001, Stat. Comput. 11, 125.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)))
        >>> kernel = RandomWalk(path, scale=0.5, repeats=3)
        >>> walkers = kernel.start(0.0, torch.zeros(4, 2))
        >>> moved, log_ratio = kernel.step(0.0, 1.0, walkers, generator=torch.Generator().manual_seed(0))
        >>> torch.allclose(log_ratio, (path.end.energy(moved.x) - path.end.energy(walkers.x)).double())
        True
    """

    path: Path
    scale: float | Tensor | Callable[[float], float | Tensor]
    repeats: int = 10
    mass: Mass | Callable[[float], Mass] = field(default_factory=UnitMass)

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """Evaluate the energy where the walkers start."""
        return Walkers(x, t, None, self._energy(t, x))

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """`repeats` proposals at the later time, one energy each."""
        time, x = max(t0, t1), walkers.x
        energy = walkers.energy if walkers.energy is not None and walkers.time == time else self._energy(time, x)
        before, acceptance = energy, torch.zeros_like(energy)
        scale = torch.as_tensor(self.scale(time) if callable(self.scale) else self.scale).to(x)
        mass = self.mass(time) if callable(self.mass) else self.mass
        for _ in range(self.repeats):
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            y = x + scale * mass.velocity(mass.momentum(noise))
            proposed = self._energy(time, y)
            uniform = torch.rand(len(x), generator=generator, dtype=torch.float64, device=x.device)
            accept = uniform.log() < energy - proposed
            x = torch.where(accept.view(-1, *[1] * (x.ndim - 1)), y, x)
            energy = torch.where(accept, proposed, energy)
            acceptance = acceptance + accept.to(energy) / self.repeats
        # Outside the support of U_s the density is zero, and so is the weight from here on, wherever the walker goes.
        log_ratio = torch.where(before == torch.inf, -torch.inf, energy.to(torch.float64) - before.to(torch.float64))
        return Walkers(x, t1, None, energy if t1 == time else None, acceptance), log_ratio

    def _energy(self, t: float, x: Tensor) -> Tensor:
        return self.path.energy(torch.full((len(x),), t, dtype=x.dtype, device=x.device), x)
