"""What objectives along a path learn from: walkers grouped by time, with what the path said about them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.interpolants import Interpolant

__all__ = ["Rollout", "interpolant_rollout", "quadrature"]


class Rollout(NamedTuple):
    r"""Weighted walkers at every time of a run; column i is one path where there was no resampling.

    Attributes:
        times: increasing, float64.
        x: positions.
        energy, score, time_derivative: $U_t$, $-\nabla U_t$ and $\partial_t U_t$ there.
        log_weight: of the walkers as a sample of $e^{-U_t}$, float64, up to a constant per time.
    """

    times: Float[Tensor, " k"]
    x: Float[Tensor, "k n *event"]
    energy: Float[Tensor, "k n"]
    score: Float[Tensor, "k n *event"]
    time_derivative: Float[Tensor, "k n"]
    log_weight: Float[Tensor, "k n"]

    @property
    def flat_times(self) -> Float[Tensor, " k*n"]:
        """A time per walker, in the order of `flat_x`."""
        return self.times.to(self.x).repeat_interleave(self.x.shape[1])

    @property
    def flat_x(self) -> Float[Tensor, " k*n *event"]:
        """All walkers, those of one time after those of another."""
        return self.x.flatten(0, 1)

    @property
    def alive(self) -> Bool[Tensor, "k n"]:
        """Which walkers have density, and so a finite residual."""
        return torch.isfinite(self.energy) & torch.isfinite(self.time_derivative)

    def select(self, columns: Tensor) -> Rollout:
        """Some of the columns."""
        return Rollout(self.times, *(value[:, columns] for value in self[1:]))


def quadrature(times: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Weights of the trapezoidal rule.

    Example:
        >>> quadrature(torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.2500, 0.5000, 0.2500])
    """
    gaps = 0.5 * times.diff()
    zero = gaps.new_zeros(1)
    return torch.cat([zero, gaps]) + torch.cat([gaps, zero])


def interpolant_rollout(
    interpolant: Interpolant,
    times: Float[Tensor, " k"],
    x_a: Float[Tensor, "n d"],
    x_b: Float[Tensor, "n d"],
    z: Float[Tensor, "n d"],
) -> Rollout:
    r"""$I_t$ of n pairs at every time: equally weighted samples of $\rho_t$, for objectives that ask for no energies.

    Action matching on it finds the gradient field that carries the law of $I_t$. One noise per column, so that
    neighbouring times differ by what moved only.

    Example:
        >>> from nessampler.interpolants import LinearInterpolant
        >>> a, t = torch.zeros(3, 1), torch.tensor([0.0, 0.5, 1.0])
        >>> interpolant_rollout(LinearInterpolant(torch.ones(1)), t, a, a + 1, a).x[1].flatten()
        tensor([0.5000, 0.5000, 0.5000])
    """
    k, n = len(times), len(x_a)
    flat = times.to(x_a).repeat_interleave(n)
    x = interpolant.position(flat, *(v.repeat(k, 1) for v in (x_a, x_b, z))).view(k, n, -1)
    nothing = x.new_zeros(k, n)
    return Rollout(times, x, nothing, torch.zeros_like(x), nothing, nothing)
