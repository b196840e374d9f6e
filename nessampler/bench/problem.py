"""Which problem a system's file describes, whatever its words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from nessampler.runs.config import Config

__all__ = ["digest_of"]

WORDS = ("name", "title", "description", "knowledge", "reference")  # say what a problem is and what its answer is
ASKED = "run"  # by the command line: seed, method, preset, device
LENGTH = 16  # hexadecimal digits


def digest_of(config: Config, folder: Path) -> str:
    r"""Hexadecimal digits of SHA-256 over a resolved configuration and the files of its folder that it names.

    Left out are the words of the file, labels of states, the reference, what is asked of a run, and a budget. A value
    that is written down and equals the default is as good as none, so that a new key with a default changes nothing.

    Args:
        config: of which sizes are those of the preset, and not yet those that a bench chooses.
        folder: where its files lie; those that are not there come with OpenMM.

    Example:
        >>> from nessampler.runs import catalogue
        >>> from nessampler.runs.config import load, resolve
        >>> table, folder = load(catalogue.find("funnel-10")), Path()
        >>> same = resolve(table | {"title": "A funnel", "reference": None}, run={"seed": 7})
        >>> wider = resolve(table, settings=["target.scale=4.0"])
        >>> first, again, other = (digest_of(config, folder) for config in (resolve(table), same, wider))
        >>> first == again, first == other, len(first)
        (True, False, 16)
    """
    table = config.model_dump(mode="json", exclude_defaults=True)
    for name in (*WORDS, ASKED):
        table.pop(name, None)
    for state in ("state_a", "state_b"):
        table.get(state, {}).pop("label", None)
    table.get("sampling", {}).pop("budget", None)
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in config.files
        if (folder / name).is_file()
    }
    text = json.dumps([_without_empty(table), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def _without_empty(table: dict) -> dict:
    """A table of which nothing is left is as good as none."""
    return {name: value for name, value in table.items() if value != {}}
