"""Damaged and foreign files, a full disk, a read-only folder, two processes at once: one line, and nothing is lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Ended, nessampler
from interruption import result_of, started
from safetensors.torch import save_file

from nessampler import training
from nessampler.errors import InputError
from nessampler.molecular.replica_files import read_restart, save_restart
from nessampler.runs import difference
from nessampler.runs.again import reopen

PLAIN = ("run", "anharmonic-wells", "--method", "plain", "--preset", "smoke", "--set", "samples.a=400")
FEAT = (
    *("run", "anharmonic-wells", "--method", "feat", "--preset", "smoke", "--set", "ladder.feat.training_steps=20"),
    *("--set", "ladder.feat.width=8", "--set", "ladder.feat.sampling_steps=4"),
)


def undrawn(*arguments: object) -> Ended:
    """Without figures, which take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_report", "save_figures"):
            patch.setattr(f"nessampler.runs.difference.{name}", lambda *_, **__: None)
        return nessampler(*arguments)


def refused(ended: Ended) -> str:
    """The one line."""
    *progress, line = ended.err.splitlines()
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert line.startswith("error: ")
    assert not [text for text in progress if "error" in text or "Traceback" in text]
    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    assert undrawn(*PLAIN, "--out", out).code == 0
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


# --- damaged and foreign files -------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def of_another_run(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 5}))


def no_table(path: Path) -> None:
    path.write_text("[1, 2]")


