r"""Tabulated functions of custom forces: natural and periodic cubic splines, and tables of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from nessampler.errors import InputError

__all__ = ["Discrete", "Spline", "tabulated_function", "tabulated_functions"]


class Spline(nn.Module):
    r"""A product of cubic splines in one, two or three variables through values on a regular grid.

    In cell $i$ of each variable, with the local coordinate $t \in [0, 1]$,
    $f = \sum_{k} c_{ik}\, t^k$ per variable. Natural ends have no curvature and the function is zero outside the
    grid; a periodic function repeats, and its first and last values have to agree.

    Args:
        values: on the grid, one axis per variable.
        limits: first and last grid point of every variable.
        periodic: in all variables, or in none.

    Shapes: arguments that broadcast, of any float dtype. Continuous with its second derivatives inside the grid.

    Raises:
        InputError: limits that do not fit the values, or a periodic table whose ends differ.

    Example:
        >>> line = Spline(torch.tensor([1.0, 3.0, 5.0]), [(0.0, 2.0)])
        >>> line(torch.tensor([0.25, 1.5, 2.5])), line(torch.tensor([0.25]), order=(1,))
        (tensor([1.5000, 4.0000, 0.0000]), tensor([2.]))
    """

    smooth = True
    coefficients: Tensor

    def __init__(
        self, values: Float[Tensor, "*grid"], limits: Sequence[tuple[float, float]], periodic: bool = False
    ) -> None:
        super().__init__()
        table = values.detach().double().cpu().numpy()
        self.arity, self.limits, self.periodic = len(limits), [(float(a), float(b)) for a, b in limits], periodic
        if table.ndim != self.arity or min(table.shape) < 2 or any(b <= a for a, b in limits):
            raise InputError(
                f"a spline has increasing limits and two values or more per variable: got limits {list(limits)} and "
                f"values {table.shape}; correct the table"
            )
        self.cells = tuple(n - 1 for n in table.shape)
        for axis in range(self.arity):
            table = _polynomials(table, axis, periodic)
        table = table.reshape(-1, *([4] * self.arity))
        self.register_buffer(
            "coefficients", torch.from_numpy(np.ascontiguousarray(table.transpose(*_last_first(table))))
        )

    def forward(self, *arguments: Tensor, order: tuple[int, ...] | None = None) -> Tensor:
        """The value, or the derivative of the given order in each argument; itself differentiable."""
        cell: Any = 0
        inside: Any = True
        local = []
        for x, (low, high), n in zip(arguments, self.limits, self.cells, strict=True):
            u = (x - low) * (n / (high - low))
            if self.periodic:
                u = u - n * torch.floor(u.detach() / n)
            else:
                inside = (u >= 0) & (u <= n) & inside
            index = u.detach().floor().nan_to_num(0.0).clamp(0, n - 1)
            local.append(u - index)
            cell = index.long() + n * cell
        orders = order or (0,) * self.arity
        result = self._polynomial(cell, local, orders, ())
        for k, (low, high), n in zip(orders, self.limits, self.cells, strict=True):
            result = result * (n / (high - low)) ** k
        return result if self.periodic else result * inside.to(result.dtype)

    def _polynomial(self, cell: Tensor, local: Sequence[Tensor], orders: Sequence[int], chosen: tuple[int, ...]) -> Any:
        """Horner's rule, one variable inside the other; `chosen` are the powers of those outside."""
        axis = len(chosen)
        if axis == self.arity:
            return self.coefficients[chosen].to(local[0].dtype)[cell]
        result: Any = 0.0 * local[axis]
        for power in range(3, orders[axis] - 1, -1):
            weight = math.perm(power, orders[axis])
            result = result * local[axis] + weight * self._polynomial(cell, local, orders, (*chosen, power))
        return result


class Discrete(nn.Module):
    """A table looked up at the nearest whole numbers, those outside moved to its ends; its derivatives are zero.

    Args:
        values: one axis per variable, of one to three.

    Example:
        >>> Discrete(torch.tensor([5.0, 6.0, 7.0]))(torch.tensor([-1.0, 0.6, 9.0]))
        tensor([5., 6., 7.])
    """

    smooth = False
    values: Tensor

    def __init__(self, values: Float[Tensor, "*grid"]) -> None:
        super().__init__()
        self.arity = values.ndim
        self.register_buffer("values", values.detach())

    def forward(self, *arguments: Tensor, order: tuple[int, ...] | None = None) -> Tensor:
        """The value; zero if a derivative is asked for."""
        index = tuple(
            (x.detach() + 0.5).floor().nan_to_num(0.0).clamp(0, n - 1).long()
            for x, n in zip(arguments, self.values.shape, strict=True)
        )
        value = self.values[index].to(arguments[0].dtype)
        return torch.zeros_like(value) if any(order or ()) else value


def tabulated_function(function: Any) -> Spline | Discrete:
    """The torch form of an OpenMM `TabulatedFunction`, in float64.

    Raises:
        InputError: a kind that is neither continuous nor discrete in one to three variables.
    """
    kind = type(function).__name__
    for dimensions in (1, 2, 3):
        given = list(function.getFunctionParameters()) if kind.endswith(f"{dimensions}DFunction") else []
        if kind == f"Continuous{dimensions}DFunction":
            sizes = given[: dimensions if dimensions > 1 else 0] or [len(given[0])]
            values, *ends = given[dimensions if dimensions > 1 else 0 :]
            limits = list(zip(ends[::2], ends[1::2], strict=True))
            return Spline(_grid(values, sizes), limits, bool(function.getPeriodic()))
        if kind == f"Discrete{dimensions}DFunction":
            sizes, values = (given[:-1], given[-1]) if dimensions > 1 else ([len(given)], given)
            return Discrete(_grid(values, sizes))
    raise InputError(f"a tabulated function is continuous or discrete in one to three variables: got a {kind}")


def tabulated_functions(force: Any) -> dict[str, Spline | Discrete]:
    """Those of a custom force, by name."""
    return {
        force.getTabulatedFunctionName(i): tabulated_function(force.getTabulatedFunction(i))
        for i in range(force.getNumTabulatedFunctions())
    }


def _grid(values: Any, sizes: Sequence[int]) -> Tensor:
    table = np.asarray(values, dtype=np.float64).reshape(tuple(sizes)[::-1])  # OpenMM's first index runs fastest
    return torch.from_numpy(np.ascontiguousarray(table.transpose()))


def _polynomials(table: np.ndarray, axis: int, periodic: bool) -> np.ndarray:
    """Replace an axis of grid values by cells, and add a last axis of the powers of the local coordinate."""
    n = table.shape[axis]
    if periodic and not np.array_equal(table.take(0, axis), table.take(-1, axis)):
        raise InputError(
            "a periodic table must end where it starts: its first and last values differ; repeat the first"
        )
    spline = CubicSpline(np.arange(n), table, axis=axis, bc_type="periodic" if periodic else "natural")
    powers = np.asarray(spline.c)[::-1]  # powers, cells along the axis, the other axes in order
    return np.moveaxis(np.moveaxis(powers, 0, -1), 0, axis)


def _last_first(table: np.ndarray) -> tuple[int, ...]:
    return (*range(1, table.ndim), 0)
