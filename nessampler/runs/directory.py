"""The run directory: every file written whole or not at all, by one process at a time."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save
from torch import Tensor

from nessampler._files import remove_leftovers, write_atomically
from nessampler.errors import InputError
from nessampler.methods.arviz_export import samples_data, works_data
from nessampler.methods.density.result import Sampled
from nessampler.methods.difference import Difference
from nessampler.runs import config as configuration
from nessampler.runs.netcdf import packed

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["RunDirectory"]


class RunDirectory:
    """Where a run keeps what it used and what it found.

    Raises:
        InputError: the directory cannot be written, is in use, or holds another run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The directory, made if need be, for this process alone: the lock goes with the process, however that ends."""
        with self._writable():
            self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            _lock(handle, self.path)
            yield
        finally:
            os.close(handle)

    def open(self, config: configuration.Config, folder: Path, *, resume: bool) -> None:
        """Create the directory, or check that what it holds is this very run.

        The files that a problem names are copied, so that the directory alone repeats the run.
        """
        stored = self.path / "config.toml"
        if resume:
            self._tidy()
        if stored.exists():
            if not resume:
                raise InputError(
                    f"{self.path} already holds a run: add --resume to go on with it, or choose another --out"
                )
            # Only compared: the code that it may name is not run from it.
            before = configuration.resolve(configuration.load(stored), source=str(stored), allow_code=True)
            if before != config:
                raise InputError(
                    f"--resume must go on with the same settings: {stored} differs in {_difference(before, config)}; "
                    "choose another --out"
                )
            return
        with self._writable():
            for name in config.files:
                source = folder / name
                if source.is_file() and source.resolve() != (self.path / name).resolve():
                    self.write_bytes(name, source.read_bytes())
            self._write("config.toml", lambda path: configuration.write(config, path))

    def finished(self, config: configuration.Config) -> dict[str, Any] | None:
        """The contents of `result.json`, where there is one."""
        path = self.path / "result.json"
        if not path.exists():
            return None
        try:
            table = json.loads(path.read_bytes())
        except ValueError:
            table = None
        asked = {"system": config.name, "kind": config.kind, "seed": config.run.seed}
        if not isinstance(table, dict) or asked != {key: table.get(key) for key in asked}:
            raise InputError(
                f"{path} must be the result of this run: it is cut off, or another's; remove it, and --resume makes it "
                "anew"
            )
        return table

    def _tidy(self) -> None:
        """What killed processes left, and, of a finished run, its checkpoints."""
        with contextlib.suppress(OSError):  # it may lie where nothing can be removed
            remove_leftovers(self.path)
            if (self.path / "result.json").exists():
                self.remove_checkpoints()

    def remove_checkpoints(self) -> None:
        """What a finished run no longer needs."""
        for path in self.path.glob("training*.safetensors"):
            path.unlink()

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
        self.write_bytes("model.safetensors", save(tensors))

    def write_works(self, result: Difference, observed: Mapping[str, dict[str, Any]]) -> None:
        """`works.nc`: works of every rung, see `works_data`; what was observed of the end states in other groups."""
        self._write_inference_data("works.nc", works_data(result), observed)

    def write_samples(self, result: Sampled, seed: int, evidence: Mapping[str, dict[str, Any]]) -> None:
        """`samples.nc`: draws, absent where every weight vanishes, and weighted walkers, see `samples_data`; then what
        the figures show.
        """
        self._write_inference_data("samples.nc", samples_data(result, seed=seed), evidence)

    def _write_inference_data(self, name: str, data: InferenceData, more: Mapping[str, Mapping[str, Any]]) -> None:
        groups = {group: data[group] for group in data.groups()}
        self.write_bytes(name, packed({**groups, **more}))

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        write_atomically(self.path / name, write)

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"the run directory must be writable: {self.path} is not ({error.strerror}); choose another --out"
            ) from error


def _lock(handle: int, path: Path) -> None:
    """Until the handle is closed. Where file systems know no locks, there is none."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"a run directory is for one process at a time: another one works in {path}; wait for its end, or choose "
            "another --out"
        ) from error
    except (ImportError, OSError):
        return


def _difference(before: configuration.Config, now: configuration.Config) -> str:
    old, new = before.model_dump(), now.model_dump()
    return ", ".join(k for k in new if old.get(k) != new[k])
