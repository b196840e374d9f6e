"""Pairs of Gaussian mixtures: fitted from samples, in one step and along the fields of the interpolant.

    python docs/benchmarks/mixtures.py --seeds 0 1 2

Every row fits on 1,000 + 1,000 samples, selects on 500 + 500 and evaluates on 1,000 + 1,000 fresh ones. Prints a
Markdown table.
"""

import argparse
import time
from itertools import islice
from typing import Any

import numpy as np

from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort
from nessampler.methods.ends import generator_for
from nessampler.methods.mixtures import mixture_candidates
from nessampler.methods.rungs import VECTOR_RUNGS, Structure
from nessampler.targets import AnharmonicWell, Target
from nessampler.targets.mixture import random_mixture

SAMPLES = 2500
SCALES = (0.04858735157374206, 0.12692801104297263)  # softplus(-3), softplus(-2)


def pair(dimension: int) -> tuple[Target, Target]:
    """The catalogue's gmm-pair-40 and gmm-pair-100."""
    a, b = (
        random_mixture(modes, dimension, scale=scale, spread=2.0, seed=seed)
        for modes, scale, seed in ((16, SCALES[0], 0), (40, SCALES[1], 1))
    )
    return a, b


def wells() -> tuple[Target, Target]:
    """The catalogue's anharmonic-wells, which are no mixtures."""
    a = AnharmonicWell([0, 0, 0], stiffness=[1, 2, 4], quartic=[0.1, 0.2, 0.05], skew=[0.6, -0.4, 0.5], coupling=0.5)
    b = AnharmonicWell(
        [1.2, -0.8, 0.6], stiffness=[3, 1, 6], quartic=[0.3, 0.05, 0.2], skew=[-0.5, 0.8, 0.4], coupling=-0.4
    )
    return a, b


def only(which: int) -> Structure:
    """The rung with one of its mixture candidates alone: 0 component to component, 1 along the fields."""
    return Structure(dict(VECTOR_RUNGS) | {"fields": lambda stage: islice(mixture_candidates(stage), which, which + 1)})


MAP = {"method": "map"}
COMPONENTS = {"method": "fields", "structure": only(0)}
ALONG = {"method": "fields", "structure": only(1)}


def run(
    ends: tuple[Target, Target], effort: Effort, seed: int, samples: int = SAMPLES, **options: Any
) -> tuple[Difference, float]:
    """The result, and the core-seconds it took, sampling of the ends included."""
    began = time.process_time()
    x = [ends[k].sample(samples, generator=generator_for(seed, f"samples {name}")) for k, name in enumerate("ab")]
    result = free_energy(*ends, *x, seed=seed, effort=effort, **options)
    return result, time.process_time() - began


def evaluations(result: Difference, state: str) -> int:
    """Energies and gradients of a state, fit and pilots included."""
    return sum(sum(stage.values()) for stage in result.evaluations[state].values())


SYSTEMS = {
    # name: ends, steps along the fields, ΔF
    "gmm-pair-40": (pair(40), 250, 0.0),
    "gmm-pair-100": (pair(100), 250, 0.0),
    "anharmonic-wells": (wells(), 128, -0.2970628827866719),
}


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", choices=SYSTEMS, nargs="+", default=list(SYSTEMS))
    asked = parser.parse_args()
    columns = "system | transport | seed | ΔF − reference (kT) | std of works | energies A, B | fields | core-s"
    print(f"| {columns} |\n|{'---|' * len(columns.split('|'))}")
    for name in asked.systems:
        ends, steps, reference = SYSTEMS[name]
        for options in (MAP, COMPONENTS, ALONG):
            for seed in asked.seeds:
                result, seconds = run(ends, Effort(fields_steps=steps), seed, **options)
                estimate, works = result.delta_f, result.rung.works
                shown = "no overlap"
                if estimate.std_error is not None:
                    shown = f"{estimate.delta_f - reference:+.4f} ± {estimate.std_error:.4f}"
                spread = f"{np.std(works.forward):.2g}, {np.std(works.reverse):.2g}"
                a, b = (evaluations(result, state) for state in ("state_a", "state_b"))
                fields = sum(result.evaluations["networks"].values())
                label = result.rung.description
                print(
                    f"| {name} | {label} | {seed} | {shown} | {spread} | {a:,}, {b:,} | {fields:,} | {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
