"""Reports of runs that nobody ran: numbers made up so that each kind of report is drawn in a second."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from nessampler.exchange import GivenWorks, estimate_given
from nessampler.plots import Carried, Lattice, Samples, Weights, WorksAlong, convergence_curve
from nessampler.runs import density_report, report, works_report, works_result
from nessampler.runs.carried import carried_panels
from nessampler.runs.density_evidence import Evidence
from nessampler.runs.difference_evidence import DifferenceEvidence
from nessampler.runs.finished import compose_again, open_finished
from nessampler.runs.observed import Observed, end_state_panels
from nessampler.runs.page import Report

__all__ = [
    "along",
    "carried",
    "density",
    "difference",
    "given_works",
    "lattice",
    "lattice_ends",
    "molecule",
    "stored",
    "two_lattices",
    "work_groups",
]

LABELS = ("a force field with a rather long name", "another one")
DELTA_F = -1.3


def works(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Gaussian works that obey Crooks' theorem."""
    rng = np.random.default_rng(seed)

    def pair(spread: float) -> tuple[np.ndarray, np.ndarray]:
        return (
            DELTA_F + spread**2 / 2 + spread * rng.standard_normal((4, 100)),
            -DELTA_F + spread**2 / 2 + spread * rng.standard_normal((4, 100)),
        )

    return {"plain": pair(3.0), "map": pair(1.0)}


def difference_result(seed: int = 0) -> dict[str, Any]:
    """`result.json` of a difference, as much of it as a report needs."""
    rng = np.random.default_rng(seed)
    counts = {
        stage: {"energy": 4000, "gradient": 2_000_000 if stage == "endstates" else 0}
        for stage in ("endstates", "training", "sampling")
    }
    evaluations = {"state_a": counts, "state_b": counts, "networks": {"training": 0, "sampling": 0}}

    def rung(name: str, error: float) -> dict[str, Any]:
        value = DELTA_F + error * float(rng.standard_normal())
        return {
            "name": name,
            "description": "Knothe–Rosenblatt on 2 torsions, affine by scores, conditional on 5 torsions × 2",
            "chosen": name == "map",
            "block": "evaluate",
            "delta_f": quantity(value, error),
            "overlap": 0.8 if name == "map" else 0.04,
            "ess": {"forward": 0.4, "reverse": 0.003},
            "pareto_k": {"forward": 0.3, "reverse": 0.9},
            "bounds": None,
            "evaluations": evaluations,
            "pilot": {"std_error": error, "cost": 8.7e6, "note": "does not pay: variance × cost 4.4 × that of map"},
            "seconds": 12.0,
            "flags": [],
        }

    rungs = [rung("plain", 0.4), rung("map", 0.05)]
    return {
        "system": "made-up",
        "title": "A molecule with a title of some length, vacuum, at 300 K",
        "kind": "difference",
        "method": "auto",
        "preset": "quick",
        "seed": seed,
        "version": "0.1.0",
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "labels": dict(zip(("state_a", "state_b"), LABELS, strict=True)),
        "temperature": 300.0,
        "delta_f": rungs[1]["delta_f"],
        "delta_f_kcal_per_mol": quantity(0.596 * rungs[1]["delta_f"]["value"], 0.03),
        "rung": "map",
        "verdict": {"level": "trusted", "text": "The map rung gives ± 0.050 kT where plain BAR gives ± 0.400."},
        "rungs": rungs,
        "estimators": {"jarzynski_forward": quantity(DELTA_F, 0.1) | {"flags": []}, "bar": rungs[1]["delta_f"]},
        "bounds": {"lower": -2.0, "upper": -0.8, "lower_limit": -2.2, "upper_limit": -0.6},
        "ess": {"forward": 0.4, "reverse": 0.003},
        "overlap": 0.8,
        "evaluations": evaluations,
        "seconds": {"total": 60.0},
        "endstates": {"state_a": {"replicas": 4, "frames": 400}, "state_b": {"replicas": 4, "frames": 400}},
        "reference": {"value": DELTA_F, "std_error": 0.01, "source": "construction"},
        "z_score": 0.3,
        "flags": [{"code": "few_effective_samples", "message": "45 effective samples (at least 50 wanted)."}],
    }


