"""Vector fields along the gradients of densities that walkers travel between, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths import PathPoint

__all__ = ["GradientDictionary"]

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class GradientDictionary:
    r"""Fields $\varphi_i = f_l\, \nabla V_i$ for densities $e^{-V_i}$, with exact divergence.

    $$\nabla\cdot(f_l \nabla V_i) = f_l \nabla^2 V_i + \nabla f_l\cdot\nabla V_i, \qquad
      f_0 = 1, \quad f_l = \cos(\nu_l\cdot z + \psi_l), \quad z = (x - \mu)/\sigma$$

    Along a linear path $\nabla U_t = (1 - t)\nabla U_0 + t\nabla U_1$, one direction out of these two; apart they may
    pull at rates of their own. The divergences have to be exact, since they enter weights.

    | symbol | argument | |
    |---|---|---|
    | $-\nabla V_i, \nabla^2 V_i$ | `slopes` | functions of x: `(n, d)` and `(n,)`; see `score_and_laplacian` |
    | $\mu, \sigma$ | `mean`, `scale` | `(d,)` |
    | $\nu, \psi$ | `modulation`, `phases` | `(m, d)`, `(m,)`; m may be 0 |

    Fields come density by density, the bare gradient before the modulated ones.

    Raises:
        InputError: no density; one phase for each modulation is wanted, of the walkers' dimension.

    Example:
        >>> def pull(x):  # of V = |x|²
        ...     return -2 * x, torch.full((len(x),), 2.0 * x.shape[1], dtype=torch.float64)
        >>> fields = GradientDictionary((pull,), torch.zeros(3), torch.ones(3), torch.zeros(0, 3), torch.zeros(0))
        >>> velocity, divergence = fields.velocity(0.5, torch.ones(1, 3), torch.tensor([-0.5]))
        >>> velocity.tolist(), divergence.tolist()
        ([[-1.0, -1.0, -1.0]], [-3.0])
    """

    slopes: tuple[Slope, ...]
    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    modulation: Float[Tensor, "m d"]
    phases: Float[Tensor, " m"]

    def __post_init__(self) -> None:
        m, d = len(self.phases), len(self.mean)
        if not self.slopes or self.modulation.shape != (m, d) or self.scale.shape != (d,):
            raise InputError(
                f"fields along gradients need a density and, for {m} phases in {d} dimensions, modulations ({m}, {d}): "
                f"got {len(self.slopes)} densities and modulations {tuple(self.modulation.shape)}"
            )

    @property
    def size(self) -> int:
        """Number of fields."""
        return len(self.slopes) * (1 + len(self.phases))

    def stein(self, t: float, x: Float[Tensor, "n d"], point: PathPoint) -> Float[Tensor, "n p"]:
        r"""$\nabla\cdot\varphi_i + \varphi_i\cdot s_t$ with the score $s_t = -\nabla U_t$, float64."""
        value, slope = self._modulations(x)
        columns = []
        for down, laplacian in self._slopes(x):
            along = laplacian - (down * point.score).sum(1, dtype=torch.float64)
            columns.append(value * along[:, None] - _inner(slope, down))
        return torch.cat(columns, 1)

    def velocity(
        self, t: float, x: Float[Tensor, "n d"], coefficients: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        r"""$b = \sum_i \theta_i \varphi_i$ and $\nabla\cdot b$."""
        value, slope = self._modulations(x)
        theta = coefficients.to(x.device, torch.float64).view(len(self.slopes), -1)
        velocity, divergence = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for (down, laplacian), own in zip(self._slopes(x), theta, strict=True):
            amount = value @ own
            velocity = velocity - amount.to(x)[:, None] * down
            divergence = divergence + amount * laplacian - _inner(slope, down) @ own
        return velocity, divergence

    def _slopes(self, x: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        return [(down.to(x), laplacian.to(torch.float64)) for down, laplacian in (slope(x) for slope in self.slopes)]

    def _modulations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values, `(n, 1 + m)`, and gradients, `(n, 1 + m, d)`, of all f; the first is 1."""
        waves = self.modulation.to(x)
        angle = ((x - self.mean.to(x)) / self.scale.to(x)) @ waves.T + self.phases.to(x)
        value = torch.cat([torch.ones_like(x[:, :1]), torch.cos(angle)], 1).to(torch.float64)
        slope = -torch.sin(angle)[:, :, None] * (waves / self.scale.to(x))
        return value, torch.cat([torch.zeros_like(x)[:, None], slope], 1)


def _inner(slope: Tensor, down: Tensor) -> Tensor:
    """Gradients of the modulations along a score, `(n, 1 + m)` float64."""
    return (slope * down[:, None]).sum(2, dtype=torch.float64)
