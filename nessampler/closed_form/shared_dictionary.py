"""Vector fields for many correlated coordinates: one function for all of them, then a covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.paths import PathPoint

__all__ = ["SharedDictionary"]


@dataclass(frozen=True)
class SharedDictionary:
    r"""Fields $A_c\, \sigma f_j(z)$, $z = (x - \mu)/\sigma$, with $f \in \{1, z, \sin(w_j z + \phi_j)\}$ by coordinate.

    The same function acts on every coordinate, so that a handful of coefficients serves thousands of them; the matrices
    $A_c$, best the identity and the base's covariance, carry the answer of one coordinate to those it is correlated
    with. It is the dense analogue of `LatticeDictionary`. The divergence is exact:

    $$\nabla\cdot\varphi_{cj} = \sum_i (A_c)_{ii}\, f_j'(z_i)$$

    | symbol | argument | |
    |---|---|---|
    | $\mu, \sigma$ | `mean`, `scale` | `(d,)` |
    | $A$ | `matrices` | `(c, d, d)`, symmetric |
    | $w, \phi$ | `frequencies`, `phases` | `(r,)` |

    Example:
        >>> one = torch.ones(3, dtype=torch.float64)
        >>> fields = SharedDictionary(0 * one, one, torch.eye(3, dtype=torch.float64)[None], one[:1], one[:1])
        >>> fields.size, fields.velocity(0.5, torch.zeros(2, 3), torch.ones(3))[1][0].item()
        (3, 4.62...)
    """

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    matrices: Float[Tensor, "c d d"]
    frequencies: Float[Tensor, " r"]
    phases: Float[Tensor, " r"]

    @property
    def size(self) -> int:
        """Number of fields."""
        return len(self.matrices) * (2 + len(self.frequencies))

    def stein(self, t: float, x: Float[Tensor, "n d"], point: PathPoint) -> Float[Tensor, "n p"]:
        r"""$\nabla\cdot\varphi_i + \varphi_i\cdot s_t$ with the score $s_t = -\nabla U_t$, float64."""
        z = self._standardised(x)
        felt = torch.stack([(point.score @ a.to(x)) * self.scale.to(x) for a in self.matrices], 1)
        diagonal = self._diagonal(x)
        columns = [
            (felt * value[:, None]).sum(2, dtype=torch.float64) + slope.to(torch.float64) @ diagonal.T
            for value, slope in self._functions(z)
        ]
        return torch.stack(columns, 2).flatten(1)

    def velocity(
        self, t: float, x: Float[Tensor, "n d"], coefficients: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        r"""$b = \sum_i \theta_i \varphi_i$ and $\nabla\cdot b$."""
        theta = coefficients.to(torch.float64).reshape(len(self.matrices), -1)
        z, diagonal = self._standardised(x), self._diagonal(x)
        mixed = [torch.zeros_like(z) for _ in self.matrices]
        divergence = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for j, (value, slope) in enumerate(self._functions(z)):
            for c in range(len(mixed)):
                mixed[c] = torch.add(mixed[c], value, alpha=float(theta[c, j]))
            divergence = divergence + slope.to(torch.float64) @ (diagonal.T @ theta[:, j].to(x.device))
        velocity = torch.zeros_like(z)
        for a, field in zip(self.matrices, mixed, strict=True):
            velocity = velocity + (field * self.scale.to(x)) @ a.to(x)
        return velocity, divergence

    def affine(self, coefficients: Float[Tensor, " p"]) -> Float[Tensor, "d d"] | None:
        r"""$\partial b/\partial x = \sum_c \theta_c A_c$ where there are no waves; see `Dictionary`."""
        if len(self.frequencies):
            return None
        theta = coefficients.to(torch.float64).reshape(len(self.matrices), -1)[:, 1]
        return torch.einsum("c,cij->ji", theta, self.matrices.to(theta))

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)) / self.scale.to(x)

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.matrices.diagonal(dim1=1, dim2=2).to(x.device, torch.float64)

    def _functions(self, z: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Values of every f and their derivatives, `(n, d)` each."""
        waves = [
            (torch.sin(w * z + phase), w * torch.cos(w * z + phase))
            for w, phase in zip(self.frequencies.tolist(), self.phases.tolist(), strict=True)
        ]
        return [(torch.ones_like(z), torch.zeros_like(z)), (z, torch.ones_like(z)), *waves]
