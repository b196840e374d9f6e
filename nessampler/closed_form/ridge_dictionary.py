"""Vector fields on R^d: affine ones, sines of projections, and the path's own gradient where its Laplacian is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths import PathPoint

__all__ = ["RidgeDictionary"]

Curvature = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

BLOCK = 2**22  # floats per block of work


@dataclass(frozen=True)
class RidgeDictionary:
    r"""Fields along which a drift on $R^d$ is solved, in the coordinates $z = (x - \mu)/\sigma$:

    | field | divergence | how many |
    |---|---|---|
    | $\sigma_i e_i$ | 0 | d, none where `linear` is "isotropic" |
    | $\sum_i \sigma_i z_i e_i$ | d | 1, where "isotropic" |
    | $\sigma_i z_i e_i$ | 1 | d, where "diagonal" |
    | $\sigma_i z_k e_i$ | $\delta_{ik}$ | d², where "full" |
    | $\hat\omega_j \sin(\omega_j\cdot z + \phi_j)$ | $|\omega_j|\cos(\omega_j\cdot z + \phi_j)$ | r |
    | $\nabla U_t$, where `curvature` | $\nabla^2 U_t$ | 1 |
    | $\cos_l \nabla U_t$, where `curvature` | $\cos_l \nabla^2 U_t + \nabla\cos_l\cdot\nabla U_t$ | m |

    with $\hat\omega = \sigma\omega/|\omega|$ and $\cos_l = \cos(\nu_l\cdot z + \psi_l)$, in this order.

    The sines are gradients of random Fourier features: a dictionary of potentials that is dense as r grows. A row of ω
    with one entry is a sine of one coordinate along that coordinate. The gradient contracts every mode towards its own
    centre, which no smooth field could; its modulations let the rate differ from place to place.

    | symbol | argument | |
    |---|---|---|
    | $\mu, \sigma$ | `mean`, `scale` | `(d,)` |
    | $\omega, \phi$ | `frequencies`, `phases` | `(r, d)`, `(r,)` |
    | $\nu, \psi$ | `modulation`, `modulation_phases` | `(m, d)`, `(m,)`; none by default |
    | | `curvature` | `(t, x)` to $-\nabla U_t$ `(n, d)` and $\nabla^2 U_t$ `(n,)`; None for no such fields |

    Shapes: walkers `(n, d)`, whose dtype velocities have; features and divergences float64.

    Raises:
        InputError: a wave of length zero, without phase, or of the wrong dimension; modulations without curvature.

    References: Rahimi & Recht, Random features for large-scale kernel machines, 2007, Advances in Neural Information
        Processing Systems 20.

    Example:
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> fields = RidgeDictionary(0 * one, one, torch.eye(2, dtype=torch.float64), 0 * one)
        >>> velocity, divergence = fields.velocity(0.5, torch.zeros(3, 2, dtype=torch.float64), torch.ones(fields.size))
        >>> velocity[0].tolist(), divergence[0].item()
        ([1.0, 1.0], 4.0)
    """

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    frequencies: Float[Tensor, "r d"]
    phases: Float[Tensor, " r"]
    linear: Literal["isotropic", "diagonal", "full"] = "diagonal"
    curvature: Curvature | None = None
    modulation: Float[Tensor, "m d"] | None = None
    modulation_phases: Float[Tensor, " m"] | None = None

    def __post_init__(self) -> None:
        d, r = len(self.mean), len(self.phases)
        if self.scale.shape != (d,) or self.frequencies.shape != (r, d) or not self.frequencies.any(1).all():
            raise InputError(
                f"in {d} dimensions sines need scales ({d},) and, for {r} phases, frequencies ({r}, {d}), none of them "
                f"zero: got {tuple(self.scale.shape)} and {tuple(self.frequencies.shape)}"
            )
        phases = 0 if self.modulation_phases is None else len(self.modulation_phases)
        shape = (0, d) if self.modulation is None else tuple(self.modulation.shape)
        if shape != (phases, d) or (phases and self.curvature is None):
            raise InputError(
                f"modulations need the path's curvature and one phase each: got frequencies {shape}, {phases} phases "
                f"and {'no curvature' if self.curvature is None else 'curvature'}"
            )

    @property
    def size(self) -> int:
        """Number of fields."""
        return sum(self._split())

    def stein(self, t: float, x: Float[Tensor, "n d"], point: PathPoint) -> Float[Tensor, "n p"]:
        r"""$\nabla\cdot\varphi_i + \varphi_i\cdot s_t$ with the score $s_t = -\nabla U_t$, float64."""
        return torch.cat([self._stein(t, a, s) for a, s in zip(*self._blocks(x, point.score), strict=True)])

    def velocity(
        self, t: float, x: Float[Tensor, "n d"], coefficients: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        r"""$b = \sum_i \theta_i \varphi_i$ and $\nabla\cdot b$."""
        pieces = [self._velocity(t, block, coefficients) for (block,) in zip(*self._blocks(x), strict=True)]
        return torch.cat([v for v, _ in pieces]), torch.cat([d for _, d in pieces])

    def affine(self, coefficients: Float[Tensor, " p"]) -> Float[Tensor, "*slope"] | None:
        r"""$\partial b/\partial x$ where there are neither waves nor a gradient; see `Dictionary`."""
        if len(self.phases) or self.curvature is not None:
            return None
        linear = coefficients.to(torch.float64)[self._split()[0] :]
        if self.linear != "full":
            return linear.expand(len(self.mean))
        scale = self.scale.to(linear)
        return scale[:, None] * linear.view(len(scale), -1) / scale

    def _stein(self, t: float, x: Tensor, score: Tensor) -> Tensor:
        z = self._standardised(x)
        angle = torch.addmm(self.phases.to(x), z, self.frequencies.T.to(x))
        felt = score * self.scale.to(x)  # -∇U with respect to z
        waves = (felt @ self._directions(x)) * torch.sin(angle) + self._norms(x) * torch.cos(angle)
        columns = [*self._affine(felt, z), waves]
        if self.curvature is not None:
            _, laplacian = self.curvature(_times(t, x), x)
            own = (laplacian.to(x) - score.square().sum(1))[:, None]
            rate, slope = self._modulation(x)
            columns += [own, rate * own - slope * ((score / self.scale.to(x)) @ self._modulating(x).T)]
        return torch.cat(columns, 1).to(torch.float64)

    def _velocity(self, t: float, x: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        constant, linear, waves, own, modulated = torch.split(coefficients.to(x), self._split())
        z = self._standardised(x)
        angle = torch.addmm(self.phases.to(x), z, self.frequencies.T.to(x))
        # Walkers × fields are the largest arrays here: coefficients go to the small factors.
        velocity = torch.sin(angle) @ (waves[:, None] * self._directions(x).T)
        divergence = (torch.cos(angle) @ (waves * self._norms(x))).to(torch.float64)
        if self.linear == "full":
            matrix = linear.view(len(z.T), -1)
            velocity, divergence = velocity + constant + z @ matrix.T, divergence + matrix.trace()
        elif self.linear == "diagonal":
            velocity, divergence = velocity + constant + z * linear, divergence + linear.sum()
        else:
            velocity, divergence = velocity + z * linear, divergence + z.shape[1] * linear.sum()
        velocity = velocity * self.scale.to(x)
        if self.curvature is not None:
            score, laplacian = self.curvature(_times(t, x), x)
            rate, slope = self._modulation(x)
            amount = own + rate @ modulated
            gradient = (slope * modulated) @ self._modulating(x) / self.scale.to(x)
            velocity = velocity - amount[:, None] * score
            divergence = divergence + (amount * laplacian - (gradient * score).sum(1)).to(torch.float64)
        return velocity, divergence

    def _split(self) -> list[int]:
        d, curved = len(self.mean), self.curvature is not None
        affine = {"isotropic": [0, 1], "diagonal": [d, d], "full": [d, d * d]}[self.linear]
        modulated = 0 if self.modulation is None or not curved else len(self.modulation)
        return [*affine, len(self.phases), int(curved), modulated]

    def _affine(self, felt: Tensor, z: Tensor) -> list[Tensor]:
        if self.linear == "isotropic":
            return [(felt * z).sum(1, keepdim=True) + z.shape[1]]
        if self.linear == "diagonal":
            return [felt, felt * z + 1]
        return [felt, (felt[:, :, None] * z[:, None, :] + torch.eye(z.shape[1]).to(z)).flatten(1)]

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)) / self.scale.to(x)

    def _modulation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and -sin of the modulating waves, `(n, m)`."""
        if self.modulation is None or self.modulation_phases is None:
            return x[:, :0], x[:, :0]
        angle = self._standardised(x) @ self._modulating(x).T + self.modulation_phases.to(x)
        return torch.cos(angle), -torch.sin(angle)

    def _modulating(self, x: Tensor) -> Tensor:
        return x.new_zeros(0, x.shape[1]) if self.modulation is None else self.modulation.to(x)

    def _norms(self, x: Tensor) -> Tensor:
        return self.frequencies.norm(dim=1).to(x)

    def _directions(self, x: Tensor) -> Tensor:
        return (self.frequencies / self.frequencies.norm(dim=1, keepdim=True)).T.to(x)

    def _blocks(self, *arrays: Tensor) -> list[tuple[Tensor, ...]]:
        block = max(1, BLOCK // max(1, self.size))
        return [a.split(block) for a in arrays]


def _times(t: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)
