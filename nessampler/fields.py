"""Velocity and score as functions of time and position."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths import Path

__all__ = ["Evaluated", "Fields", "PathScore"]


class Evaluated(NamedTuple):
    """What one evaluation of the fields gives. `energy` is $U_t(x)$ where it came for free, else None.

    Example:
        >>> import torch
        >>> def fields(t, x):  # of a standard normal that drifts by one
        ...     return Evaluated(torch.ones_like(x), -(x - t[:, None]))
        >>> fields(torch.tensor([0.5]), torch.tensor([[2.0]])).score
        tensor([[-1.5000]])
    """

    velocity: Float[Tensor, " n *event"] | None
    score: Float[Tensor, " n *event"]
    energy: Float[Tensor, " n"] | None = None


Fields = Callable[[Tensor, Tensor], Evaluated]
"""(t: (n,), x: (n, *event)) -> Evaluated: one call, shared work done once."""


class PathScore:
    r"""Fields of annealing along a path: $s = -\nabla U_t$ and an optional velocity (none: AIS; learned: NETS).

    Args:
        path: with `energy_and_score(t, x)`, such as `LinearPath`.
        velocity: $b(t, x)$, or None for zero drift.

    Raises:
        InputError: a path without interior energies, such as `EndpointPath`.

    Example:
        >>> import torch
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> velocity, score, energy = PathScore(path)(torch.tensor([0.5]), torch.tensor([[2.0]]))  # mean 1/2 half-way
        >>> velocity, score, energy
        (None, tensor([[-1.5000]]), tensor([1.2500]))
    """

    def __init__(self, path: Path, velocity: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        if not hasattr(path, "energy_and_score"):
            raise InputError(f"annealing needs a path with interior energies, such as LinearPath: got {path!r}")
        self.path, self.velocity = path, velocity

    def __call__(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Evaluated:
        """Evaluate both fields; each end of the path is called once."""
        energy, score = self.path.energy_and_score(t, x)  # pyright: ignore[reportAttributeAccessIssue]
        return Evaluated(None if self.velocity is None else self.velocity(t, x), score, energy)
