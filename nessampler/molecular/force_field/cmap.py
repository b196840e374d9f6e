"""Correction maps: an energy surface over two torsions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import openmm
import torch
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from nessampler.molecular.force_field.protocol import index_rows, plain
from nessampler.molecular.force_field.torsions import torsion_angles

__all__ = ["CMAPTorsion"]

# Cubic on [0, 1] by its values and slopes at both ends: rows are powers, columns f(0), f(1), f'(0), f'(1).
_HERMITE = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [-3.0, 3.0, -2.0, -1.0], [2.0, -2.0, 1.0, 1.0]]


class CMAPTorsion(nn.Module):
    r"""Bicubic surfaces over pairs of torsions, $U = \sum_c M_c(\varphi_c, \psi_c)$.

    A map's nodes lie at multiples of $2\pi$ over its size. Their slopes are those of periodic cubic splines along
    either torsion, and a patch is the bicubic with the values, slopes and mixed slopes of its four corners.

    Args:
        maps: square tables `(size, size)` in kJ/mol, the first torsion along the rows; sizes may differ.
        which: the map of every correction.
        first, second: chains of four atoms.
        periodic: displacements are those of the nearest images.
    """

    first: Int[Tensor, "4 corrections"]
    second: Int[Tensor, "4 corrections"]
    size: Int[Tensor, "corrections 1"]
    start: Int[Tensor, "corrections 1"]
    hermite: Float[Tensor, "4 4"]

    def __init__(
        self,
        maps: Sequence[Tensor],
        which: Sequence[int],
        first: Sequence[Sequence[int]],
        second: Sequence[Sequence[int]],
        *,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.maps = nn.ParameterList(nn.Parameter(m.to(torch.float64), requires_grad=False) for m in maps)
        for k, m in enumerate(maps):
            self.register_buffer(f"slope{k}", _spline_slopes(len(m)))
        start = np.cumsum([0] + [len(m) ** 2 for m in maps])
        sizes = torch.tensor([len(maps[k]) for k in which], dtype=torch.int64).reshape(-1, 1)
        self.register_buffer("size", sizes)
        self.register_buffer("start", torch.tensor([int(start[k]) for k in which]).reshape(-1, 1))
        self.register_buffer("hermite", torch.tensor(_HERMITE, dtype=torch.float64))
        self.register_buffer("first", index_rows(first, 4))
        self.register_buffer("second", index_rows(second, 4))
        self.periodic = periodic
        self.default_parameters: dict[str, float] = {}

    @classmethod
    def from_openmm(cls, force: openmm.CMAPTorsionForce, system: openmm.System) -> CMAPTorsion:
        """The same maps and corrections, in their order."""
        maps = []
        for m in range(force.getNumMaps()):
            size, energy = force.getMapParameters(m)
            values = torch.tensor(plain([energy])[0], dtype=torch.float64)
            maps.append(values.reshape(size, size).T.contiguous())  # OpenMM's first torsion is the fast index
        rows = [force.getTorsionParameters(t) for t in range(force.getNumTorsions())]
        periodic = force.usesPeriodicBoundaryConditions()
        return cls(maps, [r[0] for r in rows], [r[1:5] for r in rows], [r[5:9] for r in rows], periodic=periodic)

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None
    ) -> Float[Tensor, "corrections walkers"]:
        """The energy of every correction."""
        box = box if self.periodic else None
        a, u = self._place(torsion_angles(x, self.first, box))
        b, v = self._place(torsion_angles(x, self.second, box))
        patch = self._patches()[(self.start + a * self.size + b)]  # (corrections, walkers, 4, 4)
        rows = [_polynomial([patch[..., p, q] for q in range(4)], v) for p in range(4)]
        return _polynomial(rows, u)

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Tensor | None = None
    ) -> Float[Tensor, " walkers"]:
        """Their sum."""
        return self.contributions(x, globals, box).sum(0)

    def _place(self, angle: Float[Tensor, "m walkers"]) -> tuple[Tensor, Tensor]:
        """The patch that an angle lies in, and where in it."""
        scaled = torch.remainder(angle, 2 * math.pi) * (self.size.to(angle) / (2 * math.pi))
        index = torch.minimum(scaled.detach().floor().to(torch.int64), self.size - 1)
        return index, scaled - index

    def _patches(self) -> Float[Tensor, "patches 4 4"]:
        """Coefficients of $u^p v^q$ of every patch, of one map after the other."""
        found = []
        for k, values in enumerate(self.maps):
            slope = getattr(self, f"slope{k}")
            along, across = slope @ values, values @ slope.T
            corners = [[values, across], [along, slope @ across]]
            table = torch.stack([torch.stack([_ends(f, 1) for f in row], -2) for row in corners], -3)
            # now (size, size, along-slope, across-slope, end of v); the ends of u are the next rows
            table = torch.stack([table, table.roll(-1, 0)], -3)  # (..., slope u, end u, slope v, end v)
            table = table.reshape(*values.shape, 4, 4)
            found.append((self.hermite @ table @ self.hermite.T).reshape(-1, 4, 4))
        return torch.cat(found)


def _ends(values: Float[Tensor, "size size"], axis: int) -> Float[Tensor, "size size 2"]:
    return torch.stack([values, values.roll(-1, axis)], -1)


def _polynomial(coefficients: Sequence[Tensor], u: Tensor) -> Tensor:
    c0, c1, c2, c3 = coefficients
    return ((c3 * u + c2) * u + c1) * u + c0


def _spline_slopes(size: int) -> Float[Tensor, "size size"]:
    """The matrix from values at the nodes of a circle to the slopes of their periodic cubic spline, per spacing."""
    nodes, unit = np.arange(size + 1), np.eye(size)
    spline = CubicSpline(nodes, np.concatenate([unit, unit[:1]]), bc_type="periodic")
    return torch.tensor(spline(nodes[:-1], 1))
