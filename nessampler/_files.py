"""Files that are whole or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["remove_leftovers", "write_atomically"]

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.\w+)?")


def write_atomically(path: Path, write: Callable[[Path], Any]) -> Path:
    """Let `write` make the file beside its place, and put it there once it is on disk; the path is returned.

    Whoever reads, or restarts after a crash, never meets half a file, and a failed write leaves the old one. The
    temporary name ends like the final one, by which some writers choose a format.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder, "note.txt"), lambda path: path.write_text("whole")).read_text()
    'whole'
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove what `write_atomically` had begun in processes that were killed; no other may be writing in the folder.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in (".note.123.tmp.txt", "note.txt"):
    ...         _ = Path(folder, name).write_text("half")
    ...     remove_leftovers(Path(folder))
    ...     [path.name for path in Path(folder).iterdir()]
    ['note.txt']
    """
    for path in folder.rglob(".*.tmp*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()
