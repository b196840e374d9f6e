"""`system.toml`: what a problem is and how much to spend on it, validated; unknown keys are refused."""

from nessampler.runs.config.density import DensityConfig
from nessampler.runs.config.difference import AnalyticState, DifferenceConfig, MolecularState, TargetState
from nessampler.runs.config.reading import Config, load, resolve, write

__all__ = [
    "AnalyticState",
    "Config",
    "DensityConfig",
    "DifferenceConfig",
    "MolecularState",
    "TargetState",
    "load",
    "resolve",
    "write",
]
