"""Milliseconds of a step of dynamics on a GPU, called from Python and replayed as one CUDA graph.

    python docs/benchmarks/recorded_steps.py [--replicas 1024,4096] [--steps 200]

Alanine dipeptide in OBC2 (amber14, a CustomGBForce), compiled, float32. Prints a markdown table, and how far positions
are apart after twenty steps with the same noise.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from nessampler.molecular import load_structure, parameterize
from nessampler.molecular.torch_dynamics import LangevinMiddle
from nessampler.runs import catalogue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=lambda text: [int(n) for n in text.split(",")], default=[1024, 4096])
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()
    molecule = load_structure(catalogue.root() / "alanine-solvation" / "alanine-dipeptide.pdb")
    system = parameterize(molecule, ["amber14-all.xml", "implicit/obc2.xml"], None, 4.0)
    dynamics = LangevinMiddle.of(system, 300.0, timestep=0.002, friction=2.0, device="cuda", compile=True)
    capturable = dynamics._capturable
    print("| replicas | called (ms) | recorded (ms) | apart after 20 steps (nm) |\n|---|---|---|---|")
    for n in given.replicas:
        cells, ends = [], []
        for recorded in (False, True):
            dynamics._capturable = capturable if recorded else lambda _: False
            generator = torch.Generator("cuda").manual_seed(1)
            phase = dynamics.start(torch.as_tensor(molecule.positions), n, generator=generator)
            ends.append(dynamics.run(phase, 20, generator=generator))
            torch.cuda.synchronize()
            began = time.perf_counter()
            dynamics.run(ends[-1], given.steps, generator=generator)
            torch.cuda.synchronize()
            cells.append(f"{(time.perf_counter() - began) / given.steps * 1e3:.3f}")
        apart = float((ends[0].x - ends[1].x).abs().max())
        print(f"| {n:,} | {cells[0]} | {cells[1]} | {apart:.0e} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
