"""A log-density that takes one point at a time and gives its gradient in the same call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.targets.numpy_density import NumpyDensity

__all__ = ["PointwiseDensity"]

Array = np.ndarray


class PointwiseDensity(NumpyDensity):
    """The target of a compiled model: walkers are handed to it in turn, on the CPU and in float64.

    Args:
        value: of a point `(d,)`, the log density, −inf outside the support.
        value_and_gradient: of a point `(d,)`, both.
        dimension: d.

    Example:
        >>> target = PointwiseDensity(lambda x: -0.5 * x @ x, lambda x: (-0.5 * x @ x, -x), 2)
        >>> target.energy_and_score(torch.ones(1, 2))
        (tensor([1.]), tensor([[-1., -1.]]))
    """

    def __init__(
        self,
        value: Callable[[Array], float],
        value_and_gradient: Callable[[Array], tuple[float, Array]],
        dimension: int,
    ) -> None:
        def values(x: Array) -> Array:
            return np.array([float(value(point)) for point in x])

        def gradients(x: Array) -> Array:
            return np.array([value_and_gradient(point)[1] for point in x], dtype=np.float64).reshape(x.shape)

        super().__init__(values, dimension, gradients)
        self.value_and_gradient = value_and_gradient

    def energy_and_score(self, x: Float[Tensor, " n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n d"]]:
        """U and -∇U by one call a walker. The score is zero outside the support."""
        points = np.array(x.detach().cpu().numpy(), dtype=np.float64)
        pairs = [self.value_and_gradient(point) for point in points]
        energy = -torch.tensor([float(value) for value, _ in pairs], dtype=torch.float64).to(x)
        score = torch.from_numpy(np.array([g for _, g in pairs], dtype=np.float64).reshape(points.shape)).to(x)
        return energy, torch.where((energy == torch.inf)[:, None], 0.0, score)
