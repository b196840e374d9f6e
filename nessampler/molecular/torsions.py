"""The soft torsions of sampled conformations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.targets import carry

__all__ = ["soft_torsions"]


def soft_torsions(
    coordinates: InternalCoordinates, positions: Float[Tensor, "chains draws atoms 3"]
) -> dict[str, Float[ndarray, "chains draws"]]:
    """Every torsion that the coordinates take for soft, by name, in degrees from −180 to 180."""
    z = carry(coordinates, positions.flatten(0, 1))
    soft = coordinates.circular.nonzero().flatten().tolist()
    degrees = (torch.rad2deg(z[:, soft]) + 180).remainder(360) - 180
    shaped = degrees.reshape(*positions.shape[:2], len(soft)).cpu().numpy()
    return {coordinates.names[index]: shaped[..., k] for k, index in enumerate(soft)}
