"""Affine maps between two sampled states, fitted in milliseconds: shift, diagonal, shrunk, conditional."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.closed_form._covariance import with_correlations_times
from nessampler.errors import InputError

__all__ = ["ConditionalAffine", "fit_map", "fit_standardizer", "optimal_transport", "waves"]

Scale = Literal["none", "diagonal", "full"]


class ConditionalAffine(Transform):
    r"""Affine in the moving coordinates, with means that may depend on the circular ones, which stay as they are.

    $$y_c = x_c, \qquad y_m = \mu'(x_c) + M\,(x_m - \mu(x_c)), \qquad
      \log\left|\det\frac{\partial y}{\partial x}\right| = \log|\det M|$$

    The means are linear in 1 and in $\cos k x_c, \sin k x_c$, $k = 1 \dots K$, of every circular coordinate; as many
    coefficients as there are say what K is, and one alone is that of 1.

    Args:
        matrix: $M$, `(m, m)`, or its diagonal `(m,)`.
        mean_in, mean_out: coefficients of $\mu$ and $\mu'$, `(features, m)`.
        circular: which of the d coordinates are circular.

    Example:
        >>> matrix, mean_in, mean_out = torch.tensor([2.0]), torch.tensor([[1.0]]), torch.tensor([[5.0]])
        >>> affine = ConditionalAffine(matrix, mean_in, mean_out, circular=torch.tensor([False]))
        >>> x = torch.tensor([[1.0], [2.0]])  # the mean 1 goes to 5, deviations double
        >>> affine(x), affine.log_abs_det_jacobian(x, affine(x)).exp()
        (tensor([[5.],
                 [7.]]), tensor([2., 2.]))
    """

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(
        self,
        matrix: Float[Tensor, "m m"] | Float[Tensor, " m"],
        mean_in: Float[Tensor, "features m"],
        mean_out: Float[Tensor, "features m"],
        circular: Bool[Tensor, " d"],
    ) -> None:
        super().__init__()
        self.matrix, self.mean_in, self.mean_out, self.circular = matrix, mean_in, mean_out, circular
        diagonal = matrix.ndim == 1
        self._inverse_matrix = 1 / matrix if diagonal else torch.linalg.inv(matrix)
        self._log_det = matrix.abs().log().sum() if diagonal else torch.linalg.slogdet(matrix)[1]

    def _call(self, x: Tensor) -> Tensor:
        return self._map(x, self.matrix, self.mean_in, self.mean_out)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._map(y, self._inverse_matrix, self.mean_out, self.mean_in)

    def _map(self, x: Tensor, matrix: Tensor, mean_in: Tensor, mean_out: Tensor) -> Tensor:
        angles = x[..., self.circular]
        features = waves(angles, (len(mean_in) - 1) // max(1, 2 * angles.shape[-1]))
        deviation = x[..., ~self.circular] - features @ mean_in
        moved = deviation * matrix if matrix.ndim == 1 else deviation @ matrix.T
        y = x.clone()
        y[..., ~self.circular] = features @ mean_out + moved
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Constant: the map is affine."""
        return self._log_det.expand(x.shape[:-1])


def fit_map(
    x_a: Float[Tensor, "n d"],
    x_b: Float[Tensor, "m d"],
    circular: Bool[Tensor, " d"] | None = None,
    *,
    scale: Scale = "diagonal",
    shrink: float = 0.25,
    conditional: bool = False,
) -> ConditionalAffine:
    r"""The affine map that carries the first two moments of A's samples to those of B's.

    `scale="none"` moves the means; `"diagonal"` the standard deviations too; `"full"` is the optimal transport
    between Gaussians, $M = \Sigma_A^{-1/2} (\Sigma_A^{1/2} \Sigma_B \Sigma_A^{1/2})^{1/2} \Sigma_A^{-1/2}$, with the
    correlations multiplied by `shrink`, which full covariances of a few hundred samples need. `conditional` lets
    the means follow the circular coordinates by ridge regression on their cosines and sines.

    Raises:
        InputError: too few samples for the moments asked for, or a coordinate that does not vary.

    References:
        Dowson & Landau, The Fréchet distance between multivariate normal distributions, 1982,
        J. Multivariate Anal. 12, 450 (the optimal map).

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a, b = torch.randn(1000, 2, generator=g), 3 + 2 * torch.randn(1000, 2, generator=g)
        >>> fit_map(a, b).matrix.round()
        tensor([2., 2.])
    """
    circular = _checked(x_a, x_b, circular, conditional)
    mean_a, residual_a = _regress(x_a, circular, conditional)
    mean_b, residual_b = _regress(x_b, circular, conditional)
    if scale == "none":
        matrix = torch.ones_like(residual_a[0])
    elif scale == "diagonal":
        matrix = residual_b.std(0) / residual_a.std(0)
    else:
        matrix = optimal_transport(_covariance(residual_a, shrink), _covariance(residual_b, shrink))
    return ConditionalAffine(matrix, mean_a, mean_b, circular)


