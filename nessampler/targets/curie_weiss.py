"""The Curie–Weiss magnet with continuous spins: many dimensions, one collective coordinate, exact log Z."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.many_well import sample_quartic

__all__ = ["CurieWeiss"]

CHUNK = 2**20
"""Numbers per intermediate array of the inner quadrature."""
DEPTH = 60.0
"""Integrands are followed down to exp(-60) of their maximum, below the rounding of their sum."""


class CurieWeiss:
    r"""Spins in quartic double wells, each coupled equally to all: mean-field φ⁴.

    $$U(x) = \sum_{i=1}^N \big[b (x_i^2 - 1)^2 - H x_i\big] - \frac J{2N} \Big(\sum_i x_i\Big)^2$$

    As $b \to \infty$ the spins become ±1 and this is the Curie–Weiss model. Below a critical coupling the
    magnetisation $m = \sum_i x_i / N$ has one peak, above it two, with a barrier of $O(N)$ kT between them at $H = 0$.
    The Hubbard–Stratonovich identity with an auxiliary field μ makes the spins independent,

    $$e^{J S^2/2N} = \sqrt{\frac{NJ}{2\pi}} \int e^{-NJ\mu^2/2 + J\mu S}\, d\mu, \qquad
      Z = \sqrt{\frac{NJ}{2\pi}} \int e^{-NJ\mu^2/2}\, \zeta(J\mu + H)^N\, d\mu, \qquad
      \zeta(h) = \int e^{-b(x^2-1)^2 + hx}\, dx,$$

    which gives log Z by two nested quadratures in one dimension, exact to rounding, and exact draws: μ first, then
    every spin on its own.

    | symbol | argument | |
    |---|---|---|
    | $N$ | `spins` | the dimension |
    | $b > 0$ | `stiffness` | kT |
    | $J > 0$ | `coupling` | kT |
    | $H$ | `field` | kT; 0 leaves the sign of the magnetisation open |

    Raises:
        InputError: no spin, a stiffness or coupling that is not positive, a field that is not finite.

    References:
        Hubbard, Calculation of partition functions, 1959, Phys. Rev. Lett. 3; Ellis & Newman, Limit theorems for
        sums of dependent random variables occurring in statistical mechanics, 1978, Z. Wahrscheinlichkeitstheorie 44
        (the model with a general single-spin measure).

    Example:
        >>> magnet = CurieWeiss(16, stiffness=2.0, coupling=1.5)
        >>> magnet.energy(torch.ones(1, 16))
        tensor([-12.])
    """

    def __init__(self, spins: int, *, stiffness: float, coupling: float, field: float = 0.0) -> None:
        if spins < 1 or not (0 < stiffness < math.inf and 0 < coupling < math.inf and math.isfinite(field)):
            raise InputError(
                "a magnet needs a spin, a positive stiffness and coupling, and a finite field: "
                f"got {spins}, {stiffness}, {coupling} and {field}"
            )
        self.spins, self.stiffness, self.coupling, self.field = spins, float(stiffness), float(coupling), float(field)
        self.event_shape = torch.Size([spins])
        self._nodes, self._log_density = self._tabulate()
        total = torch.logsumexp(self._log_density, 0) + torch.log(self._nodes[1] - self._nodes[0])
        self.log_z = float(total) + 0.5 * math.log(spins * self.coupling / (2 * math.pi))

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        own = self.stiffness * (x.square() - 1).square() - self.field * x
        total = x.sum(-1, dtype=torch.float64)
        return (own.sum(-1, dtype=torch.float64) - 0.5 * self.coupling / self.spins * total.square()).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        pull = self.coupling * self.magnetisation(x)[:, None] + self.field
        return self.energy(x), pull - 4 * self.stiffness * x * (x.square() - 1)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        bend = (12 * x.square() - 4).sum(-1, dtype=torch.float64)
        return (self.stiffness * bend - self.coupling).to(x)

    def magnetisation(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Mean spin of every walker."""
        return x.mean(-1, dtype=torch.float64).to(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in float64, by rejection: the auxiliary field, then the spins given it."""
        tilt = self.coupling * self._sample_field(n, generator) + self.field
        tilts = tilt[:, None].expand(n, self.spins)
        return sample_quartic(self.stiffness, 2 * self.stiffness, tilts, generator=generator)

    def _sample_field(self, n: int, generator: torch.Generator) -> Tensor:
        """Rejection from a histogram that lies above the density everywhere on the grid.

        The log density is a convex function minus NJ μ²/2. Within a cell of width w the convex part stays below its
        chord, so the whole stays below the larger of its ends plus NJ w²/8.
        """
        device = generator.device
        nodes, log_density = self._nodes.to(device), self._log_density.to(device)
        cell = nodes[1] - nodes[0]
        ceiling = torch.maximum(log_density[:-1], log_density[1:]) + self.spins * self.coupling * cell.square() / 8
        probability = torch.exp(ceiling - ceiling.max())
        draws, todo = torch.empty(n, dtype=torch.float64, device=device), n
        while todo:
            chosen = torch.multinomial(probability, todo, replacement=True, generator=generator)
            place, uniform = torch.rand(2, todo, generator=generator, dtype=torch.float64, device=device)
            mu = nodes[chosen] + cell * place
            mu = mu[uniform < torch.exp(self._field_log_density(mu) - ceiling[chosen])]
            draws[todo - len(mu) : todo] = mu
            todo -= len(mu)
        return draws

    def _tabulate(self) -> tuple[Tensor, Tensor]:
        """The log density of the auxiliary field on a grid that holds all of it."""
        # No peak is narrower than the Gaussian factor, 1/sqrt(NJ): four nodes per width are exact to rounding.
        spacing, reach = 0.25 / math.sqrt(self.spins * self.coupling), 1.0
        while True:
            count = math.ceil(reach / spacing)
            nodes = spacing * torch.arange(-count, count + 1, dtype=torch.float64)
            log_density = self._field_log_density(nodes)
            if float(torch.maximum(log_density[0], log_density[-1])) < float(log_density.max()) - DEPTH:
                return nodes, log_density
            reach *= 1.5

    def _field_log_density(self, mu: Tensor) -> Tensor:
        log_zeta = _log_single_spin(self.stiffness, self.coupling * mu + self.field)
        return self.spins * (log_zeta - 0.5 * self.coupling * mu.square())


def _log_single_spin(b: float, h: Tensor) -> Tensor:
    r"""$\log \int e^{-b(x^2-1)^2 + hx} dx$ for every h, by the trapezoidal rule."""
    steepest, reach = float(h.abs().max()), 1.0
    bottom = (1 + steepest / b) ** (1 / 3)  # beyond the deepest point at any of these h
    # Convex beyond the bottom, so once this deep it stays so.
    while reach < bottom or b * (reach**2 - 1) ** 2 - steepest * (reach - bottom) < b * (bottom**2 - 1) ** 2 + DEPTH:
        reach *= 1.1
    count = math.ceil(reach * 4 * math.sqrt(12 * b * bottom**2))  # four nodes per width of the narrowest peak
    x = torch.linspace(-reach, reach, 2 * count + 1, dtype=h.dtype, device=h.device)
    own = b * (x.square() - 1).square()
    parts = [torch.logsumexp(part[:, None] * x - own, -1) for part in h.split(max(1, CHUNK // len(x)))]
    return torch.cat(parts) + math.log(reach / count)
