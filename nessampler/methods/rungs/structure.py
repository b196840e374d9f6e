"""What is known of a walker beyond its numbers, and the rungs that suit it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributions.transforms import ReshapeTransform, Transform

from nessampler.methods.rungs.vector import VECTOR_RUNGS
from nessampler.methods.stage import Rungs
from nessampler.targets import Target

__all__ = ["Structure", "structure_of"]


@dataclass(frozen=True)
class Structure:
    """How the rungs are built, and the shape in which they see a walker.

    Attributes:
        rungs: by name; a name that is absent is not tried.
        coordinates: applied to samples first where the caller names no coordinates; None leaves walkers as they are.
    """

    rungs: Rungs
    coordinates: Transform | None = None


def structure_of(a: Target, b: Target) -> Structure:
    """Vectors, unless the densities are known to be of something else; other shapes are read entry after entry."""
    shape = a.event_shape
    flat = None if len(shape) == 1 else ReshapeTransform(shape, torch.Size([shape.numel()]))
    return Structure(VECTOR_RUNGS, flat)