def fit_standardizer(
    x: Float[Tensor, "n d"],
    circular: Bool[Tensor, " d"] | None = None,
    *,
    shrink: float = 0.9,
    conditional: bool = False,
) -> ConditionalAffine:
    r"""The map to mean zero and unit covariance, $M = \Sigma^{-1/2}$, of the coordinates that are not circular.

    Correlations are multiplied by `shrink` first, and `conditional` lets the means follow the circular coordinates, as
    in `fit_map`.

    Raises:
        InputError: too few samples, or a coordinate that does not vary.

    Example:
        >>> x = 3 + 2 * torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> y = fit_standardizer(x, shrink=1.0)(x)
        >>> bool(y.mean(0).abs().max() < 1e-9), torch.allclose(y.T.cov(), torch.eye(2).double())
        (True, True)
    """
    circular = _checked(x, x, circular, conditional)
    mean, residual = _regress(x, circular, conditional)
    return ConditionalAffine(_power(_covariance(residual, shrink), -0.5), mean, torch.zeros_like(mean), circular)


def waves(angles: Float[Tensor, "*batch k"], harmonics: int) -> Float[Tensor, "*batch features"]:
    """1, and cosines and sines of the angles and their multiples.

    >>> waves(torch.zeros(1), 2)
    tensor([1., 1., 0., 1., 0.])
    """
    multiples = [part for k in range(1, harmonics + 1) for part in ((k * angles).cos(), (k * angles).sin())]
    return torch.cat([angles.new_ones(*angles.shape[:-1], 1), *multiples], -1)


def _regress(x: Tensor, circular: Tensor, conditional: bool) -> tuple[Tensor, Tensor]:
    features, moving = waves(x[:, circular], int(conditional)), x[:, ~circular]
    ridge = 1e-3 * len(x) * torch.eye(features.shape[1], dtype=x.dtype, device=x.device)
    ridge[0, 0] = 0  # the intercept is not shrunk, so residuals average to zero
    coefficients = torch.linalg.solve(features.T @ features + ridge, features.T @ moving)
    return coefficients, moving - features @ coefficients


def _covariance(residual: Tensor, shrink: float) -> Tensor:
    return with_correlations_times(shrink, residual.T @ residual / (len(residual) - 1))


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-12 * float(values.max())) ** exponent) @ vectors.T


def optimal_transport(a: Float[Tensor, "d d"], b: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric M with M A Mᵀ = B: the optimal transport between Gaussians of these covariances."""
    root, inverse_root = _power(a, 0.5), _power(a, -0.5)
    return inverse_root @ _power(root @ b @ root, 0.5) @ inverse_root


def _checked(x_a: Tensor, x_b: Tensor, circular: Tensor | None, conditional: bool) -> Tensor:
    circular = torch.zeros(x_a.shape[-1], dtype=torch.bool) if circular is None else circular
    circular = circular.to(x_a.device)
    needed = 2 + (2 * int(circular.sum()) if conditional else 0)
    for name, x in (("A", x_a), ("B", x_b)):
        if len(x) <= needed:
            raise InputError(
                f"a map needs more than {needed} samples of each state: {name} has {len(x)}; sample longer"
            )
        flat = (x[:, ~circular].std(0) <= 0).nonzero()
        if len(flat):
            raise InputError(f"coordinate {int(flat[0])} does not vary in the samples of {name}: no map can scale it")
    return circular
