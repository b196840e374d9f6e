"""Ewald's sum over the waves of a rectangular box, with the waves that OpenMM chooses."""

from __future__ import annotations

import math
from collections.abc import Callable

import openmm
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from nessampler.molecular.force_field.protocol import plain

__all__ = ["Ewald"]


class Ewald(nn.Module):
    r"""The part of Ewald's sum that is smooth in space: waves, self-energy and neutralizing background.

    $$U = k_e \left[ \frac{4\pi}{V} \sum_{k > 0} \frac{e^{-k^2 / 4\alpha^2}}{k^2} \Big|\sum_i q_i e^{i k x_i}\Big|^2
          - \frac{\alpha}{\sqrt\pi} \sum_i q_i^2 - \frac{\pi}{2 V \alpha^2} \Big(\sum_i q_i\Big)^2 \right]$$

    with one of each pair of waves $\pm k$. The short-ranged part is $k_e q_i q_j\, \mathrm{erfc}(\alpha r) / r$.

    Args:
        alpha: $\alpha$ in 1/nm.
        waves: along each axis, wave numbers are below it in size.
        constant: $k_e$ in kJ/mol nm.

    References:
        A smooth particle mesh Ewald method, 1995, J. Chem. Phys. 103, 8577.
    """

    counted: Bool[Tensor, "kx ky kz"]
    numbers: Float[Tensor, "3 kx ky kz"]

    def __init__(self, alpha: float, waves: tuple[int, int, int], constant: float) -> None:
        super().__init__()
        self.alpha, self.waves, self.constant = alpha, waves, constant
        nx, ny, nz = waves
        k = torch.meshgrid(torch.arange(nx), torch.arange(1 - ny, ny), torch.arange(1 - nz, nz), indexing="ij")
        counted = (k[0] > 0) | (k[1] > 0) | ((k[1] == 0) & (k[2] > 0))
        self.register_buffer("counted", counted)
        self.register_buffer("numbers", torch.stack(k).to(torch.float64))

    @classmethod
    def from_openmm(cls, force: openmm.NonbondedForce, system: openmm.System, constant: float) -> Ewald:
        """With OpenMM's choice of α and of the number of waves, from the error tolerance and the default box."""
        tolerance = force.getEwaldErrorTolerance()
        (cutoff,) = plain([force.getCutoffDistance()])
        alpha = math.sqrt(-math.log(2 * tolerance)) / cutoff
        widths = [plain([v])[0][axis] for axis, v in enumerate(system.getDefaultPeriodicBoxVectors())]
        waves = [_first_below(lambda n, w=w: _wave_error(n, w * alpha), tolerance) for w in widths]
        nx, ny, nz = (n + 1 - n % 2 for n in waves)  # odd
        return cls(alpha, (nx, ny, nz), constant)

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], charge: Float[Tensor, "atoms _"], box: Float[Tensor, "3 3"]
    ) -> Float[Tensor, "summands walkers"]:
        """The energy of every wave, of every atom with itself, and of the background."""
        width = box.diagonal()
        volume = width.prod()
        scaled = x * (2 * math.pi / width)[:, None, None]
        e_x, e_y, e_z = (_waves(scaled[axis], start, n) for axis, (start, n) in enumerate(self._ranges()))
        planes = (charge * e_x)[:, None] * e_y  # (kx, ky, atoms, walkers)
        structure = torch.einsum("xyaw,zaw->xyzw", planes, e_z)
        wave = 2 * math.pi * self.numbers / width[:, None, None, None]
        square = torch.where(self.counted, wave.square().sum(0), 1.0)
        weight = 4 * math.pi / volume * torch.exp(-square / (4 * self.alpha**2)) / square * self.counted
        waves = weight[..., None] * (structure.real.square() + structure.imag.square())
        own = (-self.alpha / math.sqrt(math.pi) * charge.square()).expand(-1, x.shape[-1])
        background = -math.pi / (2 * volume * self.alpha**2) * charge.sum(0, keepdim=True).square()
        rows = [waves.flatten(0, 2), own, background.expand(-1, x.shape[-1])]
        return self.constant * torch.cat(rows)

    def _ranges(self) -> tuple[tuple[int, int], ...]:
        nx, ny, nz = self.waves
        return (0, nx), (1 - ny, ny), (1 - nz, nz)


def _waves(phase: Float[Tensor, "atoms walkers"], start: int, stop: int) -> Tensor:
    """$e^{i m \\varphi}$ for whole m."""
    m = torch.arange(start, stop, device=phase.device, dtype=phase.dtype)[:, None, None]
    return torch.complex(torch.cos(m * phase), torch.sin(m * phase))


def _wave_error(n: int, width: float) -> float:
    """OpenMM's estimate of what waves from number n on contribute, `width` in units of 1/α."""
    return 0.05 * math.sqrt(width) * n * math.exp(-((n * math.pi / width) ** 2))


def _first_below(error: Callable[[int], float], tolerance: float) -> int:
    """Where the error falls below the tolerance, looked for from 10 in the direction that OpenMM looks."""
    n = 10
    if error(n) < tolerance:
        while n > 0 and error(n) < tolerance:
            n -= 1
        return n + 1
    while error(n) > tolerance:
        n += 1
    return n
