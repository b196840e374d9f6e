"""Named recipes, each a short composition of kernels, paths and closed forms; and the ladder that chooses."""

from nessampler.methods.difference import Difference, RungResult, free_energy
from nessampler.methods.effort import Effort
from nessampler.methods.one_sided import Absolute, absolute_free_energy

__all__ = ["Absolute", "Difference", "Effort", "RungResult", "absolute_free_energy", "free_energy"]
