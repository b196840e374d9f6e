"""What every weighted fit needs: checked samples, normalised weights, moments."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["checked", "effective", "moments"]


def checked(
    x: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None, fewest: int = 2
) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Samples that have weight, and these weights normalised, both float64."""
    w = torch.ones(len(x), dtype=torch.float64, device=x.device) if weights is None else weights.double()
    if x.ndim != 2 or w.shape != x.shape[:1]:
        raise InputError(f"a fit needs samples (n, d) and weights (n,): got {tuple(x.shape)} and {tuple(w.shape)}")
    if not bool((w >= 0).all() & torch.isfinite(w).all() & (w.sum() > 0)):
        raise InputError(f"weights must be finite, not negative and not all zero: got {float(w.min())} at least")
    keep = w > 0
    x, w = x[keep].double(), w[keep] / w.sum()
    if not bool(torch.isfinite(x).all()):
        raise InputError("samples of a fit must be finite: got some that are not; leave them out")
    if len(x) < fewest:
        raise InputError(f"a fit needs at least {fewest} samples with weight: got {len(x)}; draw more")
    return x, w


def effective(weights: Float[Tensor, " n"]) -> float:
    """Kish's number of effective samples of normalised weights."""
    return float(1 / weights.square().sum())


def moments(x: Float[Tensor, "n d"], weights: Float[Tensor, " n"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Weighted mean and standard deviation of every coordinate; 1 where a coordinate never moves."""
    mean = weights @ x
    scale = (weights @ (x - mean).square()).sqrt()
    return mean, torch.where(scale > 0, scale, torch.ones_like(scale))
