"""A molecular difference made ready: force fields, end-state MD, internal coordinates, targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.methods.ends import SMALLEST_BLOCK, generator_for
from nessampler.molecular.contexts import ContextPool, check_platform
from nessampler.molecular.end_states import Dynamics, Replicas, sample_end_states
from nessampler.molecular.equilibration import Equilibrated, equilibrated
from nessampler.molecular.force_field import TorchForceFieldTarget, unsupported_force
from nessampler.molecular.handedness import check_same_handedness, handedness_flags
from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.molecular.regions import Arc, ArcToArc, Region, RegionTarget, Torsion, walled
from nessampler.molecular.symmetry import rotor_orders, spun
from nessampler.molecular.systems import Molecule, check_same_atoms, load_structure, parameterize
from nessampler.molecular.target import OpenMMTarget, openmm_target
from nessampler.molecular.topology_tree import ZMatrix, check_same_topology
from nessampler.molecular.torsions import soft_torsions
from nessampler.runs.config import DifferenceConfig, MolecularState
from nessampler.runs.observed import Observed
from nessampler.runs.prepared import Prepared
from nessampler.runs.system_files import file_inside
from nessampler.runs.units import parse
from nessampler.targets import Tally, Target, TransformedTarget, carry

__all__ = ["check_frames", "check_molecular", "prepare_molecular"]

STATES = ("a", "b")
FEWEST_SWAPS = 0.1  # accepted of all
FEWEST_DRAWS = 8  # per replica, to compare the halves of each


def check_molecular(config: DifferenceConfig, folder: Path) -> tuple[dict[str, Molecule], dict]:
    """Molecules and systems of both states: everything that can be wrong before MD starts is found here."""
    molecules, systems = {}, {}
    for name, state in zip(STATES, (config.state_a, config.state_b), strict=True):
        assert isinstance(state, MolecularState)
        for file in (state.structure, *state.force_field):
            file_inside(folder, file)
        molecules[name] = load_structure(folder / state.structure)
    check_same_atoms(molecules["a"], molecules["b"])
    check_same_topology(molecules["a"].topology, molecules["b"].topology)
    check_same_handedness(molecules["a"].topology, molecules["a"].positions, molecules["b"].positions)
    for name, state in zip(STATES, (config.state_a, config.state_b), strict=True):
        assert isinstance(state, MolecularState)
        systems[name] = parameterize(
            molecules[name], state.force_field, state.options, parse(config.md.hydrogen_mass, "Da"), folder
        )
    _regions(config, molecules)
    ZMatrix.from_topology(molecules["a"].topology)
    for name, system in systems.items():
        platform = config.md.of(name).platform
        if platform != "torch":
            check_platform(platform)
            if config.md.exchange:
                raise InputError(
                    f"md.exchange needs replicas in one batch: state {name.upper()} is on the platform {platform!r}; "
                    'set md.platform="torch", or md.exchange=0'
                )
        elif reason := unsupported_force(system):
            raise InputError(
                f'md.platform "torch" cannot run state {name.upper()}: {reason}; set md.platform="Reference"'
            )
    check_frames(config)
    return molecules, systems


def check_frames(config: DifferenceConfig) -> None:
    """Are there enough in every replica, and are they apart in time?"""
    for name in STATES:
        _check_frames(config, name)


def _check_frames(config: DifferenceConfig, state: str) -> None:
    dynamics = _dynamics(config, state)
    frames = dynamics.frames - dynamics.burn_in
    if frames * dynamics.replicas * min(config.ladder.blocks) < SMALLEST_BLOCK or frames < FEWEST_DRAWS:
        raise InputError(
            f"every block needs at least {SMALLEST_BLOCK} samples: {dynamics.replicas} replicas of state "
            f"{state.upper()} store {frames} frames each ({dynamics.production:g} ps, one every "
            f"{dynamics.interval:g} ps); sample longer or store more often"
        )
    if dynamics.interval < dynamics.timestep:
        raise InputError(
            f"md.interval must be a time step at least: got {config.md.of(state).interval} < {config.md.timestep}"
        )


def prepare_molecular(
    config: DifferenceConfig,
    folder: Path,
    run_dir: Path,
    progress: Callable[[int, int, str], None],
    processes: int | None = None,
) -> Prepared:
    """Sample both ends (or read what an earlier run stored) and build targets and coordinates.

    Args:
        config, folder: the problem, and where its files lie.
        run_dir: trajectories go to `endstates/` in it.
        progress: MD steps done, in all, and what is running.
        processes: workers for OpenMM; by default one per core.
    """
    molecules, systems = check_molecular(config, folder)
    temperature = parse(config.temperature or "", "K")
    pool = ContextPool(processes)
    try:
        dynamics = {s: _dynamics(config, s) for s in STATES}
        regions = _regions(config, molecules)
        sampled = sample_end_states(
            {s: walled(systems[s], regions[s]) if s in regions else systems[s] for s in STATES},
            {s: _started(molecules[s], regions[s]) if s in regions else molecules[s] for s in STATES},
            dynamics,
            run_dir / "endstates",
            seed=config.run.seed,
            pool=pool,
            progress=progress,
            device=config.run.device,
        )
        targets = {s: _target(systems[s], temperature, pool, config.run.device) for s in STATES}
        frames = {s: _inside(sampled[s].positions, dynamics[s].burn_in, regions.get(s), s.upper()) for s in STATES}
        turn = _turn(regions)
        # Which torsions are soft is read off frames of the fit block; the other blocks are not looked at.
        early = {s: _early(frames[s][:, dynamics[s].burn_in :], config.ladder.blocks[0]) for s in STATES}
        if turn is not None:
            early["b"] = carry(turn, torch.as_tensor(early["b"])).numpy()
        both = torch.as_tensor(np.concatenate([early[s] for s in STATES]))
        coordinates = InternalCoordinates.from_topology(molecules["a"].topology, both)
        kept = {
            s: equilibrated(
                frames[s],
                dynamics[s].burn_in,
                _observables(frames[s], targets[s], coordinates, molecules[s].topology),
                s.upper(),
            )
            for s in STATES
        }
    except BaseException:
        pool.close()
        raise
    device = torch.device(config.run.device)
    # Maps and mixtures must not take the wells in which methyl groups started for a difference of the states.
    samples = [
        spun(
            torch.as_tensor(kept[s].positions, dtype=torch.float64),
            molecules[s].topology,
            generator=generator_for(config.run.seed, f"rotors of {s}"),
        ).to(device)
        for s in STATES
    ]
    outside = {s: sampled[s].positions.shape[1] - frames[s].shape[1] for s in regions}
    ends: dict[str, Target] = {s: RegionTarget(targets[s], regions[s]) if s in regions else targets[s] for s in STATES}
    if turn is not None:
        ends["b"] = TransformedTarget(ends["b"], turn)
    return Prepared(
        ends["a"],
        ends["b"],
        samples[0],
        samples[1] if turn is None else _each(turn, samples[1]),
        coordinates,
        (_spent(sampled["a"]), _spent(sampled["b"])),
        [
            flag
            for s in STATES
            for flag in (
                *kept[s].flags,
                *_apart(sampled[s].accepted, s.upper()),
                *_mirrored(molecules[s], frames[s], s.upper()),
            )
        ],
        {
            f"state_{s}": {**_described(kept[s], outside.get(s), sampled[s].accepted), "energies": _backend(targets[s])}
            for s in STATES
        },
        observed=lambda: _torsions(coordinates, *samples),
        observe=lambda a, b: _torsions(coordinates, a, b if turn is None else _each(turn.inv, b)),
        close=pool.close,
    )


def _each(transform: Transform, x: torch.Tensor) -> torch.Tensor:
    return carry(transform, x.flatten(0, 1)).view_as(x)


def _torsions(coordinates: InternalCoordinates, a: torch.Tensor, b: torch.Tensor) -> Observed:
    return Observed(soft_torsions(coordinates, a), soft_torsions(coordinates, b), unit="degrees")


def _regions(config: DifferenceConfig, molecules: Mapping[str, Molecule]) -> dict[str, Region]:
    """Of the states that have one."""
    found = {}
    for name, state in zip(STATES, (config.state_a, config.state_b), strict=True):
        if isinstance(state, MolecularState) and state.region is not None:
            torsion = Torsion.of(molecules[name], state.region.torsion)
            found[name] = Region(torsion, Arc.between(*state.region.between))
    return found


def _turn(regions: Mapping[str, Region]) -> ArcToArc | None:
    """What brings B into the arc of A: of two arcs of one torsion no conformation, or not every one, is in both."""
    if len(regions) < 2 or regions["a"].torsion.atoms != regions["b"].torsion.atoms:
        return None
    goal, source = regions["a"].arc, regions["b"].arc
    return None if source.like(goal) else ArcToArc(regions["b"].torsion, source, goal)


def _started(molecule: Molecule, region: Region) -> Molecule:
    """The structure turned into the middle of a region, so that no wall has to push it there."""
    x = torch.as_tensor(molecule.positions)[None]
    middle = region.arc.start + region.arc.width / 2
    return replace(molecule, positions=region.torsion.turned(x, middle - region.torsion.value(x))[0].numpy())


def _inside(positions: np.ndarray, burn_in: int, region: Region | None, name: str) -> np.ndarray:
    """Frames in the region, as many of every replica; those of the burn-in, which are never used, all stay."""
    if region is None:
        return positions
    inside = region.holds(torch.as_tensor(positions, dtype=torch.float64)).numpy()[:, burn_in:]
    fewest = int(inside.sum(1).min())
    if fewest < FEWEST_DRAWS:
        raise InputError(
            f"every replica needs {FEWEST_DRAWS} frames inside of its region: one of state {name} has {fewest} of "
            f"{inside.shape[1]}, {region.torsion.name} being outside in the others; sample longer, or take a region "
            "that holds a minimum of the energy"
        )
    kept = [np.concatenate([x[:burn_in], x[burn_in:][now][:fewest]]) for x, now in zip(positions, inside, strict=True)]
    return np.stack(kept)


def _target(
    system: openmm.System, temperature: float, pool: ContextPool, device: str
) -> OpenMMTarget | TorchForceFieldTarget:
    """In torch where generalized Born or custom pair forces are most of the work, or on a GPU; else OpenMM does it."""
    kinds = {type(force).__name__ for force in system.getForces()}
    dear = not kinds.isdisjoint({"GBSAOBCForce", "CustomGBForce", "CustomNonbondedForce"})
    if unsupported_force(system) is None and (dear or torch.device(device).type != "cpu"):
        return openmm_target(system, temperature, "torch", device=device)
    reason = unsupported_force(system) or "as fast as torch for forces this cheap"
    return openmm_target(system, temperature, "openmm", pool=pool, reason=reason)


def _backend(target: OpenMMTarget | TorchForceFieldTarget) -> str:
    return f"{target.backend}: {target.reason}"


def _dynamics(config: DifferenceConfig, state: str) -> Dynamics:
    md = config.md.of(state)
    return Dynamics(
        parse(config.temperature or "", "K"),
        parse(md.timestep, "ps"),
        parse(md.friction, "1/ps"),
        md.replicas,
        parse(md.equilibration, "ps"),
        parse(md.production_a if state == "a" else md.production_b, "ps"),
        parse(md.interval, "ps"),
        md.platform,
        md.exchange,
        md.weakest,
    )


def _spent(replicas: Replicas) -> Tally:
    """A gradient per MD step, an energy per stored frame to find equilibration, and those of swaps."""
    frames = replicas.positions.shape[0] * replicas.positions.shape[1]
    return Tally(frames + replicas.energy_evaluations, replicas.gradient_evaluations)


def _apart(accepted: tuple[float, ...], name: str) -> tuple[Flag, ...]:
    """Replicas that hardly pass between a state and its companions gain nothing from them."""
    if not accepted or min(accepted) >= FEWEST_SWAPS:
        return ()
    gap = min(range(len(accepted)), key=accepted.__getitem__)
    return (
        Flag(
            "few_swaps",
            f"state {name}: {accepted[gap]:.0%} of the swaps between weakened states {gap} and {gap + 1} were "
            f"accepted, at least {FEWEST_SWAPS:.0%} are wanted: set md.exchange higher, or md.weakest nearer to 1",
        ),
    )


def _mirrored(molecule: Molecule, frames: np.ndarray, name: str) -> tuple[Flag, ...]:
    """Of some frames of every replica."""
    some = frames[:, :: max(1, frames.shape[1] // 50)].reshape(-1, *frames.shape[2:])
    return handedness_flags(molecule.topology, molecule.positions, some.astype(np.float64), name)


def _early(positions: np.ndarray, fraction: float) -> np.ndarray:
    """Up to about 250 frames `(n, atoms, 3)`, evenly from the first `fraction` of every replica."""
    first = positions[:, : max(1, round(fraction * positions.shape[1]))]
    frames = first.reshape(-1, *positions.shape[2:])
    return frames[:: max(1, len(frames) // 250)].astype(np.float64)


def _observables(
    positions: np.ndarray, target: OpenMMTarget | TorchForceFieldTarget, coordinates: InternalCoordinates, topology: Any
) -> dict[str, np.ndarray]:
    """The energy, and cosine and sine of every soft torsion with its symmetry, as series per replica."""
    flat = torch.as_tensor(positions.reshape(-1, *positions.shape[2:]), dtype=torch.float64)
    series = {"energy": target.energy(flat).numpy()}
    z = carry(coordinates, flat)
    for index, order in rotor_orders(topology, coordinates).items():
        name = coordinates.names[index] if order == 1 else f"{order} x {coordinates.names[index]}"
        series[f"cos {name}"] = (order * z[:, index]).cos().numpy()
        series[f"sin {name}"] = (order * z[:, index]).sin().numpy()
    return {name: values.reshape(positions.shape[:2]) for name, values in series.items()}


def _described(kept: Equilibrated, outside: int | None, accepted: tuple[float, ...]) -> dict:
    return {
        **({} if outside is None else {"frames_outside_region": outside * kept.positions.shape[0]}),
        **({"swaps_accepted": list(accepted)} if accepted else {}),
        "replicas": kept.positions.shape[0],
        "frames": kept.positions.shape[0] * kept.positions.shape[1],
        "equilibration_frames": kept.discarded,
        "statistical_inefficiency": kept.inefficiency,
        "slowest": kept.slowest,
        "r_hat": kept.r_hat,
    }
