"""Do flags fire where something is wrong, and only there? A confusion table over seeds.

    python docs/benchmarks/traps.py --seeds 20 --out runs/traps.jsonl > docs/benchmarks/traps-table.md

A finished (case, seed) is a line of the file and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path

import torch
from trap_cases import CASES, Case

TITLES = {"difference": "Differences", "density": "Densities"}
LEVELS = ("trusted", "caution", "not trusted", "refused")


def table(kind: str, found: list[dict]) -> str:
    """One row for each case of a kind."""
    columns = "case | what | seeds | " + " | ".join(LEVELS) + " | flags, and how often | outcome"
    lines = [f"| {columns} |", f"|{'---|' * len(columns.split('|'))}"]
    for name, case in CASES[kind].items():
        mine = [row for row in found if (row["kind"], row["case"]) == (kind, name)]
        if mine:
            lines.append(_row(name, case, mine))
    return "\n".join(lines)


def _row(name: str, case: Case, rows: list[dict]) -> str:
    levels, n = Counter(row["level"] for row in rows), len(rows)
    flags = Counter(code for row in rows for code in set(row["flags"]))
    shown = ", ".join(f"{code} {count}" for code, count in flags.most_common()) or "–"
    caught = n - levels["trusted"]
    wrong = [row["z"] for row in rows if row["z"] is not None and row["level"] == "trusted"]
    if case.trap:
        verdict = f"{caught / n:.0%} caught" + (f": {case.why_not}" if case.why_not else "")
    else:
        verdict = f"{caught} false alarms"
    if wrong:
        verdict += f"; z of the trusted {math.sqrt(sum(z * z for z in wrong) / len(wrong)):.1f} (rms)"
    counts = " | ".join(str(levels[level] or "") for level in LEVELS)
    return f"| {name} | {case.what} | {n} | {counts} | {shown} | {verdict} |"


def run(path: Path, seeds: int, kinds: list[str], only: list[str] | None) -> list[dict]:
    """Run what is missing; all rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    done = {(row["kind"], row["case"], row["seed"]) for row in found}
    for seed in range(seeds):
        for kind in kinds:
            for name, case in CASES[kind].items():
                if (kind, name, seed) in done or (only and not any(part in name for part in only)):
                    continue
                outcome = case.run(seed)._asdict()
                found.append({"kind": kind, "case": name, "seed": seed} | outcome)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found[-1]) + "\n")
    return found


def main() -> None:
    """Run what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--kinds", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--only", nargs="+", help="parts of names of cases")
    parser.add_argument("--out", type=Path, default=Path("runs/traps.jsonl"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = run(asked.out, asked.seeds, asked.kinds, asked.only)
    for kind in CASES:
        print(f"## {TITLES[kind]}\n\n{table(kind, found)}\n")


if __name__ == "__main__":
    main()
