"""The ready-to-run problems: one folder each, in the wheel or beside the package in a checkout."""

from __future__ import annotations

import contextlib
import difflib
from pathlib import Path

from nessampler.errors import InputError

__all__ = ["find", "names", "root"]


def root() -> Path:
    """The folder that holds the catalogue."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "systems"
    return inside if inside.is_dir() else package.parent / "systems"


def names() -> list[str]:
    """Names of the systems in the catalogue."""
    return sorted(path.parent.name for path in root().glob("*/system.toml"))


def find(system: str) -> Path:
    """The TOML file of a catalogue name, a folder, or a file.

    Raises:
        InputError: none of these; the nearest name is suggested.
    """
    if system in names():
        return root() / system / "system.toml"
    path = Path(system)
    with contextlib.suppress(OSError):  # such as a name that is too long
        if path.is_dir():
            return path / "system.toml"
        if path.is_file():
            return path
    near = difflib.get_close_matches(system, names(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"a system is a name from `nessampler list`, a folder or a system.toml: {system} is none{hint}")
