"""What is looked at in samples of two densities: what they name themselves, else their first coordinates."""

from __future__ import annotations

from torch import Tensor

from nessampler.methods.difference import Difference
from nessampler.methods.rungs.lattice import on_a_lattice
from nessampler.plots import Carried, Series
from nessampler.runs.observed import Observed
from nessampler.runs.prepared import Prepared
from nessampler.targets import Target
from nessampler.targets.phi4 import Phi4

__all__ = ["carried_of", "observed_of"]

MOST_COORDINATES = 6
LARGEST_VECTOR = 64


def observed_of(prepared: Prepared) -> Observed | None:
    """Observables or coordinates of both samples; None where neither says anything, as for atoms in space."""
    return prepared.observed() or _observed(prepared, prepared.samples_a, prepared.samples_b)


def carried_of(result: Difference, prepared: Prepared) -> tuple[Carried, Carried] | None:
    """The same of what the chosen rung carried to A, and to B; None where nothing is moved, or nothing arrives."""
    if result.rung.trips is None or result.chosen == "plain":
        return None
    at_b, at_a = (trip.arrived for trip in result.rung.trips)
    if at_a is None or at_b is None or 0 in (len(at_a.x), len(at_b.x)):
        return None
    seen = prepared.observe(at_a.x[None], at_b.x[None]) or _observed(prepared, at_a.x[None], at_b.x[None])
    if seen is None:
        return None
    return Carried(seen.a, at_a.log_weight.cpu().numpy()), Carried(seen.b, at_b.log_weight.cpu().numpy())


def _observed(prepared: Prepared, samples_a: Tensor, samples_b: Tensor) -> Observed | None:
    a, b = _series(prepared.target_a, samples_a), _series(prepared.target_b, samples_b)
    return Observed(a, b) if a and b else None


def _series(target: Target, samples: Tensor) -> Series:
    axes = samples.ndim - len(target.event_shape)
    batch = samples.shape[:axes]
    flat = samples.flatten(0, axes - 1).cpu()
    if hasattr(target, "observables"):
        named = target.observables(flat)  # pyright: ignore[reportAttributeAccessIssue]
    elif on_a_lattice(target):
        named = {"magnetisation": Phi4.magnetisation(flat)}
    elif hasattr(target, "magnetisation"):
        named = {"magnetisation": target.magnetisation(flat)}  # pyright: ignore[reportAttributeAccessIssue]
    elif flat.ndim == 2 and flat.shape[1] <= LARGEST_VECTOR:
        named = {f"x{k + 1}": flat[:, k] for k in range(min(MOST_COORDINATES, flat.shape[1]))}
    else:
        return {}
    return {str(name): values.double().reshape(batch).numpy() for name, values in named.items()}
