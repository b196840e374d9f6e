"""Losses whose minimisers are the velocities and scores that transports need."""

from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights

__all__ = ["InterpolantObjective", "PairBatch", "Weights"]
