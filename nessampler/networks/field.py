"""A network as kernels see it: a velocity field of one time, or the fields of annealing along a path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.divergence import exact_divergence
from nessampler.fields import Evaluated
from nessampler.kernels.flow import VelocityField
from nessampler.paths import AnnealingPath, PathPoint

__all__ = ["DriftFields", "NetworkField", "at_each_time"]


@dataclass(frozen=True)
class NetworkField:
    r"""$(t, x) \mapsto (b, \nabla\cdot b)$ for `Flow`, t a number; the divergence is the network's own if it has one.

    Example:
        >>> NetworkField(lambda t, x: -x)(0.5, torch.ones(1, 2))
        (tensor([[-1., -1.]]), tensor([-2.], dtype=torch.float64))
    """

    network: nn.Module

    def __call__(
        self, t: float, x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        """Velocity and divergence, without a graph."""
        time = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
        with torch.no_grad():
            if hasattr(self.network, "velocity_and_divergence"):
                velocity, divergence = self.network.velocity_and_divergence(time, x)  # pyright: ignore
            else:
                velocity, divergence = exact_divergence(self.network, time, x)
        return velocity.detach(), divergence.to(torch.float64)


class DriftFields:
    """Fields of annealing with a learned drift, for `Langevin`: one evaluation of the path serves score and network.

    Attributes:
        point: everything that the path said at the last call; training takes the time derivative from it.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> fields = DriftFields(path, lambda t, x: torch.ones_like(x))
        >>> fields(torch.zeros(1), torch.ones(1, 1)).velocity, fields.point.time_derivative
        (tensor([[1.]]), tensor([-0.5000]))
    """

    point: PathPoint

    def __init__(self, path: AnnealingPath, network: Callable[..., Tensor]) -> None:
        self.path, self.network = path, network

    def __call__(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Evaluated:
        """The network's velocity, the path's score and energy."""
        self.point = self.path.evaluate(t, x)
        known = {"score": self.point.score} if getattr(self.network, "reads_score", False) else {}
        return Evaluated(self.network(t, x, **known), self.point.score, self.point.energy)


def at_each_time(
    field: VelocityField, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
    """A field of one time, for walkers that come grouped by time: one call per group."""
    values, counts = torch.unique_consecutive(t, return_counts=True)
    pieces = [field(float(v), part) for v, part in zip(values, x.split(counts.tolist()), strict=True)]
    return torch.cat([v for v, _ in pieces]), torch.cat([d for _, d in pieces])
