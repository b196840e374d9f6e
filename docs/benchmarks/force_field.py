"""Energies and forces per second: torch, eager and compiled, against OpenMM looped over the conformations.

    python docs/benchmarks/force_field.py [--systems dipeptide-obc2,...] [--batch 1024] [--seconds 2] [--threads 2]
    python docs/benchmarks/force_field.py --device cuda --batch 1024,16384 --threads 16

OpenMM has one context in each of `--threads` processes; torch has that many threads in one process, or a GPU. OpenMM's
CUDA platform, which is made for one large system, is given the conformations one after the other by one context; its
rate is that of setting positions and reading forces as much as that of the GPU. Every figure is the best of the
repetitions that fit into `--seconds`, the first call (and its compilation) left out. Prints a markdown table, a row as
soon as it is there, with how far torch's forces are from the Reference platform's, relative to the largest.
"""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import openmm
import torch
from openmm import unit
from torch import Tensor

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


@dataclass(frozen=True)
class Options:
    batches: list[int]
    seconds: float
    compiled: bool
    device: str
    compilation: float
    openmm_batch: int
    clock: Clock
    many: ContextPool  # a context in each of `--threads` processes
    one: ContextPool

    def noisy(self, case: Case, batch: int) -> np.ndarray:
        noise = np.random.default_rng(0).normal(scale=0.005, size=(batch, *case.positions.shape))
        return case.positions + noise


def openmm_rates(case: Case, options: Options) -> tuple[list[str], float, np.ndarray]:
    """A cell for every platform, the best rate, and what torch's forces have to be."""
    batch = min(options.openmm_batch, *options.batches)
    x, xml = options.noisy(case, batch), openmm.XmlSerializer.serialize(case.system)
    cells, best = [], 0.0
    platforms = ["Reference", "CPU"] if options.device == "cpu" else ["Reference", "CPU", "CUDA"]
    for name in platforms:
        pool = options.one if name == "CUDA" else options.many  # on one GPU processes would only wait for one another
        try:
            found = rate(lambda n=name, p=pool: p.evaluate(xml, n, x, True), batch, options.seconds, options.clock)
        except Exception as error:  # a platform that is not installed, or without its driver
            print(f"OpenMM {name}: {error}", file=sys.stderr, flush=True)
            cells.append("none")
            continue
        cells.append(f"{found:,.0f}")
        best = max(best, found)
    truth = options.many.evaluate(xml, "Reference", x[:4], True)[1]
    assert truth is not None
    return cells, best, truth


def torch_rates(case: Case, options: Options, best: float, truth: np.ndarray) -> Iterator[str]:
    """A cell for every precision, way of evaluation and batch."""
    for dtype in (torch.float64, torch.float32):
        for program in (False, True)[: 1 + options.compiled]:
            force_field = TorchForceField(case.system, dtype=dtype, device=options.device, compile=program)
            for k, batch in enumerate(options.batches):
                x = torch.as_tensor(options.noisy(case, batch), dtype=dtype, device=options.device)

                def run(field: TorchForceField = force_field, x: Tensor = x) -> None:
                    field.energy_and_forces(x)
                    if x.device.type == "cuda":
                        torch.cuda.synchronize()

                began = time.perf_counter()
                try:
                    with at_most(options.compilation):
                        run()
                except TimeoutError:
                    yield from [f"not compiled within {options.compilation:.0f} s"] * len(options.batches[k:])
                    break
                except Exception as error:  # of memory or of a compiler: the other columns are worth having
                    print(f"  {case.title}, {dtype}, {batch}: {error}", file=sys.stderr, flush=True)
                    yield type(error).__name__
                    continue
                first = time.perf_counter() - began
                found = rate(run, batch, options.seconds, options.clock)
                forces = force_field.forces(x[:4]).cpu().numpy() if not program else None
                if forces is None:  # of the whole batch, for which there is a program
                    forces = force_field.forces(x)[:4].cpu().numpy()
                error = np.abs(forces - truth).max() / np.abs(truth).max()
                print(f"  {case.title}, {dtype}, {batch}: first call {first:.1f} s", file=sys.stderr, flush=True)
                yield f"{found:,.0f} ({found / best:.1f} ×, {error:.0e})"


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in the main thread when the time is over."""

    passed = []

    def over(*_: object) -> None:
        passed.append(True)
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception as error:
        if passed:  # a compiler wraps what it catches
            raise TimeoutError from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default=",".join(CASES))
    parser.add_argument("--device", default="cpu", help="of torch")
    parser.add_argument("--batch", type=lambda text: [int(b) for b in text.split(",")], default=[1024])
    parser.add_argument("--large-batch", type=int, default=16, help="of systems beyond 1,000 atoms")
    parser.add_argument("--openmm-batch", type=int, default=1024, help="at most, of conformations that OpenMM is given")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager-only", action="store_true")
    parser.add_argument("--compilation", type=float, default=600.0, help="seconds that a first call may take")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that others use, too: --threads 1 only")
    given = parser.parse_args()
    if given.cpu_time and (given.threads != 1 or given.device != "cpu"):
        parser.error("--cpu-time counts this process alone: it needs --threads 1 and --device cpu")
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.cpu_time else time.perf_counter
    modes = ["eager"] if given.eager_only else ["eager", "compiled"]
    heads = ["system", "atoms", "OpenMM Reference", "OpenMM CPU", *["OpenMM CUDA"][: given.device != "cpu"]]
    sizes = [f", {b:,}" for b in given.batch] if len(given.batch) > 1 else [""]
    heads += [f"torch float{b} {m}{n} (× OpenMM, force error)" for b in (64, 32) for m in modes for n in sizes]
    unit_of_time = "second of CPU time" if given.cpu_time else "second"
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}", end="")
    print("" if given.device == "cpu" else f" on {torch.cuda.get_device_name(given.device)}")
    sizes = " and ".join(f"{b:,}" for b in given.batch)
    print(f"OpenMM {openmm.__version__}; conformations per {unit_of_time}, batch {sizes}\n")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)
    with ContextPool(given.threads) as many, ContextPool(1) as one:
        for name in given.systems.split(","):
            case = CASES[name]()
            batches = given.batch if len(case.positions) <= 1000 else [given.large_batch]
            shown = (batches, given.seconds, not given.eager_only, given.device, given.compilation)
            options = Options(*shown, given.openmm_batch, clock, many, one)
            cells, best, truth = openmm_rates(case, options)
            cells = [case.title, str(len(case.positions)), *cells, *torch_rates(case, options, best, truth)]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
