"""One coordinate after the other, each normal with a mean and a log-scale linear in those before it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["TriangularNormal"]

LARGEST_LOG_SCALE = 20.0
"""Log-scales are clamped here on both sides: no funnel in use gets that far, and squares would overflow float32."""


class TriangularNormal:
    r"""A normalised density, $\log Z = 0$, of coordinates drawn in some order:

    $$x_i \mid x_{<i} \sim \mathcal N\big(a_i + A_i \cdot x_{<i},\ \sigma_i^2\big), \qquad
      \log \sigma_i = b_i + B_i \cdot x_{<i}$$

    Correlations are in A, funnels in B: Neal's funnel has $b_0 = \log 3$, $B_{i0} = 1/2$ and nothing else.

    | symbol | argument | |
    |---|---|---|
    | $a, b$ | `shift`, `log_scale` | `(d,)` |
    | $A, B$ | `shift_slope`, `log_scale_slope` | `(d, d)`; row i reads the coordinates before i in the order only |
    | | `order` | a permutation of the coordinates, the first drawn first; natural where None |

    $\log\sigma$ is clamped to ±20, which leaves the density normalised. Computed in float64 for any dtype of walkers.

    Raises:
        InputError: shapes that do not belong together, an order that is none, a slope that reads what comes later.

    Example:
        >>> slope = torch.tensor([[0.0, 0.0], [0.5, 0.0]])
        >>> funnel = TriangularNormal(torch.zeros(2), 0 * slope, torch.tensor([math.log(3), 0.0]), slope)
        >>> from nessampler.targets.funnel import Funnel
        >>> bool((funnel.energy(torch.ones(1, 2)) - Funnel(2).energy(torch.ones(1, 2))).abs() < 1e-6)
        True
    """

    def __init__(
        self,
        shift: Float[Tensor, " d"],
        shift_slope: Float[Tensor, "d d"],
        log_scale: Float[Tensor, " d"],
        log_scale_slope: Float[Tensor, "d d"],
        order: Int[Tensor, " d"] | None = None,
    ) -> None:
        d = len(shift)
        order = torch.arange(d) if order is None else order.cpu()
        if log_scale.shape != (d,) or shift_slope.shape != (d, d) or log_scale_slope.shape != (d, d):
            raise InputError(
                f"{d} shifts need as many log-scales and slopes ({d}, {d}): got {tuple(log_scale.shape)}, "
                f"{tuple(shift_slope.shape)} and {tuple(log_scale_slope.shape)}"
            )
        if sorted(order.tolist()) != list(range(d)):
            raise InputError(f"an order must name every coordinate once: got {order.tolist()} for {d} coordinates")
        for slope in (shift_slope, log_scale_slope):
            if bool(slope[order][:, order].triu().any()):
                raise InputError(
                    "a coordinate can read only those before it: got a slope on or above the diagonal of the order; "
                    "set it to zero, or choose another order"
                )
        self.shift, self.log_scale = shift.double(), log_scale.double()
        self.shift_slope, self.log_scale_slope = shift_slope.double(), log_scale_slope.double()
        self.order = order
        self.event_shape = torch.Size([d])
        self.log_z = 0.0

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        noise, log_scale = self._noise(x.double())
        return _energy(noise, log_scale).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        noise, log_scale = self._noise(x.double())
        pull = noise * torch.exp(-log_scale)
        stretch = torch.where(log_scale.abs() < LARGEST_LOG_SCALE, noise.square() - 1, 0.0)
        score = pull @ self.shift_slope.to(x.device) + stretch @ self.log_scale_slope.to(x.device) - pull
        return _energy(noise, log_scale).to(x), score.to(x)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        noise, log_scale = self._noise(x.double())
        free = (log_scale.abs() < LARGEST_LOG_SCALE).double()
        rate, a, b = torch.exp(-log_scale), self.shift_slope.to(x.device), self.log_scale_slope.to(x.device)
        # Of the noise u_i along x_j: g = (δ_ij - A_ij)/σ_i - B_ij u_i, and of log σ_i: B_ij where it is free.
        squares = rate.square() @ (torch.eye(len(a)).to(a) - a).square().sum(1)
        cross = (4 * free * noise * rate) @ (a * b).sum(1)
        bend = (2 * free * noise.square()) @ b.square().sum(1)
        return (squares + cross + bend).to(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in float64, coordinate by coordinate."""
        noise = torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64, device=generator.device)
        return self.push(noise)[0]

    def push(self, noise: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        r"""x made of standard normal noise, and $\log|\det \partial x/\partial\mathrm{noise}|$; differentiable."""
        x, log_det = torch.zeros_like(noise), torch.zeros_like(noise[:, 0])
        shift, log_scale, place = self.shift.to(noise), self.log_scale.to(noise), torch.eye(noise.shape[1]).to(noise)
        for i in self.order.tolist():
            mean = shift[i] + x @ self.shift_slope[i].to(noise)
            width = (log_scale[i] + x @ self.log_scale_slope[i].to(noise)).clamp(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE)
            x, log_det = x + (mean + torch.exp(width) * noise[:, i])[:, None] * place[i], log_det + width
        return x, log_det

    def _noise(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """What the draws were made of, and the log-scales."""
        log_scale = self.log_scale.to(y) + y @ self.log_scale_slope.to(y).T
        log_scale = log_scale.clamp(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE)
        return (y - self.shift.to(y) - y @ self.shift_slope.to(y).T) * torch.exp(-log_scale), log_scale


def _energy(noise: Tensor, log_scale: Tensor) -> Tensor:
    return (0.5 * noise.square() + log_scale).sum(-1) + 0.5 * noise.shape[1] * math.log(2 * math.pi)
