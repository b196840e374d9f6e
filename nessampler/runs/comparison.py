"""Finished runs of one problem side by side: do they agree, and what did each cost?"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from scipy.stats import chi2

from nessampler import _words as words
from nessampler.errors import InputError
from nessampler.runs.finished import read_result

__all__ = ["Comparison", "compare_runs"]

LEAST_LIKELY = 0.01
ROUNDING = 1e-9  # errors below it are those of floating point


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        kind: difference, density, or works from elsewhere, which are a difference too.
        runs: of each its directory, label, system, method, preset, seed, chosen rung or attempt, estimate, verdict,
            distance from the reference, overlap, ESS, evaluations and seconds.
        reference: of the first run that has one; None where none is known.
        z: distances between every two runs in standard errors of both; None where one has no error.
        chi_squared, degrees, p_value: of all values having one mean, runs being independent; None for fewer than two.
        settings: values of each key of the configurations that differ, in the order of the runs.
        cautions: what makes the comparison less than it seems, in words.
    """

    kind: str
    runs: Sequence[Mapping[str, Any]]
    reference: Mapping[str, Any] | None
    z: Sequence[Sequence[float | None]]
    chi_squared: float | None
    degrees: int
    p_value: float | None
    settings: Mapping[str, Sequence[str]]
    cautions: Sequence[str]

    @property
    def quantity(self) -> str:
        """What is compared."""
        return "log Z" if self.kind == "density" else "ΔF / kT"

    @property
    def level(self) -> str:
        """Whether the runs agree, at 1 %."""
        if self.p_value is None:
            return "not comparable"
        return "agree" if self.p_value >= LEAST_LIKELY else "disagree"

    @property
    def largest(self) -> tuple[float, str, str] | None:
        """The largest distance between two runs, and which they are."""
        found = [
            (abs(z), str(self.runs[i]["label"]), str(self.runs[j]["label"]))
            for i, j in combinations(range(len(self.runs)), 2)
            if (z := self.z[i][j]) is not None
        ]
        return max(found) if found else None

    @property
    def text(self) -> str:
        """The verdict in a sentence."""
        if self.p_value is None or self.largest is None:
            return "Fewer than two runs have a value with an error."
        far, one, other = self.largest
        return (
            f"Of one mean, values that differ this much or more have probability {self.p_value:.2g} (χ² = "
            f"{self.chi_squared:.1f}, {self.degrees} degrees of freedom); farthest apart are {one} and {other}, by "
            f"{far:.1f} standard errors."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": self.kind,
            "quantity": self.quantity,
            "runs": [dict(run) for run in self.runs],
            "reference": self.reference,
            "z": [list(row) for row in self.z],
            "chi_squared": self.chi_squared,
            "degrees_of_freedom": self.degrees,
            "p_value": self.p_value,
            "verdict": {"level": self.level, "text": self.text},
            "settings_that_differ": {key: list(values) for key, values in self.settings.items()},
            "cautions": list(self.cautions),
        }


def compare_runs(paths: Sequence[str | Path], *, force: bool = False) -> Comparison:
    r"""Read finished runs and hold them against one another.

    $$z_{ij} = \frac{v_i - v_j}{\sqrt{\sigma_i^2 + \sigma_j^2}}, \qquad
    \chi^2 = \sum_i \frac{(v_i - \bar v)^2}{\sigma_i^2}, \qquad
    \bar v = \frac{\sum_i v_i / \sigma_i^2}{\sum_i 1 / \sigma_i^2}$$

    Args:
        paths: directories of finished runs.
        force: compare runs of different systems, or at different temperatures.

    Raises:
        InputError: fewer than two runs, one that is not finished, a difference beside a density, or, without `force`,
            different systems.
    """
    if len(paths) < 2:
        raise InputError(
            f"a comparison needs two runs at least: got {len(paths)}; name the directories of finished runs"
        )
    found = [read_result(path) for path in paths]
    results = [result for _, result in found]
    _check(found, force)
    labels = _labels([folder for folder, _ in found])
    runs = [_entry(folder, result, label) for (folder, result), label in zip(found, labels, strict=True)]
    z = [
        [None if i == j else _distance(a["estimate"], b["estimate"]) for j, b in enumerate(runs)]
        for i, a in enumerate(runs)
    ]
    chi_squared, degrees = _chi_squared([run["estimate"] for run in runs])
    return Comparison(
        str(results[0]["kind"]),
        runs,
        next((r["reference"] for r in results if r.get("reference")), None),
        z,
        chi_squared,
        degrees,
        None if chi_squared is None else float(chi2.sf(chi_squared, degrees)),
        _settings([folder for folder, _ in found]),
        list(_cautions(runs, results)),
    )


