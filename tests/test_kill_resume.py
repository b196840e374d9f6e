"""A run that is killed goes on to the result of one that was not, to the last bit, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interruption import PROBLEMS, Moment, Whole, killed_and_resumed, moments, run_to_the_end, started

FEW = {"difference": 2, "density": 2, "molecule": 1}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Whole]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: run_to_the_end(problem, folder / name, folder / f"{name}.log") for name, problem in PROBLEMS.items()}


def check(name: str, whole: Whole, folder: Path, *, n: int, seed: int) -> None:
    for k, moment in enumerate(moments(whole, n, seed)):
        at, result = killed_and_resumed(PROBLEMS[name], moment, folder / str(k), folder / f"{k}.log")
        assert result == whole.result, f"killed {moment}: {at}"


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_run_killed_at_a_few_moments_goes_on_to_the_same_result(
    name: str, wholes: dict[str, Whole], tmp_path: Path
) -> None:
    check(name, wholes[name], tmp_path, n=FEW[name], seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_run_killed_at_any_of_thirty_moments_goes_on_to_the_same_result(
    name: str, wholes: dict[str, Whole], tmp_path: Path
) -> None:
    check(name, wholes[name], tmp_path, n=30, seed=2)


def test_a_run_killed_twice_goes_on_to_the_same_result(wholes: dict[str, Whole], tmp_path: Path) -> None:
    problem, whole = PROBLEMS["difference"], wholes["difference"]
    out, log = tmp_path / "run", tmp_path / "log"
    for moment in (Moment(file=3), Moment(file=2)):
        pid = started(["run", *problem.arguments, "--out", out, "--resume"], log, moment.kill_beside)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert killed_and_resumed(problem, Moment(file=5, after=True), out, log, resume=True)[1] == whole.result


def test_another_seed_would_be_seen(wholes: dict[str, Whole], tmp_path: Path) -> None:
    problem = PROBLEMS["difference"]
    other = type(problem)(problem.what, (*problem.arguments, "--seed", "1"))
    assert run_to_the_end(other, tmp_path / "run", tmp_path / "log").result != wholes["difference"].result


# --- in processes of its own --------------------------------------------------------------------------------------

WORK = """
import sys
from nessampler.molecular.contexts import ContextPool
import os, time
if __name__ == "__main__":
    pool = ContextPool(2)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        worker = int(run.stdout.readline())
        assert alive(worker)
        run.kill()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
