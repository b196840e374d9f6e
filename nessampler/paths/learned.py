"""A schedule of its own for every term of a path, monotone, and bent to where walkers have the least to do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths.scheduled import ScheduledPath

__all__ = ["Metric", "MonotonePath", "MonotoneRamps", "reweighted_metric", "shortest_ramps"]

Metric = Callable[[Tensor], Tensor]
"""Progress `(m, k)` in $[0, 1]^k$ to symmetric positive matrices `(m, k, k)`."""


class MonotoneRamps:
    r"""Ramps $f_k$ from 0 to 1 that never turn back and are continuously differentiable: cubics between knots.

    Slopes at the knots are harmonic means of those of the two intervals that meet there, and zero where one of them is,
    which keeps every cubic monotone.

    Args:
        values: `(k, knots)` at equidistant times, from 0 to 1, nondecreasing.

    Raises:
        InputError: values that do not rise from 0 to 1, or fewer than two knots.

    References: Fritsch & Butland, A method for constructing local monotone piecewise cubic interpolants, 1984, SIAM J.
        Sci. Stat. Comput. 5, 300.

    Example:
        >>> MonotoneRamps(torch.tensor([[0.0, 0.8, 1.0]]))(torch.tensor([0.0, 0.25, 0.5, 1.0]))
        tensor([[0.0000],
                [0.4600],
                [0.8000],
                [1.0000]], dtype=torch.float64)
    """

    def __init__(self, values: Float[Tensor, "k knots"]) -> None:
        values = values.to(torch.float64)
        ends = bool((values[:, 0] == 0).all()) and bool((values[:, -1] == 1).all())
        if values.shape[1] < 2 or not ends or bool((values.diff(dim=1) < 0).any()):
            raise InputError(
                f"ramps rise from 0 at the first knot to 1 at the last and never turn back: got {values.tolist()}"
            )
        self.values = values
        steps = values.diff(dim=1)
        inner = 2 * steps[:, 1:] * steps[:, :-1] / (steps[:, 1:] + steps[:, :-1]).clamp(min=1e-300)
        self._slopes = torch.cat([steps[:, :1], inner, steps[:, -1:]], 1)  # per interval, not per unit of time

    def __call__(self, t: Float[Tensor, " n"]) -> Float[Tensor, "n k"]:
        """$f(t)$, float64; differentiable in t."""
        intervals = self.values.shape[1] - 1
        place = t.to("cpu", torch.float64).clamp(0, 1) * intervals
        j = place.detach().floor().long().clamp(max=intervals - 1)
        u = (place - j)[:, None]
        low, high = self.values.T[j], self.values.T[j + 1]
        here, there = self._slopes.T[j], self._slopes.T[j + 1]
        smooth = u * u * (3 - 2 * u)
        bend = u * (1 - u) * ((1 - u) * here - u * there)
        return (low + (high - low) * smooth + bend).to(t.device)


class MonotonePath(ScheduledPath):
    r"""The terms of another path, each that changes on a ramp of its own.

    $$U_t = \sum_i \big[c_i(0) + f_i(t)\,(c_i(1) - c_i(0))\big] V_i, \qquad \frac{\partial U}{\partial f_i} =
      (c_i(1) - c_i(0))\, V_i$$

    Args:
        path: gives terms $V_i$, their weights $c_i$ at both ends, and the ends.
        ramps: $f$, one for every term whose weight changes, in their order; all linear by default.

    Raises:
        InputError: another number of ramps than of terms that change.

    Example:
        >>> from nessampler.paths import coupling_path
        >>> from nessampler.targets.phi4 import Phi4
        >>> path = MonotonePath(coupling_path(Phi4(4, quartic=0.8)), torch.tensor([[0.0, 0.1, 1.0], [0.0, 0.9, 1.0]]))
        >>> path.schedule(torch.tensor([0.5]))  # of the kinetic, the quadratic and the quartic term
        tensor([[1.0000, 0.8000, 0.7200]])
    """

    def __init__(self, path: ScheduledPath, ramps: Float[Tensor, "k knots"] | None = None) -> None:
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        first, last = path.schedule(ends).to(torch.float64)
        changing = (first != last).nonzero()[:, 0]
        if ramps is None:
            ramps = torch.linspace(0, 1, 2, dtype=torch.float64).repeat(len(changing), 1)
        if len(ramps) != len(changing):
            raise InputError(f"one ramp for every term that changes: got {len(ramps)} for {len(changing)}")
        self.ramps = MonotoneRamps(ramps)
        self.changing, self.changes, self._first = tuple(changing.tolist()), (last - first)[changing], first
        super().__init__(path.terms, lambda t: self.weights_at(self.ramps(t)).to(t), path.start, path.end)

    def with_ramps(self, ramps: Float[Tensor, "k knots"]) -> MonotonePath:
        """The same terms on other ramps."""
        return MonotonePath(self, ramps)

    def weights_at(self, progress: Float[Tensor, "n k"]) -> Float[Tensor, "n terms"]:
        """Weights of all terms where the ramps stand at `progress`, float64."""
        progress = progress.to(torch.float64)
        grown = self._first.to(progress).repeat(len(progress), 1)
        place = torch.tensor(self.changing, device=progress.device)
        return grown.index_add(1, place, progress * self.changes.to(progress))


def reweighted_metric(
    path: MonotonePath,
    terms: Float[Tensor, "m terms"],
    progress: Float[Tensor, "places k"],
    *,
    iterations: int = 50,
    caution: float = 10.0,
) -> Metric:
    r"""The covariance of $\partial U / \partial f$ anywhere, from walkers that were sampled at some places.

    $$G(f) = \mathrm{cov}_w\Big(\frac{\partial U}{\partial f}\Big), \qquad
      w(x) \propto \frac{e^{-U_f(x)}}{\sum_i e^{-U_{f_i}(x)} / Z_i},$$

    with $Z_i$ from the same walkers. Where $n(f)$ effective walkers are left, the mean of the metric at the places is
    added, times `caution` over n: a place that nobody knows is no short cut.

    Args:
        path: the weights of the terms.
        terms: $V_i$ of the walkers, as many from each place, place by place.
        progress: the places.
        iterations: for $Z_i$, which start equal.
        caution: see above.

    References: Shenfeld, Xu, Eastwood, Dror & Shaw, Minimizing thermodynamic length to select intermediate states for
        free-energy calculations and replica-exchange simulations, 2009, Phys. Rev. E 80, 046705; Shirts & Chodera,
        Statistically optimal analysis of samples from multiple equilibrium states, 2008, J. Chem. Phys. 129, 124105.
    """
    terms = terms.to(torch.float64)
    forces = terms[:, list(path.changing)] * path.changes
    energies = path.weights_at(progress) @ terms.T  # (places, m)
    log_z = torch.zeros(len(progress), dtype=torch.float64)
    for _ in range(iterations):
        mixture = torch.logsumexp(-energies - log_z[:, None], 0)
        log_z = torch.logsumexp(-energies - mixture, 1)
        log_z = log_z - log_z[0]
    mixture = torch.logsumexp(-energies - log_z[:, None], 0)

    def covariance(f: Tensor) -> tuple[Tensor, Tensor]:
        weight = torch.softmax(-path.weights_at(f) @ terms.T - mixture, 1)
        mean = weight @ forces
        square = torch.einsum("pm,mk,ml->pkl", weight, forces, forces)
        return square - mean[:, :, None] * mean[:, None, :], 1 / weight.square().sum(1)

    unknown = covariance(progress.to(torch.float64))[0].mean(0)

    def metric(f: Tensor) -> Tensor:
        known, effective = covariance(f)
        return known + caution / effective[:, None, None] * unknown

    return metric


def shortest_ramps(
    metric: Metric,
    start: Float[Tensor, "k knots"],
    *,
    steps: int = 150,
    learning_rate: float = 0.1,
    smoothness: float = 1e-3,
) -> tuple[Float[Tensor, "k knots"], float]:
    r"""Ramps of least action under a metric, and their length.

    $$A = J \sum_{j=1}^J \Delta f_j^T\, G\big(\tfrac12 (f_{j-1} + f_j)\big)\, \Delta f_j \;\ge\; L^2$$

    for J intervals, with equality where each of them is as long as any other, so that the least action finds the
    shortest way and its speed. Increments are softmax of free parameters: ramps cannot turn back.

    Args:
        metric: covariance of the forces $\partial U/\partial f$ in equilibrium, for one: $A/K$ is then the variance of
            work over K steps between which walkers forget.
        start: where to look from.
        steps, learning_rate: of Adam.
        smoothness: weight of the squared second differences of the logarithms of the increments, relative to A.

    References: Crooks, Measuring thermodynamic length, 2007, Phys. Rev. Lett. 99, 100602; Gelman & Meng, Simulating
        normalizing constants: from importance sampling to bridge sampling to path sampling, 1998, Stat. Sci. 13, 163.

    Example:
        >>> cheap = lambda f: torch.eye(2).double() * (1 + 9 * f[:, :1, None])  # moving is dear once the first has
        >>> ramps, length = shortest_ramps(cheap, torch.linspace(0, 1, 9).repeat(2, 1))
        >>> bool((ramps[1] >= ramps[0] - 1e-6).all())  # so the second goes first
        True
    """
    increments = start.to(torch.float64).diff(dim=1).clamp(min=1e-4)
    logits = increments.log().requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=learning_rate)
    best, least = start.to(torch.float64), float("inf")
    with torch.enable_grad():
        for _ in range(steps):
            ramps, moves = _ramps(logits)
            action = _action(metric, ramps, moves)
            if float(action.detach()) < least:
                best, least = ramps.detach(), float(action.detach())
            rough = logits.diff(n=2, dim=1).square().mean() if logits.shape[1] > 2 else logits.sum() * 0
            optimiser.zero_grad()
            (action.log() + smoothness * rough).backward()
            optimiser.step()
    return best, length(metric, best)


def length(metric: Metric, ramps: Float[Tensor, "k knots"]) -> float:
    r"""$\sum_j (\Delta f_j^T G\, \Delta f_j)^{1/2}$, which does not depend on the speed."""
    ramps = ramps.to(torch.float64)
    moves, middle = ramps.diff(dim=1).T, 0.5 * (ramps[:, 1:] + ramps[:, :-1]).T
    return float(torch.einsum("jk,jkl,jl->j", moves, metric(middle), moves).clamp(min=0).sqrt().sum())


def _ramps(logits: Tensor) -> tuple[Tensor, Tensor]:
    moves = torch.softmax(logits, 1)
    risen = torch.cumsum(moves, 1)[:, :-1].clamp(max=1.0)
    ends = torch.zeros(len(logits), 1, dtype=torch.float64)
    return torch.cat([ends, risen, ends + 1], 1), moves


def _action(metric: Metric, ramps: Tensor, moves: Tensor) -> Tensor:
    middle = 0.5 * (ramps[:, 1:] + ramps[:, :-1]).T
    return moves.shape[1] * torch.einsum("kj,jkl,lj->", moves, metric(middle), moves)
