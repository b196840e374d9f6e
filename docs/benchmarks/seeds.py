"""Run a system with several seeds and set the spread beside the errors the runs claim.

    python docs/benchmarks/seeds.py SYSTEM --seeds 5 --preset quick --out runs/seeds

Runs that are finished are not repeated. Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np


def result(system: str, preset: str, seed: int, out: Path) -> dict:
    """The result of one run, from disk if it is there."""
    command = [sys.executable, "-m", "nessampler.cli", "run", system, "--preset", preset, "--seed", str(seed)]
    subprocess.run([*command, "--out", str(out), "--resume"], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def estimate(table: dict, rung: str | None = None) -> tuple[float, float]:
    """Value and error of the reported estimate, or of a rung."""
    source = table if rung is None else next(r for r in table["rungs"] if r["name"] == rung)
    return source["delta_f"]["value"], source["delta_f"]["std_error"]


def spread(name: str, pairs: list[tuple[float, float]]) -> str:
    """Mean, standard deviation over the runs, and the root mean square of the claimed errors."""
    values, errors = np.array(pairs).T
    claimed = np.sqrt(np.mean(errors**2))
    return f"| {name} | {values.mean():.3f} | {values.std(ddof=1):.3f} | {claimed:.3f} |"


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    asked = parser.parse_args()
    tables = [
        result(asked.system, asked.preset, seed, asked.out / f"{asked.system}-{asked.preset}-{seed}")
        for seed in range(asked.seeds)
    ]
    print("| seed | rung | ΔF (kT) | overlap | z | plain BAR (kT) | plain overlap | flags |")
    print("|---|---|---|---|---|---|---|---|")
    for table in tables:
        value, error = estimate(table)
        plain = next(r for r in table["rungs"] if r["name"] == "plain")
        plain_value, plain_error = estimate(table, "plain")
        z = "–" if table["z_score"] is None else f"{table['z_score']:.2f}"
        flags = ", ".join(f["code"] for f in table["flags"]) or "none"
        print(
            f"| {table['seed']} | {table['rung']} | {value:.3f} ± {error:.3f} | {table['overlap']:.2f} | {z} | "
            f"{plain_value:.3f} ± {plain_error:.3f} | {plain['overlap']:.2f} | {flags} |"
        )
    print("\n| estimator | mean | spread over the seeds | claimed error (rms) |")
    print("|---|---|---|---|")
    print(spread("reported", [estimate(t) for t in tables]))
    print(spread("map", [estimate(t, "map") for t in tables]))
    print(spread("plain BAR", [estimate(t, "plain") for t in tables]))


if __name__ == "__main__":
    main()
