"""Sampling and free-energy estimation by learned non-equilibrium transport.

Two questions, one engine: weighted samples and log Z of an unnormalised density, and the free-energy difference of
two states. Learning changes the variance, never the answer.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nessampler.errors import InputError
    from nessampler.estimators import Bounds, Flag, FreeEnergy, bar, bounds, jarzynski
    from nessampler.fields import Evaluated, Fields
    from nessampler.kernels import Kernel, Walkers
    from nessampler.methods.density.one_call import sample
    from nessampler.methods.density.result import Sampled
    from nessampler.methods.density.sample import DensityEffort
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

# Where each name lives. They are fetched when asked for: estimators, the catalogue and the command line's help need no
# torch, which takes seconds to import.
_HOMES = {
    "nessampler.errors": ["InputError"],
    "nessampler.estimators": ["Bounds", "Flag", "FreeEnergy", "bar", "bounds", "jarzynski"],
    "nessampler.fields": ["Evaluated", "Fields"],
    "nessampler.kernels": ["Kernel", "Walkers"],
    "nessampler.methods.density.one_call": ["sample"],
    "nessampler.methods.density.result": ["Sampled"],
    "nessampler.methods.density.sample": ["DensityEffort"],
    "nessampler.methods.difference": ["Difference", "free_energy"],
    "nessampler.methods.effort": ["Effort"],
    "nessampler.methods.one_sided": ["Absolute", "absolute_free_energy"],
    "nessampler.paths": ["Path"],
    "nessampler.simulate": ["Ensemble", "simulate"],
    "nessampler.targets": ["Target"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """Importing `nessampler.simulate` binds that module here; the public name stays the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        bound = isinstance(value, ModuleType) and name in _HOME
        super().__setattr__(name, getattr(value, name) if bound else value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
