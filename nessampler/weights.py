"""Immutable log-weights: log-mean-exp, effective sample size, resampling schemes.

Weights live on a log scale in float64. A walker outside the support has weight 0, log-weight −inf; NaN and +inf
are errors that name the walker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["LogWeights", "effective_sample_size", "log_mean_exp", "multinomial", "stratified", "systematic"]


def log_mean_exp(log_weight: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Logarithm of the mean weight, `log(1/n Σ exp(log_weight))`, in float64.

    Weights of zero (−inf) count; if all vanish the result is −inf.

    Raises:
        InputError: no walkers, or a log-weight that is NaN or +inf.

    >>> log_mean_exp(torch.tensor([1000.0, -torch.inf])).item()
    999.306...
    """
    log_weight = _checked(log_weight)
    return torch.logsumexp(log_weight, dim=0) - math.log(len(log_weight))


def effective_sample_size(log_weight: Float[Tensor, " n"]) -> float:
    """Kish's effective sample size as a fraction, `(Σ w)² / (n Σ w²)`, in (0, 1]; 0.0 when all weights vanish.

    Raises:
        InputError: no walkers, or a log-weight that is NaN or +inf.

    References: Survey Sampling, L. Kish, 1965, section 8.2.

    >>> effective_sample_size(torch.tensor([0.0, 0.0, -torch.inf, -torch.inf]))
    0.5
    """
    log_weight = _checked(log_weight)
    largest = log_weight.max()
    if largest == -torch.inf:
        return 0.0
    weight = torch.exp(log_weight - largest)
    # Rounding may put equal weights an ulp above 1.
    return min(1.0, (weight.sum() ** 2 / (len(weight) * (weight**2).sum())).item())


@dataclass(frozen=True)
class LogWeights:
    """The log-weights of n walkers, float64; operations return new objects and never change this one.

    Raises:
        InputError: no walkers, or a log-weight that is NaN or +inf (the walker is named).

    >>> weights = LogWeights(torch.zeros(2)).add(torch.tensor([0.0, -torch.inf]))
    >>> weights.ess, weights.normalized
    (0.5, tensor([1., 0.], dtype=torch.float64))
    """

    log_weight: Float[Tensor, " n"]

    def __post_init__(self) -> None:
        # A copy, so that a later change of the caller's tensor cannot reach in.
        object.__setattr__(self, "log_weight", _checked(self.log_weight).clone())

    def add(self, log_ratio: Float[Tensor, " n"]) -> LogWeights:
        """The weights after a step: `log w + log_ratio`, one ratio per walker."""
        if log_ratio.shape != self.log_weight.shape:
            raise InputError(
                f"`log_ratio` must have one entry per walker: got shape {tuple(log_ratio.shape)} for "
                f"{len(self.log_weight)} walkers; pass a tensor of shape ({len(self.log_weight)},)."
            )
        return LogWeights(self.log_weight + log_ratio.to(torch.float64))

    @property
    def log_mean(self) -> float:
        """`log(1/n Σ w)`; −inf if all weights vanish."""
        return log_mean_exp(self.log_weight).item()

    @property
    def ess(self) -> float:
        """Kish's effective fraction of the walkers, see `effective_sample_size`."""
        return effective_sample_size(self.log_weight)

    @property
    def normalized(self) -> Float[Tensor, " n"]:
        """The weights divided by their sum, `(n,)`.

        Raises:
            InputError: all weights vanish.
        """
        if torch.all(self.log_weight == -torch.inf):
            raise InputError(
                f"Weights can be normalised only if one is positive: all {len(self.log_weight)} log-weights are -inf; "
                "start the walkers where the target has density, or take smaller steps."
            )
        return torch.softmax(self.log_weight, dim=0)


def systematic(weights: Float[Tensor, " n"], *, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Ancestors by systematic resampling: one uniform number shifts n equidistant points.

    Walker i has `⌊n w_i⌋` or `⌈n w_i⌉` offspring, `n w_i` on average (w normalised here).

    Raises:
        InputError: weights that are negative, not finite, or all zero.

    References: Comparison of Resampling Schemes for Particle Filtering, 2005, arXiv:cs/0507025, section 2.4.

    >>> systematic(torch.tensor([0.0, 0.5, 0.0, 0.5]), generator=torch.Generator().manual_seed(0))
    tensor([1, 1, 3, 3])
    """
    return _ancestors(weights, _points(weights) - _uniform(weights, 1, generator) / len(weights))


def stratified(weights: Float[Tensor, " n"], *, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Ancestors by stratified resampling: one uniform point in each of n equal strata; `n w_i` offspring on average.

    Raises:
        InputError: weights that are negative, not finite, or all zero.

    References: Comparison of Resampling Schemes for Particle Filtering, 2005, arXiv:cs/0507025, section 2.3.

    >>> stratified(torch.tensor([0.0, 1.0]), generator=torch.Generator().manual_seed(0))
    tensor([1, 1])
    """
    return _ancestors(weights, _points(weights) - _uniform(weights, len(weights), generator) / len(weights))


def multinomial(weights: Float[Tensor, " n"], *, generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Ancestors by n independent draws from the weights; the noisiest scheme, for comparison.

    Raises:
        InputError: weights that are negative, not finite, or all zero.

    >>> multinomial(torch.tensor([0.0, 1.0]), generator=torch.Generator().manual_seed(0))
    tensor([1, 1])
    """
    return _ancestors(weights, 1.0 - _uniform(weights, len(weights), generator))


def _checked(log_weight: Tensor) -> Tensor:
    if log_weight.ndim != 1 or len(log_weight) == 0:
        raise InputError(
            f"Log-weights form one non-empty vector, one entry per walker: got shape {tuple(log_weight.shape)}; "
            "flatten them, or start at least one walker."
        )
    bad = torch.isnan(log_weight) | (log_weight == torch.inf)
    if bad.any():
        walker = int(bad.nonzero()[0])
        raise InputError(
            f"A log-weight must be finite or -inf: walker {walker} has {log_weight[walker].item()}; look at the energy "
            "and the log-ratio of that walker (a NaN energy, a step size that is too large, or density from nowhere)."
        )
    return log_weight.to(torch.float64)


def _ancestors(weights: Tensor, points: Tensor) -> Tensor:
    if weights.ndim != 1 or not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise InputError(
            "Resampling weights must be finite, not negative and not all zero, one per walker: got shape "
            f"{tuple(weights.shape)}, values {weights.flatten()[:4].tolist()} …; pass `LogWeights(...).normalized`."
        )
    cumulative = weights.to(torch.float64).cumsum(0)
    # Points lie in (0, 1] and intervals are closed on the right, so that a weight of zero is never chosen.
    return torch.searchsorted(cumulative / cumulative[-1], points)


def _points(weights: Tensor) -> Tensor:
    return torch.arange(1, len(weights) + 1, dtype=torch.float64, device=weights.device) / len(weights)


def _uniform(weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64, device=weights.device)
