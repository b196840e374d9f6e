"""What users of OpenMM and mdtraj hold in their hands: systems, simulations, trajectories, quantities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
import torch
from jaxtyping import Float
from openmm import app, unit
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.molecular.force_field.target import TorchForceFieldTarget
from nessampler.molecular.handedness import hands_of_samples
from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.molecular.symmetry import spun
from nessampler.molecular.target import OpenMMTarget, openmm_target
from nessampler.molecular.topology_tree import BondGraph, bond_graph

__all__ = [
    "bonds_of",
    "coordinates_of",
    "drifts",
    "hands_of",
    "is_openmm",
    "positions_of",
    "spun",
    "state_of",
    "topology_of",
]

_NM = unit.nano * unit.meter
MOST_FRAMES = 250  # of each end, to see which torsions are soft


def is_openmm(state: object) -> bool:
    """A `System`, a `Simulation`, or an `openmmtools.states.ThermodynamicState`."""
    return isinstance(state, openmm.System | app.Simulation) or _is_thermodynamic(state)


def state_of(state: Any, temperature: Any = None) -> OpenMMTarget | TorchForceFieldTarget:
    """The Boltzmann density of a `System`, a `Simulation` or a `ThermodynamicState`, in kT; see `openmm_target`.

    Args:
        state: a simulation knows its temperature by its integrator, a thermodynamic state its own.
        temperature: in kelvin, or a quantity; needed for a system, and only for what has none of its own.

    Raises:
        InputError: no temperature, two that differ, one that is none; a system that is no density on R^3N.
    """
    own, given = _own_temperature(state), None if temperature is None else _kelvin(temperature)
    if own is None and given is None:
        raise InputError(
            f"the energy of a molecule is measured in kT: got {type(state).__name__} without a temperature; pass "
            "temperature=300.0, in kelvin"
        )
    if own is not None and given is not None and abs(own - given) > 1e-6 * own:
        raise InputError(
            f"a state has one temperature: got temperature={given:g} for {type(state).__name__} at {own:g} K; leave "
            "`temperature` out"
        )
    kelvin = own if given is None else given
    assert kelvin is not None
    return openmm_target(_system(state), kelvin)


def topology_of(*objects: Any) -> app.Topology | None:
    """The first topology that simulations, trajectories or topologies bring along."""
    for given in objects:
        held: Any = given[0] if isinstance(given, list | tuple) and given else given
        found: Any = getattr(held, "topology", held)
        if isinstance(found, app.Topology):
            return found
        if hasattr(found, "to_openmm"):  # of mdtraj
            return found.to_openmm()
    return None


def positions_of(samples: Any) -> Any:
    """Positions in nm of a trajectory, `(1, frames, atoms, 3)`, of several as chains, or of a quantity of length.

    Anything else is returned as it is.

    Raises:
        InputError: trajectories of several lengths.
    """
    if unit.is_quantity(samples):
        return np.asarray(samples.value_in_unit(_NM), dtype=np.float64)
    if hasattr(samples, "xyz") and hasattr(samples, "topology"):
        return np.asarray(samples.xyz, dtype=np.float64)[None]
    if isinstance(samples, list | tuple) and samples and all(hasattr(s, "xyz") for s in samples):
        lengths = {len(s.xyz) for s in samples}
        if len(lengths) > 1:
            raise InputError(
                f"chains of one state have one length: got trajectories of {sorted(lengths)} frames; cut them to "
                f"{min(lengths)}"
            )
        return np.stack([np.asarray(s.xyz, dtype=np.float64) for s in samples])
    return samples


def bonds_of(topology: app.Topology | None, *states: Any) -> BondGraph | None:
    """The bonds of a topology; else the harmonic bonds and constraints of the first system that has any.

    Atoms of a system have numbers for names, and masses for elements.
    """
    if topology is not None and topology.getNumBonds() and all(atom.element is not None for atom in topology.atoms()):
        return bond_graph(topology)
    graphs = (_bonds_of_system(_system(state)) for state in states if is_openmm(state))
    return next((graph for graph in graphs if graph.bonds), None)


def hands_of(graph: BondGraph, samples: Sequence[Float[Tensor, "*batch atoms 3"]]) -> tuple[Flag, ...]:
    """Flags of samples of both states that are of both hands: see `hands_of_samples`.

    Positions of another number of atoms, and such as are not finite, are left to those who refuse them.
    """
    if any(x.ndim not in (3, 4) or x.shape[-2:] != (len(graph.names), 3) for x in samples):
        return ()
    if not all(x.numel() and bool(torch.isfinite(x).all()) for x in samples):
        return ()
    a, b = (x.detach().to("cpu", torch.float64).flatten(0, -3).numpy() for x in samples)
    return hands_of_samples(graph, a, b)


def coordinates_of(
    topology: app.Topology, samples: Sequence[Float[Tensor, "chains draws atoms 3"]], fraction: float
) -> InternalCoordinates:
    """Internal coordinates; which torsions are soft is read off the first `fraction` of every chain.

    Raises:
        InputError: a topology without the bonds of one molecule.
    """
    early = [x[:, : max(1, round(fraction * x.shape[1]))].flatten(0, 1) for x in samples]
    few = [x[:: max(1, len(x) // MOST_FRAMES)].to("cpu", torch.float64) for x in early]
    return InternalCoordinates.from_topology(topology, torch.cat(few))


def drifts(target: OpenMMTarget | TorchForceFieldTarget) -> bool:
    """Whether the energy stays the same when all atoms move alike: Z is infinite, and only shapes have a density."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *target.event_shape, generator=generator, dtype=torch.float64)
    here, there = target.energy(x), target.energy(x + 0.5)
    return bool((here - there).abs() <= 1e-9 * here.abs().clamp(min=1))


def _is_thermodynamic(state: object) -> bool:
    return type(state).__module__.startswith("openmmtools") and hasattr(state, "get_system")


def _system(state: Any) -> openmm.System:
    if isinstance(state, openmm.System):
        return state
    if isinstance(state, app.Simulation):
        return state.system
    return state.get_system(remove_thermostat=True)


def _bonds_of_system(system: openmm.System) -> BondGraph:
    pairs = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            pairs += [force.getBondParameters(i)[:2] for i in range(force.getNumBonds())]
    n = range(system.getNumParticles())
    masses = (system.getParticleMass(i).value_in_unit(unit.dalton) for i in n)
    bonds = sorted({(min(pair), max(pair)) for pair in pairs})
    return BondGraph(tuple(f"atom {i}" for i in n), tuple(f"{mass:.2f}" for mass in masses), tuple(bonds))


def _own_temperature(state: Any) -> float | None:
    if isinstance(state, openmm.System):
        return None
    if isinstance(state, app.Simulation):
        asked = getattr(state.integrator, "getTemperature", None)
        return None if asked is None else _kelvin(asked())
    return _kelvin(state.temperature)


def _kelvin(temperature: Any) -> float:
    if unit.is_quantity(temperature):
        return float(temperature.value_in_unit(unit.kelvin))
    if isinstance(temperature, bool) or not isinstance(temperature, int | float | np.number):
        raise InputError(f"temperature must be a number in kelvin, or a quantity: got {temperature!r}")
    return float(temperature)
