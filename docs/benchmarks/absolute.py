"""Absolute free energies of a molecule's states, one-sided, and their difference.

    python docs/benchmarks/absolute.py alanine-solvation --seeds 3

Per state: frames of batched MD, split in time into blocks that fit (0.4), select (0.2) and evaluate (0.4). The base is
a standard normal in standardised internal coordinates, beside a mixture of wrapped Gaussians for the torsions. F leaves
out position and orientation, the same for both states, and is in the measure of nm. Where the catalogue has a reference
for the difference of the two states, the difference of the two absolute numbers has to agree with it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import openmm
import torch

import nessampler as ns
from nessampler.molecular import load_structure, parameterize
from nessampler.molecular.contexts import minimised
from nessampler.molecular.internal_coordinates import InternalCoordinates
from nessampler.molecular.target import openmm_target
from nessampler.molecular.torch_dynamics import LangevinMiddle
from nessampler.runs.config import load

SYSTEMS = Path(__file__).parents[2] / "systems"
TIMESTEP, FRICTION, HYDROGEN_MASS, TEMPERATURE = 0.002, 1.0, 4.0, 300.0  # ps, 1/ps, Da, K


def frames(folder: Path, state: str, seed: int, options: argparse.Namespace):
    """Target, topology, and `(replicas, frames, atoms, 3)` in nm; read again where they were stored before."""
    table = load(folder / "system.toml")[f"state_{state}"]
    molecule = load_structure(folder / table["structure"])
    system = parameterize(molecule, table["force_field"], table.get("options"), HYDROGEN_MASS, folder)
    target = openmm_target(system, TEMPERATURE, backend="torch")
    file = options.store / f"{folder.name}-{state}-{seed}.pt"
    if not file.exists():
        dynamics = LangevinMiddle.of(system, TEMPERATURE, timestep=TIMESTEP, friction=FRICTION, compile=True)
        generator = torch.Generator().manual_seed(1000 * seed + ord(state))
        start = torch.as_tensor(minimised(openmm.XmlSerializer.serialize(system), molecule.positions))
        phase = dynamics.run(
            dynamics.start(start, options.replicas, generator=generator),
            round(options.equilibration / TIMESTEP),
            generator=generator,
        )
        kept = []
        for _ in range(options.frames):
            phase = dynamics.run(phase, round(options.interval / TIMESTEP), generator=generator)
            kept.append(phase.x)
        torch.save(torch.stack(kept, 1), file)
    return target, molecule.topology, torch.load(file)


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("system")
    arguments.add_argument("--states", nargs="*", default=["a", "b"])
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--methods", nargs="*", default=["plain", "map", "switching"])
    arguments.add_argument("--steps", type=int, default=12, help="of switching")
    arguments.add_argument("--replicas", type=int, default=64)
    arguments.add_argument("--frames", type=int, default=40)
    arguments.add_argument("--interval", type=float, default=3.0, help="ps between frames")
    arguments.add_argument("--equilibration", type=float, default=40.0, help="ps")
    arguments.add_argument("--store", type=Path, default=Path("endstates"))
    options = arguments.parse_args()
    options.store.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print("| method | seed | state | F (kT) | error | overlap | limits, 99.9 % | energies | gradients | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for seed in range(options.seeds):
        ends = {s: frames(SYSTEMS / options.system, s, seed, options) for s in options.states}
        early = torch.cat([x[:, : round(0.4 * x.shape[1])].flatten(0, 1) for _, _, x in ends.values()])
        coordinates = InternalCoordinates.from_topology(next(iter(ends.values()))[1], early.double())
        for method in options.methods:
            found = {s: _row(s, *ends[s][::2], coordinates, method, seed, options) for s in options.states}
            if len(found) == 2:
                change = found["b"] - found["a"]
                print(
                    f"| {method} | {seed} | b − a | {change.delta_f:.3f} | {change.std_error:.3f} | | | | | |",
                    flush=True,
                )


def _row(state: str, target, x, coordinates, method: str, seed: int, options: argparse.Namespace) -> ns.Absolute:
    started, effort = time.process_time(), ns.Effort(switching_steps=options.steps, tuning_samples=100)
    found = ns.absolute_free_energy(
        target, x.double(), coordinates=coordinates, method=method, seed=seed, effort=effort
    )
    spent, estimate, (low, high) = found.difference.evaluations["state_b"], found.free_energy, found.bounds
    energies, gradients = (sum(spent[s][k] for s in ("training", "sampling")) for k in ("energy", "gradient"))
    numbers = f"{estimate.delta_f:.3f} | {estimate.std_error:.3f} | {estimate.overlap:.2f} | {low:.2f} … {high:.2f}"
    print(
        f"| {method} | {seed} | {state} | {numbers} | {energies} | {gradients} | {time.process_time() - started:.0f} |",
        flush=True,
    )
    return found


if __name__ == "__main__":
    main()