def difference() -> Report:
    """A difference of densities, trained."""
    metrics = [{"step": 10 * k, "loss": 0.9**k} for k in range(40)]
    found = works()
    return report.compose(
        difference_result(),
        found,
        metrics=metrics,
        convergence=convergence_curve(*found["map"]),
        along=along(),
        config=CONFIG,
    )


def molecule() -> Report:
    """A difference of force fields, with its torsions."""
    found = works()
    panels = [*end_state_panels(torsions(), LABELS), *carried_panels(torsions(), carried())]
    return report.compose(
        difference_result(), found, convergence=convergence_curve(*found["map"]), panels=panels, config=CONFIG
    )


def along() -> dict[str, WorksAlong]:
    """The works of a rung on its way, in either direction."""
    t = np.linspace(0, 1, 11)
    return {
        "forward": WorksAlong(t, 1 - 0.6 * t, (0.3 + DELTA_F) * t, DELTA_F * t),
        "reverse": WorksAlong(1 - t, 1 - 0.7 * t, (0.4 - DELTA_F) * t, -DELTA_F * t),
    }


def carried() -> tuple[Carried, Carried]:
    """Torsions of samples that were carried to either state, with weights."""
    rng, seen = np.random.default_rng(5), torsions()

    def there(series: Mapping[str, np.ndarray]) -> Carried:
        return Carried({name: values.reshape(1, -1) for name, values in series.items()}, rng.standard_normal(400))

    return there(seen.a), there(seen.b)


def two_lattices() -> Report:
    """A difference of lattice fields."""
    panels = DifferenceEvidence(lattice=lattice_ends()).panels(LABELS)
    return report.compose(difference_result(), works(), panels=panels, config=CONFIG)


def lattice_ends() -> tuple[Lattice, Lattice]:
    """Observables of both states."""
    rng = np.random.default_rng(6)

    def state(width: float) -> Lattice:
        two_point = width * np.exp(-np.arange(5) / 2), np.full(5, 0.02)
        averages = np.array([0.01, width, width**2]), np.array([0.02, 0.01, 0.01])
        return Lattice(rng.normal(0, width, 200), np.full(200, 1 / 200), averages, two_point)

    return state(0.4), state(0.1)


def torsions() -> Observed:
    """Two backbone torsions and two others."""
    rng = np.random.default_rng(1)
    names = (
        "phi(ACE1:C-ALA2:N-CA-ALA2:C)",
        "psi(ALA2:N-CA-ALA2:C-NME3:N)",
        "torsion(HB1-CB-CA-ALA2:N)",
        "torsion(a/b)",
    )

    def state(shift: float) -> dict[str, np.ndarray]:
        return {name: np.degrees(rng.vonmises(shift + k, 3.0, (4, 100))) for k, name in enumerate(names)}

    return Observed(state(-1.5), state(-0.5), "degrees")


def given_works(one_way: bool = False) -> Report:
    """Works from elsewhere."""
    rng = np.random.default_rng(4)
    forward, reverse = 1.5 + rng.standard_normal(200), -0.5 + rng.standard_normal(150)
    long = "a/folder/of/some/depth/" * 4
    given = GivenWorks(forward, "kT", 300.0, f"{long}forward.csv", "integral of dH/dλ")
    back = None if one_way else GivenWorks(reverse, "kT", 300.0, f"{long}reverse.csv")
    found = estimate_given(given, back)
    command = f"nessampler estimate {long}forward.csv {long}reverse.csv --unit kT --temperature '300 K' --seed 0"
    return works_report.compose(works_result.to_dict(found, given, back, "0.1.0", 0, command), *found.works)


def density() -> Report:
    """A density in the plane, with exact draws."""
    return density_report.compose(density_result(), evidence(), config=CONFIG)


def lattice() -> Report:
    """A lattice field."""
    return density_report.compose(density_result(), lattice_evidence(), config=CONFIG)


