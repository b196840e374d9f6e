"""The weighted Langevin step: exact at any step size, in both directions of time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.kernels.protocol import Walkers

__all__ = ["Langevin"]


@dataclass(frozen=True)
class Langevin:
    r"""Euler–Maruyama for $dX = (b + \varepsilon s)\,dt + \sqrt{2\varepsilon}\,dW$ with its exact discrete log ratio.

    Over an interval $[t_0, t_1]$ with $h = t_1 - t_0$ of either sign, $F$ and $B$ are Gaussians of variance
    $2\varepsilon|h|$ per coordinate and means

    $$m(t_0 \to t_1, x) = x + h\, b(t_0, x) + |h|\, \varepsilon\, s(t_0, x).$$

    The velocity changes sign with the direction, the score term does not. With $x' = m + \sqrt{2\varepsilon|h|}\,\xi$,

    $$\log B(x|x') - \log F(x'|x) = -q\cdot\xi - \tfrac12 |q|^2, \qquad
      q = \frac{h\,(b - b') + |h|\,\varepsilon\,(s + s')}{\sqrt{2\varepsilon|h|}},$$

    primes at $(t_1, x')$. No difference of positions appears, so float32 walkers lose nothing; sums are float64.

    | symbol | argument | |
    |---|---|---|
    | $b, s$ | `fields` | one call per step: the fields at $(t_1, x')$ serve the next step too |
    | $\varepsilon$ | `diffusion` | constant on an interval: a number, one per coordinate, a function of its midpoint |

    A coordinate whose diffusion is exactly zero stays where it is; its velocity must be zero.

    Raises:
        InputError: a negative diffusion, or a velocity along a coordinate without diffusion.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711, eqs. 8 and 26
        (continuous time); He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025,
        arXiv:2504.11516 (discrete forward and backward kernels).

    Example:
        >>> still = Langevin(lambda t, x: Evaluated(None, -x), diffusion=0.5)
        >>> walkers = still.start(0.0, torch.zeros(2, 1))
        >>> moved, log_ratio = still.step(0.0, 0.1, walkers, generator=torch.Generator().manual_seed(0))
        >>> moved.x.shape, log_ratio.dtype
        (torch.Size([2, 1]), torch.float64)
    """

    fields: Fields
    diffusion: float | Tensor | Callable[[float], Tensor]

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """Evaluate the fields where the walkers start."""
        return self._at(t, x)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """One step and its log ratio; one evaluation of the fields."""
        if walkers.time != t0 or walkers.cached is None:
            walkers = self._at(t0, walkers.x)
        here, sigma = walkers.cached, self._sigma(t0, t1, walkers.x)
        noise = torch.randn(walkers.x.shape, generator=generator, dtype=walkers.x.dtype, device=walkers.x.device)
        moved = self._at(t1, walkers.x + torch.addcmul(_drift(here, t1 - t0, sigma), sigma, noise))
        return moved, _log_ratio(here, moved.cached, t1 - t0, sigma, noise)

    def log_ratio(self, t0: float, t1: float, x: Tensor, x_new: Tensor) -> Float[Tensor, " n"]:
        """log B(x | x_new) - log F(x_new | x) of a given pair; antisymmetric under exchange of the ends."""
        here, there, sigma = self._at(t0, x).cached, self._at(t1, x_new).cached, self._sigma(t0, t1, x)
        noise = (x_new - x - _drift(here, t1 - t0, sigma)) * _inverse(sigma)
        return _log_ratio(here, there, t1 - t0, sigma, noise)

    def _at(self, t: float, x: Tensor) -> Walkers:
        evaluated = self.fields(torch.full((len(x),), t, dtype=x.dtype, device=x.device), x)
        return Walkers(x, t, evaluated, evaluated.energy)

    def _sigma(self, t0: float, t1: float, x: Tensor) -> Tensor:
        epsilon = self.diffusion(0.5 * (t0 + t1)) if callable(self.diffusion) else self.diffusion
        epsilon = torch.as_tensor(epsilon, dtype=x.dtype, device=x.device)
        if bool((epsilon < 0).any()) or not bool(torch.isfinite(epsilon).all()):
            raise InputError(f"diffusion must be finite and not negative: got {float(epsilon.min())} at least")
        return torch.sqrt(2 * epsilon * abs(t1 - t0))


def _drift(at: Evaluated, h: float, sigma: Tensor) -> Tensor:
    drift = 0.5 * sigma.square() * at.score  # |h| eps s
    return drift if at.velocity is None else torch.add(drift, at.velocity, alpha=h)


def _log_ratio(here: Evaluated, there: Evaluated, h: float, sigma: Tensor, noise: Tensor) -> Tensor:
    rate = h * _inverse(sigma)
    q = 0.5 * sigma * (here.score + there.score)
    if here.velocity is not None:
        _check_frozen(here.velocity, sigma)
        q = torch.addcmul(q, rate, here.velocity)  # fused: beside the fields, arrays are what a step costs
    if there.velocity is not None:
        _check_frozen(there.velocity, sigma)
        q = torch.addcmul(q, -rate, there.velocity)
    return -(q * torch.add(noise, q, alpha=0.5)).flatten(1).sum(1, dtype=torch.float64)


def _inverse(sigma: Tensor) -> Tensor:
    return torch.where(sigma > 0, 1 / sigma, 0.0)


def _check_frozen(velocity: Tensor, sigma: Tensor) -> None:
    if bool((sigma == 0).any()) and bool(torch.where(sigma == 0, velocity, 0.0).any()):
        raise InputError(
            "a coordinate with zero diffusion cannot have a velocity: the step would have no density; "
            "use a map or flow kernel for deterministic motion"
        )
