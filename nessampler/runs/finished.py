"""A finished run, read back from its directory: nothing is computed again, and nothing needs torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nessampler import _words as words
from nessampler.errors import InputError
from nessampler.plots import convergence_curve
from nessampler.runs import density_report, report, works_report
from nessampler.runs.density_evidence import Evidence
from nessampler.runs.difference_evidence import DifferenceEvidence
from nessampler.runs.given_works import as_kept, given_works
from nessampler.runs.page import Report

__all__ = ["Finished", "compose_again", "open_finished", "read_result"]

KINDS = {"difference": "works.nc", "density": "samples.nc", "works": "works.nc"}


@dataclass(frozen=True)
class Finished:
    """What a run left.

    Attributes:
        path: its directory.
        result: the contents of `result.json`.
        groups: the datasets of `works.nc` or `samples.nc`.
        metrics: the rows of `metrics.csv`.
        config: the text of `config.toml`, None where it is missing.
    """

    path: Path
    result: Mapping[str, Any]
    groups: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    config: str | None


def open_finished(run: str | Path) -> Finished:
    """Read a finished run.

    Args:
        run: its directory, or the `result.json` in it.

    Raises:
        InputError: there is no finished run, or a file of it is truncated or not one of ours.

    Example:
        >>> open_finished("runs/nowhere")
        Traceback (most recent call last):
        nessampler.errors.InputError: a finished run is a directory with result.json: runs/nowhere does not exist...
    """
    folder, result = read_result(run)
    data = folder / KINDS[result["kind"]]
    config = folder / "config.toml"
    return Finished(
        folder,
        result,
        _groups(data),
        _metrics(folder / "metrics.csv"),
        config.read_text(encoding="utf-8") if config.is_file() else None,
    )


def read_result(run: str | Path) -> tuple[Path, dict[str, Any]]:
    """The directory of a finished run and the contents of its `result.json`; refused as in `open_finished`."""
    given = Path(run)
    folder = given.parent if given.name == "result.json" else given
    file = folder / "result.json"
    rule = "a finished run is a directory with result.json"
    if not folder.is_dir():
        raise InputError(f"{rule}: {folder} does not exist; give the run's directory, as `nessampler run` named it")
    if not file.is_file():
        stored = folder / "config.toml"
        remedy = (
            f"finish it with nessampler run {stored} --out {folder} --resume"
            if stored.is_file()
            else "give the run's directory, as `nessampler run` named it"
        )
        raise InputError(f"{rule}: {folder} has none; {remedy}")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{file} must be whole: it could not be read ({error}); run again") from error
    if not isinstance(result, dict) or result.get("kind") not in KINDS or "verdict" not in result:
        raise InputError(
            f"{file} must be the result of a run: it names no difference, density or works with a verdict; "
            "give a directory that `nessampler run` or `nessampler estimate` wrote"
        )
    return folder, result


def compose_again(run: Finished) -> Report:
    """The report of a finished run; figures whose data an earlier version did not store are left out."""
    if run.result["kind"] == "density":
        return density_report.compose(run.result, Evidence.from_groups(run.groups, run.metrics), config=run.config)
    if run.result["kind"] == "works":
        return works_report.compose(run.result, *_given(run))
    works = _works(run)
    chosen = works.get(str(run.result.get("rung")))
    evidence = DifferenceEvidence.from_groups(run.groups)
    return report.compose(
        run.result,
        works,
        metrics=run.metrics,
        convergence=None if chosen is None else convergence_curve(*chosen),
        along=evidence.along,
        panels=evidence.panels(words.state_labels(run.result)),
        config=run.config,
    )


def _given(run: Finished) -> tuple[np.ndarray, np.ndarray | None]:
    found = given_works(run.groups)
    if found is None:
        raise InputError(
            f"{run.path / 'works.nc'} must belong to its result.json: it holds no works of A → B; estimate again"
        )
    return found


def _works(run: Finished) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """In the order of the rungs; those of pilots lie in groups of their own."""
    works: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for rung in words.rungs(run.result):
        prefix, name = ("pilot_" if words.is_pilot(rung) else ""), f"work_{rung.get('name')}"
        pair = [run.groups.get(prefix + way) for way in ("forward", "reverse")]
        if any(group is None or name not in group for group in pair):
            raise InputError(
                f"{run.path / 'works.nc'} must belong to its result.json: it holds no works of the rung "
                f"{rung.get('name')}; run again"
            )
        forward, reverse = (as_kept(group[name]) for group in pair if group is not None)
        works[str(rung.get("name"))] = forward, reverse
    return works


def _groups(file: Path) -> dict[str, Any]:
    import h5netcdf
    import xarray

    try:
        with h5netcdf.File(file, "r") as stored:
            names = list(stored.groups)
        return {name: xarray.load_dataset(file, group=name, engine="h5netcdf") for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{file} must be the file that the run wrote: it could not be read ({_first_line(error)}); run again"
        ) from error


def _metrics(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    try:
        with file.open(encoding="utf-8", newline="") as text:
            return [{key: _number(value) for key, value in row.items() if value != ""} for row in csv.DictReader(text)]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file} must be the training curve of the run: it could not be read ({error})") from error


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, TypeError):
            pass
    return text


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
