"""What is looked at in samples of two densities: what they name themselves, else their first coordinates."""

from __future__ import annotations

from torch import Tensor

from nessampler.plots import Series
from nessampler.runs.observed import Observed
from nessampler.runs.prepared import Prepared
from nessampler.targets import Target

__all__ = ["observed_of"]

MOST_COORDINATES = 6
LARGEST_VECTOR = 64


def observed_of(prepared: Prepared) -> Observed | None:
    """Observables or coordinates of both samples; None where neither says anything, as for atoms in space."""
    a = _series(prepared.target_a, prepared.samples_a)
    b = _series(prepared.target_b, prepared.samples_b)
    return Observed(a, b) if a and b else None


def _series(target: Target, samples: Tensor) -> Series:
    axes = samples.ndim - len(target.event_shape)
    batch = samples.shape[:axes]
    flat = samples.flatten(0, axes - 1).cpu()
    if hasattr(target, "observables"):
        named = target.observables(flat)  # pyright: ignore[reportAttributeAccessIssue]
    elif hasattr(target, "magnetisation"):
        named = {"magnetisation": target.magnetisation(flat)}  # pyright: ignore[reportAttributeAccessIssue]
    elif flat.ndim == 2 and flat.shape[1] <= LARGEST_VECTOR:
        named = {f"x{k + 1}": flat[:, k] for k in range(min(MOST_COORDINATES, flat.shape[1]))}
    else:
        return {}
    return {str(name): values.double().reshape(batch).numpy() for name, values in named.items()}
