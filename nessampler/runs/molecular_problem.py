"""A molecular difference made ready: force fields, end-state MD, internal coordinates, targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch

from nessampler.errors import InputError
from nessampler.methods.ends import SMALLEST_BLOCK
from nessampler.molecular.contexts import ContextPool, check_platform
from nessampler.molecular.end_states import Dynamics, Replicas, sample_end_states
from nessampler.molecular.equilibration import Equilibrated, equilibrated
from nessampler.molecular.force_field import TorchForceFieldTarget, unsupported_force
from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.molecular.panels import ramachandran, torsion_histograms
from nessampler.molecular.symmetry import rotor_orders
from nessampler.molecular.systems import Molecule, check_same_atoms, load_structure, parameterize
from nessampler.molecular.target import OpenMMTarget, openmm_target
from nessampler.molecular.topology_tree import ZMatrix
from nessampler.runs.config import DifferenceConfig, MolecularState
from nessampler.runs.page import Panel
from nessampler.runs.prepared import Prepared
from nessampler.runs.units import parse
from nessampler.targets import Tally, carry

__all__ = ["check_molecular", "prepare_molecular"]

STATES = ("a", "b")
FEWEST_DRAWS = 8  # per replica, to compare the halves of each


def check_molecular(config: DifferenceConfig, folder: Path) -> tuple[dict[str, Molecule], dict]:
    """Molecules and systems of both states: everything that can be wrong before MD starts is found here."""
    molecules, systems = {}, {}
    for name, state in zip(STATES, (config.state_a, config.state_b), strict=True):
        assert isinstance(state, MolecularState)
        for file in (state.structure, *state.force_field):
            if not (folder / file).resolve().is_relative_to(folder.resolve()):
                raise InputError(f"files must lie in the system's folder, which a run copies: got {file!r}")
        molecules[name] = load_structure(folder / state.structure)
        systems[name] = parameterize(
            molecules[name], state.force_field, state.options, parse(config.md.hydrogen_mass, "Da"), folder
        )
    check_same_atoms(molecules["a"], molecules["b"])
    ZMatrix.from_topology(molecules["a"].topology)
    if config.md.platform != "torch":
        check_platform(config.md.platform)
    for name, system in systems.items():
        if config.md.platform == "torch" and (reason := unsupported_force(system)):
            raise InputError(
                f'md.platform "torch" cannot run state {name.upper()}: {reason}; set md.platform="Reference"'
            )
    for name, production in (("A", config.md.production_a), ("B", config.md.production_b)):
        _check_frames(config, production, name)
    return molecules, systems


def _check_frames(config: DifferenceConfig, production: str, name: str) -> None:
    dynamics = _dynamics(config, production)
    frames = dynamics.frames - dynamics.burn_in
    if frames * dynamics.replicas * min(config.ladder.blocks) < SMALLEST_BLOCK or frames < FEWEST_DRAWS:
        raise InputError(
            f"every block needs at least {SMALLEST_BLOCK} samples: {dynamics.replicas} replicas of state {name} store "
            f"{frames} frames each ({production}, one every {config.md.interval}); sample longer or store more often"
        )
    if dynamics.interval < dynamics.timestep:
        raise InputError(f"md.interval must be a time step at least: got {config.md.interval} < {config.md.timestep}")


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
        dynamics = {"a": _dynamics(config, config.md.production_a), "b": _dynamics(config, config.md.production_b)}
        sampled = sample_end_states(
            systems,
            molecules,
            dynamics,
            run_dir / "endstates",
            seed=config.run.seed,
            pool=pool,
            progress=progress,
            device=config.run.device,
        )
        targets = {s: _target(systems[s], temperature, pool, config.run.device) for s in STATES}
        # Which torsions are soft is read off frames of the fit block; the other blocks are not looked at.
        early = np.concatenate(
            [_early(sampled[s].positions[:, dynamics[s].burn_in :], config.ladder.blocks[0]) for s in STATES]
        )
        coordinates = InternalCoordinates.from_topology(molecules["a"].topology, torch.as_tensor(early))
        kept = {
            s: equilibrated(
                sampled[s].positions,
                dynamics[s].burn_in,
                _observables(sampled[s].positions, targets[s], coordinates, molecules[s].topology),
                s.upper(),
            )
            for s in STATES
        }
    except BaseException:
        pool.close()
        raise
    device = torch.device(config.run.device)
    samples = [torch.as_tensor(kept[s].positions, dtype=torch.float64, device=device) for s in STATES]
    labels = (config.state_a.label, config.state_b.label)
    return Prepared(
        targets["a"],
        targets["b"],
        samples[0],
        samples[1],
        coordinates,
        (_spent(sampled["a"]), _spent(sampled["b"])),
        [flag for s in STATES for flag in kept[s].flags],
        {f"state_{s}": {**_described(kept[s]), "energies": _backend(targets[s])} for s in STATES},
        panels=lambda: _panels(coordinates, samples, labels),
        close=pool.close,
    )


def _target(
    system: openmm.System, temperature: float, pool: ContextPool, device: str
) -> OpenMMTarget | TorchForceFieldTarget:
    """In torch where a generalized Born force is most of the work, or on a GPU; else OpenMM's processes are as fast."""
    dear = any("GB" in type(force).__name__ for force in system.getForces())
    if unsupported_force(system) is None and (dear or torch.device(device).type != "cpu"):
        return openmm_target(system, temperature, "torch", device=device)
    reason = unsupported_force(system) or "as fast as torch for forces this cheap"
    return openmm_target(system, temperature, "openmm", pool=pool, reason=reason)


