"""What a `system.toml` may name: files in its own folder, and, with the user's consent, Python in one of them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from nessampler.errors import InputError

__all__ = ["code_file", "file_inside", "load_callable"]

_NAMED = re.compile(r"([A-Za-z_]\w*):([A-Za-z_]\w*)")


def file_inside(folder: Path, name: str) -> Path:
    """The path of a file that a system names, which must lie in the system's folder, symbolic links followed.

    Raises:
        InputError: a name that leads out of it.

    Example:
        >>> file_inside(Path("mine"), "data/points.csv").as_posix()
        'mine/data/points.csv'
        >>> file_inside(Path("mine"), "../points.csv")
        Traceback (most recent call last):
        nessampler.errors.InputError: files must lie in the system's folder, which a run copies: got '../points.csv'...
    """
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        path.exists()
    except (OSError, ValueError, RuntimeError):  # a name that is too long, holds a NUL, or a loop of links
        inside = False
    if not inside:
        raise InputError(
            f"files must lie in the system's folder, which a run copies: got {name[:200]!r}; put it there, and "
            "give its name"
        )
    return path


def code_file(callable_: object) -> str | None:
    """The file that `"module:callable"` names; None if it is no such text.

    >>> code_file("posterior:log_density"), code_file("os.path:join"), code_file("../posterior:log_density")
    ('posterior.py', None, None)
    """
    match = _NAMED.fullmatch(callable_) if isinstance(callable_, str) else None
    return None if match is None else f"{match[1]}.py"


def load_callable(folder: Path, callable_: object, source: str) -> Any:
    """Run the module of `"module:callable"` and return what it calls so. Only for a system that the user consented to.

    Args:
        folder: where `module.py` lies; never an installed module.
        callable_: the value of the key.
        source: the table's name in messages.

    Raises:
        InputError: another form, no such file or name, or a module that fails.
    """
    name = code_file(callable_)
    if name is None:
        raise InputError(
            f"`{source}.callable` must be MODULE:CALLABLE, of a MODULE.py in the system's folder: got {callable_!r}"
        )
    path = file_inside(folder, name)
    if not path.is_file():
        raise InputError(f"`{source}.callable` must name a module in the system's folder: {path} does not exist")
    spec = importlib.util.spec_from_file_location(f"_code_of_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"`{source}.callable` must name a module that runs: {path} failed with {reason}") from error
    attribute = str(callable_).partition(":")[2]
    if not hasattr(module, attribute):
        raise InputError(f"`{source}.callable` must name something in {path}: it has no {attribute}")
    return getattr(module, attribute)
