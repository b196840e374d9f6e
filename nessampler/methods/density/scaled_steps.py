"""Step sizes in units of the coordinates' own widths."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nessampler.methods.density.tuning import StepSizes

__all__ = ["ScaledSteps"]


@dataclass(frozen=True)
class ScaledSteps:
    r"""$\tau(t) = c\,\sigma\,h(t)$, one per coordinate.

    Args:
        step_sizes: $h$.
        factor: $c$.
        variance: $\sigma^2$.

    Example:
        >>> import torch
        >>> ScaledSteps(StepSizes((0.0, 1.0), (0.5, 0.5)), 0.1, torch.tensor([1.0, 4.0]))(0.3)
        tensor([0.0500, 0.1000])
    """

    step_sizes: StepSizes
    factor: float
    variance: Tensor

    def __call__(self, t: float) -> Tensor:
        return self.factor * self.step_sizes(t) * self.variance.sqrt()
