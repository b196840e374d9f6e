"""What a path must offer, and what it knows at a point."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.protocol import Target

__all__ = ["AnnealingPath", "Path", "PathPoint", "check_same_shape"]


@runtime_checkable
class Path(Protocol):
    """Energies $U_t$, $t$ in [0, 1], from `start` to `end`."""

    start: Target
    end: Target

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t(x)$ in kT, a time per walker."""
        ...


class PathPoint(NamedTuple):
    r"""$U_t(x)$, $-\nabla U_t(x)$ and $\partial_t U_t(x)$; `parts` is what the path can reuse at another time."""

    energy: Float[Tensor, " n"]
    score: Float[Tensor, " n *event"]
    time_derivative: Float[Tensor, " n"]
    parts: tuple = ()


@runtime_checkable
class AnnealingPath(Path, Protocol):
    """A path with an interior, along which walkers can be annealed and drifts be learned."""

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U_t$ and $-\nabla U_t$."""
        ...

    def evaluate(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], known: PathPoint | None = None
    ) -> PathPoint:
        """Everything at (t, x). `known`, evaluated at the same x and any time, spares what need not be asked again."""
        ...


def check_same_shape(start: Target, end: Target) -> None:
    """Refuse two ends with different event shapes."""
    if start.event_shape != end.event_shape:
        raise InputError(
            f"both ends of a path must have one event shape: got {tuple(start.event_shape)} and "
            f"{tuple(end.event_shape)}; bring them to common coordinates first"
        )
