"""What is known of a walker beyond its numbers, and the rungs that suit it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributions.transforms import ReshapeTransform, Transform

from nessampler.methods.rungs.cluster import CLUSTER_RUNGS, is_cluster
from nessampler.methods.rungs.lattice import LATTICE_RUNGS, on_a_lattice
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
        fitted: whether an end was made from the block that fits, where then nothing may be estimated, map or no map.

    Example:
        >>> from nessampler.methods.rungs import VECTOR_RUNGS
        >>> cheap = Structure({name: VECTOR_RUNGS[name] for name in ("map", "fields")})  # nothing is trained
        >>> cheap.rungs.keys() <= VECTOR_RUNGS.keys(), cheap.coordinates
        (True, None)
    """

    rungs: Rungs
    coordinates: Transform | None = None
    fitted: bool = False


def structure_of(a: Target, b: Target) -> Structure:
    """Fields on a lattice or clusters of like atoms where the densities are known to be of such; else vectors.

    Walkers of any other shape are read entry after entry.

    Example:
        >>> from nessampler.methods.rungs import LATTICE_RUNGS, VECTOR_RUNGS
        >>> from nessampler.targets import Gaussian
        >>> from nessampler.targets.phi4 import Phi4
        >>> a, b = Phi4(4, quartic=0.8), Phi4(4, quartic=1.0)
        >>> structure_of(a, b).rungs is LATTICE_RUNGS
        True
        >>> normal = Gaussian(torch.zeros(3), torch.ones(3))
        >>> structure_of(normal, normal).rungs is VECTOR_RUNGS
        True
    """
    if on_a_lattice(a) and on_a_lattice(b):
        return Structure(LATTICE_RUNGS)
    if is_cluster(a, b):
        return Structure(CLUSTER_RUNGS)
    shape = a.event_shape
    flat = None if len(shape) == 1 else ReshapeTransform(shape, torch.Size([shape.numel()]))
    return Structure(VECTOR_RUNGS, flat)
