"""A path given as a function of time and position."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.paths.protocol import PathPoint, check_same_shape
from nessampler.targets.protocol import Target

__all__ = ["DifferentiablePath"]


class DifferentiablePath:
    r"""Any $U_t(x)$ that torch can differentiate in $t$ and in $x$, such as densities whose parameters move.

    Args:
        start, end: the densities at t = 0 and t = 1.
        energy: `(t: (n,), x: (n, *event))` to `(n,)`, in kT; equal to that of `start` and `end` at both ends.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> start, end = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> moving = DifferentiablePath(start, end, lambda t, x: 0.5 * (x - t[:, None]).square().sum(-1))
        >>> moving.evaluate(torch.tensor([0.5]), torch.zeros(1, 1)).time_derivative
        tensor([0.5000])
    """

    def __init__(self, start: Target, end: Target, energy: Callable[[Tensor, Tensor], Tensor]) -> None:
        check_same_shape(start, end)
        self.start, self.end, self._energy = start, end, energy

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t$ in kT."""
        return self._energy(t, x)

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U_t$ and $-\nabla U_t$."""
        point = self.evaluate(t, x)
        return point.energy, point.score

    def evaluate(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], known: PathPoint | None = None
    ) -> PathPoint:
        r"""$U_t$, $-\nabla U_t$ and $\partial_t U_t$, from one backward pass."""
        with torch.enable_grad():
            time, position = t.detach().requires_grad_(), x.detach().requires_grad_()
            energy = self._energy(time, position)
            outside = energy == torch.inf
            inside = torch.where(outside, 0.0, energy).sum()
            gradient, rate = torch.autograd.grad(inside, (position, time), allow_unused=True)
        rate = torch.zeros_like(t) if rate is None else rate  # a path may stand still
        gradient = torch.zeros_like(x) if gradient is None else gradient
        score = torch.where(outside.view(-1, *[1] * (x.ndim - 1)), 0.0, -gradient)
        return PathPoint(energy.detach(), score, rate)
