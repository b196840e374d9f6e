"""End states of a cell of a difference: of a molecule kept in a folder, and sampled once for all that need them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nessampler.bench.clock import cpu_seconds
from nessampler.bench.trial import trial
from nessampler.bench.workers import Tell
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.prepared import Prepared
from nessampler.runs.target_problem import prepare_targets

__all__ = ["TOOK", "ends_folder", "prepared_ends", "sampled_ends"]

TOOK = "took.json"  # beside the frames, once they are all there


def ends_folder(config: DifferenceConfig, scale: float, out: Path) -> Path:
    """Where end states of a molecule lie."""
    return out / "ends" / f"{config.name}-{config.run.seed}-{scale:.4g}"


def sampled_ends(
    config: DifferenceConfig, folder: Path, where: Path, origin: Mapping[str, Any], tell: Tell = lambda *_: None
) -> Mapping[str, float]:
    """What the ends of a molecule took when they were sampled, for this cell or another; frames are in `where`."""

    def measured() -> Mapping[str, float]:
        started, busy = time.perf_counter(), cpu_seconds()
        prepared_ends(config, folder, where, tell).close()
        return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - busy}

    return trial(where / TOOK, origin, measured) if config.molecular else {"seconds": 0.0, "cpu_seconds": 0.0}


def prepared_ends(config: DifferenceConfig, folder: Path, where: Path, tell: Tell = lambda *_: None) -> Prepared:
    """End states of a molecule are kept, and read again by a bench that goes on."""
    if not config.molecular:
        return prepare_targets(config, folder)
    from nessampler.runs.molecular_problem import prepare_molecular

    where.mkdir(parents=True, exist_ok=True)
    return prepare_molecular(config, folder, where, tell)
