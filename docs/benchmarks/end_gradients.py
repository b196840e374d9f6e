"""Whether fields along the gradients of both ends help a drift in closed form: R² on held-out walkers, and ESS.

    python docs/benchmarks/end_gradients.py gmm-40-linear many-well-32 student-50d logistic funnel-10 --seeds 2

Base, path and dictionary are those of the catalogue, with 2,048 pilot walkers (gmm-40-linear 4,096) at 20 times and 30
steps of production; every row counts the target's gradients for one fresh walker.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from nessampler.methods.density.attempts import solve
from nessampler.methods.density.context import Context
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.problem import DensityProblem
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density

HEADER = "| system | seed | fields | number | R², mean over times | at t = 1 | ESS | log Z | gradients a walker | s |"


def problem_of(name: str) -> DensityProblem:
    """As the catalogue has it."""
    source = catalogue.find(name)
    config = resolve(load(source), source=str(source))
    assert isinstance(config, DensityConfig)
    return prepare_density(config, Path(source).parent).problem


def row(name: str, problem: DensityProblem, seed: int, ends: bool, walkers: int) -> str:
    """One drift, and fresh walkers with it."""
    started = time.perf_counter()
    pilots = 4096 if name == "gmm-40-linear" else 2048
    effort = DensityEffort(walkers=walkers, pilot_walkers=pilots, pilot_steps=20, steps=30, end_gradients=ends)
    context = Context(problem, effort, seed, "cpu", lambda _: None, lambda *_: None, lambda **_: None, None)
    path = CountedPath(problem.path)
    with path.stage("pilot"), torch.no_grad():
        solved = solve(context, path)
    with path.stage("sampling"):
        drawn = solved.annealing.draw(walkers, generator=context.generator("draw lsq"), chunk_size=problem.chunk_size)
    quality, tally = np.array(solved.drift.r_squared), path.tallies["sampling"]
    value, error = solved.annealing.base_log_z + drawn.log_z_ratio, drawn.log_z_error
    return (
        f"| {name} | {seed} | {'and both ends' if ends else 'default'} | {solved.field.field.dictionary.size} | "
        f"{quality.mean():.3f} | {quality[-1]:.3f} | {drawn.ess:.3f} | {value:.4f} ± {error:.4f} | "
        f"{(tally.energy + tally.gradient) / walkers:.0f} | {time.perf_counter() - started:.0f} |"
    )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--walkers", type=int, default=2048)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADER + "\n" + "|---" * HEADER.count(" | ") + "|---|", flush=True)
    for name in args.systems:
        problem = problem_of(name)
        for seed in range(args.seeds):
            for ends in (False, True):
                print(row(name, problem, seed, ends, args.walkers), flush=True)


if __name__ == "__main__":
    main()
