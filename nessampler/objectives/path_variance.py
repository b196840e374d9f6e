"""The variance of the path weights of a difference: velocity and score together, no energies inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.fields import Fields
from nessampler.objectives._langevin_pair import Diffusion, path_log_ratio

__all__ = ["PathVarianceObjective", "Paths", "log_cosh"]


class Paths(NamedTuple):
    """Stored paths from A to B; those of the reversed process are written from A to B as well.

    Attributes:
        times: increasing, float64.
        x: positions at these times; column i is one path.
        energy_a, energy_b: $U_A$ at its first point, $U_B$ at its last.

    Example:
        >>> times, x = torch.tensor([0.0, 1.0]).double(), torch.zeros(2, 3, 1)
        >>> paths = Paths(times, x, torch.zeros(3), torch.arange(3.0))
        >>> both = paths.join(paths.select(torch.tensor([2])))
        >>> both.x.shape, both.energy_b
        (torch.Size([2, 4, 1]), tensor([0., 1., 2., 2.]))
    """

    times: Float[Tensor, " k"]
    x: Float[Tensor, "k n *event"]
    energy_a: Float[Tensor, " n"]
    energy_b: Float[Tensor, " n"]

    def select(self, columns: Tensor) -> Paths:
        """Some of the paths."""
        return Paths(self.times, self.x[:, columns], self.energy_a[columns], self.energy_b[columns])

    def join(self, other: Paths) -> Paths:
        """The paths of both."""
        pieces = (torch.cat([mine, theirs], -1) for mine, theirs in zip(self[2:], other[2:], strict=True))
        return Paths(self.times, torch.cat([self.x, other.x], 1), *pieces)


class PathVarianceObjective(nn.Module):
    r"""Variance over stored paths of the log-weight that the Langevin pair with both fields gives them:

    $$\log w = U_A(x_0) - U_B(x_K) + \sum_k \log\frac{B_k(x_k|x_{k+1})}{F_k(x_{k+1}|x_k)}$$

    The paths are data: gradients flow through the fields at the stored points only. They may come from the forward
    process, from the reversed one, or from both, each with fields of an earlier step of training: of a perfect
    transport *every* path weighs $e^{-\Delta F}$, so the variance over a mixture of both directions, in which their
    dissipation enters too, is zero there and nowhere else. Unlike a regression on the interpolant it counts what the
    work counts: discretisation included, at the diffusion and at the times that will be used.

    Where $b, s$ are the fields of one interpolant, nothing holds them to it: any pair that reverses itself will do.

    | symbol | argument | |
    |---|---|---|
    | $b, s$ | `fields` | `(t: (n,), x)` to both |
    | $\varepsilon$ | `diffusion` | a number, one per coordinate, or a function of an interval's midpoint |
    | $\rho$ | `penalty` | None: the variance, divided by $n - 1$; else the mean of $\rho(\log w - \mathrm{median})$ |

    A variance belongs to its tails: a handful of bad paths, which BAR hardly looks at, pull all the rest. `log_cosh`
    counts a far path by its distance instead, and has the same zero.

    Raises:
        InputError: no diffusion at all, fields without velocity, or fewer than two paths with density.

    References:
        Nüsken & Richter, Solving high-dimensional Hamilton–Jacobi–Bellman PDEs using neural networks, 2020,
        arXiv:2005.05409 (log-variance divergence, for any law of the paths); Richter & Berner, Improved sampling via
        learned diffusions, 2023, arXiv:2307.01198 (between forward and backward processes).

    Example:
        >>> from nessampler.fields import Evaluated
        >>> x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
        >>> still = PathVarianceObjective(lambda t, x: Evaluated(0 * x, 0 * x), diffusion=1.0)
        >>> float(still(Paths(torch.tensor([0.0, 0.5, 1.0]), x, torch.ones(5), torch.zeros(5))))
        0.0
    """

    def __init__(
        self, fields: Fields, diffusion: Diffusion, *, penalty: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.fields, self.diffusion, self.penalty = fields, diffusion, penalty

    def forward(self, batch: Paths) -> Float[Tensor, ""]:
        """The loss of a batch of paths."""
        alive = torch.isfinite(batch.energy_a) & torch.isfinite(batch.energy_b)
        if int(alive.sum()) < 2:
            raise InputError(f"a variance needs two paths with density: got {int(alive.sum())}; use more walkers")
        log_weight = self.log_weight(batch.select(alive.nonzero().squeeze(-1)))
        if self.penalty is None:
            return log_weight.var()
        return self.penalty(log_weight - log_weight.detach().median()).mean()

    def log_weight(self, batch: Paths) -> Float[Tensor, " n"]:
        """Of every path, float64."""
        times = batch.times.to(batch.x).repeat_interleave(batch.x.shape[1])
        found = self.fields(times, batch.x.flatten(0, 1))
        if found.velocity is None:
            raise InputError("path weights of an interpolant need a velocity: got None; return zeros for none")
        velocity, score = (v.view(batch.x.shape) for v in (found.velocity, found.score))
        ratio = path_log_ratio(batch.times, batch.x, velocity, score, self.diffusion)
        return (batch.energy_a - batch.energy_b).to(torch.float64) + ratio


def log_cosh(deviation: Tensor) -> Tensor:
    r"""$2 \log\cosh d$: $d^2$ near zero, $2|d|$ far out.

    Example:
        >>> log_cosh(torch.tensor([0.0, 100.0]))
        tensor([  0.0000, 198.6137])
    """
    return 2 * (nn.functional.softplus(2 * deviation) - deviation - math.log(2))
