"""Kernels move walkers over an interval of time and report the log ratio of the backward and forward densities."""

from nessampler.kernels.flow import Identity, Map
from nessampler.kernels.langevin import Langevin
from nessampler.kernels.protocol import Kernel, Walkers

__all__ = ["Identity", "Kernel", "Langevin", "Map", "Walkers"]
