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
    assert path.tallies.get("checks", Tally()).gradient in (0, len(ensemble.x))
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


def field(n: int, seed: int, *, reach: float = math.inf) -> np.ndarray:
    """Normal fields on a ring of 64 sites with one soft mode, their mean; beyond `reach` standard deviations none."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=4 * n)
    mean = mean[np.abs(mean) < reach][:n]
    rough = rng.normal(size=(n, 64))
    return (rough - rough.mean(1, keepdims=True) + mean[:, None] / 2)[None]


def pull(x: np.ndarray) -> np.ndarray:
    mean = x.mean(-1, keepdims=True)
    return -(x - mean) - mean / 4 / 4  # the mean has variance 1/4, which is 16 of the mode of unit length


def test_tails_of_a_collective_coordinate_are_missed_although_no_site_shows_it() -> None:
    whole, short = field(2000, 0), field(2000, 0, reach=1.6)  # a ninth of the density is missing
    assert stein_check(whole, pull(whole), correlated=False).fits
    assert stein_check(short, pull(short), correlated=False).p < 1e-12
    assert stein_check(short, pull(short), correlated=False, components=0).fits  # by single sites


@pytest.mark.parametrize(("n", "d"), [(1000, 64), (256, 300)])
def test_collective_coordinates_accuse_nobody(n: int, d: int) -> None:
    rng, scale = np.random.default_rng(1), 1 / np.sqrt(np.arange(1, d + 1))
    p = []
    for _ in range(20):
        x = rng.normal(size=(1, n, d))
        p.append(stein_check(x * scale, -x / scale, correlated=False).p)
    assert min(p) > 1e-3
    assert np.median(p) > 0.2


def test_few_walkers_accuse_nobody() -> None:
    ensemble = walkers(0, WELL, n=79)
    assert codes(WELL, Ensemble(ensemble.x, torch.zeros(79).double(), (0.0, 1.0))) == []


def test_many_coordinates_are_looked_at_in_few_walkers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nessampler.methods.density.end_checks.MOST_NUMBERS", 2**17)
    wide, narrow = (Gaussian(torch.zeros(300).double(), torch.full((300,), s).double()) for s in (1.1, 1.0))
    path = CountedPath(LinearPath(wide, narrow))
    found = {}
    for name, source in (("right", narrow), ("wrong", wide)):
        x = source.sample(1000, generator=torch.Generator().manual_seed(0))
        with path.stage("checks"):
            ensemble = Ensemble(x, torch.zeros(1000).double(), (0.0, 1.0))
            found[name] = [flag.code for flag in check_walkers(path, ensemble, seed=0)]
    assert found == {"right": [], "wrong": ["walkers_off_target"]}
    assert path.tallies["checks"].gradient == 2 * (2**17 // 300)


def test_particles_whose_centre_is_fixed_have_fewer_components() -> None:
    rng = np.random.default_rng(0)
    bond = 1.0 + rng.normal(size=(2000, 3))  # of two atoms, and their centre at rest
    x = np.concatenate([0.5 * bond, -0.5 * bond], 1)[None]
    pull = np.concatenate([-(bond - 1.0), bond - 1.0], 1)[None]
    assert stein_check(x, pull, correlated=False).fits
    assert not stein_check(x, 1.3 * pull, correlated=False).fits


def test_a_force_along_a_component_adds_up_over_both_halves() -> None:
    """Of many sites each feels too little of it to be seen; a component has no sense of its own."""
    missed = 0
    for seed in range(10):
        x, push = field(1000, seed), np.full(64, 0.014)
        assert stein_check(x, pull(x) + push, correlated=False, components=0).fits
        missed += stein_check(x, pull(x) + push, correlated=False).fits
    assert missed <= 2
