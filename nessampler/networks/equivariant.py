"""A drift for clusters of like atoms: pairwise, so that symmetry and divergence are exact by construction."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.kernels.flow import VelocityField
from nessampler.networks.drift import time_features
from nessampler.networks.field import at_each_time
from nessampler.networks.mlp import _linear, _zero_linear

__all__ = ["ClusterNetwork"]


class ClusterNetwork(nn.Module):
    r"""Atoms that pull and push along the lines between them, and breathe about their centre:

    $$b_i = \sum_{j \ne i} f(t, r_{ij})\,(x_i - x_j) + g(t)\,(x_i - \bar x), \qquad
      f(t, r) = \sum_m c_m(t)\, e^{-(r - \rho_m)^2/2 w^2}$$
    $$\nabla\cdot b = \sum_{i \ne j} \big(3 f + r f'\big)(t, r_{ij}) + 3 (N - 1)\, g(t)$$

    It commutes with rotations, reflections and permutations, is blind to translations and moves no centre of mass.
    $c_m$ and g are a perceptron of the features of time, zero at the start; $\rho_m$ are trained as well. Pairs see
    nothing of third atoms. To that a `base` may be added, such as a `LeastSquaresDrift` of pair fields.

    | symbol | argument | |
    |---|---|---|
    | $N$ | `atoms` | two or more |
    | $\rho_m$ | `reach`, `radial` | `radial` centres, initially equidistant from 0 to `reach`; w is their spacing |
    | | `width`, `frequencies` | of the perceptron of time |
    | | `base` | a velocity field with divergence, which is not trained; None: zero |
    | | `generator` | of the initial weights |

    Walkers are `(n, atoms, 3)`; parameters are float32, arithmetic on positions is in the dtype of x.

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: fewer than two atoms or centres, a reach that is not positive.

    References:
        Köhler, Klein & Noé, Equivariant Flows: Exact Likelihood Generative Learning for Symmetric Densities, 2020,
        arXiv:2006.02425 (radial fields and their divergence).

    Example:
        >>> network = ClusterNetwork(3, reach=4.0, generator=torch.Generator().manual_seed(0))
        >>> velocity, divergence = network.velocity_and_divergence(torch.zeros(2), torch.randn(2, 3, 3))
        >>> velocity.shape, divergence.tolist()
        (torch.Size([2, 3, 3]), [0.0, 0.0])
    """

    pairs: Tensor

    def __init__(
        self,
        atoms: int,
        *,
        reach: float,
        radial: int = 16,
        width: int = 32,
        frequencies: int = 3,
        base: VelocityField | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if min(atoms, radial) < 2 or not reach > 0:
            raise InputError(
                f"a cluster network has two atoms, two radial centres and a positive reach at least: got {atoms}, "
                f"{radial} and {reach}"
            )
        self.frequencies, self.spacing, self.evaluations = frequencies, reach / (radial - 1), 0
        self.base = base
        self.register_buffer("pairs", torch.triu_indices(atoms, atoms, offset=1))
        self.centers = nn.Parameter(torch.linspace(0, reach, radial))
        self.body = nn.Sequential(_linear(2 * frequencies + 1, width, generator), nn.SiLU())
        self.head = _zero_linear(width, radial + 1)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        """The velocity."""
        return self.velocity_and_divergence(t, x)[0]

    def velocity_and_divergence(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]
    ) -> tuple[Float[Tensor, "n atoms 3"], Float[Tensor, " n"]]:
        """Also the exact divergence, float64, from the same pairs."""
        velocity, divergence = self._learned(t, x)
        if self.base is None:
            return velocity, divergence
        with torch.no_grad():
            base, known = at_each_time(self.base, t, x)
        return velocity + base.to(x), divergence + known

    def _learned(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluations += len(x)
        coefficients = self.head(self.body(time_features(t.to(self.centers), self.frequencies))).to(x)
        breathing = coefficients[:, -1:, None]
        first, second = self.pairs
        difference = x[:, first] - x[:, second]
        # Atoms on top of each other push nowhere; the floor keeps the root's derivative finite there.
        r = difference.square().sum(-1).clamp(min=torch.finfo(x.dtype).tiny).sqrt()
        away = (r.unsqueeze(-1) - self.centers.to(x)) / self.spacing
        bells = torch.exp(-0.5 * away.square())
        f = (bells @ coefficients[:, :-1, None]).squeeze(-1)
        slope = ((-away * bells / self.spacing) @ coefficients[:, :-1, None]).squeeze(-1)
        push = f.unsqueeze(-1) * difference
        velocity = breathing * (x - x.mean(1, keepdim=True))
        velocity = velocity.index_add(1, first, push).index_add(1, second, -push)
        divergence = 2 * (3 * f + r * slope).sum(1, dtype=torch.float64)
        return velocity, divergence + 3 * (x.shape[1] - 1) * breathing[:, 0, 0].to(torch.float64)
