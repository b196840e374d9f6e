"""What a short run finds out about cost, for all seeds of a system."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nessampler._files import write_atomically
from nessampler.bench.origin import check_origin

__all__ = ["TRIAL_SEED", "stored", "trial"]

TRIAL_SEED = 10_000  # no cell has it


def trial(file: Path, origin: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What `measure` found, now or in an earlier cell that left it in `file` together with where it comes from.

    Raises:
        InputError: a file of another version, preset, settings or problem.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from nessampler.bench.origin import origin_of
        >>> with TemporaryDirectory() as folder:
        ...     first = trial(Path(folder, "trials", "a.json"), origin_of("quick"), lambda: {"each": 12.0})
        ...     trial(Path(folder, "trials", "a.json"), origin_of("quick"), lambda: {"each": 13.0}) == first
        True
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"found": dict(measure()), "origin": dict(origin)}, indent=1)
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))
    found = stored(file, origin)
    assert found is not None
    return found


def stored(file: Path, origin: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What an earlier one left in `file`; None where there is no such file.

    Raises:
        InputError: a file of another version, preset, settings or problem.
    """
    if not file.exists():
        return None
    table = json.loads(file.read_text(encoding="utf-8"))
    check_origin(table.get("origin", {}), origin, file)
    return table["found"]
