"""NETS trained from zero, as its paper does it, beside the same walkers without a drift at equal steps.

    python docs/benchmarks/nets.py phi4-16 phi4-20 gmm-200d --seed 0 --training-steps 2000
    python docs/benchmarks/nets.py phi4-16 --objective action-matching --seed 1 --seed 2

Prints one Markdown row for each system, seed and objective: the PINN loss, action matching, and AIS, which is annealing
by the same Langevin steps with zero drift and the diffusion tuned for it. ESS is that of fresh walkers without
resampling, its error by bootstrap; gradients and field evaluations count pilots, training and sampling, CPU seconds
are those of this process. † marks systems whose path or base was told where the modes are.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.sample import sample_density
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density

SYSTEMS, OBJECTIVES = ("phi4-16", "phi4-20", "gmm-200d"), ("pinn", "action-matching", "ais")
COLUMNS = (
    "system",
    "seed",
    "objective",
    "training steps",
    "walkers",
    "ESS",
    "log Z",
    "z",
    "gradients",
    "fields",
    "CPU s",
    "flags",
)


def row(name: str, seed: int, objective: str, effort: DensityEffort, settings: Sequence[str] = ()) -> str:
    """One line of the table."""
    path, busy = catalogue.find(name), time.process_time()
    config = resolve(load(path), run={"seed": seed}, settings=list(settings), source=str(path))
    assert isinstance(config, DensityConfig)
    prepared = prepare_density(config, path.parent)
    found = (_ais if objective == "ais" else _nets)(prepared.problem, seed, objective, effort)
    spent = found["gradients"] + prepared.evaluations.gradient + prepared.evaluations.energy
    estimate = found["log_z"]
    value = "none" if estimate.value is None else f"{estimate.value:.4f} ± {estimate.std_error:.4f}"
    cells = (
        name + (" †" if prepared.problem.knowledge else ""),
        seed,
        objective,
        found["training"],
        estimate.n,
        f"{estimate.ess:.3f} ± {estimate.ess_error:.3f}",
        value,
        _z(estimate, load(path).get("reference")),
        f"{spent / 1e6:.2f} M",
        f"{found['fields'] / 1e6:.2f} M",
        f"{time.process_time() - busy:.0f}",
        ", ".join(found["flags"]),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _nets(problem: DensityProblem, seed: int, objective: str, effort: DensityEffort) -> dict[str, Any]:
    chosen = replace(effort, nets_objective=objective)  # pyright: ignore[reportArgumentType]
    found = sample_density(replace(problem, target_samples=None), method="nets", seed=seed, effort=chosen)
    spent = found.attempt.evaluations
    return {
        "log_z": found.log_z,
        "training": found.metrics[-1]["step"],
        "gradients": sum(n for stage in spent["target"].values() for n in stage.values()),
        "fields": sum(spent["field"].values()),
        "flags": [flag.code for flag in found.flags],
    }


def _ais(problem: DensityProblem, seed: int, objective: str, effort: DensityEffort) -> dict[str, Any]:
    """The same moves and as many steps with zero drift: its diffusion is tuned, too."""
    plain = replace(effort, kernel="langevin", nets_start="closed-form", nets_kernel="flow")
    found = sample_density(replace(problem, target_samples=None), method="ais", seed=seed, effort=plain)
    spent = found.attempt.evaluations["target"].values()
    return {
        "log_z": found.log_z,
        "training": 0,
        "gradients": sum(n for stage in spent for n in stage.values()),
        "fields": 0,
        "flags": [flag.code for flag in found.flags],
    }


def _z(estimate: Any, reference: dict[str, Any] | None) -> str:
    if reference is None or estimate.value is None:
        return ""
    error = math.hypot(estimate.std_error, reference["std_error"])
    return f"{(estimate.value - reference['value']) / error:+.1f}" if error > 0 else ""


def main() -> None:
    """Print the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--seed", type=int, action="append", help="one or more; 0 by default")
    parser.add_argument("--objective", action="append", choices=OBJECTIVES, help="all of them by default")
    parser.add_argument("--training-steps", type=int, default=1000)
    parser.add_argument("--training-walkers", type=int, default=2048)
    parser.add_argument("--walkers", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=200, help="of Langevin, from the base to the target")
    parser.add_argument("--kernel", choices=("langevin", "inertial"), default="langevin", help="of the trained drifts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `nessampler run`")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    effort = DensityEffort(
        walkers=asked.walkers,
        steps=asked.steps,
        leapfrog_steps=1,  # a step is a gradient
        reverse_walkers=0,
        nets_steps=asked.training_steps,
        nets_start="zero",
        nets_kernel=asked.kernel,
        training_walkers=asked.training_walkers,
    )
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for name in asked.systems:
        for seed in asked.seed or [0]:
            for objective in asked.objective or OBJECTIVES:
                print(row(name, seed, objective, effort, asked.set), flush=True)


if __name__ == "__main__":
    main()
