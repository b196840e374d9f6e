"""Independent atoms in a round trap of any hardness: where a path to a drop of liquid may start."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from scipy.special import gammaincinv
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["PowerGas", "fit_power_gas"]


class PowerGas:
    r"""$U(x) = \sum_i (|x_i|/R)^p$ of N atoms in three dimensions, in kT.

    p = 2 is a harmonic trap with $\kappa = 2/R^2$; with growing p the atoms fill a ball of radius R evenly.

    $$\log Z = N \log\big(4\pi R^3\, \Gamma(3/p) / p\big), \qquad (|x_i|/R)^p \sim \mathrm{Gamma}(3/p)$$

    | symbol | argument |
    |---|---|
    | N | `atoms` |
    | R | `radius` |
    | p | `power`, at least 2 |

    Shapes: walkers `(n, N, 3)`, energies `(n,)`.

    Raises:
        InputError: no atoms, a radius that is not positive, a power below 2.

    Example:
        >>> gas = PowerGas(2, radius=1.0, power=2.0)
        >>> gas.energy(torch.ones(1, 2, 3)), round(gas.log_z, 3)
        (tensor([6.]), 3.434)
    """

    def __init__(self, atoms: int, radius: float, power: float = 4.0) -> None:
        if atoms < 1 or not 0 < radius < math.inf or not 2 <= power < math.inf:
            raise InputError(
                f"a gas has atoms, a positive radius and a power of 2 or more: got {atoms}, {radius} and {power}"
            )
        self.event_shape, self.radius, self.power = torch.Size([atoms, 3]), float(radius), float(power)
        self.log_z = atoms * (math.log(4 * math.pi / power) + 3 * math.log(radius) + math.lgamma(3 / power))

    def energy(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return (x.square().sum(-1) / self.radius**2).pow(self.power / 2).sum(-1)

    def energy_and_score(self, x: Float[Tensor, "n atoms 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """U and -∇U."""
        square = x.square().sum(-1, keepdim=True) / self.radius**2
        steep = square.pow(self.power / 2 - 1)
        return (steep * square).sum((1, 2)), -(self.power / self.radius**2) * steep * x

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n atoms 3"]:
        """Independent, exact draws, float64."""
        atoms, device = self.event_shape[0], generator.device
        direction = torch.randn(n, atoms, 3, generator=generator, dtype=torch.float64, device=device)
        uniform = torch.rand(n, atoms, generator=generator, dtype=torch.float64, device=device)
        gamma = torch.from_numpy(gammaincinv(3 / self.power, uniform.cpu().numpy())).to(device)
        size = self.radius * gamma.pow(1 / self.power)
        return direction / direction.norm(dim=-1, keepdim=True) * size.unsqueeze(-1)


def fit_power_gas(x: Float[Tensor, "n atoms 3"], power: float = 4.0) -> PowerGas:
    r"""The gas of that power most likely to give x: $R^p = p\, \langle |x_i|^p \rangle / 3$.

    Example:
        >>> gas = PowerGas(10, radius=2.0)
        >>> x = gas.sample(2000, generator=torch.Generator().manual_seed(0))
        >>> round(fit_power_gas(x).radius, 1)
        2.0
    """
    size = x.double().square().sum(-1).pow(power / 2).mean()
    return PowerGas(x.shape[1], float(power * size / 3) ** (1 / power), power)
