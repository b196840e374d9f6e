"""New problems: a folder copied from a commented template or from another system."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Literal, get_args

from nessampler.errors import InputError
from nessampler.runs import catalogue
from nessampler.runs.config import load, resolve

__all__ = ["KINDS", "Kind", "create", "source_of"]

Kind = Literal["density", "difference", "molecule"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMED = re.compile(r'^name = "[^"]*"', re.MULTILINE)


def _template(kind: Kind) -> Path:
    """The `system.toml` of a template in the package."""
    return Path(__file__).resolve().parent.parent / "templates" / kind / "system.toml"


def create(folder: Path, source: Path) -> list[str]:
    """Make `folder` from the problem that `source`, a TOML file, describes; the names of its files are returned.

    What the problem names is copied, and the file itself with the folder's name in it, comments and all.

    Raises:
        InputError: a folder that exists, one that cannot be made, a name that is none, a source that is no problem.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", folder.name):
        raise InputError(
            f"a system's name consists of letters, digits, dots, dashes and underscores: got {folder.name!r}; choose "
            "another"
        )
    if folder.exists():
        raise InputError(f"a new system gets a new folder: {folder} exists already; choose another name, or remove it")
    config = resolve(load(source), source=str(source))
    files = [name for name in config.files if (source.parent / name).is_file()]
    text = NAMED.sub(f'name = "{folder.name}"', source.read_text(encoding="utf-8"), count=1)
    try:
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.parent / name, folder / name)
        (folder / "system.toml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the folder must be writable: {folder} is not ({error.strerror}); choose another place"
        ) from error
    return ["system.toml", *files]


def source_of(system: str | None, kind: Kind) -> Path:
    """Where to copy from: another system, else the template of a kind."""
    return _template(kind) if system is None else catalogue.find(system)
