"""A well that is skewed, quartic and coupled: asymmetric and non-Gaussian, yet exactly sampled and integrated."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["AnharmonicWell"]


class AnharmonicWell:
    r"""A well in d dimensions with every asymmetry that hides sign errors elsewhere.

    $$U(x) = \sum_i \Big[\tfrac12 k_i y_i^2 + q_i y_i^4 + s_i \sin(2 y_i + \tfrac12)\Big]
             + c \sum_{i<d} \cos(y_i - y_{i+1} + 1), \qquad y = x - \mu$$

    Above its harmonic part $U$ is bounded from below by $-\sum_i |s_i| - (d-1)|c|$, so rejection from a Gaussian
    samples it exactly in a few dimensions; its integral follows in any, by the trapezoidal rule, which converges
    geometrically for analytic functions that decay.

    | symbol | argument | |
    |---|---|---|
    | $\mu$ | `center` | `(d,)` |
    | $k > 0$ | `stiffness` | `(d,)`, kT |
    | $q \ge 0$ | `quartic` | `(d,)`, kT |
    | $s$ | `skew` | `(d,)`, kT |
    | $c$ | `coupling` | kT |

    Raises:
        InputError: lengths that differ, a stiffness that is not positive, a negative quartic term.

    Example:
        >>> well = AnharmonicWell([0.0], stiffness=[1.0], quartic=[0.0], skew=[0.0], coupling=0.0)
        >>> abs(well.log_z - 0.5 * math.log(2 * math.pi)) < 1e-12
        True
    """

    def __init__(
        self,
        center: list[float],
        *,
        stiffness: list[float],
        quartic: list[float],
        skew: list[float],
        coupling: float,
    ) -> None:
        if not len(center) == len(stiffness) == len(quartic) == len(skew) >= 1:
            raise InputError(
                "center, stiffness, quartic and skew must have one entry per dimension: "
                f"got {len(center)}, {len(stiffness)}, {len(quartic)} and {len(skew)}"
            )
        if min(stiffness) <= 0 or min(quartic) < 0:
            raise InputError(f"the well must be bounded: stiffness > 0 and quartic >= 0, got {stiffness} and {quartic}")
        self.center, self.stiffness, self.quartic, self.skew = (
            torch.tensor(v, dtype=torch.float64) for v in (center, stiffness, quartic, skew)
        )
        self.coupling = float(coupling)
        self.event_shape = self.center.shape

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        y = x - self.center.to(x)
        own = _single(y, *(v.to(x) for v in (self.stiffness, self.quartic, self.skew)))
        return own.sum(-1) + self.coupling * torch.cos(y[:, :-1] - y[:, 1:] + 1).sum(-1)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, by rejection from the harmonic part, on the device of the generator."""
        floor = -float(self.skew.abs().sum()) - (len(self.center) - 1) * abs(self.coupling)
        like = {"dtype": torch.float64, "device": generator.device}
        center, stiffness = (v.to(generator.device) for v in (self.center, self.stiffness))
        accepted: list[Tensor] = []
        while sum(len(a) for a in accepted) < n:
            noise = torch.randn(4 * n, *self.event_shape, generator=generator, **like)
            y = noise / stiffness.sqrt()
            excess = self.energy(center + y) - 0.5 * (stiffness * y.square()).sum(-1) - floor
            uniform = torch.rand(4 * n, generator=generator, **like)
            accepted.append(center + y[uniform < torch.exp(-excess)])
        return torch.cat(accepted)[:n]

    @property
    def log_z(self) -> float:
        r"""$\log \int e^{-U}$ by the trapezoidal rule along the chain of neighbours: exact to rounding."""
        axes, last = self._axes(), len(self.center) - 1
        total = (self._message(axes, last, +1) * self._weight(axes, last)).sum() * _spacing(axes[last])
        return float(total.log())

    def marginal(self, axis: int, grid: np.ndarray) -> np.ndarray:
        """Normalised marginal density of one coordinate on a grid, by quadrature over the others."""
        axes = self._axes()
        axes[axis] = torch.as_tensor(grid) - self.center[axis]
        before, after = self._message(axes, axis, +1), self._message(axes, axis, -1)
        profile = (before * self._weight(axes, axis) * after).numpy()
        return profile / np.trapezoid(profile, grid)

    def _axes(self) -> list[Tensor]:
        # 40.5 kT above the centre, in steps that resolve the narrower of the well and its sine.
        reach = torch.minimum(9.0 / self.stiffness.sqrt(), (40.5 / self.quartic).pow(0.25)).tolist()
        return [torch.linspace(-r, r, max(201, 2 * math.ceil(10 * r)), dtype=torch.float64) for r in reach]

    def _weight(self, axes: list[Tensor], i: int) -> Tensor:
        return torch.exp(-_single(axes[i], self.stiffness[i], self.quartic[i], self.skew[i]))

    def _message(self, axes: list[Tensor], into: int, step: int) -> Tensor:
        """Integral over every coordinate on one side of `into`, as a function of it."""
        start = 0 if step > 0 else len(axes) - 1
        message = torch.ones_like(axes[start])
        for i in range(start, into, step):
            difference = axes[i + step] - axes[i][:, None]
            coupling = torch.exp(-self.coupling * torch.cos(1 - step * difference))
            message = (message * self._weight(axes, i)) @ coupling * _spacing(axes[i])
        return message


def _single(y: Tensor, k: Tensor, q: Tensor, s: Tensor) -> Tensor:
    return 0.5 * k * y.square() + q * y.pow(4) + s * torch.sin(2 * y + 0.5)


def _spacing(axis: Tensor) -> float:
    return float(axis[1] - axis[0])
