"""Metropolis for an involution: a proposal that jumps where no trajectory would cross, such as a magnet's reversal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.kernels.protocol import Walkers
from nessampler.paths import Path

__all__ = ["Mirror"]


@dataclass(frozen=True)
class Mirror:
    r"""$x' = f(x)$ with $f(f(x)) = x$ and $\lvert\det\partial f/\partial x\rvert = 1$, accepted by Metropolis.

    The proposal is its own inverse, so that it is accepted with probability $\min(1, e^{U_s(x) - U_s(f(x))})$ at the
    later of an interval's two times, s, and

    $$\log B(x|x') - \log F(x'|x) = U_s(x') - U_s(x).$$

    Args:
        path: energies only.
        involution: $f$, such as `torch.neg` for a field whose sign may change.

    References:
        Tierney, A note on Metropolis-Hastings kernels for general state spaces, 1998, Ann. Appl. Probab. 8, 1
        (deterministic proposals).

    Example:
        >>> from nessampler.paths import EndpointPath
        >>> from nessampler.targets import Gaussian
        >>> even = Gaussian(torch.zeros(1), torch.ones(1))
        >>> kernel = Mirror(EndpointPath(even, even), torch.neg)
        >>> walkers = kernel.start(1.0, torch.ones(2, 1))
        >>> kernel.step(1.0, 1.0, walkers, generator=torch.Generator().manual_seed(0))[0].x
        tensor([[-1.],
                [-1.]])
    """

    path: Path
    involution: Callable[[Tensor], Tensor]

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """Evaluate the energy where the walkers start."""
        return Walkers(x, t, None, self._energy(t, x))

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """One proposal; one energy, two where the walkers' own is not known."""
        time, x = max(t0, t1), walkers.x
        energy = walkers.energy if walkers.energy is not None and walkers.time == time else self._energy(time, x)
        y = self.involution(x)
        proposed = self._energy(time, y)
        uniform = torch.rand(len(x), generator=generator, dtype=torch.float64, device=x.device)
        accept = uniform.log() < energy - proposed
        x = torch.where(accept.view(-1, *[1] * (x.ndim - 1)), y, x)
        after = torch.where(accept, proposed, energy)
        # Outside the support of U_s the density is zero, and so is the weight from here on, wherever the walker goes.
        log_ratio = torch.where(energy == torch.inf, -torch.inf, after.to(torch.float64) - energy.to(torch.float64))
        return Walkers(x, t1, None, after if t1 == time else None, accept.to(after)), log_ratio

    def _energy(self, t: float, x: Tensor) -> Tensor:
        return self.path.energy(torch.full((len(x),), t, dtype=x.dtype, device=x.device), x)