def lattice_evidence() -> Evidence:
    """Of a lattice field: observables instead of coordinates."""
    rng = np.random.default_rng(3)
    two_point = np.exp(-np.arange(5) / 2), np.full(5, 0.02)
    averages = np.array([0.01, 0.4, 0.2]), np.array([0.02, 0.01, 0.01])
    found = evidence()
    shown = Lattice(rng.normal(0, 0.4, 200), np.full(200, 1 / 200), averages, two_point)
    return Evidence(found.weights, found.path, None, shown, found.metrics)


def evidence() -> Evidence:
    """Of a density: two attempts, one of them carried back as well."""
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((200, 2)), np.linspace(0.1, 1, 10)
    path = {"ESS so far": {"ais": (t, 1 - 0.5 * t), "lsq": (t, 1 - 0.1 * t)}, "log Z so far": {"ais": (t, 3 * t)}}
    weights = {"ais": Weights(rng.normal(1, 1, 200)), "lsq": Weights(rng.normal(1, 0.1, 200), rng.normal(1, 0.1, 90))}
    samples = Samples(x, np.full(200, 1 / 200), x[::2], rng.standard_normal((100, 2)), 10)
    return Evidence(weights, path, samples, None, [{"step": k, "loss": 1 / (k + 1)} for k in range(5)])


def density_result() -> dict[str, Any]:
    """`result.json` of a density, as much of it as a report needs."""
    counts = {"target": {stage: {"energy": 1000, "gradient": 40_000} for stage in ("pilot", "sampling")}}

    def attempt(name: str, error: float) -> dict[str, Any]:
        return {
            "name": name,
            "description": "drift in closed form (99 fields), 8 steps of flow and HMC of 5 leapfrogs",
            "chosen": name == "lsq",
            "log_z": quantity(1.0, error),
            "walkers": 200,
            "ess": {"forward": 0.9, "forward_error": 0.01, "reverse": 0.8},
            "pareto_k": 0.3,
            "bounds": None,
            "quality": {},
            "evaluations": counts,
            "seconds": 3.0,
            "note": "",
            "flags": [],
        }

    attempts = [attempt("ais", 0.1), attempt("lsq", 0.01)]
    return {
        "system": "made-up",
        "title": "A density",
        "kind": "density",
        "method": "auto",
        "preset": "quick",
        "seed": 0,
        "version": "0.1.0",
        "dimension": 10,
        "log_z": attempts[1]["log_z"],
        "chosen": "lsq",
        "verdict": {"level": "caution", "text": "90.0 % of 200 walkers are effective."},
        "attempts": attempts,
        "walkers": 200,
        "ess": attempts[1]["ess"],
        "evaluations": counts,
        "seconds": {"total": 12.0},
        "reference": None,
        "z_score": None,
        "flags": [],
    }


def stored(folder: Path, result: Mapping[str, Any], groups: Mapping[str, Any], metrics: str = "step,loss\n") -> Path:
    """A run directory with these contents."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    (folder / "metrics.csv").write_text(metrics, encoding="utf-8")
    data = folder / ("samples.nc" if result["kind"] == "density" else "works.nc")
    for name, variables in groups.items():
        mode = "a" if data.exists() else "w"
        xarray.Dataset(variables).to_netcdf(data, group=name, mode=mode, engine="h5netcdf")
    return folder


def both_ways(folder: Path, groups: Mapping[str, Any], **shown: Any) -> tuple[Report, Report]:
    """The report of a difference from what a run has at hand, `shown`, and from `groups` in its files."""
    result = difference_result()
    straight = report.compose(result, works(), convergence=convergence_curve(*works()["map"]), config=CONFIG, **shown)
    return straight, compose_again(open_finished(stored(folder, result, {**work_groups(), **groups})))


def work_groups(seed: int = 0) -> dict[str, dict[str, Any]]:
    """The works as groups of a file."""
    found = works(seed)
    return {
        way: {f"work_{name}": (("chain", "draw"), pair[k]) for name, pair in found.items()}
        for k, way in enumerate(("forward", "reverse"))
    }


def quantity(value: float, error: float) -> dict[str, Any]:
    """A value with its error and interval."""
    return {"value": value, "std_error": error, "ci95": [value - 1.96 * error, value + 1.96 * error]}


CONFIG = '[run]\nmethod = "auto"\nseed = 0\n' + f"# {'a line that is wider than a phone ' * 5}\n"
