"""Affine maps whose moments come from scores: for nearly Gaussian coordinates, almost without sampling noise."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.closed_form.affine import ConditionalAffine, optimal_transport, waves
from nessampler.errors import InputError

__all__ = ["fit_map_by_scores"]

LARGEST_CONDITION = 1e8


def fit_map_by_scores(
    x_a: Float[Tensor, "n d"],
    score_a: Float[Tensor, "n d"],
    x_b: Float[Tensor, "m d"],
    score_b: Float[Tensor, "m d"],
    circular: Bool[Tensor, " d"],
    *,
    harmonics: int = 1,
) -> ConditionalAffine:
    r"""The optimal map between conditional Gaussians, fitted to the scores of both ends' samples.

    Scores along the coordinates h that are not circular are regressed on these and on f, which is 1,
    $\cos k\theta$ and $\sin k\theta$:

    $$s_h \approx G f(\theta) - P h, \qquad \Sigma = P^{-1}, \quad \mu(\theta) = P^{-1} G f(\theta)$$

    By Stein's identity $E[s_h h^T] = -1$ the regression tends to the inverse covariance of the samples. Unlike that, it
    is exact for Gaussians with as few samples as there are unknowns in a row, so correlations need no shrinking.

    Args:
        x_a, x_b: samples.
        score_a, score_b: $-\nabla U$ at them.
        circular: which coordinates are angles $\theta$, that stay.
        harmonics: the largest k.

    Raises:
        InputError: too few samples, or scores that belong to no Gaussian: a mean curvature that is not positive.

    References:
        Stein, Estimation of the mean of a multivariate normal distribution, 1981, Ann. Stat. 9, 1135, lemma 2;
        Hyvärinen, Estimation of non-normalized statistical models by score matching, 2005, J. Mach. Learn. Res. 6, 695.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(20, 2, generator=g, dtype=torch.float64)
        >>> none = torch.zeros(2, dtype=torch.bool)
        >>> fit_map_by_scores(x, -x, 3 * x + 1, -x / 3, none).matrix.round().abs()
        tensor([[3., 0.],
                [0., 3.]], dtype=torch.float64)
    """
    moments = [
        _moments(*end, circular, harmonics, name) for name, end in (("A", (x_a, score_a)), ("B", (x_b, score_b)))
    ]
    (mean_a, covariance_a), (mean_b, covariance_b) = moments
    return ConditionalAffine(optimal_transport(covariance_a, covariance_b), mean_a, mean_b, circular)


def _moments(x: Tensor, score: Tensor, circular: Tensor, harmonics: int, name: str) -> tuple[Tensor, Tensor]:
    """Coefficients of the mean, and the covariance."""
    features, h, s = waves(x[:, circular], harmonics), x[:, ~circular], score[:, ~circular]
    known, wanted = len(x), features.shape[1] + h.shape[1]
    if known < 2 * wanted:
        raise InputError(f"a map by scores needs {2 * wanted} samples of each state: {name} has {known}; sample longer")
    centre, scale = h.mean(0), h.std(0)
    regressors = torch.cat([features, (h - centre) / scale], 1)
    # Waves of angles that were sampled in one basin are nearly constant, and nearly equal; slopes are sharp.
    ridge = known * torch.full((wanted,), 1e-6).to(x)
    ridge[1 : features.shape[1]] = 1e-3
    found = torch.linalg.solve(regressors.T @ regressors + torch.diag(ridge), regressors.T @ (s * scale))
    drift, slope = found[: features.shape[1]], -found[features.shape[1] :]
    values, vectors = torch.linalg.eigh(0.5 * (slope + slope.T))
    if not float(values[0]) > float(values[-1]) / LARGEST_CONDITION:
        raise InputError(
            f"scores of {name} belong to no Gaussian: a mean curvature of {float(values[0]):.2g} in units of the "
            "samples' variances; fit the map to covariances instead"
        )
    covariance = (vectors / values) @ vectors.T
    mean = drift @ covariance * scale
    mean[0] += centre
    return mean, scale[:, None] * covariance * scale
