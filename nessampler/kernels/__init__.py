"""Kernels move walkers over an interval of time and report the log ratio of the backward and forward densities."""

from nessampler.kernels.branching import Branches, BranchingMap
from nessampler.kernels.compose import Compose
from nessampler.kernels.flow import Flow, Identity, Map, VelocityField
from nessampler.kernels.hmc import HMC
from nessampler.kernels.inertial import Inertial
from nessampler.kernels.langevin import Langevin
from nessampler.kernels.mass import DenseMass, DiagonalMass, Mass, SpectralMass, UnitMass
from nessampler.kernels.mirror import Mirror
from nessampler.kernels.protocol import Kernel, Walkers
from nessampler.kernels.random_walk import RandomWalk

__all__ = [
    "HMC",
    "Branches",
    "BranchingMap",
    "Compose",
    "DenseMass",
    "DiagonalMass",
    "Flow",
    "Identity",
    "Inertial",
    "Kernel",
    "Langevin",
    "Map",
    "Mass",
    "Mirror",
    "RandomWalk",
    "SpectralMass",
    "UnitMass",
    "VelocityField",
    "Walkers",
]
