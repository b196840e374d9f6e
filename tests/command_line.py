"""The command line within this process: what it printed, and how it ended."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import NamedTuple

import pytest

from nessampler.cli import main


class Ended(NamedTuple):
    """Exit status and what went to either stream."""

    code: int
    out: str
    err: str


def nessampler(*arguments: object) -> Ended:
    """`nessampler ARGUMENTS`; anything but an exit is raised, as a traceback would be shown."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["nessampler", *map(str, arguments)])
        patch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as exit_:
            main()
    return Ended(int(exit_.value.code or 0), out.getvalue(), err.getvalue())
