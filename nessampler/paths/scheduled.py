"""Paths that are sums of fixed terms with weights that change in time: linear, coupling-wise, tempered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths.protocol import PathPoint, check_same_shape
from nessampler.targets.protocol import Target, energy_and_score

__all__ = ["LinearPath", "ScheduledPath"]

Schedule = Callable[[Tensor], Tensor]


class ScheduledPath:
    r"""$U_t(x) = \sum_i c_i(t)\, V_i(x)$: every term is evaluated once, and only where it carries weight.

    The terms may be the couplings of a lattice action, a prior and a likelihood, or two densities.

    | symbol | argument | |
    |---|---|---|
    | $V_i$ | `terms` | targets with one event shape |
    | $c(t)$ | `schedule` | `(n,)` to `(n, terms)`, differentiable by autograd |
    | $U_0, U_1$ | `start`, `end` | the densities that the sums at both ends are |

    Raises:
        InputError: ends or terms with different event shapes.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> wide, narrow = Gaussian(torch.zeros(1), torch.full((1,), 2.0)), Gaussian(torch.zeros(1), torch.ones(1))
        >>> late = ScheduledPath([wide, narrow], lambda t: torch.stack([1 - t**2, t**2], -1), wide, narrow)
        >>> late.energy(torch.tensor([0.5]), torch.tensor([[2.0]]))
        tensor([0.8750])
    """

    def __init__(self, terms: Sequence[Target], schedule: Schedule, start: Target, end: Target) -> None:
        for target in (*terms, end):
            check_same_shape(start, target)
        self.terms, self.schedule, self.start, self.end = tuple(terms), schedule, start, end

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t$ in kT."""
        weights = self._weights(t)
        return sum_of(
            _times(w, term.energy(x)) for w, term in zip(weights, self.terms, strict=True) if bool(w.count_nonzero())
        )

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U_t$ and $-\nabla U_t$, from one call of each term that carries weight."""
        weights = self._weights(t)
        parts = tuple(
            energy_and_score(term, x) if bool(w.count_nonzero()) else None
            for w, term in zip(weights, self.terms, strict=True)
        )
        return _combined(weights, parts, x)

    def evaluate(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], known: PathPoint | None = None
    ) -> PathPoint:
        r"""$U_t$, $-\nabla U_t$ and $\partial_t U_t = \sum_i \dot c_i V_i$; with `known`, without a single call."""
        weights, rates = self._weights_and_rates(t)
        parts = known.parts if known is not None else tuple(energy_and_score(term, x) for term in self.terms)
        energy, score = _combined(weights, parts, x)
        derivative = sum_of(_times(rate, part[0]) for rate, part in zip(rates, parts, strict=True))
        return PathPoint(energy, score, derivative, parts)

    def energies(self, x: Float[Tensor, " n *event"], times: Float[Tensor, " states"]) -> Float[Tensor, "states n"]:
        """$U_t$ in kT of every x at several times, float64, as MBAR needs them: each term is evaluated once."""
        values = [term.energy(x).to(torch.float64) for term in self.terms]
        weights = [w.to(values[0])[:, None] for w in self._weights(times)]
        return sum_of(_times(w, v) for w, v in zip(weights, values, strict=True))

    def _weights(self, t: Tensor) -> tuple[Tensor, ...]:
        return self.schedule(t).unbind(-1)

    def _weights_and_rates(self, t: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        with torch.enable_grad():
            time = t.detach().requires_grad_()
            schedule = self.schedule(time)
            # Walkers have times of their own: the gradient of a column's sum is the derivative walker by walker.
            rates = tuple(_derivative(column, time) for column in schedule.unbind(-1))
        return schedule.detach().unbind(-1), rates


class LinearPath(ScheduledPath):
    r"""$U_t = (1 - t)\, U_0 + t\, U_1$, each end evaluated once, and only where its weight is not zero.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> path.energy(torch.tensor([0.5]), torch.tensor([[1.0]]))
        tensor([0.2500])
    """

    def __init__(self, start: Target, end: Target) -> None:
        super().__init__((start, end), lambda t: torch.stack([1 - t, t], -1), start, end)

    def _weights_and_rates(self, t: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        # Known, and autograd is most of the cost of a cheap target.
        t = t.detach()
        one = torch.ones_like(t)
        return (1 - t, t), (-one, one)


def sum_of(values: Iterable[Tensor]) -> Tensor:
    """Sum without a zero to start from, which would not know the dtype."""
    first, *rest = values
    for value in rest:
        first = first + value
    return first


def _combined(weights: Sequence[Tensor], parts: Sequence, x: Tensor) -> tuple[Tensor, Tensor]:
    present = [(w, p) for w, p in zip(weights, parts, strict=True) if p is not None]
    if not present:
        raise InputError("a path's schedule must give weight to a term at every time: all weights are zero")
    energy = sum_of(_times(w, p[0]) for w, p in present)
    score = sum_of(_times(w.to(x).view(-1, *[1] * (x.ndim - 1)), p[1]) for w, p in present)
    outside = energy == torch.inf
    if bool(outside.any()):
        score = torch.where(outside.view(-1, *[1] * (x.ndim - 1)), 0.0, score)
    return energy, score


def _times(weight: Tensor, value: Tensor) -> Tensor:
    if bool((weight != 0).all()):
        return weight * value
    return torch.where(weight != 0, weight * value, 0.0)  # a term without weight may be infinite


def _derivative(value: Tensor, t: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(t)
    (rate,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
    return rate
