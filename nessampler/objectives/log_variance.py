"""The variance of the discrete path weights themselves: no divergence, no time derivative, no equilibrium."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.objectives._langevin_pair import Diffusion, path_log_ratio
from nessampler.objectives.rollout import Rollout

__all__ = ["LogVarianceObjective"]


class LogVarianceObjective(nn.Module):
    r"""Variance over stored paths of the log-weight that the Langevin pair with velocity b gives them:

    $$\log w = U_0(x_0) - U_K(x_K) + \sum_k \log\frac{B_k(x_k|x_{k+1})}{F_k(x_{k+1}|x_k)},\qquad
      \log\frac{B_k}{F_k} = \frac{|\delta_k - h b_k - h\varepsilon s_k|^2
        - |\delta_k - h b_{k+1} + h\varepsilon s_{k+1}|^2}{4\varepsilon h}$$

    with $\delta_k = x_{k+1} - x_k$. The paths are data: gradients flow through $b_k = b(t_k, x_k)$ only, so a path
    costs one evaluation of b per time, and may come from any process that reaches wherever the pair does. Zero means
    equal weights at the steps taken, discretisation included.

    | symbol | argument | |
    |---|---|---|
    | $b$ | `network` | `(t: (n,), x)` to a velocity |
    | $\varepsilon > 0$ | `diffusion` | a number, one per coordinate, or a function of an interval's midpoint |

    Paths are columns of a rollout that was not resampled. Divided by $n - 1$, unbiased.

    Raises:
        InputError: a diffusion that is not positive, or fewer than two paths with density.

    References:
        Nüsken & Richter, Solving high-dimensional Hamilton–Jacobi–Bellman PDEs using neural networks, 2020,
        arXiv:2005.05409 (log-variance divergence); Richter et al., VarGrad: A Low-Variance Gradient Estimator for
        Variational Inference, 2020, arXiv:2010.10436.
    """

    def __init__(self, network: nn.Module, diffusion: Diffusion) -> None:
        super().__init__()
        self.network, self.diffusion = network, diffusion

    def forward(self, batch: Rollout) -> Float[Tensor, ""]:
        """The loss of a batch of paths."""
        log_weight = self.log_weight(batch)[batch.alive.all(0)]
        if len(log_weight) < 2:
            raise InputError(f"a variance needs two paths with density: got {len(log_weight)}; use more walkers")
        return log_weight.var()

    def log_weight(self, batch: Rollout) -> Float[Tensor, " n"]:
        """Of every path, float64; its walkers may have moved by any process."""
        known = {"score": batch.score.flatten(0, 1)} if getattr(self.network, "reads_score", False) else {}
        velocity = self.network(batch.flat_times, batch.flat_x, **known).view(batch.x.shape)
        ratio = path_log_ratio(batch.times, batch.x, velocity, batch.score, self.diffusion)
        return (batch.energy[0] - batch.energy[-1]).to(torch.float64) + ratio
