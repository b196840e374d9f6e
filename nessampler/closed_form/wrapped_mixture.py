"""Mixtures of wrapped Gaussians on a torus, fitted by expectation–maximisation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["WrappedMixture", "fit_wrapped_mixture", "image_moments"]

TURN = 2 * math.pi
COUNTS = (1, 2, 4, 8, 16)
NARROWEST, WIDEST = 0.05, 1.5  # rad; wider than that a wrapped Gaussian is flat
ITERATIONS = 40
PRIOR = 4.0  # samples' worth of the pooled variance in every component


@dataclass(frozen=True)
class WrappedMixture:
    r"""$p(\theta) = \sum_i w_i \prod_a \sum_{m} N(\theta_a + 2\pi m; \mu_{ia}, \sigma_{ia}^2)$.

    Attributes:
        weights: `(k,)`, of sum 1.
        means, variances: `(k, d)` in rad and rad².

    Example:
        >>> one = WrappedMixture(torch.ones(1), torch.zeros(1, 1), torch.full((1, 1), 0.01))
        >>> one.log_density(torch.tensor([[2 * torch.pi]])).exp()
        tensor([3.9894])
    """

    weights: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    variances: Float[Tensor, "k d"]

    def log_density(self, angles: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """log p."""
        return torch.logsumexp(self.weights.log() + _log_components(angles, self.means, self.variances), 1)


def fit_wrapped_mixture(
    angles: Float[Tensor, "n d"], *, components: tuple[int, ...] = COUNTS, generator: torch.Generator
) -> WrappedMixture:
    """The mixture that expectation–maximisation finds, of as many components as predict the last third best.

    Args:
        angles: samples in rad, in time order.
        components: counts to try; one that leaves fewer than ten samples a component is not.
        generator: of the starts.

    Raises:
        InputError: fewer than 30 samples, or counts of which none can be tried.

    References:
        Agiomyrgiannakis & Stylianou, Wrapped Gaussian mixture models for modeling and high-rate quantization of phase
        data of speech, 2009, IEEE Trans. Audio Speech Lang. Process. 17, 775.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> around = torch.tensor([3.1, -1.0])[torch.randint(2, (600,), generator=g)]
        >>> found = fit_wrapped_mixture((around + 0.2 * torch.randn(600, generator=g))[:, None], components=(1, 2),
        ...                             generator=g)
        >>> found.means.round(decimals=0).abs().sort(0).values.flatten()
        tensor([1., 3.])
    """
    n = len(angles)
    counts = [k for k in components if 10 * k <= n]
    if n < 30 or not counts:
        raise InputError(f"a mixture of {components} components needs 30 samples and ten for each: got {n}")
    train, test = angles[: 2 * n // 3], angles[2 * n // 3 :]

    def predicts(k: int) -> float:
        return float(_run(train, k, generator).log_density(test).sum())

    return _run(angles, max(counts, key=predicts) if len(counts) > 1 else counts[0], generator)


def image_moments(
    deviation: Float[Tensor, "*batch d"], variance: Float[Tensor, "*batch d"]
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
    """Of a wrapped Gaussian, coordinate by coordinate: log density, and mean and square of the lifted deviation.

    A point has images in every turn; what is averaged is over the images that the point may be, nearest three.

    >>> log_p, mean, square = image_moments(torch.tensor([torch.pi]), torch.tensor([1.0]))
    >>> mean.abs() < 1e-5, square > 9
    (tensor([True]), tensor([True]))
    """
    near = torch.remainder(deviation + math.pi, TURN) - math.pi
    images = torch.stack([near - TURN, near, near + TURN])
    logits = -0.5 * images.square() / variance
    share = torch.softmax(logits, 0)
    log_p = torch.logsumexp(logits, 0) - 0.5 * (TURN * variance).log()
    return log_p, (share * images).sum(0), (share * images.square()).sum(0)


def _log_components(angles: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    return image_moments(angles[:, None] - means, variances.expand(len(angles), -1, -1))[0].sum(-1)


def _run(angles: Tensor, k: int, generator: torch.Generator) -> WrappedMixture:
    means = _spread_out(angles, k, generator)
    pooled = _nearest(angles, means).square().mean(0).clamp(NARROWEST**2, WIDEST**2)
    mixture = WrappedMixture(means.new_full((k,), 1 / k), means, pooled.expand(k, -1).clone())
    for _ in range(ITERATIONS):
        mixture = _improved(angles, mixture, pooled)
    return mixture


def _improved(angles: Tensor, mixture: WrappedMixture, pooled: Tensor) -> WrappedMixture:
    """One step of expectation and maximisation; components that nobody supports keep their place."""
    deviation = angles[:, None] - mixture.means
    log_p, mean, square = image_moments(deviation, mixture.variances.expand_as(deviation))
    share = torch.softmax(mixture.weights.log() + log_p.sum(-1), 1)
    count = share.sum(0)
    weight = (share / count.clamp_min(1e-9))[..., None]
    shift = (weight * mean).sum(0)
    spread = (weight * square).sum(0) - shift.square()
    variances = (count[:, None] * spread + PRIOR * pooled) / (count[:, None] + PRIOR)
    means = torch.remainder(mixture.means + shift + math.pi, TURN) - math.pi
    return WrappedMixture((count + 0.1) / (count + 0.1).sum(), means, variances.clamp(NARROWEST**2, WIDEST**2))


def _spread_out(angles: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Samples far from one another, as k-means++ draws them."""
    chosen = [int(torch.randint(len(angles), (1,), generator=generator, device=generator.device))]
    for _ in range(k - 1):
        distance = _nearest(angles, angles[chosen]).square().sum(-1) + 1e-12
        chosen.append(int(torch.multinomial(distance.to(generator.device), 1, generator=generator)))
    return angles[chosen].clone()


def _nearest(angles: Tensor, means: Tensor) -> Tensor:
    """Deviation of every sample from the mean nearest to it."""
    apart = torch.remainder(angles[:, None] - means + math.pi, TURN) - math.pi
    label = apart.square().sum(-1).argmin(1)
    return apart[torch.arange(len(angles), device=label.device), label]
