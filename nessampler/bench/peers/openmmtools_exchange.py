"""Hamiltonian replica exchange between two force fields by openmmtools, analysed by pymbar."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
from __future__ import annotations

import copy
import logging
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openmm
from openmm import unit
from openmmtools import cache, mcmc, states
from openmmtools.multistate import MultiStateReporter, MultiStateSamplerAnalyzer, ReplicaExchangeSampler

from nessampler.bench.clock import cpu_seconds
from nessampler.bench.row import Row
from nessampler.errors import InputError
from nessampler.estimators import Flag, mbar
from nessampler.methods.verdict import level_of
from nessampler.molecular.systems import load_structure, parameterize
from nessampler.runs.config import DifferenceConfig, MolecularState
from nessampler.runs.units import parse

__all__ = ["openmmtools_exchange"]

STATES = 5  # from A to B, evenly spaced
EVERY = 1.0  # ps between exchanges
FEWEST = 20  # iterations: fewer say nothing of correlation
WITHOUT_BUDGET = 1000  # iterations
MIXED = "nessampler_lambda"  # the global parameter


class _Mixed(states.GlobalParameterState):
    """The parameter of `mixture_of`, under the name that OpenMM knows it by."""

    nessampler_lambda = states.GlobalParameterState.GlobalParameter(MIXED, standard_value=0.0)


class _Langevin(mcmc.LangevinDynamicsMove):
    """With a seed, which openmmtools leaves to the clock."""

    def __init__(self, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed

    def _get_integrator(self, thermodynamic_state: Any) -> Any:
        integrator = super()._get_integrator(thermodynamic_state)
        integrator.setRandomNumberSeed(self.seed + 1)  # 0 would be the clock again
        return integrator

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"seed": self.seed}

    def __setstate__(self, serialization: dict[str, Any]) -> None:
        super().__setstate__(serialization)
        self.seed = serialization["seed"]


@dataclass(frozen=True)
class _Sizes:
    iterations: int
    steps: int
    spent: float


def openmmtools_exchange(config: DifferenceConfig, folder: Path, budget: int | None) -> Row:
    r"""$U_\lambda = (1 - \lambda) U_A + \lambda U_B$ at five values of λ; replicas of neighbours may change places.

    Every replica moves by Langevin dynamics with the time step, friction and masses of the catalogue. All count from
    their first step; equilibration and correlation are found by pymbar, whose MBAR gives the difference and its error.
    A step asks both force fields, and so does an energy at each λ.

    Raises:
        InputError: states that are no force fields, or restricted to regions: they have no energies in between.

    References: Chodera & Shirts, Replica exchange and expanded ensemble simulations as Gibbs sampling, 2011,
    arXiv:1105.5749; Shirts & Chodera, Statistically optimal analysis of samples from multiple equilibrium states, 2008,
    arXiv:0801.1426.
    """
    a, b = config.state_a, config.state_b
    if not (isinstance(a, MolecularState) and isinstance(b, MolecularState)) or a.region or b.region:
        raise InputError(
            f"openmmtools exchanges replicas between two force fields on all of space: {config.name} has other states; "
            "choose another method"
        )
    started, busy = time.perf_counter(), cpu_seconds()
    sizes = _sizes(config, budget)
    mass, molecule = parse(config.md.hydrogen_mass, "Da"), load_structure(folder / a.structure)
    ends = [parameterize(load_structure(folder / s.structure), s.force_field, s.options, mass, folder) for s in (a, b)]
    value, error, note, flags = _exchanged(config, mixture_of(*ends), molecule.positions, sizes)
    return Row.of_cell(
        config,
        "openmmtools",
        budget,
        chosen="openmmtools",
        value=value,
        std_error=error,
        evaluations=sizes.spent,
        fields=0,
        seconds=time.perf_counter() - started,
        cpu_seconds=cpu_seconds() - busy,
        flags=tuple(dict.fromkeys(f.code for f in flags)),
        verdict="not trusted" if error is None else level_of(flags),
        note=note,
    )


def mixture_of(a: openmm.System, b: openmm.System) -> openmm.System:
    """Particles of A; forces that A and B share, and the others mixed linearly by a global parameter that is 0 at A.

    Example:
        >>> def springs(*stiffness: float) -> openmm.System:
        ...     system = openmm.System()
        ...     _ = system.addParticle(1.0)
        ...     for k in stiffness:
        ...         force = openmm.CustomExternalForce(f"{k} * x^2")
        ...         _ = force.addParticle(0), system.addForce(force)
        ...     return system
        >>> context = openmm.Context(mixture_of(springs(10.0, 1.0), springs(10.0, 3.0)), openmm.VerletIntegrator(0.001))
        >>> context.setPositions([[2.0, 0.0, 0.0]])
        >>> context.setParameter(MIXED, 0.5)
        >>> context.getState(energy=True).getPotentialEnergy()._value  # kJ/mol: 40 of the shared one, (4 + 12) / 2
        48.0
    """
    forces = {"a": _forces(a), "b": _forces(b)}
    shared = forces["a"].keys() & forces["b"].keys()
    system = copy.deepcopy(a)
    for index in reversed(range(system.getNumForces())):
        system.removeForce(index)
    for key in (key for key in forces["a"] if key in shared):
        system.addForce(copy.deepcopy(forces["a"][key]))
    own = {
        end: {f"{end}{k}": force for k, (key, force) in enumerate(forces[end].items()) if key not in shared}
        for end in "ab"
    }
    sums = {end: " + ".join(own[end]) or "0" for end in "ab"}
    mixed = openmm.CustomCVForce(f"(1 - {MIXED}) * ({sums['a']}) + {MIXED} * ({sums['b']})")
    mixed.addGlobalParameter(MIXED, 0.0)
    for name, force in (own["a"] | own["b"]).items():
        mixed.addCollectiveVariable(name, copy.deepcopy(force))
    system.addForce(mixed)
    return system


def _forces(system: openmm.System) -> dict[str, openmm.Force]:
    """By what they are and say; motion removers are none."""
    found = [force for force in system.getForces() if not isinstance(force, openmm.CMMotionRemover)]
    return {openmm.XmlSerializer.serialize(force): force for force in found}


def _sizes(config: DifferenceConfig, budget: int | None) -> _Sizes:
    price = config.state_a.relative_cost + config.state_b.relative_cost
    steps = max(1, round(EVERY / parse(config.md.timestep, "ps")))
    each = price * STATES * (steps + STATES)
    iterations = WITHOUT_BUDGET if budget is None else max(FEWEST, int(budget / each) - 1)
    return _Sizes(iterations, steps, each * (iterations + 1))


def _exchanged(
    config: DifferenceConfig, system: openmm.System, positions: np.ndarray, sizes: _Sizes
) -> tuple[float | None, float | None, str, tuple[Flag, ...]]:
    for name in ("openmmtools", "mpiplus"):
        logging.getLogger(name).setLevel(logging.ERROR)
    seed, generator = config.run.seed, np.random.default_rng(config.run.seed)
    temperature = parse(config.temperature or "", "K") * unit.kelvin
    base = states.ThermodynamicState(system, temperature)
    compound = []
    for value in np.linspace(0.0, 1.0, STATES):
        parameter = _Mixed(nessampler_lambda=float(value))
        compound.append(states.CompoundThermodynamicState(copy.deepcopy(base), [parameter]))
    replicas = [
        states.SamplerState(positions * unit.nanometer, velocities=_velocities(system, temperature, generator))
        for _ in compound
    ]
    # Where the catalogue samples in torch, it is for generalized Born, which the CPU platform compiles.
    platform = openmm.Platform.getPlatformByName("CPU" if config.md.platform == "torch" else config.md.platform)
    own = {"platform": platform, "platform_properties": {"Threads": "1"} if platform.getName() == "CPU" else {}}
    np.random.seed(seed)  # noqa: NPY002  swaps of neighbours are drawn from it
    sampler = ReplicaExchangeSampler(
        mcmc_moves=_Langevin(
            seed,
            timestep=parse(config.md.timestep, "ps") * unit.picosecond,
            collision_rate=parse(config.md.friction, "1/ps") / unit.picosecond,
            n_steps=sizes.steps,
        ),
        number_of_iterations=sizes.iterations,
        replica_mixing_scheme="swap-neighbors",
        online_analysis_interval=None,
    )
    sampler.energy_context_cache = cache.ContextCache(capacity=None, time_to_live=None, **own)
    sampler.sampler_context_cache = cache.ContextCache(capacity=None, time_to_live=None, **own)
    with TemporaryDirectory() as where, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reporter = MultiStateReporter(str(Path(where, "exchange.nc")), checkpoint_interval=sizes.iterations)
        sampler.create(compound, replicas, reporter)
        sampler.run()
        analyzer = MultiStateSamplerAnalyzer(reporter)
        differences, errors = analyzer.get_free_energy()
        dropped, inefficiency = analyzer.n_equilibration_iterations, analyzer.statistical_inefficiency
        states_seen = mbar(np.asarray(analyzer.mbar.u_kn), np.asarray(analyzer.mbar.N_k).tolist())
        reporter.close()
    note = (
        f"{STATES} replicas of {sizes.iterations * EVERY:g} ps, {dropped} of {sizes.iterations} iterations dropped, "
        f"inefficiency {inefficiency:.1f}"
    )
    flags = (*_drifting(dropped, sizes.iterations), *states_seen.flags)
    if not math.isfinite(errors[0, -1]):
        return None, None, f"MBAR has no error; {note}", flags
    return float(differences[0, -1]), float(errors[0, -1]), note, flags


def _drifting(dropped: int, iterations: int) -> tuple[Flag, ...]:
    if 2 * dropped < iterations:
        return ()
    return (Flag("equilibration", f"{dropped} of {iterations} iterations are not stationary; sample longer"),)


def _velocities(system: openmm.System, temperature: unit.Quantity, generator: np.random.Generator) -> unit.Quantity:
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
    kt = (unit.MOLAR_GAS_CONSTANT_R * temperature).value_in_unit(unit.kilojoule_per_mole)
    return generator.normal(size=(len(masses), 3)) * np.sqrt(kt / masses)[:, None] * (unit.nanometer / unit.picosecond)
