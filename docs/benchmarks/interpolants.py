"""What the learned rung is trained along: interpolants, noise, pairs, pace, transfer, trunks, and when it stops.

    python docs/benchmarks/interpolants.py anharmonic-wells gmm-pair-40 --seeds 3

Rows of a system share its samples, seed by seed, and its number of training steps; each is one kind of network alone,
judged on the evaluate block.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from differences import prepare

from nessampler.closed_form import GaussianFields, equal_length_times
from nessampler.couplings import Independent, OptimalTransport
from nessampler.interpolants import EncodingDecoding, Linear, NoNoise, Quadratic, Retimed, SquareRoot, Trigonometric
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.feat import feat_rung
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.mixture_feat import learned_mixture_fields
from nessampler.methods.rungs import CLUSTER_RUNGS, VECTOR_RUNGS, Structure
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.difference import effort_of
from nessampler.runs.prepared import Prepared

GAUSSIANS = Structure({**VECTOR_RUNGS, "feat": feat_rung})
MIXTURES = Structure({**VECTOR_RUNGS, "feat": learned_mixture_fields})
CLUSTERS = Structure(CLUSTER_RUNGS)
STEPS = 128  # of sampling, for vectors
TO_THE_END = 20  # a patience that no training runs out of


class Setting(NamedTuple):
    """A row: how the rung is built, and what differs from its defaults."""

    name: str
    structure: Structure
    changes: dict


def _along(name: str, *given, **more) -> Setting:
    return Setting(name, GAUSSIANS, {"interpolation": Interpolation(*given, **more)})


def _retimed() -> Retimed:
    """The pace of equal stretching between two standard normals, a knot for each step."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
    return Retimed(Linear(), equal_length_times(GaussianFields(zero, zero, one, one).roughness, STEPS))


LINEAR = _along("linear")
CURVED = [
    _along("trigonometric", Trigonometric()),
    _along("encoding-decoding", EncodingDecoding()),
    _along("linear, optimal transport", Linear(), OptimalTransport()),
]
WELLS = [
    LINEAR,
    *CURVED[:2],
    _along("linear, γ² four times", Linear(SquareRoot(4.0))),
    _along("linear, γ = 2 t(1 - t)", Linear(Quadratic(4.0))),
    _along("linear, γ = 0", Linear(NoNoise())),
    _along("trigonometric, γ = 0", Trigonometric(NoNoise())),
    _along("linear, pace of equal stretching", pace="lipschitz"),
    _along("linear, retimed between normals", _retimed()),
    _along("linear, used as trigonometric", transfer=Trigonometric()),
    _along("linear, noisy targets", Linear(), Independent()),
    CURVED[2],
    Setting("linear, two trunks", GAUSSIANS, {"trunks": 2}),
    Setting("linear, two trunks of width 88", GAUSSIANS, {"trunks": 2, "width": 88}),
    Setting("linear, kept by loss", GAUSSIANS, {"stopping": "loss"}),
]
ON_MIXTURES = [
    Setting("mixtures", MIXTURES, {}),
    Setting("mixtures, two trunks", MIXTURES, {"trunks": 2}),
    Setting("mixtures, kept by loss", MIXTURES, {"stopping": "loss"}),
]
ON_CLUSTERS = [
    Setting("aligned", CLUSTERS, {}),
    Setting("aligned, optimal transport", CLUSTERS, {"interpolation": Interpolation(coupling=OptimalTransport())}),
    Setting("aligned, kept by loss", CLUSTERS, {"stopping": "loss"}),
]
ROWS = {
    "anharmonic-wells": [*WELLS, *ON_MIXTURES],
    "gmm-pair-40": [LINEAR, *CURVED, *ON_MIXTURES],
    "lj-13": ON_CLUSTERS,
}
SETTINGS = {
    "anharmonic-wells": ["ladder.feat.training_steps=600", "ladder.feat.width=128", "ladder.feat.depth=3"],
    "gmm-pair-40": ["ladder.feat.training_steps=200"],
    "lj-13": ["ladder.feat.training_steps=500"],
}


def found(system: str, setting: Setting, seed: int) -> tuple[Difference, float]:
    """The difference by the learned rung alone, and its core-seconds."""
    config, prepared = _prepared(system, seed)
    effort, started = effort_of(config), time.process_time()
    steps = effort.feat.sampling_steps if setting.structure is CLUSTERS else STEPS
    training = replace(effort.feat, **({"patience": TO_THE_END, "sampling_steps": steps} | setting.changes))
    difference = free_energy(
        prepared.target_a,
        prepared.target_b,
        prepared.samples_a,
        prepared.samples_b,
        method="feat",
        seed=seed,
        effort=replace(effort, feat=training),
        structure=setting.structure,
        endstate_evaluations=prepared.evaluations,
    )
    return difference, time.process_time() - started


@cache
def _prepared(system: str, seed: int) -> tuple[DifferenceConfig, Prepared]:
    """End states, sampled once for all rows."""
    return prepare(system, seed, "quick", SETTINGS[system], Path())


def line(system: str, name: str, reference: float, runs: list[tuple[Difference, float]]) -> str:
    """ΔF seed by seed, the other columns over the seeds."""
    rungs = [difference.rung for difference, _ in runs]
    known = [r.estimate for r in rungs if r.estimate.std_error is not None]
    values = ", ".join("none" if r.estimate.std_error is None else f"{r.estimate.delta_f:+.4f}" for r in rungs)
    error, off = (
        f"{math.sqrt(sum(v * v for v in column) / len(known)):.4f}" if known else ""
        for column in ([e.std_error for e in known], [e.delta_f - reference for e in known])
    )
    overlap = sum(r.estimate.overlap or 0.0 for r in rungs) / len(rungs)
    spent = [r.evaluations["state_b"]["training"] for r in rungs]
    energies, gradients = (round(sum(s[kind] for s in spent) / len(spent)) for kind in ("energy", "gradient"))
    networks = sum(sum(r.evaluations["networks"].values()) for r in rungs) / len(rungs)
    steps = ", ".join(str(_kept(difference)) for difference, _ in runs)
    seconds = sum(s for _, s in runs) / len(runs)
    numbers = f"{overlap:.4f} | {steps} | {energies} | {gradients} | {networks / 1e6:.2f} M | {seconds:.0f}"
    return f"| {system} | {name} | {values} | {error} | {off} | {numbers} |"


def _kept(difference: Difference) -> int:
    """The training step whose averaged weights were kept."""
    column = "held_out_error" if "held_out_error" in difference.metrics[0] else "validation"
    return min(difference.metrics, key=lambda row: row[column])["step"]


HEAD = (
    "| system | trained along | ΔF (kT), seed by seed | claimed error | off the reference (rms) | overlap "
    "| step kept | energies of B | gradients of B | fields | s |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", default=list(ROWS)[:2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="*", help="names of the second column; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(HEAD)
    for system in options.systems:
        reference = _prepared(system, 0)[0].reference
        assert reference is not None
        for setting in ROWS[system]:
            if options.rows is None or setting.name in options.rows:
                runs = [found(system, setting, seed) for seed in range(options.seeds)]
                print(line(system, setting.name, reference.value, runs), flush=True)


if __name__ == "__main__":
    main()
