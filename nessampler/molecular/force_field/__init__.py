"""Force fields of OpenMM as batched torch energies, twice differentiable."""

from nessampler.molecular.force_field.force_field import TorchForceField, unsupported_force
from nessampler.molecular.force_field.protocol import Term, UnsupportedForce
from nessampler.molecular.force_field.target import TorchForceFieldTarget, thermal_energy

__all__ = [
    "Term",
    "TorchForceField",
    "TorchForceFieldTarget",
    "UnsupportedForce",
    "thermal_energy",
    "unsupported_force",
]
