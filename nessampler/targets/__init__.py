"""Densities: the protocol, a few written by hand, and wrappers that count or transform any of them."""

from nessampler.targets.angles_and_normals import AnglesAndNormals
from nessampler.targets.anharmonic import AnharmonicWell
from nessampler.targets.counting import Counted, Tally
from nessampler.targets.gaussian import Gaussian
from nessampler.targets.protocol import Target, energy_and_score
from nessampler.targets.transformed import TransformedTarget, carry, in_chart

__all__ = [
    "AnglesAndNormals",
    "AnharmonicWell",
    "Counted",
    "Gaussian",
    "Tally",
    "Target",
    "TransformedTarget",
    "carry",
    "energy_and_score",
    "in_chart",
]
