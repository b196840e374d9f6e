"""A density of one or two angles on a periodic grid, whose distribution functions have closed inverses."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["PeriodicDensity", "fit_periodic_density", "quiet_angle"]

TURN = 2 * math.pi
BACKGROUND = 1e-3  # of the probability is uniform: a map between empty regions stays harmless
BANDWIDTHS = (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4)  # rad


class PeriodicDensity:
    r"""$p(\theta)$ of k = 1 or 2 angles, linear in each between the nodes of a periodic grid.

    $$u_1 = \int_{c_1}^{\theta_1} p(\theta)\,d\theta, \qquad
      u_2 = \int_{c_2}^{\theta_2} p(\theta|\theta_1)\,d\theta, \qquad
      \left|\det \frac{\partial u}{\partial \theta}\right| = p(\theta_1, \theta_2)$$

    In a cell the density is linear and its integral quadratic, so both directions are exact.

    | symbol | argument | |
    |---|---|---|
    | p | `values` | at the nodes, `(n,)` or `(n, m)`, positive, of any norm |
    | c | `cut` | `(k,)` rad: the first node, where circles are cut |

    Raises:
        InputError: values that are not positive and finite, or not of one or two dimensions; a cut of another length.

    References:
        Rosenblatt, Remarks on a multivariate transformation, 1952, Ann. Math. Stat. 23, 470.

    Example:
        >>> flat = PeriodicDensity(torch.ones(8), torch.tensor([-torch.pi]))
        >>> flat.to_unit(torch.tensor([[0.0], [torch.pi / 2]]))
        tensor([[0.5000],
                [0.7500]])
    """

    def __init__(self, values: Float[Tensor, " n"] | Float[Tensor, "n m"], cut: Float[Tensor, " k"]) -> None:
        if values.ndim not in (1, 2) or min(values.shape) < 3:
            raise InputError(f"a density of one or two angles has a grid (n,) or (n, m): got {tuple(values.shape)}")
        if tuple(cut.shape) != (values.ndim,):
            raise InputError(f"every angle has a cut: got {tuple(cut.shape)} for a grid {tuple(values.shape)}")
        if not bool((values > 0).all()) or not bool(torch.isfinite(values).all()):
            raise InputError(f"a density must be positive and finite at every node: got {float(values.min())} at least")
        # The mean of a periodic, piecewise linear function is that of its nodes.
        self.values = values / (values.mean() * TURN**values.ndim)
        self.cut, self.steps = (
            cut,
            torch.tensor([TURN / n for n in values.shape], dtype=values.dtype, device=values.device),
        )

    def to_unit(self, angles: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """u in [0, 1), independent and uniform for angles of this density."""
        place = [torch.remainder(angles[..., i] - self.cut[i], TURN) / self.steps[i] for i in range(self.values.ndim)]
        first = _forward(_rows(self._marginal, place[0]), place[0], self.steps[0])
        if self.values.ndim == 1:
            return first[..., None]
        second = _forward(self._conditional(place[0]), place[1], self.steps[1])
        return torch.stack([first, second], -1)

    def from_unit(self, u: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        """The inverse, in [-π, π)."""
        place = _backward(_rows(self._marginal, u[..., 0]), u[..., 0], self.steps[0])
        found = [self.cut[0] + self.steps[0] * place]
        if self.values.ndim == 2:
            found.append(self.cut[1] + self.steps[1] * _backward(self._conditional(place), u[..., 1], self.steps[1]))
        return torch.remainder(torch.stack(found, -1) + math.pi, TURN) - math.pi

    def log_density(self, angles: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        """log p."""
        place = [torch.remainder(angles[..., i] - self.cut[i], TURN) / self.steps[i] for i in range(self.values.ndim)]
        if self.values.ndim == 1:
            return _interpolated(_rows(self._marginal, place[0]), place[0]).log()
        return _interpolated(_between(self.values, place[0]), place[1]).log()

    @property
    def _marginal(self) -> Tensor:
        return self.values if self.values.ndim == 1 else self.values.mean(1) * TURN

    def _conditional(self, place: Tensor) -> Tensor:
        """Nodes of the second angle's density given the first, `(*batch, m)`."""
        joint = _between(self.values, place)
        return joint / (joint.mean(-1, keepdim=True) * TURN)