def _backend(target: OpenMMTarget | TorchForceFieldTarget) -> str:
    return f"{target.backend}: {target.reason}"


def _dynamics(config: DifferenceConfig, production: str) -> Dynamics:
    md = config.md
    return Dynamics(
        parse(config.temperature or "", "K"),
        parse(md.timestep, "ps"),
        parse(md.friction, "1/ps"),
        md.replicas,
        parse(md.equilibration, "ps"),
        parse(production, "ps"),
        parse(md.interval, "ps"),
        md.platform,
    )


def _spent(replicas: Replicas) -> Tally:
    """A gradient per MD step, and an energy per stored frame to find equilibration."""
    return Tally(replicas.positions.shape[0] * replicas.positions.shape[1], replicas.gradient_evaluations)


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


def _described(kept: Equilibrated) -> dict:
    return {
        "replicas": kept.positions.shape[0],
        "frames": kept.positions.shape[0] * kept.positions.shape[1],
        "equilibration_frames": kept.discarded,
        "statistical_inefficiency": kept.inefficiency,
        "slowest": kept.slowest,
        "r_hat": kept.r_hat,
    }


def _panels(coordinates: InternalCoordinates, samples: list[torch.Tensor], labels: tuple[str, str]) -> list[Panel]:
    z_a, z_b = (carry(coordinates, x.flatten(0, 1)).cpu().numpy() for x in samples)
    backbone = ramachandran(coordinates, z_a, z_b, labels)
    torsions = torsion_histograms(coordinates, z_a, z_b, labels)
    panels = []
    if backbone is not None:
        panels.append(
            Panel(
                "Backbone torsions of the end states",
                backbone,
                f"Two Ramachandran histograms, {labels[0]} and {labels[1]}.",
                "Sampled φ and ψ of both states. A basin that only one of them visited is a warning.",
            )
        )
    if torsions is not None:
        panels.append(
            Panel(
                "Soft torsions",
                torsions,
                f"Histograms of {int(coordinates.circular.sum())} torsions in both states.",
                "Torsions that turn between minima, in degrees. They stay on the circle; everything else is mapped.",
            )
        )
    return panels
