"""Log-Gaussian Cox process: points on a square whose log-intensity is a Gaussian field."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler._cast import Cast
from nessampler.errors import InputError

__all__ = ["GaussianField", "LogGaussianCox", "bin_counts", "load_points"]


class GaussianField:
    r"""A normalised multivariate normal, $\log Z = 0$:

    $$U(x) = \tfrac12 (x - \mu)^T K^{-1} (x - \mu) + \tfrac12 \log|2\pi K|$$

    Args:
        mean: $\mu$, a number for every coordinate.
        covariance: $K$, `(d, d)`.

    Raises:
        InputError: a covariance that is not positive definite.

    Example:
        >>> field = GaussianField(0.0, torch.eye(2) / (2 * math.pi))
        >>> abs(float(field.energy(torch.zeros(1, 2)))) < 1e-6
        True
    """

    log_z = 0.0

    def __init__(self, mean: float, covariance: Float[Tensor, "d d"]) -> None:
        factor, failed = torch.linalg.cholesky_ex(covariance.double())
        if int(failed) or not bool(torch.isfinite(factor).all()):
            raise InputError(
                f"a covariance must be positive definite: got {tuple(covariance.shape)} whose leading minor of order "
                f"{int(failed)} is not; check its symmetry, or add to its diagonal"
            )
        self.mean, self.factor = float(mean), factor
        self.precision = torch.cholesky_inverse(factor)
        self.normaliser = float(factor.diagonal().log().sum()) + 0.5 * len(factor) * math.log(2 * math.pi)
        self.event_shape = torch.Size([len(factor)])
        self._precision = Cast(self.precision)

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return self.energy_and_score(x)[0]

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U: one product with the precision, the sum over sites in float64."""
        energy, score = self.in_double(x)
        return energy.to(x), score

    def in_double(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U in float64, to be added to other terms before it is rounded, and -∇U in the dtype of x."""
        deviation = x - self.mean
        pull = deviation @ self._precision.like(x)
        return 0.5 * (deviation * pull).sum(-1, dtype=torch.float64) + self.normaliser, -pull

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The trace of the precision, the same everywhere."""
        return torch.full((len(x),), float(self.precision.trace()), dtype=torch.float64, device=x.device)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws."""
        noise = torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64, device=generator.device)
        return self.mean + noise @ self.factor.to(noise).T


class LogGaussianCox:
    r"""The posterior of the log-intensity x on an m × m grid of the unit square, given the number of points per cell:

    $$U(x) = \tfrac12 (x-\mu)^T K^{-1} (x-\mu) + \tfrac12 \log|2\pi K| - \sum_i \big[x_i y_i - a\, e^{x_i}\big],
      \qquad K_{ij} = \sigma^2 e^{-|i-j|/(m\ell)}, \quad a = 1/m^2$$

    The prior is normalised. As in the literature, $\sum_i [y_i \log a - \log y_i!]$ is left out of the likelihood:
    `log_z` values compare with published ones, and adding `evidence_offset` to them gives the log evidence.

    | symbol | argument | |
    |---|---|---|
    | $y$ | `counts` | `(m, m)`, whole numbers |
    | $\mu$ | `mean` | by default $\log \sum_i y_i - \sigma^2/2$: as many points expected as were seen |
    | $\sigma^2$ | `variance` | of the log-intensity |
    | $\ell$ | `length` | correlation length, in sides of the square |

    Shapes: walkers `(n, m²)`, row by row; float32 or float64, sums over sites in float64.

    Raises:
        InputError: counts that are not square or not whole numbers, a variance or length that is not positive.

    References:
        Møller, Syversveen & Waagepetersen, Log Gaussian Cox Processes, 1998, Scand. J. Statist. 25, 451 (parameters);
        Heng, Bishop, Deligiannidis & Doucet, Controlled Sequential Monte Carlo, 2020, arXiv:1708.08396 (grid);
        Arbel, Matthews & Doucet, Annealed Flow Transport Monte Carlo, 2021, arXiv:2102.07501 (this form).

    Example:
        >>> target = LogGaussianCox(torch.tensor([[2, 0], [1, 3]]))
        >>> target.event_shape, round(target.mean, 4)
        (torch.Size([4]), 0.8368)
    """

    def __init__(
        self,
        counts: Tensor,
        *,
        mean: float | None = None,
        variance: float = 1.91,
        length: float = 1 / 33,
    ) -> None:
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) == 0:
            raise InputError(f"counts must be a square grid (m, m): got {tuple(counts.shape)}; bin the points first")
        flat = counts.double().flatten()
        if not bool(((flat >= 0) & (flat == flat.round())).all()):
            raise InputError(
                f"counts must be whole numbers, zero or more: got {flat.tolist()[:5]} …; pass points per cell"
            )
        if not (variance > 0 and length > 0):
            raise InputError(f"variance and length must be positive: got {variance} and {length}")
        if mean is None and not float(flat.sum()) > 0:
            raise InputError("without any point the mean of the log-intensity has no default: pass mean=...")
        self.mean = math.log(float(flat.sum())) - variance / 2 if mean is None else float(mean)
        self.counts, self.area = flat, 1 / flat.numel()
        self.prior = GaussianField(self.mean, _exponential_kernel(len(counts), variance, length))
        self.event_shape = flat.shape
        self.evidence_offset = float((flat * math.log(self.area) - torch.lgamma(flat + 1)).sum())

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return self.energy_and_score(x)[0]

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U: one product with the prior's precision."""
        energy, score = self.prior.in_double(x)
        counts, expected = self.counts.to(x), self.area * x.exp()
        energy = energy - (x * counts - expected).sum(-1, dtype=torch.float64)
        return energy.to(x), score + counts - expected

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        r"""$\mathrm{tr}\, K^{-1} + a \sum_i e^{x_i}$, float64."""
        return self.prior.laplacian(x) + self.area * x.exp().sum(-1, dtype=torch.float64)

    def hessian(self, x: Float[Tensor, " d"]) -> Float[Tensor, "d d"]:
        r"""$\nabla\nabla U = K^{-1} + a\,\mathrm{diag}(e^x)$ of one point."""
        return self.prior.precision.to(x) + torch.diag(self.area * x.exp())


def bin_counts(points: Float[Tensor, "N 2"], cells: int) -> Float[Tensor, "m m"]:
    """Points of the unit square per cell of a `cells` × `cells` grid; those on the upper edge count in the last cell.

    Raises:
        InputError: points outside the unit square, or no cells.

    Example:
        >>> bin_counts(torch.tensor([[0.1, 0.9], [0.2, 1.0], [0.5, 0.0]]), 2)
        tensor([[0., 2.],
                [1., 0.]], dtype=torch.float64)
    """
    if not bool(((points >= 0) & (points <= 1)).all()):
        raise InputError(
            f"points must lie in the unit square: got coordinates from {float(points.min())} to {float(points.max())}; "
            "shift and scale the window first"
        )
    if cells < 1:
        raise InputError(f"a grid has one cell a side at least: got {cells}")
    row, column = (points * cells).long().clamp(max=cells - 1).unbind(-1)
    return torch.bincount(row * cells + column, minlength=cells**2).double().view(cells, cells)


def load_points(path: Path | str) -> Float[Tensor, "N 2"]:
    """Points from a file of two comma-separated columns without header, float64.

    Raises:
        InputError: lines that are not two numbers.
    """
    try:
        points = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise InputError(f"a file of points has two numbers per line, separated by a comma: {path}: {error}") from error
    if points.shape[1] != 2:
        raise InputError(f"a file of points has two numbers per line: {path} has {points.shape[1]}; keep x and y only")
    return torch.from_numpy(points)


def _exponential_kernel(cells: int, variance: float, length: float) -> Tensor:
    axis = torch.arange(cells, dtype=torch.float64) / cells
    sites = torch.cartesian_prod(axis, axis)
    # By differences: the default of large inputs goes through a Gram matrix and loses digits.
    distance = torch.cdist(sites, sites, compute_mode="donot_use_mm_for_euclid_dist")
    return variance * torch.exp(-distance / length)
