"""Deterministic moves: nothing at all (FEP), or a bijection with exact log-determinant (targeted FEP)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.kernels.protocol import Walkers

__all__ = ["Identity", "Map"]


@dataclass(frozen=True)
class Identity:
    """No step: works are plain energy differences, as in free-energy perturbation (Zwanzig 1954)."""

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """The walkers as they are."""
        return Walkers(x, t)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Stay; log ratio 0."""
        return Walkers(walkers.x, t1), torch.zeros(len(walkers), dtype=torch.float64, device=walkers.x.device)


@dataclass(frozen=True)
class Map:
    r"""A bijection $f$ from state A to state B as one step over [0, 1]; backwards in time its exact inverse.

    $$x' = f(x), \qquad \log B(x|x') - \log F(x'|x) = \log\left|\det \frac{\partial x'}{\partial x}\right|$$

    References:
        Jarzynski, Targeted free energy perturbation, 2002, Phys. Rev. E 65, 046122, eq. 8.
    """

    transform: Transform

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """The walkers as they are."""
        return Walkers(x, t)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Apply the map, or its inverse."""
        if (t0, t1) not in ((0.0, 1.0), (1.0, 0.0)):
            raise InputError(f"a map is one step between t = 0 and t = 1: got {t0} to {t1}; use times [0, 1]")
        if t1 > t0:
            x = self.transform(walkers.x)
            log_det = self.transform.log_abs_det_jacobian(walkers.x, x)
        else:
            x = self.transform.inv(walkers.x)
            log_det = -self.transform.log_abs_det_jacobian(x, walkers.x)
        return Walkers(x, t1), log_det.to(torch.float64)  # pyright: ignore[reportArgumentType]
