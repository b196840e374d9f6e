"""Absolute free energy of a skewed, coupled well from its samples: what closed forms, and what learning, make of it.

    python docs/benchmarks/learned_fields.py --seeds 3

1,000 samples fit, 500 select, 1,000 + 1,000 evaluate; log Z is known by quadrature. Every row names the candidate
that its rung chose on the select block. Evaluations are of the well: of its energy, or of energy and gradient.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace

import torch

import nessampler as ns
from nessampler.methods.effort import Training
from nessampler.methods.rungs import VECTOR_RUNGS, Structure
from nessampler.methods.rungs.one_sided import ONE_SIDED
from nessampler.targets import AnharmonicWell

WELL = AnharmonicWell(
    [0.5, -0.2, 0.3], stiffness=[0.6, 1.5, 0.4], quartic=[0.3, 0.0, 0.05], skew=[2.5, -2.0, 2.4], coupling=1.0
)
LEARNED = Training(steps=600, width=64, depth=2, sampling_steps=48)
EFFORT = ns.Effort(fields_steps=48, feat=LEARNED)
TWO_SIDED = Structure(VECTOR_RUNGS)


def _learned(**changes) -> ns.Effort:
    return replace(EFFORT, feat=replace(LEARNED, **changes))


ROWS = {
    "plain": ("plain", EFFORT, TWO_SIDED),
    "map": ("map", EFFORT, TWO_SIDED),
    "fields": ("fields", EFFORT, ONE_SIDED),
    "switching, 12 steps": ("switching", EFFORT, TWO_SIDED),
    "switching, 48 steps": ("switching", replace(EFFORT, switching_steps=48), TWO_SIDED),
    "switching, 192 steps": ("switching", replace(EFFORT, switching_steps=192), TWO_SIDED),
    "feat, two-sided": ("feat", EFFORT, TWO_SIDED),
    "feat, one-sided": ("feat", EFFORT, Structure({**VECTOR_RUNGS, "feat": lambda stage: _last(ONE_SIDED, stage)})),
    "feat, refined on works": ("feat", _learned(refine_steps=200), TWO_SIDED),
    "feat, informed": ("feat", _learned(informed=True), TWO_SIDED),
}


def _last(structure: Structure, stage):
    """Only the last candidate of the learned rung."""
    *_, last = structure.rungs["feat"](stage)
    yield last


def main() -> None:
    """Print the table, row by row."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--rows", nargs="*", default=list(ROWS))
    options = arguments.parse_args()
    torch.set_num_threads(1)
    print("| method | seed | log Z − exact | error | z | energies | gradients | networks | s | chosen |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in options.rows:
        method, effort, structure = ROWS[name]
        for seed in range(options.seeds):
            x = WELL.sample(2500, generator=torch.Generator().manual_seed(100 + seed))
            started = time.process_time()
            found = ns.absolute_free_energy(WELL, x, method=method, effort=effort, structure=structure, seed=seed)
            spent, rung = found.difference.evaluations, found.difference.rung
            energies, gradients = (
                sum(spent["state_b"][s][kind] for s in ("training", "sampling")) for kind in ("energy", "gradient")
            )
            off, error = found.log_z - WELL.log_z, found.free_energy.std_error
            seconds, networks = time.process_time() - started, sum(spent["networks"].values())
            numbers = (
                f"{off:+.3f} | {error:.3f} | {off / error:+.1f} | {energies} | {gradients} | {networks} | {seconds:.0f}"
            )
            print(f"| {name} | {seed} | {numbers} | {rung.description} |", flush=True)
    assert math.isfinite(WELL.log_z)


if __name__ == "__main__":
    main()
