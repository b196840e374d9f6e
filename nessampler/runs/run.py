"""One run from a configuration to a directory, whatever it asks for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import torch

from nessampler.errors import InputError
from nessampler.runs.config import Config, DifferenceConfig
from nessampler.runs.density import carry_out_density
from nessampler.runs.density_problem import check_density
from nessampler.runs.difference import carry_out_difference, check_difference
from nessampler.runs.directory import RunDirectory
from nessampler.runs.listener import Listener

__all__ = ["run"]


def run(config: Config, folder: Path, out: Path, *, resume: bool = False, listener: Listener) -> dict[str, Any]:
    """Carry out a run and return the contents of its `result.json`.

    Args:
        config: the resolved problem.
        folder: where its structure files lie.
        out: the run directory.
        resume: go on with what `out` holds; a finished run is returned as it is.
        listener: told about progress.

    Raises:
        InputError: anything the user can mend; nothing already written is lost.
    """
    _check_device(config.run.device)
    _check(config, folder)  # before anything is created
    directory = RunDirectory(out)
    try:
        with directory.held():
            directory.open(config, folder, resume=resume)
            if (finished := directory.finished(config)) is not None:
                listener.say(f"{out} is finished")
                return finished
            result = _carry_out(config, directory, listener)
            directory.remove_checkpoints()
            return result
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise InputError(
            f"the files of a run must be writable: {os.strerror(error.errno)} in {out}; what was finished is kept: "
            "mend that, and give the same command with --resume"
        ) from error


DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""What the file system refuses, and the user can mend."""


def _carry_out(config: Config, directory: RunDirectory, listener: Listener) -> dict[str, Any]:
    if isinstance(config, DifferenceConfig):
        return carry_out_difference(config, directory, listener)
    return carry_out_density(config, directory, listener)


def _check(config: Config, folder: Path) -> None:
    if isinstance(config, DifferenceConfig):
        check_difference(config, folder)
    else:
        check_density(config, folder)


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise InputError(f"device must be one that PyTorch can use here, such as cpu or cuda: got {name!r}") from error
