"""Are intervals, errors and bounds as good as they claim? Whole runs over many seeds on problems with known answers.

    python docs/benchmarks/calibration.py --seeds 200 --out runs/calibration.jsonl
    python docs/benchmarks/calibration.py --table --out runs/calibration.jsonl > docs/benchmarks/calibration-table.md

Every seed draws samples of its own and fits, selects and evaluates anew. A finished (problem, method, seed) is a line
of the file and is not repeated, so an interrupted run goes on where it stopped; several may write to one file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from calibration_claims import Cell, tables
from calibration_problems import everything, rows

Key = tuple[str, str, int]


def keys(problems: list[str], methods: list[str] | None, seeds: int) -> Iterator[Key]:
    """Seed by seed, so that an unfinished run knows equally much of everything."""
    for seed in range(seeds):
        for name in problems:
            for method in everything()[name].methods:
                if methods is None or method in methods:
                    yield name, method, seed


def read(path: Path) -> list[dict]:
    """What is in the file, each (problem, method, seed) once; a line that was cut off is left out."""
    found: dict[Key, list[dict]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[tuple(entry["key"])] = entry["rows"]
    return [{"run": key} | row for key, run in found.items() for row in run]


def run(path: Path, problems: list[str], methods: list[str] | None, seeds: int) -> list[dict]:
    """Run what is missing; all rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {tuple(row["run"]) for row in read(path)}
    for key in keys(problems, methods, seeds):
        if key not in done:
            entry = json.dumps({"key": key, "rows": list(rows(*key))})
            with path.open("a", encoding="utf-8") as file:
                file.write(entry + "\n")
    return read(path)


def cells(found: list[dict]) -> list[Cell]:
    """Rows of one problem, method and estimator together."""
    grouped: dict[tuple[str, str, str], list[dict]] = {}
    for row in found:
        grouped.setdefault((row["problem"], row["method"], row["estimator"]), []).append(row)
    return [Cell(*key, tuple(group)) for key, group in grouped.items()]


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--problems", choices=everything(), nargs="+", default=list(everything()))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/calibration.jsonl"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.table:
        print(tables(cells(read(asked.out))))
    else:
        run(asked.out, asked.problems, asked.methods, asked.seeds)


if __name__ == "__main__":
    main()
