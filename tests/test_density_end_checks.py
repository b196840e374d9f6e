"""Weighted walkers that are not samples of the target are noticed, and so are samples of something else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.end_checks import check_target_samples, check_walkers
from nessampler.paths import LinearPath
from nessampler.simulate import Ensemble
from nessampler.stein import stein_check
from nessampler.targets import AnharmonicWell, Gaussian, Tally
from nessampler.targets.student import StudentMixture

WIDE = Gaussian(torch.zeros(2).double(), torch.full((2,), 2.0).double())
WELL = AnharmonicWell([1.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.5, 0.1], skew=[0.5, 0.0], coupling=1.0)
TAILS = StudentMixture(torch.zeros(1, 2).double(), 1.0, 2.0)


def walkers(seed: int, target: object, proposal: Gaussian = WIDE, n: int = 1000) -> Ensemble:
    """Importance sampling: exact weights without a single step."""
    x = proposal.sample(n, generator=torch.Generator().manual_seed(seed))
    return Ensemble(x, proposal.energy(x) - target.energy(x), (0.0, 1.0))  # pyright: ignore


def codes(target: object, ensemble: Ensemble) -> list[str]:
    path = CountedPath(LinearPath(WIDE, target))  # pyright: ignore
    with path.stage("checks"):
        found = [flag.code for flag in check_walkers(path, ensemble, seed=0)]
    assert path.tallies.get("checks", Tally()).gradient <= 1000
    return found


def test_exact_weights_pass_and_forgotten_ones_do_not() -> None:
    alarms = 0
    for seed in range(40):
        ensemble = walkers(seed, WELL)
        alarms += codes(WELL, ensemble) != []
        equal = Ensemble(ensemble.x, torch.zeros(len(ensemble.x)).double(), (0.0, 1.0))
        assert codes(WELL, equal) == ["walkers_off_target"]
    assert alarms == 0


def test_tails_that_nothing_filled_are_noticed_at_an_effective_size_of_one() -> None:
    x = TAILS.sample(4000, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(1000).double()
    assert codes(TAILS, Ensemble(x[:1000], weights, (0.0, 1.0))) == []
    bulk = x[x.abs().amax(1) < 3][:1000]
    assert codes(TAILS, Ensemble(bulk, weights, (0.0, 1.0))) == ["walkers_off_target"]


def test_resampled_and_dead_walkers_are_not_asked() -> None:
    x = torch.zeros(100, 2).double()
    dead = torch.full((100,), -math.inf).double()
    assert codes(WELL, Ensemble(x, dead, (0.0, 1.0))) == []
    assert codes(WELL, Ensemble(x, torch.zeros(100).double(), (0.0, 1.0), None, True, (50, 50))) == []


def test_target_samples_of_another_density_are_named() -> None:
    x = WELL.sample(500, generator=torch.Generator().manual_seed(0))
    path = CountedPath(LinearPath(WIDE, WELL))
    assert check_target_samples(path, x, seed=0) == ()
    flags = check_target_samples(path, x + 0.3, seed=0)
    assert [flag.code for flag in flags] == ["not_samples_of_target"]
    assert "samples of the target do not satisfy" in flags[0].message


def test_weights_make_samples_of_one_density_those_of_another() -> None:
    x = np.random.default_rng(0).normal(size=(1, 4000, 2)) * 1.3
    weight = (norm.logpdf(x) - norm.logpdf(x, scale=1.3)).sum(-1)
    assert stein_check(x, -x, correlated=False, weight=np.exp(weight)).fits
    found = stein_check(x, -x, correlated=False)
    assert not found.fits
    assert found.temperature == pytest.approx(1.69, abs=4 * found.temperature_error)
