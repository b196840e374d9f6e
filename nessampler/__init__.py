"""Sampling and free-energy estimation by learned non-equilibrium transport.

Two questions, one engine: weighted samples and log Z of an unnormalised density, and the free-energy difference of
two states. Learning changes the variance, never the answer.
"""

from typing import TYPE_CHECKING

from nessampler._lazy import export

if TYPE_CHECKING:
    from nessampler.errors import InputError
    from nessampler.estimators import Bounds, Flag, FreeEnergy, bar, bounds, jarzynski
    from nessampler.fields import Evaluated, Fields
    from nessampler.kernels import Kernel, Walkers
    from nessampler.methods.density.effort import DensityEffort
    from nessampler.methods.density.one_call import sample
    from nessampler.methods.density.result import Sampled
    from nessampler.methods.difference import Difference, free_energy
    from nessampler.methods.effort import Effort
    from nessampler.methods.one_sided import Absolute, absolute_free_energy
    from nessampler.paths import Path
    from nessampler.simulate import Ensemble, simulate
    from nessampler.targets import Target

__all__ = [
    "Absolute",
    "Bounds",
    "DensityEffort",
    "Difference",
    "Effort",
    "Ensemble",
    "Evaluated",
    "Fields",
    "Flag",
    "FreeEnergy",
    "InputError",
    "Kernel",
    "Path",
    "Sampled",
    "Target",
    "Walkers",
    "absolute_free_energy",
    "bar",
    "bounds",
    "free_energy",
    "jarzynski",
    "sample",
    "simulate",
]

# Estimators, the catalogue and the command line's help need no torch, which takes seconds to import.
export(
    __name__,
    {
        "nessampler.errors": ["InputError"],
        "nessampler.estimators": ["Bounds", "Flag", "FreeEnergy", "bar", "bounds", "jarzynski"],
        "nessampler.fields": ["Evaluated", "Fields"],
        "nessampler.kernels": ["Kernel", "Walkers"],
        "nessampler.methods.density.one_call": ["sample"],
        "nessampler.methods.density.result": ["Sampled"],
        "nessampler.methods.density.effort": ["DensityEffort"],
        "nessampler.methods.difference": ["Difference", "free_energy"],
        "nessampler.methods.effort": ["Effort"],
        "nessampler.methods.one_sided": ["Absolute", "absolute_free_energy"],
        "nessampler.paths": ["Path"],
        "nessampler.simulate": ["Ensemble", "simulate"],
        "nessampler.targets": ["Target"],
    },
)
