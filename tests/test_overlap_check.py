"""Positions where forward and reverse paths overlap: silent if both belong together, loud if a mode is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from scipy.stats import binom

from nessampler import fields, kernels, paths, simulate, targets
from nessampler.errors import InputError
from nessampler.overlap_check import overlap_check
from nessampler.targets.mixture import GaussianMixture

WIDE = targets.Gaussian(torch.zeros(2).double(), torch.full((2,), 2.0).double())
MODES = GaussianMixture(
    torch.tensor([[-2.0, 0.0], [2.0, 0.5]]).double(),
    torch.tensor([0.6, 0.8]).double(),
    torch.tensor([0.6, 0.4]).double(),
)
SKEWED = targets.AnharmonicWell([0.5, -0.3], stiffness=[1.0, 2.0], quartic=[0.1, 0.2], skew=[0.6, -0.4], coupling=0.5)


def plain(a, b, n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Works and positions of plain perturbation, forwards and back."""
    generator = torch.Generator().manual_seed(seed)
    x, y = a.sample(n, generator=generator), b.sample(n, generator=generator)
    return tuple(v.numpy() for v in (b.energy(x) - a.energy(x), a.energy(y) - b.energy(y), x, y))


def test_it_is_silent_at_its_level_where_samples_belong_to_their_states() -> None:
    p = np.array([overlap_check(*plain(WIDE, end, 600, seed)).p for seed in range(150) for end in (MODES, SKEWED)])
    assert p.min() > 1e-4
    for level in (0.01, 0.05):
        assert binom.sf((p < level).sum() - 1, len(p), level) > 1e-3


def test_a_mode_that_one_end_lacks_is_seen_from_the_other() -> None:
    for seed in range(5):
        forward, reverse, x, y = plain(WIDE, MODES, 900, seed)
        kept = y[:, 0] < 0
        found = overlap_check(forward, reverse[kept], x, y[kept])
        assert found.p < 1e-12
        assert found.coordinate == 0
        (flag,) = found.flags("samples of B")
        assert flag.code == "overlap_disagrees"
        assert "the same samples of B" in flag.message


def test_a_tenth_of_a_mode_too_little_is_seen_in_enough_samples() -> None:
    forward, reverse, x, y = plain(WIDE, MODES, 20_000, 3)
    thinned = (y[:, 0] < 0) | (np.random.default_rng(0).random(len(y)) < 0.8)
    assert not overlap_check(forward, reverse[thinned], x, y[thinned]).fits
    assert overlap_check(forward, reverse, x, y).fits


def test_both_ends_of_stochastic_paths_agree_and_those_of_a_poorer_end_do_not() -> None:
    path = paths.LinearPath(WIDE, MODES)
    kernel = kernels.Langevin(fields.PathScore(path), 0.3)
    generator, times = torch.Generator().manual_seed(0), tuple(np.linspace(0, 1, 9).tolist())
    x, y = (end.sample(1500, generator=generator) for end in (WIDE, MODES))
    poorer = y[y[:, 0] < 0]
    there = simulate(kernel, path, times, x, generator=generator)
    back = simulate(kernel, path, times[::-1], y, generator=generator)
    again = simulate(kernel, path, times[::-1], poorer, generator=generator)
    assert overlap_check(there, back, there.x, y).fits
    assert overlap_check(there, back, x, back.x).fits
    assert overlap_check(there, again, there.x, poorer).p < 1e-12
    assert overlap_check(there, again, x, again.x).p < 1e-6  # also where paths began


def chains(seed: int, memory: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """Eight chains in each of N(0, 1) and N(0.8, 1), `(chains, draws)`."""
    noise = np.random.default_rng(seed).normal(size=(2, 8, 400))
    x = lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise, axis=-1)[..., 100:]
    return x[0], x[1] + 0.8


