"""Coordinates in which forces have unit covariance, so that one step size suits stiff and soft directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.closed_form._covariance import with_correlations_times

__all__ = ["Linear", "force_whitening"]


class Linear(Transform):
    r"""$y = M x$ with a constant log-determinant.

    Example:
        >>> Linear(2 * torch.eye(2))(torch.ones(1, 2))
        tensor([[2., 2.]])
    """

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, matrix: Float[Tensor, "d d"]) -> None:
        super().__init__()
        self.matrix = matrix
        self._inverse_matrix = torch.linalg.inv(matrix)
        self._log_det = torch.linalg.slogdet(matrix)[1]

    def _call(self, x: Tensor) -> Tensor:
        return x @ self.matrix.T

    def _inverse(self, y: Tensor) -> Tensor:
        return y @ self._inverse_matrix.T

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Constant."""
        return self._log_det.expand(x.shape[:-1])


def force_whitening(scores: Float[Tensor, "n d"], shrink: float = 0.9) -> Linear:
    r"""$y = C^T x$ with $C C^T = E[s s^T]$, so that scores in y have unit covariance.

    In equilibrium $E[s s^T] = E[\nabla\nabla U]$, the mean curvature: its inverse is the local covariance, also of
    multimodal and circular coordinates, where the covariance of positions says nothing about step sizes.
    Correlations are multiplied by `shrink`; 1 trusts them.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> force_whitening(torch.randn(4000, 1, generator=g) * 10).matrix.round()
        tensor([[10.]])
    """
    second = with_correlations_times(shrink, scores.T @ scores / len(scores))
    return Linear(torch.linalg.cholesky(second).T)