def _check(found: Sequence[tuple[Path, Mapping[str, Any]]], force: bool) -> None:
    first, start = found[0]
    for folder, result in found[1:]:
        if (result["kind"] == "density") != (start["kind"] == "density"):
            raise InputError(
                f"runs of one kind are compared: {first} holds a {start['kind']} and {folder} a {result['kind']}; "
                "compare them apart"
            )
        for key in ("system", "temperature"):
            before, now = (_named(entry).get(key) for entry in (start, result))
            if not force and now != before:
                raise InputError(
                    f"runs of one system at one temperature are compared: {key} is {before} in {first} and {now} in "
                    f"{folder}; add --force if they ask for the same number"
                )


def _named(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Works from elsewhere name no system and no rung."""
    if result["kind"] != "works":
        return result
    name = words.estimator_name(result, next(iter(words.estimators(result)), ""))
    return {**result, "system": "works from elsewhere", "chosen": name}


def _labels(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many parents as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(set(parts)):
            return labels
    return [str(folder) for folder in folders]


def _entry(folder: Path, result: Mapping[str, Any], label: str) -> dict[str, Any]:
    result = _named(result)
    density = result["kind"] == "density"
    chosen = words.chosen(result)
    states = ("target",) if density else ("state_a", "state_b")
    stages = words.DENSITY_STAGES if density else words.STAGES
    return {
        "run": str(folder),
        "label": label,
        **{key: result.get(key) for key in ("system", "method", "preset", "seed", "version")},
        "chosen": words.get(chosen, "name") or result.get("rung") or result.get("chosen"),
        "estimate": {
            key: words.get(result, "log_z" if density else "delta_f", key) for key in ("value", "std_error", "ci95")
        },
        "z_score": result.get("z_score"),
        "verdict": words.get(result, "verdict", "level"),
        "flags": [flag.get("code") for flag in result.get("flags") or []],
        "overlap": result.get("overlap"),
        "ess": {way: words.get(result, "ess", way) for way in ("forward", "reverse")},
        "evaluations": {state: words.calls(result.get("evaluations"), state, *stages) for state in states},
        "seconds": words.get(result, "seconds", "total"),
    }


def _distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    if None in (a["value"], a["std_error"], b["value"], b["std_error"]):
        return None
    both = math.hypot(a["std_error"], b["std_error"])
    return (a["value"] - b["value"]) / both if both > ROUNDING else None


def _chi_squared(estimates: Sequence[Mapping[str, Any]]) -> tuple[float | None, int]:
    known = [
        (e["value"], e["std_error"]) for e in estimates if e["value"] is not None and (e["std_error"] or 0) > ROUNDING
    ]
    if len(known) < 2:
        return None, 0
    weights = [1 / error**2 for _, error in known]
    mean = sum(w * value for w, (value, _) in zip(weights, known, strict=True)) / sum(weights)
    return sum(w * (value - mean) ** 2 for w, (value, _) in zip(weights, known, strict=True)), len(known) - 1


def _settings(folders: Sequence[Path]) -> dict[str, list[str]]:
    """What differs between the resolved configurations; nothing where one of them is missing."""
    tables = []
    for folder in folders:
        file = folder / "config.toml"
        if not file.is_file():
            return {}
        try:
            tables.append(dict(_flat(tomllib.loads(file.read_text(encoding="utf-8")))))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file} must be the configuration of the run: it could not be read ({error})") from error
    keys = dict.fromkeys(key for table in tables for key in table)
    values = {key: [words.plain_words(table.get(key)) for table in tables] for key in keys}
    return {key: found for key, found in values.items() if len(set(found)) > 1}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _cautions(runs: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seeds = [
        (run["system"], run["seed"], run["preset"])
        for run, result in zip(runs, results, strict=True)
        if result["kind"] != "works"
    ]
    if len(set(seeds)) < len(seeds):
        yield (
            "Runs with one seed and preset start from the same samples: they are closer to one another than their "
            "errors say."
        )
    sources = [str(result.get("sources")) for result in results if result["kind"] == "works"]
    if len(set(sources)) < len(sources):
        yield "Estimates from the same files are closer to one another than their errors say."
    for key in ("system", "temperature", "version"):
        values = list(dict.fromkeys(str(_named(result).get(key)) for result in results))
        if len(values) > 1:
            yield f"Not the same {key}: {words.listing(values)}."
    for run in runs:
        if run["verdict"] != "trusted":
            yield f"{run['label']} is not to be relied on: its own verdict is {run['verdict']}."
