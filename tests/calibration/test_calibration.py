"""Over 200 seeds, claims hold at a family-wise level of 1 %, and limits at 99.9 %: half an hour and more of a core.

    pytest -m slow tests/calibration

Rows that are in runs/calibration.jsonl, made by `docs/benchmarks/calibration.py` with the code as it is, are not made
again.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration import cells, run
from calibration_claims import OUTSIDE, Cell, failures
from calibration_problems import everything
from scipy.stats import binom

SEEDS = 200
OUT = Path(__file__).parents[2] / "runs" / "calibration.jsonl"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> list[Cell]:
    return cells(run(OUT, list(everything()), None, SEEDS))


def test_claims_hold(found: list[Cell]) -> None:
    assert not failures(found)


@pytest.mark.parametrize("limits", ["limits", "tightest"])
def test_bounds_hold(found: list[Cell], limits: str) -> None:
    counts = [cell.outside(limits) for cell in found]
    given, out = (sum(column) for column in zip(*counts, strict=True))
    assert given > 50 * SEEDS
    assert binom.sf(out - 1, given, OUTSIDE) > 0.01
