"""Every rung between two lattices, all on one set of end samples and all on the evaluate block, with what each costs.

    python docs/benchmarks/lattices.py phi4-couplings phi4-umbrellas --seeds 3 >> table.md

One climb fits every rung and every candidate of a rung; unlike a run, which evaluates what it reports, this evaluates
them all. Fields are float32, energies are summed in float64. A line per candidate: ΔF, its distance to the reference in
standard errors, energies and gradients of both states (of the whole rung up to there; with end states in brackets),
evaluations of velocity fields, seconds of this process, and the gain over plain BAR: in variance, and in variance ×
(energies and gradients of both states, end states included).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import torch

from nessampler.estimators import bar
from nessampler.methods.ends import Ends, generator_for, split_by_time
from nessampler.methods.ledger import Ledger
from nessampler.methods.plain import plain
from nessampler.methods.rungs.structure import structure_of
from nessampler.methods.stage import Candidate, Pilot, Stage
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.difference import effort_of
from nessampler.runs.target_problem import prepare_targets


@dataclass
class Climb:
    """One set of end samples and all that is tried on it."""

    config: DifferenceConfig
    seed: int

    def __post_init__(self) -> None:
        path = catalogue.find(self.config.name)
        ends = prepare_targets(self.config, path.parent)
        a, b = ends.samples_a.float(), ends.samples_b.float()
        self.structure, effort = structure_of(ends.target_a, ends.target_b), effort_of(self.config)
        common = Ends.of(ends.target_a, ends.target_b, self.structure.coordinates)
        fit, select, self.evaluate = split_by_time(a, b, effort.blocks, a.ndim == 2 + len(common.a.event_shape))
        self.flags = [flag.code for flag in ends.flags]
        self.endstates = sum(tally.energy + tally.gradient for tally in ends.evaluations)  # pyright: ignore
        self.ledger = Ledger(common.counted, ends.evaluations)  # pyright: ignore[reportArgumentType]
        self.stage = Stage(common, fit, select, effort, self.ledger, self.seed)

    def rows(self):
        """Candidates in turn, each with its own share of the costs of its rung up to then."""
        yield self._row((plain(self.stage.ends), None), self._spent())
        for rung in self.structure.rungs.values():
            before, best = self._spent(), None
            for candidate in rung(self.stage):
                row = self._row(candidate, before)
                yield row
                if best is None or (row["error"] or 1e9) < (best["error"] or 1e9):
                    best = row
                if row["pilot"].transport.name == "map" and best is row:
                    self.stage.below["map"] = row["pilot"]

    def _row(self, candidate: Candidate, before: dict[str, float]) -> dict[str, Any]:
        transport, network = candidate
        generator = generator_for(self.seed, f"evaluate {transport.description}")
        with self.ledger.charge(transport.name, "sampling", network):
            works = transport.works(self.evaluate, generator=generator)
        found, spent = bar(*works, seed=self.seed).widened(transport.systematic), self._spent()
        return {
            "pilot": Pilot(transport, works, found, 0.0, 0.0, network),
            "value": found.delta_f,
            "error": found.std_error,
            "overlap": found.overlap,
            **{key: spent[key] - before[key] for key in spent},
        }

    def _spent(self) -> dict[str, float]:
        table = self.ledger.evaluations()
        states = {
            key: sum(table[key][stage][kind] for stage in ("training", "sampling") for kind in ("energy", "gradient"))
            for key in ("state_a", "state_b")
        }
        return {**states, "fields": sum(table["networks"].values()), "seconds": time.process_time()}


def line(climb: Climb, row: dict[str, Any], first: dict[str, Any]) -> str:
    """Of the table."""
    transport, reference = row["pilot"].transport, climb.config.reference
    name = f"{transport.name}: {transport.description}"
    if row["error"] is None:
        return f"| {climb.config.name} | {climb.seed} | {name} | no overlap | | | | | | |"
    evaluations = row["state_a"] + row["state_b"]
    gain = (first["error"] / row["error"]) ** 2
    whole = evaluations + climb.endstates
    paid = gain * (first["state_a"] + first["state_b"] + climb.endstates) / whole
    z = (
        ""
        if reference is None
        else f"{(row['value'] - reference.value) / (row['error'] ** 2 + reference.std_error**2) ** 0.5:+.1f}"
    )
    return (
        f"| {climb.config.name} | {climb.seed} | {name} | {row['value']:.4f} ± {row['error']:.4f} | {z} | "
        f"{row['overlap']:.2f} | {evaluations / 1e3:.0f}k ({whole / 1e3:.0f}k) | {row['fields'] / 1e3:.0f}k | "
        f"{row['seconds']:.0f} | {gain:.1f}, {paid:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `nessampler run`")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| system | seed | transport | ΔF (kT) | z | overlap | evals (with end states) | fields | s | gain |",
        flush=True,
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.systems:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            path = catalogue.find(name)
            config = resolve(load(path), run={"seed": seed}, settings=args.set, source=str(path))
            assert isinstance(config, DifferenceConfig)
            climb, first = Climb(config, seed), None
            for row in climb.rows():
                first = first or row
                print(line(climb, row, first), flush=True)


if __name__ == "__main__":
    main()
