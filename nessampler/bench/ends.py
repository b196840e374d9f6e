"""End states of a cell of a difference: of a molecule kept in a folder, and sampled once for all that need them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nessampler.bench.clock import cpu_seconds
from nessampler.bench.trial import stored, trial
from nessampler.bench.workers import Tell
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.prepared import Prepared
from nessampler.runs.target_problem import prepare_targets

__all__ = ["TOOK", "ends_folder", "prepared_ends", "sampled_ends"]

FRAMES = "endstates"  # where `prepare_molecular` puts them
ASKED, TOOK = "asked.json", "took.json"  # beside them, before the first is there and once they all are


def ends_folder(config: DifferenceConfig, scale: float, out: Path) -> Path:
    """Where end states of a molecule lie."""
    return out / "ends" / f"{config.name}-{config.run.seed}-{scale:.4g}"


def sampled_ends(
    config: DifferenceConfig, folder: Path, where: Path, origin: Mapping[str, Any], tell: Tell = lambda *_: None
) -> Mapping[str, float]:
    """What the ends of a molecule took when they were sampled, for this cell or another; frames are in `where`."""

    def measured() -> Mapping[str, float]:
        started, busy = time.perf_counter(), cpu_seconds()
        prepared_ends(config, folder, where, origin, tell).close()
        return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - busy}

    return trial(where / TOOK, origin, measured) if config.molecular else {"seconds": 0.0, "cpu_seconds": 0.0}


def prepared_ends(
    config: DifferenceConfig, folder: Path, where: Path, origin: Mapping[str, Any], tell: Tell = lambda *_: None
) -> Prepared:
    """End states of a molecule are kept, and read again by a bench that goes on.

    Raises:
        InputError: frames in `where` are of another origin; those that lay there before there were any are taken.
    """
    if not config.molecular:
        return prepare_targets(config, folder)
    from nessampler.runs.molecular_problem import prepare_molecular

    if (where / FRAMES).exists():
        stored(where / ASKED, origin)
    else:  # on record before the first frame is
        trial(where / ASKED, origin, dict)
    return prepare_molecular(config, folder, where, tell)
