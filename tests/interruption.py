"""Runs that are killed, and gone on with: `python tests/interruption.py` writes the table in docs/benchmarks.

A run is a fork of this process, so that what takes seconds, importing, is done once; hence imports that look idle. It
is killed with SIGKILL: at an amount of processor time drawn at random, or just before or after one of its files is put
in its place.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import arviz  # noqa: F401
import h5netcdf  # noqa: F401
import torch
import torch._dynamo
import xarray  # noqa: F401

from nessampler.cli import main
from nessampler.runs import page, run  # noqa: F401

__all__ = [
    "PROBLEMS",
    "Moment",
    "Problem",
    "Whole",
    "killed_and_resumed",
    "moments",
    "run_to_the_end",
    "started",
    "without_seconds",
]


@dataclass(frozen=True)
class Problem:
    """A run with every stage in it, as short as may be."""

    what: str
    arguments: tuple[str, ...]


def _problem(what: str, words: str, *settings: str) -> Problem:
    chosen = [word for setting in settings for word in ("--set", setting)]
    return Problem(what, (*words.split(), "--preset", "smoke", *chosen))


PROBLEMS = {
    "difference": _problem(
        "two anharmonic wells, `--method feat`: exact samples, pilots, two trainings, sampling, writing",
        "anharmonic-wells --method feat",
        *("samples.a=400", "samples.b=400"),
        *("ladder.feat.training_steps=40", "ladder.feat.width=16", "ladder.feat.sampling_steps=8"),
    ),
    "density": _problem(
        "φ⁴ on 4 × 4 sites, `--method nets`: pilots, drift, training, sampling, writing",
        "phi4-8 --method nets",
        *("target.size=4", "sampling.nets_steps=6", "sampling.pilot_steps=3", "sampling.steps=4"),
    ),
    "molecule": _problem(
        "alanine dipeptide in vacuum and OBC2, `--method map`: molecular dynamics by OpenMM (A) and in torch (B), "
        "pilots, sampling, writing",
        "alanine-solvation --method map",
        *("md.equilibration=0.15 ps", "md.production_a=1.5 ps", "md.production_b=1.5 ps", "md.interval=0.025 ps"),
        "md.platform_b=torch",
    ),
}


@dataclass(frozen=True)
class Moment:
    """When to kill: at a number of seconds of processor time, or beside the nth file put in its place."""

    processor: float | None = None
    file: int | None = None
    after: bool = False

    def kill_beside(self) -> None:
        """In the process that is to be killed: do so at its file."""
        replace, seen = os.replace, []

        def counted(*arguments: Any, **options: Any) -> None:
            seen.append(arguments)
            if len(seen) == self.file and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*arguments, **options)
            if len(seen) == self.file:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = counted

    def __str__(self) -> str:
        if self.file is None:
            return f"at {self.processor:.2f} s of processor time"
        return f"{'after' if self.after else 'before'} file {self.file} is put in its place"


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its result, the processor time it took, and how many files it wrote."""

    result: Any
    seconds: float
    files: int


