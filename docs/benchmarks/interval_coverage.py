"""Do 95 % intervals cover, and do the bounds hold? Over many seeds, each with samples and fits of its own.

    python docs/benchmarks/interval_coverage.py --seeds 200 --out runs/coverage.jsonl

A seed has samples that transports are fitted to, and fresh ones that are carried along them, in one block or several.
Seeds that are in the file are not repeated. Prints a Markdown table.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mixtures import ALONG, pair, run, wells
from scipy.stats import binom, kstest

from nessampler.estimators import bar, bounds
from nessampler.methods.effort import Effort
from nessampler.methods.ends import Block, generator_for

SAMPLES = 1000  # of either end, for a fit: 400 fit, 200 select, 400 unused
CARRIED = 400  # of either end, in a block
PROBLEMS = {
    # name: ends, steps of the fields, ΔF, options
    "gmm-pair-40": (pair(40), 64, 0.0, ALONG),
    "anharmonic-wells": (wells(), 16, -0.2970628827866719, {"method": "fields"}),
}


def rows(name: str, fit: int, blocks: int) -> Iterator[dict]:
    """Estimate, interval and bounds of every rung that has overlap, block by block."""
    ends, steps, truth, options = PROBLEMS[name]
    result, _ = run(ends, Effort(fields_steps=steps, tuning_samples=25), fit, SAMPLES, **options)
    pilots = [rung.pilot for rung in result.rungs if rung.estimate.std_error is not None]
    for block in range(blocks):
        seed = 1000 * (fit + 1) + block
        x = [ends[k].sample(CARRIED, generator=generator_for(seed, f"samples {side}")) for k, side in enumerate("ab")]
        fresh = Block(x[0][None], x[1][None], correlated=False)
        for pilot in pilots:
            works = pilot.transport.works(fresh, generator=generator_for(seed, f"evaluate {pilot.transport.name}"))
            estimate, limits = bar(*works, seed=seed), bounds(*works)
            yield {
                "problem": name,
                "rung": pilot.transport.name,
                "fit": fit,
                "block": block,
                "z": (estimate.delta_f - truth) / estimate.std_error,
                "std_error": estimate.std_error,
                "covered": bool(estimate.ci95[0] <= truth <= estimate.ci95[1]),
                "bounded": _within(truth, limits.lower_limit, limits.upper_limit),
                "tightly": _within(truth, *limits.tightest_limits),
            }


def _within(value: float, lower: float | None, upper: float | None) -> bool:
    return (lower is None or lower <= value) and (upper is None or value <= upper)


def table(found: list[dict]) -> str:
    """One row for every problem and rung."""
    columns = "problem | rung | estimates | 95 % intervals cover | 99 % of such counts | mean z | std z | KS p"
    columns += " | error (kT) | second-law bounds hold | importance-weighted too"
    lines = [f"| {columns} |", f"|{'---|' * len(columns.split('|'))}"]
    for problem, rung in dict.fromkeys((r["problem"], r["rung"]) for r in found):
        mine = [r for r in found if (r["problem"], r["rung"]) == (problem, rung)]
        z, n = np.array([r["z"] for r in mine]), len(mine)
        low, high = (binom.ppf(q, n, 0.95) / n for q in (0.005, 0.995))
        covered, bounded, tightly = (sum(r[key] for r in mine) for key in ("covered", "bounded", "tightly"))
        error = np.mean([r["std_error"] for r in mine])
        cells = f"{problem} | {rung} | {n} | {covered / n:.1%} | {low:.1%} to {high:.1%} | {z.mean():+.2f}"
        cells += f" | {z.std(ddof=1):.2f} | {kstest(z, 'norm').pvalue:.2f} | {error:.4f}"
        cells += f" | {bounded} of {n} | {tightly} of {n}"
        lines.append(f"| {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200, help="0, 1, …")
    parser.add_argument("--blocks", type=int, default=1, help="of each fit")
    parser.add_argument("--problems", choices=PROBLEMS, nargs="+", default=list(PROBLEMS))
    parser.add_argument("--out", type=Path, default=Path("runs/coverage.jsonl"))
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found = [json.loads(line) for line in asked.out.read_text().splitlines()] if asked.out.exists() else []
    done = {(r["problem"], r["fit"]) for r in found}
    for key in ((name, fit) for name in asked.problems for fit in range(asked.seeds)):
        if key not in done:
            found += (fresh := list(rows(*key, asked.blocks)))
            with asked.out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in fresh)
    print(table(found))


if __name__ == "__main__":
    main()
