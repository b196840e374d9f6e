"""One seed, one result, in other processes, with one thread and with two: as docs/benchmarks/determinism.md says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from interruption import PROBLEMS, without_seconds

# All three problems in one process: importing takes longer than any of them.
RUN = """
import os
import sys
import torch
from interruption import PROBLEMS
from nessampler.cli import main
from nessampler.runs import page
os.cpu_count = lambda: 1
page.drawn = lambda *_: b"a figure"
torch.set_num_threads(int(sys.argv[1]))
for name, problem in PROBLEMS.items():
    sys.argv[1:] = ["run", *problem.arguments, "--out", name]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
"""


def results(here: Path, threads: int) -> dict[str, Any]:
    folder = here / str(threads)
    folder.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-c", RUN, str(threads)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return {name: without_seconds(json.loads((folder / name / "result.json").read_text())) for name in PROBLEMS}


@pytest.mark.slow  # six runs
def test_one_seed_with_one_thread_and_with_two(tmp_path: Path) -> None:
    one, two = (results(tmp_path, threads) for threads in (1, 2))
    for name in ("difference", "molecule"):
        assert two[name] == one[name], name
    # Two threads add in another order, and on the lattice walkers are float32.
    one, two = one["density"]["log_z"], two["density"]["log_z"]
    assert abs(two["value"] - one["value"]) < 0.01 * one["std_error"]
