"""Sums over stages between neighbouring states: exact values, honest errors, and what two states reduce to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nessampler.errors import InputError
from nessampler.estimators import bar, jarzynski, mbar, neighbours

SCALES, MEANS = np.array([1.0, 1.1, 1.2, 1.3]), np.array([0.0, 0.4, 0.9, 1.3])


def energies(counts: list[int], seed: int) -> np.ndarray:
    """Of normals that move and widen, F_i = -log of the width: samples of each state in all."""
    rng, states = np.random.default_rng(seed), zip(MEANS, SCALES, counts, strict=True)
    x = np.concatenate([mean + scale * rng.normal(size=n) for mean, scale, n in states])
    return 0.5 * ((x - MEANS[:, None]) / SCALES[:, None]) ** 2


EXACT = -math.log(SCALES[-1] / SCALES[0])


@pytest.mark.parametrize("ratio", [True, False], ids=["bar", "fep"])
@pytest.mark.parametrize("counts", [[300, 200, 400, 300], [0, 500, 500, 0], [200, 300, 300, 0]])
def test_stages_sum_to_the_difference_with_an_error_that_is_meant(counts: list[int], ratio: bool) -> None:
    found = [neighbours(energies(counts, seed), counts, ratio=ratio) for seed in range(200)]
    value, error = np.array([(f.delta_f, f.std_error) for f in found], dtype=float).T
    z = (value - EXACT) / error
    # The logarithm of a mean is low by half of its variance, which is a twentieth of an error here.
    assert abs(z.mean()) < 4 / math.sqrt(len(z)) + 0.05
    assert 0.85 < z.std() < 1.15
    assert error.mean() < 0.15


def test_the_error_knows_that_a_sample_serves_two_stages() -> None:
    """Errors of stages, added as if they were independent, would be off by what neighbours share."""
    counts = [0, 500, 500, 0]
    found = neighbours(energies(counts, 0), counts, ratio=False)
    u = energies(counts, 0)
    stages = [
        jarzynski((u[0] - u[1])[:500], reverse=True),
        jarzynski((u[2] - u[1])[:500]),
        jarzynski((u[3] - u[2])[500:]),
    ]
    apart = math.sqrt(sum((e.std_error or 0.0) ** 2 for e in stages))
    assert found.delta_f == pytest.approx(sum(e.delta_f or 0.0 for e in stages))
    assert abs((found.std_error or 0.0) / apart - 1) > 0.05


def test_two_states_are_those_of_bar_and_perturbation_and_many_are_near_mbar() -> None:
    u = energies([700, 500, 0, 0], 1)[:2]
    works = (u[1] - u[0])[:700], (u[0] - u[1])[700:]
    for found, expected in (
        (neighbours(u, [700, 500]), bar(*works)),
        (neighbours(u, [700, 500], ratio=False), jarzynski(works[0])),
    ):
        assert found.delta_f == pytest.approx(expected.delta_f, abs=1e-9)
        assert found.std_error == pytest.approx(expected.std_error, rel=0.02)
    counts = [400, 400, 400, 400]
    staged, together = neighbours(energies(counts, 2), counts), mbar(energies(counts, 2), counts)
    assert staged.delta_f == pytest.approx(together.delta_f, abs=0.03)
    assert staged.std_error is not None
    assert together.std_error is not None
    assert 1 <= staged.std_error / together.std_error < 1.3


def test_a_stage_without_overlap_gives_no_number_and_says_which() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=100), rng.normal(size=100), 60 + rng.normal(size=100)])
    u = np.stack([0.5 * x**2, 0.5 * (x - 0.5) ** 2, 0.5 * (x - 60) ** 2])
    found = neighbours(u, [100, 100, 100])
    assert found.delta_f is None
    assert found.flags[-1].message.startswith("stage 1 to 2: ")


@pytest.mark.parametrize(
    ("u", "counts", "message"),
    [
        (np.zeros((2, 5)), [3, 3], r"energies \(states, samples\): got \(2, 5\) for counts \[3, 3\]"),
        (np.zeros((4, 6)), [3, 0, 0, 3], "got none of states 1 and 2"),
    ],
)
def test_what_cannot_be_summed_is_refused(u: np.ndarray, counts: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        neighbours(u, counts)
