"""Curved densities in the plane: a ring and two moons."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["Ring", "TwoMoons"]


class Ring:
    r"""A Gaussian profile about a circle: $U(x) = (|x| - R)^2 / 2w^2$ in the plane.

    $$Z = 2\pi\Big[w^2 e^{-R^2/2w^2} + R w \sqrt{\tfrac\pi2}\, \operatorname{erfc}\Big(\!-\frac R{w\sqrt2}\Big)\Big]$$

    The score has a kink at the origin, where it is returned as zero, and the Laplacian of U a pole.

    Args:
        radius: $R > 0$, in the units of x.
        width: $w > 0$, in the units of x.

    Raises:
        InputError: a radius or width that is not positive.

    Example:
        >>> Ring(radius=2.0, width=0.4).energy(torch.tensor([[0.0, 2.4]]))
        tensor([0.5000])
    """

    event_shape = torch.Size([2])

    def __init__(self, radius: float, width: float) -> None:
        if not (0 < radius < math.inf and 0 < width < math.inf):
            raise InputError(f"a ring needs a positive radius and width: got {radius} and {width}")
        self.radius, self.width = float(radius), float(width)
        ratio = self.radius / self.width
        ends = math.exp(-0.5 * ratio**2) + ratio * math.sqrt(math.pi / 2) * math.erfc(-ratio / math.sqrt(2))
        self.log_z = math.log(2 * math.pi) + 2 * math.log(self.width) + math.log(ends)

    def energy(self, x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return 0.5 * ((torch.linalg.vector_norm(x, dim=-1) - self.radius) / self.width).square()

    def energy_and_score(self, x: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"]]:
        """U and -∇U."""
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        excess = (r - self.radius) / self.width
        direction = x / r.clamp_min(torch.finfo(x.dtype).tiny)
        return 0.5 * excess[:, 0].square(), -excess / self.width * direction

    def laplacian(self, x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        r = torch.linalg.vector_norm(x, dim=-1)
        return (2 - self.radius / r) / self.width**2

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        r"""Independent draws, in float64.

        The radius has the density $r\, e^{-(r-R)^2/2w^2}$, and $r \le r_0 e^{r/r_0 - 1}$; touching at the most
        probable $r_0$ turns the bound into a Gaussian of mean $r_0$ and variance $w^2$ from which to reject.
        """
        top, accepted = 0.5 * (self.radius + math.hypot(self.radius, 2 * self.width)), []
        while sum(map(len, accepted)) < n:
            noise = torch.randn(2 * n, generator=generator, dtype=torch.float64, device=generator.device)
            r = top + self.width * noise
            uniform = torch.rand(2 * n, generator=generator, dtype=torch.float64, device=generator.device)
            accepted.append(r[uniform < r / top * torch.exp(1 - r / top)])  # never where r < 0
        angle = 2 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64, device=generator.device)
        r = torch.cat(accepted)[:n] if accepted else angle
        return r[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


class TwoMoons:
    r"""Two crescents that face each other: a ring seen through two windows.

    $$U(x) = \frac{(|x| - 2)^2}{2 \cdot 0.2^2}
             - \log\Big[e^{-(x_1 - 2)^2/(2 \cdot 0.3^2)} + e^{-(x_1 + 2)^2/(2 \cdot 0.3^2)}\Big]$$

    with $x_1$ the first coordinate. The score of the ring has a kink at the origin, 72 kT above the moons.

    References:
        Rezende & Mohamed, Variational Inference with Normalizing Flows, 2015, arXiv:1505.05770 (the form); Stimper
        et al., normflows: A PyTorch Package for Normalizing Flows, 2023, J. Open Source Softw. (these widths, in code).

    Example:
        >>> TwoMoons().energy(torch.tensor([[2.2, 0.0], [-2.2, 0.0]])) - 0.5 / 0.3**2 * 0.2**2
        tensor([0.5000, 0.5000])
    """

    event_shape = torch.Size([2])
    ring = Ring(radius=2.0, width=0.2)
    window = 0.3

    def energy(self, x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return self.ring.energy(x) + self._window(x[:, 0])

    def energy_and_score(self, x: Float[Tensor, "n 2"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"]]:
        """U and -∇U."""
        energy, score = self.ring.energy_and_score(x)
        first = x[:, 0]
        pull = (self.ring.radius * torch.tanh(self._tilt(first)) - first) / self.window**2
        return energy + self._window(first), score + torch.stack([pull, torch.zeros_like(pull)], -1)

    def laplacian(self, x: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        between = self.ring.radius / self.window**2 / torch.cosh(self._tilt(x[:, 0]))
        return self.ring.laplacian(x) + 1 / self.window**2 - between.square()

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n 2"]:
        """Independent draws, in float64, by rejection from the ring."""
        accepted: list[Tensor] = []
        # Where one window is open the other adds less than exp(-R²/2w²) to the greatest value of 1.
        floor = -math.log1p(math.exp(-0.5 * (self.ring.radius / self.window) ** 2))
        while sum(map(len, accepted)) < n:
            x = self.ring.sample(4 * n, generator=generator)
            uniform = torch.rand(4 * n, generator=generator, dtype=torch.float64, device=generator.device)
            accepted.append(x[uniform < torch.exp(floor - self._window(x[:, 0]))])
        return torch.cat(accepted)[:n] if accepted else self.ring.sample(0, generator=generator)

    @cached_property
    def log_z(self) -> float:
        r"""$\log \int e^{-U}$ by the trapezoidal rule on a grid of 0.02: exact to rounding."""
        axis = torch.linspace(-4, 4, 401, dtype=torch.float64)
        x = torch.cartesian_prod(axis, axis)
        return float(torch.logsumexp(-self.energy(x), 0) + 2 * torch.log(axis[1] - axis[0]))

    def _tilt(self, first: Tensor) -> Tensor:
        return self.ring.radius * first / self.window**2

    def _window(self, first: Tensor) -> Tensor:
        far = first.abs()  # log(e^-a + e^-b) by its larger term, which loses no digits
        return 0.5 * ((far - self.ring.radius) / self.window).square() - torch.log1p(torch.exp(-2 * self._tilt(far)))