def not_text(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


@pytest.mark.parametrize("damage", [cut, emptied, of_another_run, no_table, not_text])
def test_a_damaged_result_is_refused_by_name_and_made_anew_once_it_is_gone(
    run: Path, damage: Callable[[Path], None]
) -> None:
    before = result_of(run)
    damage(run / "result.json")
    assert f"{run / 'result.json'} must be the result of this run" in refused(undrawn(*PLAIN, "--out", run, "--resume"))
    (run / "result.json").unlink()
    assert undrawn(*PLAIN, "--out", run, "--resume").code == 0
    assert result_of(run) == before


@pytest.mark.parametrize("name", ["works.nc", "model.safetensors", "metrics.csv"])
@pytest.mark.parametrize("damage", [cut, emptied, not_text])
def test_what_a_run_only_writes_is_written_again(run: Path, name: str, damage: Callable[[Path], None]) -> None:
    before = (run / name).read_bytes()
    (run / "result.json").unlink()
    damage(run / name)
    assert undrawn(*PLAIN, "--out", run, "--resume").code == 0
    assert len((run / name).read_bytes()) == len(before)  # netCDF files carry the time they were made at


@pytest.mark.parametrize("damage", [cut, emptied, not_text])
def test_a_damaged_configuration_is_refused_by_name(run: Path, damage: Callable[[Path], None]) -> None:
    damage(run / "config.toml")
    said = refused(undrawn(*PLAIN, "--out", run, "--resume"))
    assert str(run / "config.toml") in said


def foreign_tensors(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path)


def foreign_metadata(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path, {"settings": "{", "state": "{}"})


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped in the middle of its first training."""
    out, save = tmp_path_factory.mktemp("interrupted") / "run", training._Run.save

    def stop(self: Any, *rest: Any) -> None:
        save(self, *rest)
        if self.step >= 10:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Run, "save", stop)
        assert undrawn(*FEAT, "--out", out).code == 130
    return out


@pytest.mark.parametrize("damage", [cut, emptied, not_text, foreign_tensors, foreign_metadata])
def test_a_damaged_checkpoint_is_refused_by_name(
    interrupted: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(interrupted, tmp_path / "run")
    checkpoint = tmp_path / "run" / "training.safetensors"
    damage(checkpoint)
    assert str(checkpoint) in refused(undrawn(*FEAT, "--out", tmp_path / "run", "--resume"))


def test_the_checkpoint_of_another_seed_is_refused(interrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(interrupted / "training.safetensors", out)
    said = refused(undrawn(*FEAT, "--seed", 1, "--out", out))
    assert f"{out / 'training.safetensors'} differs in seed" in said


def test_a_restart_file_with_any_bytes_is_read_whole_or_refused(tmp_path: Path) -> None:
    path, random = tmp_path / "a-0.partial.npz", np.random.default_rng(0)
    arrays = {"positions": random.random((4, 3, 3), dtype=np.float32), "checkpoint": np.arange(99, dtype=np.uint8)}
    save_restart(path, arrays)
    whole, outcomes = path.read_bytes(), set()
    for _ in range(300):
        content = bytearray(whole)
        if random.random() < 0.3:
            del content[random.integers(len(content)) :]
        for at in random.integers(len(content), size=random.integers(1, 4)) if content else ():
            content[at] = random.integers(256)
        path.write_bytes(content)
        try:
            found = read_restart(path, ("positions", "checkpoint"))
        except InputError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert all(np.array_equal(a, b) for a, b in zip(found, arrays.values(), strict=True))
    assert outcomes == {"read", "refused"}


def test_a_run_with_a_damaged_model_is_not_opened_again(tmp_path: Path) -> None:
    for name, content in (("config.toml", b"name"), ("result.json", b"{}"), ("model.safetensors", b"x")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"config\.toml must be a TOML file"):
        reopen(tmp_path)
    (tmp_path / "config.toml").write_text("name = 'x'\ntitle = 'x'\nkind = 'density'\ntarget = { name = 'funnel' }\n")
    with pytest.raises(InputError, match=r"result\.json must be what a finished run left"):
        reopen(tmp_path)
    (tmp_path / "result.json").write_text('{"chosen": "ais"}')
    with pytest.raises(InputError, match=r"model\.safetensors must be what a finished run left"):
        reopen(tmp_path)


# --- a disk that is full, a folder that is read-only ----------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_at_any_file_costs_nothing_that_was_written(
    finished: Path, tmp_path: Path, number: int
) -> None:
    fsync, failed = os.fsync, 0
    while True:  # the first file, then the second, ...
        out, seen = tmp_path / f"run-{failed}", []

        def full(handle: int, seen: list[int] = seen, nth: int = failed) -> None:
            seen.append(handle)
            if len(seen) > nth:
                raise OSError(number, os.strerror(number))
            fsync(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", full)
            ended = undrawn(*PLAIN, "--out", out)
        if ended.code == 0:
            break
        assert os.strerror(number) in refused(ended)
        whole = {path.name: path.read_bytes() for path in out.iterdir()}
        assert len(whole) == failed
        assert not [name for name in whole if ".tmp" in name]
        failed += 1
    assert failed == len(list(finished.iterdir()))
    assert undrawn(*PLAIN, "--out", tmp_path / "run-2", "--resume").code == 0
    assert result_of(tmp_path / "run-2") == result_of(finished)


@contextmanager
def folder_that_others_may_enter() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def without_privileges() -> None:
    """For a superuser no folder is read-only."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    difference.write_report = difference.save_figures = lambda *_, **__: None


def test_a_read_only_run_is_shown_if_finished_and_refused_in_one_line_if_not(finished: Path, tmp_path: Path) -> None:
    with folder_that_others_may_enter() as folder:
        out, log = folder / "run", tmp_path / "log"
        shutil.copytree(finished, out)
        arguments = ["run", out / "config.toml", "--out", out, "--resume"]
        for path in (*out.iterdir(), out):
            path.chmod(0o555 if path.is_dir() else 0o444)
        for there, code, said in ((True, 0, "is finished"), (False, 2, "Permission denied")):
            if not there:
                out.chmod(0o755)
                (out / "result.json").unlink()
                out.chmod(0o555)
            before = {path.name: path.read_bytes() for path in out.iterdir()}
            log.write_text("")
            status = os.waitpid(started(arguments, log, without_privileges), 0)[1]
            assert os.waitstatus_to_exitcode(status) == code, log.read_text()
            assert said in log.read_text()
            assert "Traceback" not in log.read_text()
            assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        out.chmod(0o755)


def test_a_new_run_in_a_read_only_folder_is_refused_in_one_line(finished: Path, tmp_path: Path) -> None:
    with folder_that_others_may_enter() as folder:
        folder.chmod(0o555)
        log = tmp_path / "log"
        arguments = ["run", finished / "config.toml", "--out", folder / "run"]
        finished.parent.chmod(0o755)
        status = os.waitpid(started(arguments, log, without_privileges), 0)[1]
        assert os.waitstatus_to_exitcode(status) == 2
        folder.chmod(0o755)
        assert list(folder.iterdir()) == []


# --- two at once ----------------------------------------------------------------------------------------------------


def test_a_second_process_in_the_same_directory_is_refused(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    handle = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert "one process at a time" in refused(undrawn(*PLAIN, "--out", run, "--resume"))
        assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    finally:
        os.close(handle)
    assert undrawn(*PLAIN, "--out", run, "--resume").code == 0


def test_the_lock_goes_with_the_run(tmp_path: Path) -> None:
    def held(*_: Any, **__: Any) -> None:
        handle = os.open(tmp_path / "run", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_report", "save_figures"):
            patch.setattr(f"nessampler.runs.difference.{name}", held)
        assert nessampler(*PLAIN, "--out", tmp_path / "run").code == 0
    handle = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_what_a_killed_process_left_is_removed(run: Path) -> None:
    for name in (".works.123.tmp.nc", "training.safetensors", "training-1.safetensors"):
        (run / name).write_bytes(b"half")
    assert undrawn(*PLAIN, "--out", run, "--resume").code == 0
    assert not [path for path in run.iterdir() if ".tmp" in path.name or path.name.startswith("training")]
