"""The run directory: every file written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from nessampler._files import write_atomically
from nessampler.errors import InputError
from nessampler.methods.arviz_export import samples_data, works_data
from nessampler.methods.density.result import Sampled
from nessampler.methods.difference import Difference
from nessampler.runs import config as configuration

if TYPE_CHECKING:
    from arviz import InferenceData

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
        """`works.nc`: works of every rung, see `works_data`; what was observed of the end states in other groups."""
        self._write_inference_data("works.nc", works_data(result), observed)

    def write_samples(self, result: Sampled, seed: int, evidence: Mapping[str, dict[str, Any]]) -> None:
        """`samples.nc`: draws, absent where every weight vanishes, and weighted walkers, see `samples_data`; then what
        the figures show.
        """
        self._write_inference_data("samples.nc", samples_data(result, seed=seed), evidence)

    def _write_inference_data(self, name: str, data: InferenceData, more: Mapping[str, Mapping[str, Any]]) -> None:
        import xarray  # takes a while to import

        if more:
            datasets = {group: xarray.Dataset(variables) for group, variables in more.items()}
            data.add_groups(datasets, warn_on_custom_groups=False)
        self._write(name, lambda path: data.to_netcdf(str(path)))

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        write_atomically(self.path / name, write)


def _difference(before: configuration.Config, now: configuration.Config) -> str:
    old, new = before.model_dump(), now.model_dump()
    return ", ".join(k for k in new if old.get(k) != new[k])
