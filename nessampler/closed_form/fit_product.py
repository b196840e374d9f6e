"""One mixture of normals along every coordinate, fitted to weighted samples."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form._weighted import checked, effective, moments
from nessampler.errors import InputError
from nessampler.targets.product_mixture import ProductMixture

__all__ = ["fit_product_mixture"]

GROUPS = 512  # neighbours along a coordinate are one point of EM, which so costs the same for any number of samples
ITERATIONS = 300
EXACT_ITERATIONS = 3  # on the samples themselves, after those on groups
NARROWEST = 1e-3  # of a component, over the coordinate's standard deviation


def fit_product_mixture(
    x: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None = None, *, components: int = 6
) -> ProductMixture:
    r"""Maximum likelihood by expectation–maximisation, all coordinates at once.

    For each coordinate the number of components, up to `components`, is the one with the largest
    $n_\text{eff}\,\hat\ell - \tfrac12 (3m - 1)\log n_\text{eff}$, with $\hat\ell$ the weighted mean log-likelihood and
    $n_\text{eff} = 1/\sum \bar w^2$. Starts are quantiles and equidistant points; the better end counts.

    Args:
        x: samples.
        weights: not negative, of any sum; equal where None.
        components: at most so many along a coordinate.

    Raises:
        InputError: shapes that do not belong together, or samples or weights that are not numbers.

    References:
        Dempster, Laird & Rubin, Maximum likelihood from incomplete data via the EM algorithm, 1977, J. R. Stat. Soc. B
        39, 1; Schwarz, Estimating the dimension of a model, 1978, Ann. Stat. 6, 461.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 1, generator=g) * 0.3 + (torch.rand(2000, 1, generator=g) < 0.25) * 4.0
        >>> fit_product_mixture(x).means.round().abs().tolist()
        [[0.0, 4.0]]
    """
    if components < 1:
        raise InputError(f"a mixture needs at least one component: got {components}")
    x, w = checked(x, weights)
    mean, scale = moments(x, w)
    z = (x - mean) / scale
    grouped, size = _groups(z, w), effective(w)
    exact = (z.T, w.expand(z.shape[1], -1), torch.zeros_like(z.T))
    best, best_score = None, torch.full((z.shape[1],), -torch.inf, dtype=torch.float64, device=x.device)
    for m in range(1, components + 1):
        for start in _starts(grouped, m) if m > 1 else _starts(grouped, 1)[:1]:
            found = _em(grouped, start, ITERATIONS)
            for _ in range(EXACT_ITERATIONS):  # a group across a gap is a point where no sample is
                found, _ = _step(exact, found)
            likelihood = _step(exact, found)[1]
            score = size * likelihood - 0.5 * (3 * m - 1) * math.log(size)
            best = _better(best, found, score > best_score, components)
            best_score = torch.maximum(best_score, score)
    assert best is not None
    log_weights, means, scales = _ordered(best)
    width = int((log_weights > -torch.inf).sum(1).max())
    means, scales = mean[:, None] + scale[:, None] * means, scale[:, None] * scales
    return ProductMixture(means[:, :width], scales[:, :width], log_weights.exp()[:, :width])


Parameters = tuple[Tensor, Tensor, Tensor]
"""Log-weights, means and scales, (d, m) each."""


def _groups(z: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means, weights and variances of neighbours along every coordinate, (d, groups) each."""
    ordered, index = z.T.sort(1)
    mass = w[index]
    count = min(GROUPS, len(z))
    label = (torch.arange(len(z), device=z.device) * count // len(z)).expand_as(ordered)

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(len(ordered), count, dtype=z.dtype, device=z.device).scatter_add_(1, label, values)

    weight = summed(mass)
    mean = summed(mass * ordered) / weight
    return mean, weight, (summed(mass * ordered.square()) / weight - mean.square()).clamp(min=0.0)


def _starts(grouped: tuple[Tensor, Tensor, Tensor], m: int) -> list[Parameters]:
    points, weight, _ = grouped
    levels = (torch.arange(m, dtype=points.dtype, device=points.device) + 0.5) / m
    at = torch.searchsorted(weight.cumsum(1), levels.expand(len(points), -1).contiguous())
    quantiles = points.gather(1, at.clamp(max=points.shape[1] - 1))
    lowest, highest = points[:, :1], points[:, -1:]
    equidistant = lowest + (highest - lowest) * levels
    uniform = torch.full_like(quantiles, -math.log(m))
    return [(uniform, centres, torch.full_like(centres, 1 / m)) for centres in (quantiles, equidistant)]


def _em(grouped: tuple[Tensor, Tensor, Tensor], start: Parameters, iterations: int) -> Parameters:
    now, likelihood = start, torch.full_like(start[0][:, 0], -torch.inf)
    for k in range(iterations):
        now, reached = _step(grouped, now)
        if k % 10 == 9:
            if bool((reached - likelihood < 1e-5).all()):
                break
            likelihood = reached
    return now


def _step(grouped: tuple[Tensor, Tensor, Tensor], now: Parameters) -> tuple[Parameters, Float[Tensor, " d"]]:
    """The parameters after one iteration, and the mean log-likelihood of every coordinate before it."""
    points, weight, spread = grouped
    log_weights, means, scales = now
    deviation = points[:, :, None] - means[:, None]
    square = (deviation.square() + spread[:, :, None]) / scales[:, None].square()
    logits = (log_weights - scales.log() - 0.5 * math.log(2 * math.pi))[:, None] - 0.5 * square
    log_p = torch.logsumexp(logits, 2, keepdim=True)
    r = torch.exp(logits - log_p) * weight[:, :, None]
    total = r.sum(1).clamp(min=1e-300)
    moved = (r * points[:, :, None]).sum(1) / total
    variance = (r * ((points[:, :, None] - moved[:, None]).square() + spread[:, :, None])).sum(1) / total
    alive = log_weights > -torch.inf
    log_total = torch.where(alive, total.log(), -torch.inf)
    after = (log_total - torch.logsumexp(log_total, 1, keepdim=True), moved, variance.sqrt().clamp(min=NARROWEST))
    kept = tuple(torch.where(alive, new, old) for new, old in zip(after, now, strict=True))
    return (kept[0], kept[1], kept[2]), (log_p[:, :, 0] * weight).sum(1)


def _better(best: Parameters | None, found: Parameters, wins: Tensor, width: int) -> Parameters:
    """Of every coordinate the winner, filled up with components without weight."""
    missing = width - found[0].shape[1]
    fill = (-torch.inf, 0.0, 1.0)
    new = [torch.nn.functional.pad(v, (0, missing), value=f) for v, f in zip(found, fill, strict=True)]
    if best is None:
        return new[0], new[1], new[2]
    kept = [torch.where(wins[:, None], a, b) for a, b in zip(new, best, strict=True)]
    return kept[0], kept[1], kept[2]


def _ordered(parameters: Parameters) -> Parameters:
    """Components from left to right, those without weight last."""
    log_weights, means, _ = parameters
    index = torch.where(log_weights > -torch.inf, means, torch.inf).argsort(1)
    a, b, c = (v.gather(1, index) for v in parameters)
    return a, b, c
