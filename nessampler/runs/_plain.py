"""Results as plain data: what differences and densities write alike."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from nessampler.estimators import Bounds, Flag
from nessampler.runs.config import Config

__all__ = ["ROUNDING", "bounds", "finite", "flags", "heading", "pair", "versions", "z_score"]


ROUNDING = 1e-9
"""kT: works that agree to this are differences of energies that were rounded."""


def heading(config: Config, version: str) -> dict[str, Any]:
    """What was run."""
    return {
        "system": config.name,
        "title": config.title,
        "kind": config.kind,
        "method": config.run.method,
        "preset": config.run.preset,
        "seed": config.run.seed,
        "version": version,
        "versions": versions("torch", "numpy", "scipy", "openmm"),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of these, as far as they are installed."""
    known = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            known[package] = installed_version(package)
    return known


def bounds(found: Bounds) -> dict[str, Any]:
    """Second-law bounds with their limits."""
    return {
        "lower": found.lower,
        "upper": found.upper,
        "lower_limit": found.lower_limit,
        "upper_limit": found.upper_limit,
        "importance_weighted": {
            "lower": found.importance_weighted_lower,
            "upper": found.importance_weighted_upper,
            "lower_limit": found.importance_weighted_lower_limit,
            "upper_limit": found.importance_weighted_upper_limit,
            "group_size": list(found.group_size),
        },
    }


def pair(values: tuple) -> dict[str, Any]:
    """Forward and reverse."""
    return {"forward": values[0], "reverse": values[1]}


def flags(found: Iterable[Flag]) -> list[dict[str, str]]:
    """Codes with their messages."""
    return [{"code": f.code, "message": f.message} for f in found]


def z_score(value: float | None, error: float | None, reference: Mapping[str, Any] | None) -> float | None:
    """The distance from the reference in standard errors of both; None where these are rounding errors of energies."""
    if reference is None or value is None or error is None:
        return None
    both = math.hypot(error, reference["std_error"])
    return (value - reference["value"]) / both if both > ROUNDING else None


def finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
