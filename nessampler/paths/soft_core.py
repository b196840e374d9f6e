"""A gas that turns into a Lennard-Jones drop: cores that harden as the interaction grows."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths.protocol import PathPoint
from nessampler.targets.lennard_jones import LennardJonesCluster
from nessampler.targets.power_gas import PowerGas
from nessampler.targets.protocol import Target

__all__ = ["SoftCorePath"]

CLOSEST = 0.01
"""Distances below this part of λ are taken for it: some 1e24 kT at t = 1, where a cluster says +inf."""

AWAY = 1e6  # squared distance of an atom from itself
PAIRS_AT_ONCE = 2**15  # what stays in a core's cache


class SoftCorePath:
    r"""From independent atoms to a cluster, in kT:

    $$U_t(x) = (1 - t)\, [V_0(x) + c] + t\, \frac\kappa2 \sum_i |x_i|^2
        + 8 \lambda t \sum_{i<j} \big(A_{ij}^{-2} - A_{ij}^{-1}\big), \qquad
        A_{ij} = \alpha (1 - t) + (r_{ij}/\lambda)^6$$

    At t = 1 that is `LennardJonesCluster`; before, atoms may pass through each other, the more easily the earlier. With
    $\alpha \lesssim 1/2$ overlapping atoms still repel each other: with more, many atoms collapse on their way.

    Distances come from one matrix product, in float64 for energies, and in float32 for `energy_and_score`, whose scores
    serve the inside of a trajectory: any forces do there, the ends decide.

    | symbol | argument | |
    |---|---|---|
    | $V_0$ | `start` | of independent atoms |
    | $\lambda, \kappa$ | `end` | a cluster in a trap about the origin |
    | $\alpha$ | `softness` | positive |
    | $c$ | `offset` | gives the start another normalisation, such as that of the density it was mapped from |

    Shapes: walkers `(n, N, 3)`, energies float64.

    Raises:
        InputError: a cluster without interaction or with a free centre; another number of atoms; no softness.

    References:
        Beutler et al., Avoiding singularities and numerical instabilities in free energy calculations based on
        molecular simulations, 1994, Chem. Phys. Lett. 222, 529 (soft cores).

    Example:
        >>> path = SoftCorePath(PowerGas(2, radius=1.0), LennardJonesCluster(2))
        >>> x = torch.tensor([[[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]], dtype=torch.float64)
        >>> path.energy(torch.ones(1).double(), x), path.end.energy(x)
        (tensor([0.2500], dtype=torch.float64), tensor([0.2500], dtype=torch.float64))
    """

    def __init__(
        self, start: PowerGas, end: LennardJonesCluster, *, softness: float = 0.5, offset: float = 0.0
    ) -> None:
        if end.strength == 0 or end.free_center:
            raise InputError(
                f"the path ends at an interacting cluster held at the origin: got strength {end.strength} and "
                f"free_center={end.free_center}"
            )
        if start.event_shape != end.event_shape:
            raise InputError(
                f"both ends need the same atoms: got {tuple(start.event_shape)} and {tuple(end.event_shape)}"
            )
        if not softness > 0:
            raise InputError(f"softness must be positive: got {softness}; 0.5 suits most clusters")
        self.start: Target = start
        self.end: Target = end
        self.gas, self.cluster, self.softness, self.offset = start, end, float(softness), float(offset)

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """$U_t$ in kT."""
        return self.evaluate(t, x).energy

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        r"""Of pairs the forces alone, in float32; the energy is that of the traps."""
        time, position = t.float(), x.float()
        pairs = torch.cat([self._push(*part) for part in self._parts(time, position, 2)])
        energy, score, _ = self._traps(time, position)
        return energy.to(x), (score + pairs).to(x)

    def evaluate(
        self, t: Float[Tensor, " n"], x: Float[Tensor, "n atoms 3"], known: PathPoint | None = None
    ) -> PathPoint:
        r"""$U_t$, $-\nabla U_t$ and $\partial_t U_t$; nothing is reused at another time."""
        time, position = t.double(), x.double()
        pieces = [self._pairs(*part) for part in self._parts(time, position, 1)]
        energy, score, rate = (
            one + other
            for one, other in zip(
                self._traps(time, position), (torch.cat(p) for p in zip(*pieces, strict=True)), strict=True
            )
        )
        return PathPoint(energy, score.to(x), rate)

    def _traps(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, push = self.gas.energy_and_score(x)
        first, last = first + self.offset, 0.5 * self.cluster.trap * x.square().sum((1, 2))
        weight = t[:, None, None]
        score = (1 - weight) * push - weight * self.cluster.trap * x
        return (1 - t) * first + t * last, score, last - first

    def _parts(self, t: Tensor, x: Tensor, factor: int) -> list[tuple[Tensor, Tensor]]:
        walkers = max(1, factor * PAIRS_AT_ONCE // x.shape[1] ** 2)
        return list(zip(t.split(walkers), x.split(walkers), strict=True))

    def _sixths(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""$(r/\lambda)^4$ and $1/A$ of all ordered pairs, `(n, N, N)`."""
        scaled = x / self.cluster.strength
        square = scaled.square().sum(-1)
        squared = torch.baddbmm(square[:, :, None] + square[:, None, :], scaled, scaled.mT, alpha=-2)
        squared.clamp_(min=CLOSEST**2).diagonal(dim1=1, dim2=2).fill_(AWAY)
        fourth = squared * squared
        return fourth, torch.addcmul(self._core(t), fourth, squared).reciprocal_()

    def _core(self, t: Tensor) -> Tensor:
        return (self.softness * (1 - t))[:, None, None]

    def _push(self, t: Tensor, x: Tensor) -> Tensor:
        fourth, inverse = self._sixths(t, x)
        steep = fourth.mul_(inverse).mul_(inverse)
        steep = steep.addcmul_(steep, inverse, value=-2)
        return self._force(t, x, steep)

    def _force(self, t: Tensor, x: Tensor, steep: Tensor) -> Tensor:
        """From $r^4 (A^{-2} - 2 A^{-3})$ of every pair."""
        push = x * steep.sum(2, keepdim=True) - steep @ x
        return (-48 / self.cluster.strength * t)[:, None, None] * push

    def _pairs(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fourth, inverse = self._sixths(t, x)
        second = inverse * inverse
        steep = torch.addcmul(second, second, inverse, value=-2)  # d(A^-2 - A^-1)/dA
        bare, slope = (second - inverse).sum((1, 2)), steep.sum((1, 2))
        depth = 4 * self.cluster.strength  # every pair is seen twice
        rate = depth * (bare - self.softness * t * slope)
        return depth * t * bare, self._force(t, x, steep.mul_(fourth)), rate
