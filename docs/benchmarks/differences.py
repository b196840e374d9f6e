"""Differences of the catalogue over seeds: every rung, and staged MBAR, on the same end samples, with all costs.

    python docs/benchmarks/differences.py gmm-pair-40 lj-13 --seeds 3 --out runs/differences
    python docs/benchmarks/differences.py --table --out runs/differences > docs/benchmarks/differences-table.md

Every method sees the same fit, select and evaluate blocks. Staged MBAR samples anew, at states of a path, from the same
end samples, for as many evaluations as `auto`, end states and training included. A finished row is a file, so an
interrupted run goes on where it stopped. Times are of this process, whose threads OMP_NUM_THREADS sets.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch

from nessampler.methods.difference import Difference, RungResult, free_energy
from nessampler.methods.ends import generator_for
from nessampler.methods.ladder import Method
from nessampler.methods.staged_within import staged_within
from nessampler.runs import catalogue
from nessampler.runs.config import DifferenceConfig, load, resolve
from nessampler.runs.difference import effort_of
from nessampler.runs.prepared import Prepared

Row = dict[str, Any]
SECOND = ("auto", "staged")  # auto first: what the others do does not depend on it, but staged takes its budget
ROUNDING = 1e-9  # kT: an error below this is that of arithmetic
STATES = ("state_a", "state_b")


def prepare(
    name: str, seed: int, preset: str | None, settings: list[str], out: Path
) -> tuple[DifferenceConfig, Prepared]:
    """End states, from disk where a molecule's were sampled before."""
    path = catalogue.find(name)
    config = resolve(load(path), run={"seed": seed}, preset=preset, settings=settings, source=str(path))
    assert isinstance(config, DifferenceConfig)
    if not config.molecular:
        from nessampler.runs.target_problem import prepare_targets

        return config, prepare_targets(config, path.parent)
    from nessampler.runs.molecular_problem import prepare_molecular

    return config, prepare_molecular(config, path.parent, out / f"{name}-{seed}", lambda *_: None)


def rungs(config: DifferenceConfig, prepared: Prepared, method: Method) -> list[Row]:
    """The rung asked for; `auto` gives plain, map and what it chose."""
    started, busy = time.perf_counter(), time.process_time()
    found = free_energy(
        prepared.target_a,
        prepared.target_b,
        prepared.samples_a,
        prepared.samples_b,
        method=method,
        coordinates=prepared.coordinates,
        seed=config.run.seed,
        effort=effort_of(config),
        endstate_evaluations=prepared.evaluations,
        endstate_flags=prepared.flags,
        say=lambda line: print("   ", line, flush=True),
    )
    spent = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - busy}
    return [_row(config, found, r, method) | spent for r in found.rungs if r.name == found.chosen]


def _row(config: DifferenceConfig, found: Difference, rung: RungResult, method: str) -> Row:
    bounds = rung.bounds
    return {
        "method": method,
        "rung": rung.name,
        "description": rung.description,
        "delta_f": rung.estimate.delta_f,
        "std_error": rung.estimate.std_error,
        "n": list(rung.estimate.n),
        "overlap": rung.estimate.overlap,
        "limits": list(bounds.tightest_limits),
        "evaluations": dict(found.evaluations if method == "auto" else rung.evaluations),
        "flags": [f.code for f in found.flags],
    }


def multistate(config: DifferenceConfig, prepared: Prepared, budget: float) -> Row:
    """MBAR over chains at states of a path, for what the end samples leave of a budget."""
    started, busy = time.perf_counter(), time.process_time()
    table = {
        name: {"endstates": {"energy": tally.energy, "gradient": tally.gradient}}
        for name, tally in zip(STATES, prepared.evaluations, strict=True)
    }
    made = staged_within(
        prepared.target_a,
        prepared.target_b,
        prepared.samples_a,
        prepared.samples_b,
        evaluations=budget - cost(config, {"evaluations": table | {"networks": {}}}),
        prices=(config.state_a.relative_cost, config.state_b.relative_cost),
        generator=generator_for(config.run.seed, "staged"),
    )
    for name, tally in zip(STATES, made.spent, strict=True):
        table[name]["sampling"] = {"energy": tally.energy, "gradient": tally.gradient}
    found = made.found.multistate
    return {
        "method": "staged",
        "rung": "staged",
        "description": f"MBAR over {len(made.found.times)} states of {made.chains} Hamiltonian chains",
        "delta_f": found.delta_f,
        "std_error": found.std_error,
        "n": list(found.n),
        "overlap": None,
        "limits": [None, None],
        "evaluations": table | {"networks": {}},
        "flags": [f.code for f in made.flags],
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - busy,
    }


def cost(config: DifferenceConfig, row: Row) -> float:
    """In evaluations of the dearer unit: each state at its relative cost, fields and networks at theirs."""
    prices = {"state_a": config.state_a.relative_cost, "state_b": config.state_b.relative_cost}
    total = sum(
        price * sum(sum(kinds.values()) for kinds in row["evaluations"][state].values())
        for state, price in prices.items()
    )
    return total + config.ladder.network_cost * sum(row["evaluations"]["networks"].values())