def started(arguments: Sequence[object], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """`nessampler ARGUMENTS` in a process of its own, whose output goes to a file; the process id is returned."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        sys.argv = ["nessampler", *map(str, arguments)]
        os.cpu_count = lambda: 1  # molecular dynamics in this very process, which is the one to be killed
        page.drawn = lambda *_: b"a figure"  # drawing takes longer than all the rest
        prepare()
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_to_the_end(problem: Problem, out: Path, log: Path) -> Whole:
    """The run that nobody disturbs."""
    count = log.with_suffix(".files")
    pid = started(["run", *problem.arguments, "--out", out], log, lambda: _count_files(count))
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()
    return Whole(result_of(out), used.ru_utime + used.ru_stime, len(count.read_text()))


def moments(whole: Whole, n: int, seed: int) -> list[Moment]:
    """Two in three at random times, the rest at files."""
    draw = random.Random(seed)
    files = [Moment(file=k, after=after) for k in range(1, whole.files + 1) for after in (False, True)]
    chosen = draw.sample(files, min(len(files), n // 3))
    return [Moment(processor=draw.uniform(0.0, whole.seconds)) for _ in range(n - len(chosen))] + chosen


def killed_and_resumed(
    problem: Problem, moment: Moment, out: Path, log: Path, *, resume: bool = False
) -> tuple[str, Any]:
    """What the run had last said when it was killed, and the result of going on with it."""
    arguments = ["run", *problem.arguments, "--out", out, *(["--resume"] if resume else [])]
    pid = started(arguments, log, moment.kill_beside)
    status = _killed_at(pid, moment.processor)
    at = _last_words(log) if os.WIFSIGNALED(status) else "it had ended"
    _, status = os.waitpid(started(["run", *problem.arguments, "--out", out, "--resume"], log), 0)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()
    left = [str(path) for path in out.rglob("*") if ".tmp" in path.name or ".partial" in path.name]
    left += [str(path) for path in out.glob("training*")]
    assert not left, left
    return at, result_of(out)


def result_of(out: Path) -> Any:
    """`result.json` without what may differ."""
    return without_seconds(json.loads((out / "result.json").read_text(encoding="utf-8")))


def without_seconds(table: Any) -> Any:
    """Everything but timings."""
    if isinstance(table, dict):
        return {key: without_seconds(value) for key, value in table.items() if key != "seconds"}
    return [without_seconds(value) for value in table] if isinstance(table, list) else table


def _killed_at(pid: int, processor: float | None) -> int:
    """The status of a process that was killed once it had used so much processor time, or ended by itself."""
    clock = (~pid << 3) | 2  # Linux: that of another process
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if processor is not None and time.clock_gettime(clock) >= processor:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.002)


def _count_files(path: Path) -> None:
    replace = os.replace

    def counted(*arguments: Any, **options: Any) -> None:
        replace(*arguments, **options)
        with path.open("a") as file:
            file.write(".")

    os.replace = counted


def _last_words(log: Path) -> str:
    lines = re.findall(r"^ +\d+ s  (.*)$", log.read_text(), flags=re.MULTILINE)
    return re.sub(r"[:,] .*| \d.*", "", lines[-1]) if lines else "reading the problem"


def _kills(name: str, n: int, folder: Path) -> list[str]:
    """Rows of the table: of one run, by what it had last said."""
    problem, ends = PROBLEMS[name], {}
    whole = run_to_the_end(problem, folder / "whole", folder / "whole.log")
    for k, moment in enumerate(moments(whole, n, seed=7)):
        at, result = killed_and_resumed(problem, moment, folder / str(k), folder / f"{k}.log")
        ends.setdefault(at, []).append(result == whole.result)
        print(name, moment, at, "the same" if result == whole.result else "ANOTHER RESULT", flush=True)
    rows = [f"| | {at} | {len(same)} | {sum(same)} |" for at, same in ends.items()]
    total = f"| **{name}** | **all** | **{n}** | **{sum(sum(same) for same in ends.values())}** |"
    return [total, *sorted(rows)]


def _written(counts: Sequence[int]) -> str:
    rows = []
    for (name, _), n in zip(PROBLEMS.items(), counts, strict=True):
        with TemporaryDirectory() as folder:
            rows += _kills(name, n, Path(folder))
    described = "\n".join(f"- {name}: {problem.what}" for name, problem in PROBLEMS.items())
    command = f"python tests/interruption.py {' '.join(map(str, counts))}"
    return HEAD.format(command=command, described=described) + "\n".join(rows) + "\n"


HEAD = """# Interruption

`kill -9` at many moments of three runs, then the same command with `--resume`. Two moments in three are drawn
uniformly from the processor time of the uninterrupted run; the others lie just before or just after one of its files is
put in its place. "The same" means that `result.json` equals that of the uninterrupted run with the same seed to the
last bit, timings aside, and that no checkpoint or half-written file is left. The runs:

{described}

Made by `{command}`. `make test` kills a few runs, `make test-slow` each of the three thirty times.
Here molecular dynamics runs in the very process that is killed; that workers of a killed process end with it is tested
on its own (`tests/test_kill_resume.py`).

| run | killed when it had last said | kills | the same |
|---|---|---|---|
"""

if __name__ == "__main__":
    torch.set_num_threads(1)
    page_of_table = Path(__file__).parent.parent / "docs" / "benchmarks" / "interruption.md"
    page_of_table.write_text(_written([int(n) for n in sys.argv[1:]] or [30, 30, 30]), encoding="utf-8")