def fit_periodic_density(
    angles: Float[Tensor, "n k"],
    *,
    cut: Float[Tensor, " k"] | None = None,
    cells: int = 64,
    width: float | None = None,
) -> PeriodicDensity:
    r"""Wrapped Gaussians about the samples; their width is the one that predicts the other half of the samples best.

    $$p(\theta) = \frac{1}{n}\sum_i \prod_{a\le k} N_\mathrm{wrapped}(\theta_a - \theta_{ia}; \sigma_i^2), \qquad
      \sigma_i = \sigma\,\sqrt{g / \tilde p(\theta_i)}$$

    with $\tilde p$ the same of one width $\sigma$ and g its geometric mean over them: wide where samples are few.

    Args:
        angles: samples in rad, time order; halves are the first and the second.
        cut: where circles are cut, by default where samples are fewest.
        cells: of the grid, along every angle.
        width: $\sigma$ in rad, instead of the best one.

    Raises:
        InputError: fewer than 20 samples, or more than two angles.

    References:
        Abramson, On bandwidth variation in kernel estimates, 1982, Ann. Stat. 10, 1217.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> density = fit_periodic_density(3 + 0.5 * torch.randn(2000, 1, generator=g))
        >>> density.log_density(torch.tensor([[3.0], [3.5]])).diff()  # exact: -1/2
        tensor([-0.5...])
    """
    if len(angles) < 20 or angles.ndim != 2 or angles.shape[1] not in (1, 2):
        raise InputError(f"a density of one or two angles needs 20 samples: got shape {tuple(angles.shape)}")
    cut = quiet_angle(angles) if cut is None else cut
    if width is not None:
        return _smoothed(angles, cut, cells, width)
    first, second = angles.chunk(2)

    def predicts(width: float) -> float:
        pairs = ((first, second), (second, first))
        return sum(float(_smoothed(train, cut, cells, width).log_density(test).sum()) for train, test in pairs)

    return _smoothed(angles, cut, cells, max(BANDWIDTHS, key=predicts))


def quiet_angle(*samples: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Of every angle, where the densities of these sets of samples are lowest together: the place to cut a circle."""
    found = []
    for i in range(samples[0].shape[1]):
        grid = -math.pi + TURN / 72 * torch.arange(72).to(samples[0])
        total = sum(_kernel(grid, x[:, i], torch.full_like(x[:, i], 0.3)).mean(1) for x in samples)
        assert isinstance(total, Tensor)
        found.append(grid[int(total.argmin())])
    return torch.stack(found)


def _smoothed(angles: Tensor, cut: Tensor, cells: int, width: float) -> PeriodicDensity:
    """Of widths that follow a pilot of one width."""
    pilot = _spread(angles, cut, cells, torch.full_like(angles[:, 0], width)).log_density(angles)
    return _spread(angles, cut, cells, width * (0.5 * (pilot.mean() - pilot)).exp().clamp(0.5, 4.0))


def _spread(angles: Tensor, cut: Tensor, cells: int, widths: Tensor) -> PeriodicDensity:
    factors = [
        _kernel(c + TURN / cells * torch.arange(cells).to(angles), angles[:, i], widths) for i, c in enumerate(cut)
    ]
    values = factors[0].mean(1) if len(factors) == 1 else factors[0] @ factors[1].T / len(angles)
    return PeriodicDensity((1 - BACKGROUND) * values + BACKGROUND / TURN ** len(cut), cut)


def _kernel(x: Tensor, samples: Tensor, widths: Tensor) -> Tensor:
    """Wrapped Gaussians, `(points, samples)`; the nearest images are enough at these widths."""
    apart = torch.remainder(x[:, None] - samples + math.pi, TURN) - math.pi
    images = sum((-0.5 * ((apart + TURN * k) / widths).square()).exp() for k in (-1, 0, 1))
    return images / (widths * math.sqrt(TURN))


def _between(values: Tensor, place: Tensor) -> Tensor:
    """Rows of a periodic table at fractional places, `(*batch, m)`."""
    low = place.detach().floor().long() % len(values)
    part = (place - place.detach().floor())[..., None]
    return (1 - part) * values[low] + part * values[(low + 1) % len(values)]


def _rows(nodes: Tensor, like: Tensor) -> Tensor:
    return nodes.expand(*like.shape, len(nodes))


def _pick(nodes: Tensor, cell: Tensor) -> Tensor:
    return nodes.gather(-1, (cell % nodes.shape[-1])[..., None])[..., 0]


def _cells(nodes: Tensor, step: Tensor) -> Tensor:
    """Probability below every node, `(*batch, m + 1)`, from 0 to 1."""
    mass = 0.5 * step * (nodes + nodes.roll(-1, -1))
    return torch.cat([torch.zeros_like(mass[..., :1]), mass.cumsum(-1)], -1)


def _interpolated(nodes: Tensor, place: Tensor) -> Tensor:
    cell = place.detach().floor().long()
    part = place - cell
    return (1 - part) * _pick(nodes, cell) + part * _pick(nodes, cell + 1)


def _forward(nodes: Tensor, place: Tensor, step: Tensor) -> Tensor:
    """Probability below a place, for densities of nodes of their own."""
    cell = place.detach().floor().long().clamp(max=nodes.shape[-1] - 1)
    part, low, high = place - cell, _pick(nodes, cell), _pick(nodes, cell + 1)
    return _cells(nodes, step).gather(-1, cell[..., None])[..., 0] + step * part * (low + 0.5 * part * (high - low))


def _backward(nodes: Tensor, u: Tensor, step: Tensor) -> Tensor:
    """The place below which the probability is u."""
    cells = _cells(nodes, step)
    cell = torch.searchsorted(cells.detach().contiguous(), u.detach()[..., None].contiguous(), right=True)[..., 0] - 1
    cell = cell.clamp(0, nodes.shape[-1] - 1)
    low, high = _pick(nodes, cell), _pick(nodes, cell + 1)
    rest = ((u - cells.gather(-1, cell[..., None])[..., 0]) / step).clamp(min=0)
    root = (low.square() + 2 * (high - low) * rest).clamp(min=1e-300).sqrt()
    return cell + 2 * rest / (low + root)
