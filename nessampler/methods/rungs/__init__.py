"""The rungs of the ladder for each kind of walker: one file per kind, and how a kind is recognised."""

from nessampler.methods.rungs.cluster import CLUSTER_RUNGS
from nessampler.methods.rungs.lattice import LATTICE_RUNGS
from nessampler.methods.rungs.structure import Structure, structure_of
from nessampler.methods.rungs.vector import VECTOR_RUNGS

__all__ = ["CLUSTER_RUNGS", "LATTICE_RUNGS", "VECTOR_RUNGS", "Structure", "structure_of"]
