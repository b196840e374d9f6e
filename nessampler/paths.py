"""U_t between two targets on [0, 1]."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.protocol import Target, energy_and_score

__all__ = ["EndpointPath", "LinearPath", "Path"]


@runtime_checkable
class Path(Protocol):
    """Energies $U_t$, $t$ in [0, 1], from `start` to `end`."""

    start: Target
    end: Target

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t(x)$ in kT, a time per walker."""
        ...


class EndpointPath:
    """A path that knows its ends only: enough for every method whose interior energies cancel (FEP, maps, FEAT).

    Raises:
        InputError: when asked for an energy inside (0, 1).
    """

    def __init__(self, start: Target, end: Target) -> None:
        _check_same_shape(start, end)
        self.start, self.end = start, end

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """The energy of the end that `t` names."""
        if bool((t == 0).all()):
            return self.start.energy(x)
        if bool((t == 1).all()):
            return self.end.energy(x)
        raise InputError(f"this path has energies at t = 0 and t = 1 only: got t = {float(t.flatten()[0])}")


class LinearPath:
    r"""$U_t = (1 - t)\, U_0 + t\, U_1$, each end evaluated once, and only where its weight is not zero.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> path.energy(torch.tensor([0.5]), torch.tensor([[1.0]]))
        tensor([0.2500])
    """

    def __init__(self, start: Target, end: Target) -> None:
        _check_same_shape(start, end)
        self.start, self.end = start, end

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t$ in kT."""
        terms = [_times(weight, target.energy(x)) for weight, target in self._weighted(t)]
        return torch.stack(terms).sum(0)

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U_t$ and $-\nabla U_t$, from one call of each end that carries weight."""
        energy, score = torch.zeros_like(t, dtype=x.dtype), torch.zeros_like(x)
        for weight, target in self._weighted(t):
            end_energy, end_score = energy_and_score(target, x)
            energy = energy + _times(weight, end_energy)
            score = score + weight.view(-1, *[1] * (x.ndim - 1)) * end_score
        outside = (energy == torch.inf).view(-1, *[1] * (x.ndim - 1))
        return energy, torch.where(outside, 0.0, score)

    def _weighted(self, t: Tensor) -> list[tuple[Tensor, Target]]:
        if bool((t == 0).all()):
            return [(torch.ones_like(t), self.start)]
        if bool((t == 1).all()):
            return [(torch.ones_like(t), self.end)]
        return [(1 - t, self.start), (t, self.end)]


def _times(weight: Tensor, energy: Tensor) -> Tensor:
    return torch.where(weight > 0, weight * energy, 0.0)  # an end without weight may be infinite


def _check_same_shape(start: Target, end: Target) -> None:
    if start.event_shape != end.event_shape:
        raise InputError(
            f"both ends of a path must have one event shape: got {tuple(start.event_shape)} and "
            f"{tuple(end.event_shape)}; bring them to common coordinates first"
        )
