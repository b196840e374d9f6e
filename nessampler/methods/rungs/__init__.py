"""The rungs of the ladder for each kind of walker: one file per kind, and how a kind is recognised."""

from nessampler.methods.rungs.structure import Structure, structure_of
from nessampler.methods.rungs.vector import VECTOR_RUNGS

__all__ = ["VECTOR_RUNGS", "Structure", "structure_of"]
