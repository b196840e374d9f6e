"""The run directory: every file written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from nessampler._files import write_atomically
from nessampler.errors import InputError
from nessampler.methods.density.result import Sampled
from nessampler.methods.difference import Difference
from nessampler.runs import config as configuration

__all__ = ["RunDirectory"]


class RunDirectory:
    """Where a run keeps what it used and what it found.

    Raises:
        InputError: the directory cannot be written, or holds another run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, config: configuration.Config, folder: Path, *, resume: bool) -> None:
        """Create the directory, or check that what it holds is this very run.

        The files that a problem names are copied, so that the directory alone repeats the run.
        """
        stored = self.path / "config.toml"
        if stored.exists():
            if not resume:
                raise InputError(
                    f"{self.path} already holds a run: add --resume to go on with it, or choose another --out"
                )
            before = configuration.resolve(configuration.load(stored), source=str(stored))
            if before != config:
                raise InputError(
                    f"--resume must go on with the same settings: {stored} differs in {_difference(before, config)}; "
                    "choose another --out"
                )
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in config.files:
                source = folder / name
                if source.is_file() and source.resolve() != (self.path / name).resolve():
                    self.write_bytes(name, source.read_bytes())
            self._write("config.toml", lambda path: configuration.write(config, path))
        except OSError as error:
            raise InputError(
                f"the run directory must be writable: {self.path} is not ({error.strerror}); choose another --out"
            ) from error

    def write_bytes(self, name: str, content: bytes) -> None:
        """One file."""
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        self._write(name, lambda path: path.write_bytes(content))

    def write_json(self, name: str, table: Mapping[str, Any]) -> str:
        """A table as JSON; the text is returned."""
        text = json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        self.write_bytes(name, text.encode())
        return text

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """`metrics.csv`: the training curve, a header alone when nothing was trained."""
        names = list(dict.fromkeys(key for row in rows for key in row)) or ["step", "loss"]
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_bytes("metrics.csv", text.getvalue().encode())

    def write_model(self, state: Mapping[str, Tensor]) -> None:
        """`model.safetensors`: the fitted maps and networks."""
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}  # some are views of one another
        self._write("model.safetensors", lambda path: save_file(tensors, str(path)))

    def write_works(self, result: Difference, observed: Mapping[str, dict[str, Any]]) -> None:
        """`works.nc`: an ArviZ InferenceData with groups `forward` and `reverse`, two variables per rung.

        Rungs that were not climbed have the works of their pilot in `pilot_forward` and `pilot_reverse`. What was
        observed of the end states follows in groups of its own.
        """
        groups: dict[str, dict[str, Any]] = {}
        for rung in result.rungs:
            prefix = "" if rung.block == "evaluate" else "pilot_"
            for direction, work in zip(("forward", "reverse"), rung.works, strict=True):
                variables = groups.setdefault(prefix + direction, {})
                draws = (("chain", "draw"), np.atleast_2d(work))
                correlated = int(np.ndim(work) == 2)  # a single chain, or independent works: both are one row here
                variables[f"work_{rung.name}"] = (*draws, {"units": "kT", "correlated": correlated})
                variables[f"log_weight_{rung.name}"] = (draws[0], -draws[1])
        self._write_inference_data("works.nc", groups | dict(observed))

    def write_samples(self, result: Sampled, draws: Tensor | None, evidence: Mapping[str, dict[str, Any]]) -> None:
        """`samples.nc`: an ArviZ InferenceData.

        Groups: `posterior`, unweighted draws `x` (absent where every weight vanishes); `walkers`, the walkers `x`
        themselves; `sample_stats`, the `log_weight` of each walker; then what the figures show.
        """
        log_weight = ("chain", "draw"), result.log_weight.cpu().numpy()[None]
        groups: dict[str, dict[str, Any]] = {
            "posterior": {} if draws is None else {"x": _variable(draws)},
            "sample_stats": {"log_weight": (*log_weight, {"of": "the walkers in group walkers, row by row"})},
            "walkers": {"x": _variable(result.x), "log_weight": log_weight},
        }
        self._write_inference_data("samples.nc", {n: group for n, group in groups.items() if group} | dict(evidence))

    def _write_inference_data(self, name: str, groups: Mapping[str, Mapping[str, Any]]) -> None:
        import arviz  # takes a second to import
        import xarray

        datasets: dict[str, Any] = {group: xarray.Dataset(variables) for group, variables in groups.items()}
        data = arviz.InferenceData(warn_on_custom_groups=False, **datasets)
        self._write(name, lambda path: data.to_netcdf(str(path)))

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        write_atomically(self.path / name, write)


def _difference(before: configuration.Config, now: configuration.Config) -> str:
    old, new = before.model_dump(), now.model_dump()
    return ", ".join(k for k in new if old.get(k) != new[k])


def _variable(x: Tensor) -> tuple[tuple[str, ...], np.ndarray]:
    """Walkers `(n, *event)` as one chain."""
    axes = ("chain", "draw", *(f"axis_{k}" for k in range(x.ndim - 1)))
    return axes, x.detach().cpu().numpy()[None]