def test_correlated_samples_raise_no_alarm_given_as_chains_and_do_as_independent_ones() -> None:
    alarms = {"chains": 0, "independent": 0}
    for seed in range(60):
        a, b = chains(seed)
        forward, reverse = 0.8 * (0.4 - a), 0.8 * (b - 0.4)
        alarms["chains"] += overlap_check(forward, reverse, a[..., None], b[..., None]).p < 0.01
        alarms["independent"] += (
            overlap_check(forward.ravel(), reverse.ravel(), a.reshape(-1, 1), b.reshape(-1, 1)).p < 0.01
        )
    assert alarms["chains"] <= 4  # expected 0.6
    assert alarms["independent"] > 10  # the negative control


def test_nothing_is_said_without_overlap_or_of_very_many_coordinates() -> None:
    forward, reverse, x, y = plain(WIDE, MODES, 300, 0)
    assert overlap_check(forward + 50, reverse + 50, x, y) is None
    assert overlap_check(np.full(9, np.inf), np.full(9, np.inf), np.zeros((9, 1)), np.zeros((9, 1))) is None
    assert overlap_check(forward, reverse, np.tile(x, 200), np.tile(y, 200)) is None
    assert overlap_check(forward, reverse, np.zeros((300, 1)), np.zeros((300, 1))).p == 1.0


def test_positions_of_other_paths_are_refused() -> None:
    forward, reverse, x, y = plain(WIDE, MODES, 300, 0)
    with pytest.raises(InputError, match="every work has the position of its path: got 300 works"):
        overlap_check(forward, reverse, x[:-1], y)
    with pytest.raises(InputError, match="the same coordinates: got 2 and 1"):
        overlap_check(forward, reverse, x, y[:, :1])


def angles(centre: float, width: float, n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Works and positions of an angle turned from von Mises about 0 to one about `centre`, and a width beside it.

    Reverse walkers start in [-π, π); forward ones arrive wherever the turn leaves them.
    """
    rng = np.random.default_rng(seed)
    a, b = rng.vonmises(0.0, 4.0, n), rng.vonmises(centre, width, n)
    side_a, side_b = rng.normal(size=(2, n))
    forward = 4 * np.cos(a) - width * np.cos(a)
    reverse = width * np.cos(b - centre) - 4 * np.cos(b - centre)
    return forward, reverse, np.stack([a + centre, side_a], -1), np.stack([b, side_b], -1)


ANGLE = np.array([True, False])


@pytest.mark.parametrize("centre", [0.0, 2.6, np.pi, -2.8])
def test_angles_are_compared_on_the_circle(centre: float) -> None:
    p = np.array([overlap_check(*angles(centre, 6.0, 600, seed), circular=ANGLE).p for seed in range(80)])
    for level in (0.01, 0.05):
        assert binom.sf((p < level).sum() - 1, len(p), level) > 1e-3
    lifted = overlap_check(*angles(centre, 6.0, 600, 0))
    assert lifted.fits == (centre == 0)  # as numbers they differ by full turns


@pytest.mark.parametrize("centre", [0.0, np.pi])
def test_a_rotamer_that_one_end_lacks_is_seen_on_the_circle(centre: float) -> None:
    forward, reverse, x, y = angles(centre, 6.0, 1500, 1)
    kept = np.sin(y[:, 0] - centre) < 0.3
    found = overlap_check(forward, reverse[kept], x, y[kept], circular=ANGLE)
    assert found.p < 1e-6
    assert found.coordinate == 0
    assert abs(found.forward - found.reverse) < 1  # both medians on the same turn
    off = np.remainder(y[:, 0] - centre + np.pi, 2 * np.pi) - np.pi
    wider = overlap_check(forward, reverse, x, np.stack([centre + 1.5 * off, y[:, 1]], -1), circular=ANGLE)
    assert not wider.fits


def test_a_mask_of_other_coordinates_is_refused() -> None:
    with pytest.raises(InputError, match=r"got 2 coordinates and a mask of shape \(3,\)"):
        overlap_check(*angles(0.0, 6.0, 60, 0), circular=np.zeros(3, dtype=bool))
