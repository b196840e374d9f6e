"""Covariances of few samples, made reliable by shrinking their correlations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["with_correlations_times"]


def with_correlations_times(factor: float, covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The same variances, covariances multiplied by `factor`: 1 trusts the samples, 0 the variances alone.

    >>> with_correlations_times(0.5, torch.tensor([[4.0, 2.0], [2.0, 9.0]]))
    tensor([[4., 1.],
            [1., 9.]])
    """
    return factor * covariance + (1 - factor) * torch.diag(covariance.diagonal())
