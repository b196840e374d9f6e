"""Energies and forces per second: torch, eager and compiled, against OpenMM looped over the conformations.

    python docs/benchmarks/force_field.py [--systems dipeptide-obc2,...] [--batch 1024] [--seconds 2] [--threads 2]

OpenMM has one context in each of `--threads` processes; torch has that many threads in one process. Every figure is
the best of the repetitions that fit into `--seconds`, the first call (and its compilation) left out. Prints a
markdown table and, at its end, how far each of torch's forces is from the Reference platform's.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openmm
import torch
from openmm import unit

from nessampler.molecular import ContextPool, TorchForceField, load_structure, parameterize
from nessampler.runs import catalogue


@dataclass(frozen=True)
class Case:
    title: str
    system: openmm.System
    positions: np.ndarray


def dipeptide(*files: str) -> Case:
    molecule = load_structure(catalogue.root() / "alanine-solvation" / "alanine-dipeptide.pdb")
    system = parameterize(molecule, list(files))
    return Case(f"alanine dipeptide, {', '.join(files)}", system, molecule.positions)


def tetraalanine() -> Case:
    molecule = load_structure(catalogue.root() / "tetraalanine-solvation" / "tetraalanine.pdb")
    system = parameterize(molecule, ["amber14-all.xml", "implicit/obc2.xml"])
    return Case("tetra-alanine, amber14-all.xml, implicit/obc2.xml", system, molecule.positions)


def from_openmmtools(name: str, title: str, **options: object) -> Case:
    from openmmtools import testsystems

    built = getattr(testsystems, name)(**options)
    return Case(title, built.system, np.asarray(built.positions.value_in_unit(unit.nano * unit.meter)))


CASES: dict[str, Callable[[], Case]] = {
    "toluene-obc2": lambda: from_openmmtools("TolueneImplicitOBC2", "toluene, GBSAOBC", constraints=None),
    "dipeptide-vacuum": lambda: dipeptide("amber14-all.xml"),
    "dipeptide-obc2": lambda: dipeptide("amber96.xml", "amber96_obc.xml"),
    "dipeptide-custom-obc2": lambda: dipeptide("amber14-all.xml", "implicit/obc2.xml"),
    "dipeptide-gbn2": lambda: dipeptide("amber14-all.xml", "implicit/gbn2.xml"),
    "tetraalanine-obc2": tetraalanine,
    "water-60": lambda: from_openmmtools("WaterCluster", "20 waters", n_waters=20, constrained=False),
    "host-guest": lambda: from_openmmtools("HostGuestImplicitOBC2", "CB7:B2, GBSAOBC", constraints=None),
    "lysozyme": lambda: from_openmmtools("LysozymeImplicit", "T4 lysozyme, GB", constraints=None),
}


Clock = Callable[[], float]


def rate(run: Callable[[], object], batch: int, seconds: float, clock: Clock) -> float:
    """Conformations per second, the best of what fits into the time and of at least two."""
    run()
    best, stop, times = float("inf"), clock() + seconds, 0
    while times < 2 or clock() < stop:
        start = clock()
        run()
        best, times = min(best, clock() - start), times + 1
    return batch / best


def measure(case: Case, batch: int, seconds: float, threads: int, compiled: bool, clock: Clock) -> list[str]:
    noise = np.random.default_rng(0).normal(scale=0.005, size=(batch, *case.positions.shape))
    x = case.positions + noise
    xml = openmm.XmlSerializer.serialize(case.system)
    cells = [case.title, str(len(case.positions))]
    truth, best = None, 0.0
    with ContextPool(threads) as pool:
        for name in ("Reference", "CPU"):
            found = rate(lambda n=name: pool.evaluate(xml, n, x, True), batch, seconds, clock)
            cells.append(f"{found:,.0f}")
            best = max(best, found)
        truth = pool.evaluate(xml, "Reference", x[:4], True)[1]
    assert truth is not None
    for dtype in (torch.float64, torch.float32):
        conformations = torch.as_tensor(x, dtype=dtype)
        for program in (False, True)[: 1 + compiled]:
            force_field = TorchForceField(case.system, dtype=dtype, compile=program)
            found = rate(lambda f=force_field, c=conformations: f.energy_and_forces(c), batch, seconds, clock)
            error = np.abs(force_field.forces(conformations[:4]).numpy() - truth).max() / np.abs(truth).max()
            cells.append(f"{found:,.0f} ({found / best:.1f} ×, {error:.0e})")
    return cells


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--systems", default=",".join(CASES))
    options.add_argument("--batch", type=int, default=1024)
    options.add_argument("--large-batch", type=int, default=16, help="of systems beyond 1,000 atoms")
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--eager-only", action="store_true")
    options.add_argument("--cpu-time", action="store_true", help="for a machine that others use, too: --threads 1 only")
    given = options.parse_args()
    if given.cpu_time and given.threads != 1:
        options.error("--cpu-time counts this process alone: it needs --threads 1")
    clock = time.process_time if given.cpu_time else time.perf_counter
    torch.set_num_threads(given.threads)
    modes = ["eager"] if given.eager_only else ["eager", "compiled"]
    heads = ["system", "atoms", "OpenMM Reference", "OpenMM CPU"]
    heads += [f"torch float{b} {m} (× OpenMM, force error)" for b in (64, 32) for m in modes]
    unit_of_time = "second of CPU time" if given.cpu_time else "second"
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}")
    print(f"OpenMM {openmm.__version__}; conformations per {unit_of_time}, batch {given.batch}\n")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for name in given.systems.split(","):
        case = CASES[name]()
        batch = given.batch if len(case.positions) <= 1000 else given.large_batch
        cells = measure(case, batch, given.seconds, given.threads, not given.eager_only, clock)
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
