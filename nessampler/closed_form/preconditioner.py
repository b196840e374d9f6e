"""Coordinates in which forces have unit covariance, so that one step size suits stiff and soft directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.closed_form._covariance import with_correlations_times
from nessampler.errors import InputError

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

    Raises:
        InputError: scores that are not finite, or whose second moments are singular: no force, or none of its own,
            acts along some coordinate.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> force_whitening(torch.randn(4000, 1, generator=g) * 10).matrix.round()
        tensor([[10.]])
    """
    second = with_correlations_times(shrink, scores.T @ scores / len(scores))
    factor, failed = torch.linalg.cholesky_ex(second)
    conditional = factor.diagonal().square() / second.diagonal()  # of its variance, what no other coordinate explains
    if bool(failed) or not float(conditional.min()) > len(second) * torch.finfo(second.dtype).eps:
        raise InputError(
            f"step sizes follow from forces, which must be finite and act along every coordinate: {_at_fault(scores)}; "
            "use method='map', 'fields' or 'feat', which need no step sizes"
        )
    return Linear(factor.T)


def _at_fault(scores: Tensor) -> str:
    """Why scores have no inverse of their second moments."""
    bad, still = ~torch.isfinite(scores).all(1), (scores == 0).all(0)
    if bool(bad.any()):
        return f"got scores that are not, of {int(bad.sum())} of {len(scores)} samples"
    if bool(still.any()):
        along = still.nonzero()[:, 0].tolist()
        return f"got scores that are zero at all of {len(scores)} samples along coordinates {along}"
    return f"got scores of {len(scores)} samples, a combination of whose {scores.shape[1]} coordinates is zero"
