"""The currency in which methods are compared: evaluations of a target, by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.targets.protocol import Target, energy_and_score

__all__ = ["Counted", "Tally"]


@dataclass
class Tally:
    """Conformations whose energy alone, and whose energy and gradient, were evaluated.

    Example:
        >>> before, now = Tally(energy=100), Tally(energy=100, gradient=50)
        >>> now - before
        Tally(energy=0, gradient=50)
        >>> now.total  # one each
        150
    """

    energy: int = 0
    gradient: int = 0

    @property
    def total(self) -> int:
        """Energies and gradients, one each."""
        return self.energy + self.gradient

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.energy - other.energy, self.gradient - other.gradient)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.energy + other.energy, self.gradient + other.gradient)

    def copy(self) -> Tally:
        """The count as it is now."""
        return Tally(self.energy, self.gradient)


@dataclass
class Counted:
    """A target that counts what it is asked, under the stage that is current.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> target = Counted(Gaussian(torch.zeros(1), torch.ones(1)))
        >>> with target.stage("training"):
        ...     _ = target.energy(torch.zeros(5, 1))
        >>> target.tallies["training"]
        Tally(energy=5, gradient=0)
    """

    target: Target
    tallies: dict[str, Tally] = field(default_factory=dict)
    current: str = "sampling"

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one walker."""
        return self.target.event_shape

    def tally(self, stage: str | None = None) -> Tally:
        """The count of one stage, by default the current one."""
        return self.tallies.setdefault(stage or self.current, Tally())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count under `name` within the block."""
        before, self.current = self.current, name
        try:
            yield
        finally:
            self.current = before

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U; counted as a gradient where autograd will ask for one."""
        if x.requires_grad and torch.is_grad_enabled():
            self.tally().gradient += len(x)
        else:
            self.tally().energy += len(x)
        return self.target.energy(x)

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        """U and -∇U, one gradient evaluation per walker."""
        found = energy_and_score(self.target, x)
        self.tally().gradient += len(x)
        return found
