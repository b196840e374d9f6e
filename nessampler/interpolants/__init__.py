"""Stochastic interpolants: a random path between a sample of one state and a sample of another.

An interpolant is a schedule, how much of each end and of the noise there is at a time, and a shape of the noise.
"""

from nessampler.interpolants.circular import ShortestArc
from nessampler.interpolants.encoding_decoding import EncodingDecoding
from nessampler.interpolants.gamma import NoNoise, Quadratic, SineSquared, SquareRoot
from nessampler.interpolants.linear import Linear, LinearInterpolant
from nessampler.interpolants.one_sided import OneSidedInterpolant
from nessampler.interpolants.protocol import Interpolant
from nessampler.interpolants.retimed import Retimed
from nessampler.interpolants.schedule import Coefficients, Gamma, Schedule
from nessampler.interpolants.scheduled import ScheduledInterpolant
from nessampler.interpolants.trigonometric import Trigonometric

__all__ = [
    "Coefficients",
    "EncodingDecoding",
    "Gamma",
    "Interpolant",
    "Linear",
    "LinearInterpolant",
    "NoNoise",
    "OneSidedInterpolant",
    "Quadratic",
    "Retimed",
    "Schedule",
    "ScheduledInterpolant",
    "ShortestArc",
    "SineSquared",
    "SquareRoot",
    "Trigonometric",
]