def cells(name: str, seed: int, methods: list[str], preset: str | None, settings: list[str], out: Path) -> None:
    """Every method that has no row yet, on one set of end samples."""
    missing = [m for m in methods if not _file(out, name, seed, m).exists()]
    if not missing:
        return
    config, prepared = prepare(name, seed, preset, settings, out)
    try:
        for method in missing:
            print(f"{name}, seed {seed}: {method}", flush=True)
            made = _made(method, config, prepared, lambda: _budget(out, name, seed))
            for row in made:
                row |= {"system": name, "seed": seed, "preset": preset, "settings": settings, "cost": cost(config, row)}
                row["reference"] = None if config.reference is None else config.reference.model_dump()
                _file(out, name, seed, method).write_text(json.dumps(row, indent=1), encoding="utf-8")
                print(line(row), flush=True)
    finally:
        prepared.close()


def _made(method: str, config: DifferenceConfig, prepared: Prepared, budget: Callable[[], float]) -> list[Row]:
    if method == "staged":
        return [multistate(config, prepared, budget())]
    return rungs(config, prepared, method)  # pyright: ignore[reportArgumentType]


def _budget(out: Path, name: str, seed: int) -> float:
    """What `auto` spent, end states and training included."""
    return json.loads(_file(out, name, seed, "auto").read_text(encoding="utf-8"))["cost"]


def _file(out: Path, name: str, seed: int, method: str) -> Path:
    return out / f"{name}-{seed}-{method}.json"


def line(row: Row, plain: Row | None = None) -> str:
    """One row of the table; `gain` is variance × cost of plain BAR over that of the row."""
    value = "none" if row["std_error"] is None else f"{row['delta_f']:.3f} ± {row['std_error']:.3f}"
    name = row["method"] if row["method"] == row["rung"] else f"{row['method']} ({row['rung']})"
    low, high = (("" if v is None else f"{v:.2f}") for v in row["limits"])
    spent = [_thousands(_beyond(row, state)) for state in ("state_a", "state_b")]
    networks = _thousands(sum(row["evaluations"]["networks"].values()))
    overlap = "" if row["overlap"] is None else f"{row['overlap']:.2f}"
    flags = ", ".join(dict.fromkeys(row["flags"]))
    parts = [row["system"], row["seed"], name, value, _z(row), overlap, f"{low} … {high}", *spent, networks]
    parts += [_thousands(row["cost"]), _gain(row, plain), round(row["cpu_seconds"]), flags]
    return f"| {' | '.join(map(str, parts))} |"


HEAD = (
    "| system | seed | method | ΔF (kT) | z | overlap | 99.9 % bounds | evals A | evals B | fields | cost | gain "
    "| CPU s | flags |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def _beyond(row: Row, state: str) -> int:
    """Evaluations beyond the end states."""
    return sum(sum(kinds.values()) for stage, kinds in row["evaluations"][state].items() if stage != "endstates")


def _gain(row: Row, plain: Row | None) -> str:
    if plain is None or plain is row or row["std_error"] is None:
        return ""
    if plain["std_error"] is None:
        return "∞"
    return f"{plain['std_error'] ** 2 * plain['cost'] / (row['std_error'] ** 2 * row['cost']):.2g}"


def _z(row: Row) -> str:
    known = row["reference"]
    if known is None or row["std_error"] is None:
        return ""
    error = math.hypot(row["std_error"], known["std_error"])
    return f"{(row['delta_f'] - known['value']) / error:+.1f}" if error > ROUNDING else "exact"


def _thousands(n: float) -> str:
    return f"{n / 1e6:.2f} M" if n >= 1e6 else f"{n / 1e3:.1f} k"


def table(rows: list[Row]) -> str:
    """Markdown, a line per system, seed and method, and the scatter over seeds."""
    order = {m: i for i, m in enumerate((*get_args(Method)[:-1], "staged", "auto"))}
    rows = sorted(rows, key=lambda r: (r["system"], r["seed"], order.get(r["method"], 99)))
    plain = {(r["system"], r["seed"]): r for r in rows if r["method"] == "plain"}
    lines = [HEAD, *(line(r, plain.get((r["system"], r["seed"]))) for r in rows)]
    lines += ["", "| system | method | seeds | mean ΔF | spread of the seeds | claimed error (rms) | largest \\|z\\| |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for key in dict.fromkeys((r["system"], r["method"]) for r in rows):
        group = [r for r in rows if (r["system"], r["method"]) == key and r["std_error"] is not None]
        if len(group) > 1:
            lines.append(_scatter(*key, group))
    return "\n".join(lines) + "\n"


def _scatter(system: str, method: str, group: list[Row]) -> str:
    values = torch.tensor([r["delta_f"] for r in group], dtype=torch.float64)
    claimed = math.sqrt(sum(r["std_error"] ** 2 for r in group) / len(group))
    scores = [abs(float(z)) for r in group if (z := _z(r)) not in ("", "exact")]
    largest = f"{max(scores):.1f}" if scores else ""
    return (
        f"| {system} | {method} | {len(group)} | {float(values.mean()):.3f} | {float(values.std()):.3f} | "
        f"{claimed:.3f} | {largest} |"
    )


def main() -> None:
    """Run the rows that are not there yet, or print the table of those that are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=[*get_args(Method), "staged"])
    parser.add_argument("--preset", help="as of `nessampler run`")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `nessampler run`")
    parser.add_argument("--out", type=Path, default=Path("runs/differences"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        rows = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(options.out.glob("*-*-*.json"))]
        print(table(rows), end="")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    methods = sorted(options.methods, key=lambda m: SECOND.index(m) + 1 if m in SECOND else 0)
    for seed in range(options.seeds):
        for name in options.systems:
            cells(name, seed, methods, options.preset, options.set, options.out)


if __name__ == "__main__":
    main()
