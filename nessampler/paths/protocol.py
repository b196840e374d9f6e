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
    """Energies $U_t$, $t$ in [0, 1], from `start` to `end`.

    Example:
        >>> import torch
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> isinstance(path, Path), path.energy(torch.tensor([0.0, 1.0]), torch.ones(2, 1))
        (True, tensor([0.5000, 0.0000]))
    """

    start: Target
    end: Target

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t(x)$ in kT, a time per walker."""
        ...


class PathPoint(NamedTuple):
    r"""$U_t(x)$, $-\nabla U_t(x)$ and $\partial_t U_t(x)$; `parts` is what the path can reuse at another time.

    Example:
        >>> import torch
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> here = path.evaluate(torch.tensor([0.5]), torch.tensor([[2.0]]))
        >>> here.energy, here.score, here.time_derivative  # of a linear path the rate is U_b - U_a
        (tensor([1.2500]), tensor([[-1.5000]]), tensor([-1.5000]))
    """

    energy: Float[Tensor, " n"]
    score: Float[Tensor, " n *event"]
    time_derivative: Float[Tensor, " n"]
    parts: tuple = ()


@runtime_checkable
class AnnealingPath(Path, Protocol):
    """A path with an interior, along which walkers can be annealed and drifts be learned.

    Example:
        >>> import torch
        >>> from nessampler.paths import EndpointPath, LinearPath
        >>> from nessampler.targets import Gaussian
        >>> ends = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> isinstance(LinearPath(*ends), AnnealingPath), isinstance(EndpointPath(*ends), AnnealingPath)
        (True, False)
    """

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
