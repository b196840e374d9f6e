"""Molecules through OpenMM and mdtraj: the only rooms that import them, an optional extra of the package."""

from nessampler.molecular.centred import CentredCartesian
from nessampler.molecular.contexts import ContextPool
from nessampler.molecular.end_states import Dynamics, Replicas, sample_end_states
from nessampler.molecular.equilibration import Equilibrated, equilibrated
from nessampler.molecular.force_field import TorchForceField, TorchForceFieldTarget, UnsupportedForce
from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.molecular.openmmtools_states import state_target
from nessampler.molecular.relabelling import Relabelling
from nessampler.molecular.several_molecules import join_molecules
from nessampler.molecular.systems import Molecule, load_structure, parameterize
from nessampler.molecular.target import OpenMMTarget, openmm_target
from nessampler.molecular.topology_tree import ZMatrix, check_same_topology
from nessampler.molecular.trajectories import samples_of, trajectory_of

__all__ = [
    "CentredCartesian",
    "ContextPool",
    "Dynamics",
    "Equilibrated",
    "InternalCoordinates",
    "Molecule",
    "OpenMMTarget",
    "Relabelling",
    "Replicas",
    "TorchForceField",
    "TorchForceFieldTarget",
    "UnsupportedForce",
    "ZMatrix",
    "check_same_topology",
    "equilibrated",
    "join_molecules",
    "load_structure",
    "openmm_target",
    "parameterize",
    "sample_end_states",
    "samples_of",
    "state_target",
    "trajectory_of",
]
