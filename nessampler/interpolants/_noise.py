"""The factor L of a noise's covariance: scales, or a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["check_noise", "inverse_of", "spread", "unspread"]


def check_noise(noise: Tensor) -> None:
    """Scales `(d,)` or a factor `(d, d)`, finite."""
    shape = tuple(noise.shape)
    if len(shape) not in (1, 2) or len(set(shape)) != 1:
        raise InputError(f"noise must be scales (d,) or a factor (d, d): got shape {shape}")
    if not bool(torch.isfinite(noise).all()) or (len(shape) == 1 and bool((noise < 0).any())):
        raise InputError(f"noise must be finite, scales not negative: got {noise.flatten()[:4].tolist()} …")


def spread(noise: Tensor, z: Tensor) -> Tensor:
    """L z."""
    noise = noise.to(z)
    return z * noise if noise.ndim == 1 else z @ noise.T


def inverse_of(noise: Tensor) -> Tensor:
    """The inverse of L, zero along what carries no noise."""
    if noise.ndim == 2:
        return torch.linalg.pinv(noise)
    return torch.where(noise > 0, 1 / torch.where(noise > 0, noise, 1.0), 0.0)


def unspread(inverse: Tensor, z: Tensor) -> Tensor:
    r"""$L^{-T} z$."""
    inverse = inverse.to(z)
    return z * inverse if inverse.ndim == 1 else z @ inverse
