"""Where a cell comes from: what was asked of it, by which code, on which machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nessampler.errors import InputError

__all__ = ["ASKED", "check_origin", "origin_of"]

ASKED = ("version", "preset", "settings")  # in which all cells of a folder agree
PATIENCE = 20.0  # seconds for git


def origin_of(preset: str, settings: Sequence[str] = (), problem: str | None = None) -> dict[str, Any]:
    """Version, preset, settings, problem (see `digest_of`), commit (None where git knows none), machine and cores.

    >>> origin = origin_of("quick", ["run.device=cpu"])
    >>> list(origin), origin["settings"]
    (['version', 'preset', 'settings', 'problem', 'commit', 'machine', 'cores'], ['run.device=cpu'])
    """
    return {
        "version": version("nessampler"),
        "preset": preset,
        "settings": list(settings),
        "problem": problem,
        "commit": _commit(),
        "machine": _machine(),
        "cores": os.cpu_count(),
    }


def check_origin(found: Mapping[str, Any], origin: Mapping[str, Any], file: Path) -> None:
    """What lies in a folder was asked for as what goes on there, and is of the same problem where that is on record.

    Raises:
        InputError: another version, preset or settings, or a system that was another when the file was made.
    """
    for name in ASKED:
        if found.get(name) != origin[name]:
            raise InputError(
                f"what a bench keeps in one folder is of one version, one preset and the same settings: {file} has "
                f"{name} {_shown(found.get(name))}, asked for is {_shown(origin[name])}; choose another --out"
            )
    before, now = found.get("problem"), origin.get("problem")
    if None not in (before, now) and before != now:
        raise InputError(
            f"what a bench keeps of a system is of one problem: {file} is of {before}, the system is {now} now, so its "
            "system.toml, or a file that this names, was changed in between, or it is another of that name or path; "
            "change it back, or choose another --out"
        )


def _shown(value: Any) -> str:
    return "none on record" if value is None else (", ".join(value) or "none") if isinstance(value, list) else value


@lru_cache(maxsize=1)
def _commit() -> str | None:
    """Of a checkout that holds this very file; another's around an installed package says nothing."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        asked = ["git", "-C", str(here.parent), *arguments]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=PATIENCE)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def _machine() -> str:
    """The model of its processor, as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
