"""Named recipes, each a short composition of kernels, paths and closed forms; and the ladder that chooses."""

from nessampler.methods.difference import Difference, RungResult, free_energy
from nessampler.methods.effort import Effort

__all__ = ["Difference", "Effort", "RungResult", "free_energy"]
