"""Losses whose minimisers are the velocities and scores that transports need."""

from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights
from nessampler.objectives.path_variance import Paths, PathVarianceObjective

__all__ = ["InterpolantObjective", "PairBatch", "PathVarianceObjective", "Paths", "Weights"]
