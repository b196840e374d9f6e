"""Samplers of other packages on the same targets, each an optional import; evaluations are counted by the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nessampler.bench.row import Row
from nessampler.runs.config import DensityConfig

__all__ = ["PEERS"]

PEERS: dict[str, Callable[[DensityConfig, Path, int | None], Row]] = {}
