"""The tests of claims notice errors that are wrong by a quarter, biased values and crossed bounds, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from calibration import cells, keys, read, run
from calibration_claims import Cell, failures, tables
from calibration_problems import everything
from traps import CASES

TRUTH = 1.5


def cell(error: float = 1.0, bias: float = 0.0, n: int = 200, seed: int = 0, **more: float) -> Cell:
    """Results whose error is 1, and which claim another one."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "value": TRUTH + bias + rng.normal(),
            "error": error,
            "truth": TRUTH,
            "trusted": True,
            "limits": [TRUTH - 1, None],
            **more,
        }
        for _ in range(n)
    ]
    return Cell("p", "m", "e", tuple(rows))


def claims(*some: Cell) -> set[str]:
    return {claim for *_, claim, _ in failures(some)}


def test_right_claims_hold_and_wrong_ones_are_named() -> None:
    right = [cell(seed=k) for k in range(30)]
    assert claims(*right) == set()
    assert "errors" in claims(*right, cell(error=0.7))
    assert {"errors", "coverage"} <= claims(*right, cell(error=0.6))
    assert "errors" in claims(*right, cell(error=1.5))
    assert "normal" in claims(*right, cell(bias=0.5))


def test_an_upper_limit_of_the_error_may_be_too_large_but_not_too_small() -> None:
    assert claims(cell(error=1.5, systematic=1.1)) == set()
    assert "errors" in claims(cell(error=0.7, systematic=0.5))


def test_flagged_results_and_missing_numbers_are_counted_apart() -> None:
    good, bad = cell(n=50).rows, {"value": TRUTH + 9, "error": 1.0, "truth": TRUTH, "trusted": False}
    mixed = Cell("p", "m", "e", (*good, *[bad] * 50, {**bad, "value": None, "error": None}))
    assert len(mixed.trusted) == 50
    assert len(mixed.answered) == 100
    assert claims(mixed) == set()
    assert "| 101 | 50 |" in tables([mixed])


def test_limits_on_the_wrong_side_are_counted_and_missing_ones_are_not() -> None:
    row = {"truth": TRUTH, "value": None, "error": None, "trusted": False}
    found = [[1.0, 2.0], [1.6, None], [None, 1.4], [None, None]]
    assert Cell("p", "m", "e", tuple(row | {"limits": pair} for pair in found)).outside("limits") == (4, 2)


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    first = run(out, ["works"], None, 2)
    with out.open("a") as file:
        file.write('{"key": ["works", "works", 2], "ro')
    again = run(out, ["works"], None, 2)
    assert again == first == read(out)
    assert len(out.read_text().splitlines()) == 3
    assert {c.estimator for c in cells(again)} == {"bar", "jarzynski_forward", "jarzynski_reverse"}


def test_every_method_is_tried_on_a_difference_and_on_a_density() -> None:
    tried = {method for _, method, _ in keys(list(everything()), None, 1)}
    assert tried >= {"map", "fields", "switching", "feat", "auto", "ais", "smc", "lsq", "nets"}
    assert json.dumps(sorted(tried))


@pytest.mark.parametrize(
    ("kind", "name", "flag"),
    [
        ("difference", "another temperature", "not_samples_of_a"),
        ("difference", "missed mode, reached by A", "overlap_disagrees"),
        ("difference", "disjoint supports", "disjoint_supports"),
        ("difference", "correlated samples as independent", "correlated_samples"),
        ("difference", "tiny ε, coarse steps", "no_overlap"),
        ("difference", "wrong sign of reverse works", "directions_disagree"),
        ("difference", "Jarzynski from a narrow state", "heavy_tail"),
        ("density", "lost mode, exact samples", "unreached"),
        ("density", "samples of another density", "not_samples_of_target"),
    ],
)
def test_a_trap_is_caught_by_its_flag(kind: str, name: str, flag: str) -> None:
    outcome = CASES[kind][name].run(0)
    assert outcome.level != "trusted"
    assert flag in outcome.flags


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("difference", "healthy: wells, map"),
        ("difference", "healthy: chains"),
        ("difference", "healthy: ε as it should be"),
        ("density", "healthy: modes, ais"),
    ],
)
def test_the_healthy_are_left_in_peace(kind: str, name: str) -> None:
    assert CASES[kind][name].run(0).flags == ()
