"""Densities of the catalogue over seeds: the closed-form drift beside annealing and SMC at equal gradients.

    python docs/benchmarks/densities.py gmm-40 phi4-16 --seeds 3 --out runs/densities
    python docs/benchmarks/densities.py --beside lgcp-1600 phi4-128 --out runs/densities
    python docs/benchmarks/densities.py --table --out runs/densities > docs/benchmarks/densities-table.md

With `--beside`, cells that are there get the baselines that they lack, or that had fewer walkers than the chosen
method: annealing and SMC for as many gradients as its row took, without walkers carried back. A finished cell is a
file, so an interrupted run goes on where it stopped. Times are of this process, whose threads OMP_NUM_THREADS sets.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.result import Attempt
from nessampler.methods.density.sample import DensityMethod, sample_density
from nessampler.methods.density.smc import smc
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.methods.ends import generator_for
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import PreparedDensity, prepare_density

COLUMNS = ("system", "seed", "method", "walkers", "ESS", "back", "log Z", "z", "bounds", "gradients", "check",
           "fields", "seconds", "CPU", "flags")  # fmt: skip


def cell(name: str, seed: int, method: DensityMethod, settings: list[str]) -> dict[str, Any]:
    """One system and one seed; `auto` reports plain annealing too, and then SMC runs for as many gradients."""
    path = catalogue.find(name)
    config = resolve(load(path), run={"seed": seed}, settings=settings, source=str(path))
    assert isinstance(config, DensityConfig)
    started, busy = time.perf_counter(), time.process_time()
    prepared = prepare_density(config, path.parent)
    fitted = {"seconds": prepared.seconds, "gradients": prepared.evaluations.gradient + prepared.evaluations.energy}
    effort = DensityEffort(**config.sampling.model_dump())
    effort = replace(effort, baseline_walkers=effort.walkers)
    found = sample_density(prepared.problem, method=method, seed=seed, effort=effort, device=config.run.device)
    rows = [_row(a, config, a.name == found.chosen) for a in found.attempts]
    spent = next(r["gradients"] for r in rows if r["chosen"]) + fitted["gradients"]
    if method == "auto":
        rows.append(_smc(prepared, config, effort, spent, seed))
    return {
        "system": name,
        "seed": seed,
        "settings": settings,
        "knowledge": prepared.problem.knowledge,
        "base": fitted,
        "origin": found.origin_of_target_samples,
        "verdict": found.verdict.level,
        "flags": [f.code for f in found.flags],
        "chains": {stage: t.gradient + t.energy for stage, t in found.shared.items()},
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - busy,
        "rows": rows,
    }


def beside(found: dict[str, Any]) -> bool:
    """Give a cell the baselines that it lacks; whether it lacked any."""
    chosen = next(r for r in found["rows"] if r["chosen"])
    lacking = [
        name
        for name in ("ais", "smc")
        if not any(r["method"] == name and r["walkers"] >= chosen["walkers"] for r in found["rows"])
    ]
    if not lacking:
        return False
    path = catalogue.find(found["system"])
    config = resolve(load(path), run={"seed": found["seed"]}, settings=found["settings"], source=str(path))
    assert isinstance(config, DensityConfig)
    prepared = prepare_density(config, path.parent)
    effort = replace(DensityEffort(**config.sampling.model_dump()), reverse_walkers=0, walkers=chosen["walkers"])
    spent, rows = chosen["gradients"] + found["base"]["gradients"], []
    for name in lacking:
        started, busy = time.perf_counter(), time.process_time()
        if name == "smc":
            row = _smc(prepared, config, effort, spent, found["seed"])
        else:
            # Its own pilot of some per cent comes on top, as in cells of `auto`.
            steps = max(2, round(chosen["gradients"] / (effort.walkers * effort.leapfrog_steps)))
            plain = replace(effort, steps=steps)
            device = config.run.device
            ran = sample_density(prepared.problem, method="ais", seed=found["seed"], effort=plain, device=device)
            row = _row(ran.attempt, config, chosen=False)
        row["share"] = (time.process_time() - busy) / (time.perf_counter() - started)
        rows.append(row)
    found["rows"] = sorted(
        [r for r in found["rows"] if r["method"] not in lacking] + rows,
        key=lambda r: r["method"],
    )
    return True


def _row(attempt: Attempt, config: DensityConfig, chosen: bool) -> dict[str, Any]:
    z, spent = attempt.log_z, attempt.evaluations["target"]
    counted = [stage for stage in spent if stage not in ("reverse", "checks")]
    bounds = attempt.bounds
    return {
        "method": attempt.name,
        "chosen": chosen,
        "walkers": z.n,
        "log_z": z.value,
        "std_error": z.std_error,
        "systematic": z.systematic,
        "ess": z.ess,
        "ess_error": z.ess_error,
        "reverse_ess": attempt.reverse_ess and attempt.reverse_ess[0],
        "reverse_ess_error": attempt.reverse_ess and attempt.reverse_ess[1],
        "bounds": None if bounds is None else [bounds.lower, bounds.upper],
        "gradients": sum(spent[s]["gradient"] + spent[s]["energy"] for s in counted),
        "check": sum(t["gradient"] + t["energy"] for stage, t in spent.items() if stage not in counted),
        "fields": sum(n for s, n in attempt.evaluations["field"].items() if s != "reverse"),
        "seconds": sum(s for stage, s in attempt.seconds.items() if stage != "reverse"),
        "flags": [f.code for f in z.flags],
    }


def _smc(
    prepared: PreparedDensity, config: DensityConfig, effort: DensityEffort, spent: int, seed: int
) -> dict[str, Any]:
    """Islands of as many particles as walkers, with temperatures for the same gradients, its pilot included."""
    problem, started = prepared.problem, time.perf_counter()
    mover = Hamiltonian(effort.leapfrog_steps, mass=problem.mass, step_size=problem.step_size)
    particles, islands = effort.walkers // 8, 8
    # A pilot island makes about seven moves at each of its own temperatures, about 30 of them.
    pilot = 200 * 7 * 30 * effort.leapfrog_steps
    steps = max(4, round((spent - pilot) / (effort.walkers * effort.leapfrog_steps)))
    found = smc(
        problem.path,
        particles=particles,
        islands=islands,
        pilots=200,
        mover=mover,
        steps=steps,
        dtype=problem.dtype,
        generator=generator_for(seed, "smc", config.run.device),
    )
    return {
        "method": "smc",
        "chosen": False,
        "walkers": effort.walkers,
        "log_z": found.log_z,
        "std_error": found.std_error,
        "systematic": 0.0,
        "ess": None,
        "ess_error": None,
        "reverse_ess": None,
        "reverse_ess_error": None,
        "bounds": None,
        "gradients": sum(t.gradient + t.energy for t in found.evaluations.values()),
        "check": 0,
        "fields": 0,
        "seconds": time.perf_counter() - started,
        "flags": [flag.code for flag in found.flags],
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown, a line per system, seed and method; † where base or path were told about the target."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for found in sorted(cells, key=lambda c: (c["system"], c["seed"])):
        known = load(catalogue.find(found["system"])).get("reference")
        system = found["system"] + (" †" if found["knowledge"] else "")
        for row in found["rows"]:
            ess = "" if row["ess"] is None else f"{row['ess']:.3f} ± {row['ess_error']:.3f}"
            back = "" if row["reverse_ess"] is None else f"{row['reverse_ess']:.3f}"
            back += f" ± {row['reverse_ess_error']:.3f}" if row.get("reverse_ess_error") is not None else ""
            bounds = "" if row["bounds"] is None else " to ".join(_bound(b) for b in row["bounds"])
            value = "none" if row["log_z"] is None else f"{row['log_z']:.4f} ± {row['std_error']:.4f}"
            name = f"**{row['method']}**" if row["chosen"] else row["method"]
            extra = found["base"] if row["chosen"] else {"gradients": 0, "seconds": 0}
            seconds, share = row["seconds"] + extra["seconds"], row.get("share", _share(found))
            lines.append(
                f"| {system} | {found['seed']} | {name} | {row['walkers']} | {ess} | {back} | {value} | "
                f"{_z(row, known)} | {bounds} | {_millions(row['gradients'] + extra['gradients'])} | "
                f"{_check(row, found)} | {_millions(row['fields'])} | {seconds:.0f} | "
                f"{'' if share is None else round(share * seconds)} | "
                f"{', '.join(row['flags'])} |"
            )
    return "\n".join(lines) + "\n"


def scaling(cells: list[dict[str, Any]], quartic: float = 0.9) -> str:
    """CPU seconds per effective sample of the drift on lattices of one coupling, and the exponent of L."""
    points: dict[int, list[float]] = {}
    for found in cells:
        target = load(catalogue.find(found["system"]))["target"]
        if target["name"] != "phi4" or target["quartic"] != quartic:
            continue
        for row in found["rows"]:
            if row["method"] == "lsq" and row["walkers"] > 1024:
                seconds = row["seconds"] * (_share(found) or 1.0)
                points.setdefault(target["size"], []).append(seconds / (row["walkers"] * row["ess"]))
    if len(points) < 2:
        return ""
    sizes = sorted(points)
    cost = [sum(points[size]) / len(points[size]) for size in sizes]
    exponent = np.polyfit(np.log(sizes), np.log(cost), 1)[0]
    lines = [f"| L (λ = {quartic}) | seeds | CPU seconds per effective sample |", "|---|---|---|"]
    lines += [f"| {size} | {len(points[size])} | {c:.4f} |" for size, c in zip(sizes, cost, strict=True)]
    return "\n".join(lines) + f"\n\nExponent of L, least squares in logarithms: {exponent:.2f}.\n"


def agreement(cells: list[dict[str, Any]]) -> str:
    """What the seeds of a lattice say together, each weighed by its error, beside the integration along couplings."""
    values: dict[str, list[tuple[float, float]]] = {}
    for found in sorted(cells, key=lambda c: (c["system"], c["seed"])):
        if found["system"].startswith("phi4"):
            rows = (r for r in found["rows"] if r["method"] == "lsq" and r["chosen"] and r["log_z"] is not None)
            values.setdefault(found["system"], []).extend((r["log_z"], r["std_error"]) for r in rows)
    lines = ["| lattice | seeds | drift, all seeds | integration | z | χ² of the seeds |", "|---|---|---|---|---|---|"]
    for name, found in values.items():
        known = load(catalogue.find(name)).get("reference")
        if known is None or len(found) < 2:
            continue
        weight = np.array([1 / error**2 for _, error in found])
        mean, error = np.average([v for v, _ in found], weights=weight), weight.sum() ** -0.5
        chi = sum(w * (v - mean) ** 2 for w, (v, _) in zip(weight, found, strict=True))
        z = (mean - known["value"]) / math.hypot(error, known["std_error"])
        ours, theirs = f"{mean:.5f} ± {error:.5f}", f"{known['value']:.5f} ± {known['std_error']:.5f}"
        lines.append(f"| {name} | {len(found)} | {ours} | {theirs} | {z:+.1f} | {chi:.1f} for {len(found) - 1} |")
    return "\n".join(lines) + "\n"


def _share(found: dict[str, Any]) -> float | None:
    """Of a core, that the cell had: seconds times this is what it would take alone. Unknown for the oldest cells."""
    return found["cpu_seconds"] / found["seconds"] if "cpu_seconds" in found else None


def _z(row: dict[str, Any], reference: dict[str, Any] | None) -> str:
    if reference is None or row["log_z"] is None:
        return ""
    error = math.hypot(row["std_error"], reference["std_error"])
    return f"{(row['log_z'] - reference['value']) / error:+.1f}" if error > 0 else ""


def _bound(value: float | None) -> str:
    """None where a walker found no way back."""
    return "none" if value is None else f"{value:.3f}"


def _check(row: dict[str, Any], found: dict[str, Any]) -> str:
    """Walkers carried back, and the long chains that they start from."""
    if "check" not in row:
        return ""
    return _millions(row["check"] + (sum(found["chains"].values()) if row["chosen"] else 0))


def _millions(n: int) -> str:
    return f"{n / 1e6:.2f} M"


def main() -> None:
    """Run the cells that are not there yet, or print the table of those that are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, help="only this one, as when cells share the work of several processes")
    parser.add_argument("--method", default="auto", help="one that runs alone, without the others beside it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `nessampler run`")
    parser.add_argument("--out", type=Path, default=Path("runs/densities"))
    parser.add_argument("--beside", action="store_true", help="baselines for cells that are there")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        cells = [json.loads(p.read_text(encoding="utf-8")) for p in sorted(options.out.glob("*.json"))]
        print(table(cells) + "\n" + scaling(cells) + "\n" + agreement(cells), end="")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds) if options.seed is None else [options.seed]:
        for name in options.systems:
            path = options.out / f"{name}-{seed}.json"
            if options.beside:
                found = json.loads(path.read_text(encoding="utf-8"))
                if beside(found):
                    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
                    print(table([found]).splitlines()[2:], flush=True)
                continue
            if path.exists():
                continue
            found = cell(name, seed, options.method, options.set)
            path.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(table([found]).splitlines()[2:], flush=True)


if __name__ == "__main__":
    main()
