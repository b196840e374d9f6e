"""Vector fields of like atoms along the lines between them: their drift is found in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths import PathPoint

__all__ = ["PairDictionary"]

PAIRS_AT_ONCE = 2**16  # what stays in a core's cache
RARE = 0.02
"""Fields that a smaller effective fraction of the walkers feels are left out: the few would decide for all others."""

# Rows: a cubic B-spline's four pieces as polynomials of the place within an interval, from the leftmost spline on.
_PIECES = ((1, -3, 3, -1), (4, 0, -6, 3), (1, 3, 3, -3), (0, 0, 0, 1))


@dataclass(frozen=True)
class PairDictionary:
    r"""Fields $\varphi_{m,i} = \sum_{j \ne i} f_m(r_{ij})\,(x_i - x_j)$ with cubic B-splines $f_m$ of the distance.

    $$\nabla\cdot\varphi_m = 2\sum_{i<j} (3 f_m + r f_m')(r_{ij}), \qquad
      \varphi_m\cdot s = \sum_{i<j} f_m(r_{ij})\, (x_i - x_j)\cdot(s_i - s_j)$$

    They commute with rotations, reflections and permutations, and move no centre of mass; breathing is their sum. The
    knots are equidistant from 0 to `reach`, the largest distance that matters: there fields end, twice differentiable.
    A sum of them is one cubic for each interval, so that it costs about as much as a sum of Lennard-Jones forces.

    | symbol | argument | |
    |---|---|---|
    | | `reach` | positive |
    | m | `splines` | four or more, as many as intervals |

    Shapes: walkers `(n, atoms, 3)`; arithmetic in float64.

    Raises:
        InputError: fewer than four splines, a reach that is not positive.

    References:
        Köhler, Klein & Noé, Equivariant Flows, 2020, arXiv:2006.02425 (radial fields and their divergence).

    Example:
        >>> fields = PairDictionary(reach=4.0, splines=8)
        >>> x = torch.tensor([[[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]], dtype=torch.float64)
        >>> velocity, divergence = fields.velocity(0.0, x, torch.ones(8))  # f is 1, the pair expands
        >>> velocity[0, 0].round(decimals=3).tolist(), divergence.round().tolist()
        ([1.0, 0.0, 0.0], [6.0])
    """

    reach: float
    splines: int = 24

    def __post_init__(self) -> None:
        if self.splines < 4 or not 0 < self.reach < float("inf"):
            raise InputError(f"splines are four or more, up to a positive reach: got {self.splines} and {self.reach}")

    @property
    def size(self) -> int:
        """One field for each spline."""
        return self.splines

    def stein(self, t: float, x: Float[Tensor, "n atoms 3"], point: PathPoint) -> Float[Tensor, "n p"]:
        r"""$\nabla\cdot\varphi_m + \varphi_m\cdot s$, s the path's score; zero for fields that few walkers feel."""
        features = torch.cat([self._stein(*part) for part in self._parts(x.double(), point.score.double())])
        square = features.square()
        felt = square.sum(0).square() > RARE * len(x) * square.square().sum(0)
        return features * felt

    def velocity(
        self, t: float, x: Float[Tensor, "n atoms 3"], coefficients: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "n atoms 3"], Float[Tensor, " n"]]:
        """The sum of the fields, and its divergence."""
        knots = torch.cat([coefficients.double(), coefficients.new_zeros(4, dtype=torch.float64)])
        table = knots.unfold(0, 4, 1) @ _pieces(x.device)
        velocity, divergence = zip(
            *(self._velocity(part, table) for part, _ in self._parts(x.double(), x)), strict=True
        )
        return torch.cat(velocity).to(x), torch.cat(divergence)

    def _parts(self, x: Tensor, other: Tensor) -> list[tuple[Tensor, Tensor]]:
        walkers = max(1, PAIRS_AT_ONCE // x.shape[1] ** 2)
        return list(zip(x.split(walkers), other.split(walkers), strict=True))

    def _places(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """Which interval a distance is in, `splines` for beyond the reach, and where in it."""
        r = squared.clamp_(min=0).sqrt_().mul_(self.splines / self.reach)
        interval = r.to(torch.int64).clamp_(max=self.splines)
        return interval, r

    def _velocity(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        square = x.square().sum(-1)
        interval, r = self._places(torch.baddbmm(square[:, :, None] + square[:, None, :], x, x.mT, alpha=-2))
        # `index_select` of one number per pair and power is by far the fastest way to look them up.
        flat = interval.flatten()
        c0, c1, c2, c3 = (column.contiguous().index_select(0, flat).view_as(r) for column in table.T)
        s = r - interval
        slope = torch.addcmul(c2, c3, s, value=3)  # c2 + 3 c3 s
        slope = torch.addcmul(c1, slope.add_(c2), s)  # c1 + 2 c2 s + 3 c3 s^2
        f = c3.mul_(s).add_(c2).mul_(s).add_(c1).mul_(s).add_(c0)
        stretch = torch.addcmul(3 * f, r, slope)
        own = table[0, 0]  # what an atom would do to itself
        divergence = stretch.sum((1, 2)) - 3 * x.shape[1] * own
        return x * f.sum(2, keepdim=True) - f @ x, divergence

    def _stein(self, x: Tensor, score: Tensor) -> Tensor:
        n, atoms = x.shape[:2]
        first, second = torch.triu_indices(atoms, atoms, offset=1, device=x.device)
        difference = x[:, first] - x[:, second]
        along = (difference * (score[:, first] - score[:, second])).sum(-1)
        interval, r = self._places(difference.square().sum(-1))
        s = r - interval
        powers = torch.stack([torch.ones_like(s), s, s * s, s * s * s], -1)
        rates = torch.stack([torch.zeros_like(s), torch.ones_like(s), 2 * s, 3 * s * s], -1)
        pieces = _pieces(x.device).T
        # Beyond the reach everything is added to columns that are dropped.
        width = self.splines + 4
        place = interval + width * torch.arange(n, device=x.device)[:, None]
        features = x.new_zeros(n * width)
        for k in range(4):
            f, slope = powers @ pieces[:, k], rates @ pieces[:, k]
            value = along * f + 2 * (3 * f + r * slope)
            features.index_add_(0, (place + k).flatten(), value.flatten())
        return features.view(n, width)[:, : self.splines]


def _pieces(device: torch.device) -> Tensor:
    return torch.tensor(_PIECES, dtype=torch.float64, device=device) / 6
