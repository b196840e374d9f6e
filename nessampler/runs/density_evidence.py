"""What the figures of a density rest on, as arrays: in memory, and in `samples.nc`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nessampler.plots import Curve, Lattice, Samples, Weights
from nessampler.runs.lattice_observables import lattice_from_group, lattice_group

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """Arrays of one result.

    Attributes:
        weights: what walkers say of log Z, by attempt.
        path: by quantity and attempt, over the time of the path.
        samples: the first two coordinates; None where every weight vanishes, or a lattice is shown instead.
        lattice: observables of a lattice field, None for anything else.
        metrics: rows of the training curve.
    """

    weights: Mapping[str, Weights] = field(default_factory=dict)
    path: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    samples: Samples | None = None
    lattice: Lattice | None = None
    metrics: Sequence[Mapping[str, Any]] = ()

    def groups(self) -> dict[str, dict[str, Any]]:
        """As groups of a netCDF file, beside walkers and draws."""
        found: dict[str, dict[str, Any]] = {"weights": {}, "path": {}}
        for name, pair in self.weights.items():
            for way, values in zip(("forward", "reverse"), pair, strict=True):
                if values is not None:
                    found["weights"][f"{way}_{name}"] = ((f"walker_{way}_{name}",), values)
        for k, (title, curves) in enumerate(self.path.items()):
            for name, (times, values) in curves.items():
                axis = (f"step_{k}_{name}",)
                found["path"][f"t_{k}_{name}"] = (axis, times)
                found["path"][f"value_{k}_{name}"] = (axis, values, {"quantity": title, "attempt": name})
        if self.samples is not None:
            walkers = {"x": (("walker", "axis"), self.samples.x), "weight": (("walker",), self.samples.weight)}
            found["shown"] = walkers | {"draws": (("draw", "axis"), self.samples.draws)}
            found["shown"]["dimension"] = ((), self.samples.dimension)
            if self.samples.exact is not None:
                found["shown"]["exact"] = (("exact_draw", "axis"), self.samples.exact)
        if self.lattice is not None:
            found["observables"] = lattice_group(self.lattice)
        return {name: group for name, group in found.items() if group}

    @classmethod
    def from_groups(cls, groups: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]] = ()) -> Evidence:
        """What `groups` wrote, from the datasets of a file by group."""
        return cls(
            _weights(groups),
            _path(groups),
            _samples(groups),
            lattice_from_group(groups["observables"]) if "observables" in groups else None,
            metrics,
        )


def _weights(groups: Mapping[str, Any]) -> dict[str, Weights]:
    stored = {str(name): found.values for name, found in groups.get("weights", {}).items()}
    names = [name.removeprefix("forward_") for name in stored if name.startswith("forward_")]
    return {name: Weights(stored[f"forward_{name}"], stored.get(f"reverse_{name}")) for name in names}


def _path(groups: Mapping[str, Any]) -> dict[str, dict[str, Curve]]:
    path: dict[str, dict[str, Curve]] = {}
    group = groups.get("path", {})
    for name, found in group.items():
        if str(name).startswith("value_"):
            times = group[str(name).replace("value_", "t_", 1)].values
            path.setdefault(found.attrs["quantity"], {})[found.attrs["attempt"]] = (times, found.values)
    return path


def _samples(groups: Mapping[str, Any]) -> Samples | None:
    if "shown" not in groups:
        return None
    group = groups["shown"]
    exact = group["exact"].values if "exact" in group else None
    return Samples(
        group["x"].values, group["weight"].values, group["draws"].values, exact, int(group["dimension"].values)
    )
