"""Samples that do not belong to their state are noticed; those that do are left in peace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from scipy.stats import gumbel_r, norm
from torch import Tensor

import nessampler as ns
from nessampler.diagnostics import disjoint_supports
from nessampler.errors import InputError
from nessampler.methods.effort import Training
from nessampler.methods.end_checks import _in_order
from nessampler.stein import stein_check
from nessampler.targets import AnharmonicWell, Gaussian, TransformedTarget, energy_and_score
from nessampler.targets.numpy_density import NumpyDensity

Wells = tuple[AnharmonicWell, AnharmonicWell]
SEEDS, FEWER = 100, 40


def chains(seed: int, shape: tuple[int, int] = (8, 250), d: int = 8, memory: float = 0.7) -> tuple[np.ndarray, ...]:
    """Correlated samples of U = Σ x + exp(-x), skewed, some coordinates slower than others; and their scores."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(shape[0], shape[1] + 100, d))
    filtered = [
        lfilter([np.sqrt(1 - m * m)], [1, -m], noise[..., i], axis=1) for i, m in enumerate(np.linspace(0, memory, d))
    ]
    x = gumbel_r.ppf(norm.cdf(np.stack(filtered, -1)[:, 100:]))
    return x, np.exp(-x) - 1


def test_healthy_correlated_samples_pass_and_hot_or_shifted_ones_do_not() -> None:
    found = {"healthy": 0, "hot": 0, "neighbour": 0}
    for seed in range(SEEDS):
        x, score = chains(seed)
        found["healthy"] += not stein_check(x, score).fits
        if seed >= FEWER:
            continue
        found["hot"] += not stein_check(x, score / 1.1).fits  # of a density that is colder by a tenth
        found["neighbour"] += not stein_check(x, np.exp(-(x - 0.2)) - 1).fits  # moved by 0.16 standard deviations
    assert found["healthy"] <= 1  # one in a thousand is allowed
    assert found["hot"] >= FEWER - 2
    assert found["neighbour"] >= FEWER - 2


def test_independent_skewed_samples_pass() -> None:
    bad, small = 0, 0
    for seed in range(SEEDS):
        x = np.random.default_rng(seed).gumbel(size=(1, 400, 12))
        p = stein_check(x, np.exp(-x) - 1, correlated=False).p
        bad, small = bad + (p < 0.001), small + (p < 0.1)
    assert bad <= 1
    assert small <= 22  # four standard deviations above a tenth
    assert small >= 1  # and the p-value is alive


def test_correlation_taken_for_independence_raises_false_alarms() -> None:
    alarms = [
        not stein_check(*(v.reshape(1, -1, 8) for v in chains(seed, memory=0.9)), correlated=False).fits
        for seed in range(40)
    ]
    assert sum(alarms) > 10


def test_the_temperature_is_that_of_the_samples() -> None:
    x = 1.5**0.5 * np.random.default_rng(0).normal(size=(1, 4000, 5))
    found = stein_check(x, -x, correlated=False)
    assert found.temperature == pytest.approx(1.5, abs=4 * found.temperature_error)
    assert found.temperature_error < 0.03


def test_angles_are_seen_as_angles() -> None:
    x = np.random.default_rng(0).vonmises(0.4, 2.0, size=(1, 3000, 1))
    score, wraps = -2 * np.sin(x - 0.4), np.array([True])
    assert stein_check(x, score, circular=wraps, correlated=False).fits
    assert not stein_check(x, score / 1.3, circular=wraps, correlated=False).fits
    moved = np.mod(x + 3, 2 * np.pi)  # wherever the circle is cut
    assert stein_check(moved, score, circular=wraps, correlated=False).fits


def test_particles_without_a_centre_of_mass_are_a_density_in_fewer_dimensions() -> None:
    x = np.random.default_rng(0).normal(size=(1, 3000, 4, 3))
    x -= x.mean(2, keepdims=True)
    flat = x.reshape(1, 3000, 12)
    force = (x + 7.0).reshape(flat.shape)  # a common push that a fixed centre does not feel
    found = stein_check(flat, -force, correlated=False)
    assert found.fits
    assert found.temperature == pytest.approx(1, abs=4 * found.temperature_error)
    assert not stein_check(flat, -1.1 * flat, correlated=False).fits


def test_shapes_and_numbers_that_make_no_sense_are_refused() -> None:
    x = np.zeros((1, 9, 2))
    with pytest.raises(InputError, match="samples and scores are"):
        stein_check(x, x[:, :5])
    with pytest.raises(InputError, match=r"scores must be finite: those at \[0, 3, 1\]"):
        stein_check(x, np.where(np.arange(18).reshape(1, 9, 2) == 7, np.nan, x))


# --- in a difference ---------------------------------------------------------------------------------------------


def draws(wells: Wells, n: int = 2500, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return wells[0].sample(n, generator=generator), wells[1].sample(n, generator=generator)


def codes(*arguments: Any, **options: Any) -> list[str]:
    return [flag.code for flag in ns.free_energy(*arguments, method="plain", **options).flags]


def test_samples_of_their_own_states_are_not_flagged(wells: Wells) -> None:
    assert codes(*wells, *draws(wells)) == []


def test_exchanged_samples_are_named(wells: Wells) -> None:
    a, b = draws(wells)
    with pytest.raises(InputError, match="exchange samples_a and samples_b"):
        ns.free_energy(*wells, b, a, method="plain")


def test_samples_of_a_neighbouring_state_are_flagged(wells: Wells) -> None:
    a, b = draws(wells)
    # From A's side as well: forward and reverse walkers do not see the same of either end.
    assert set(codes(*wells, a, b + 0.15)) == {"not_samples_of_b", "overlap_disagrees"}


def test_samples_at_another_temperature_are_flagged(wells: Wells) -> None:
    class Colder:
        def __init__(self, target: AnharmonicWell) -> None:
            self.target, self.event_shape = target, target.event_shape

        def energy(self, x: Tensor) -> Tensor:
            return 1.25 * self.target.energy(x)

    a, b = draws(wells)
    assert "not_samples_of_a" in codes(Colder(wells[0]), wells[1], a, b)


def test_samples_of_something_else_are_refused(wells: Wells) -> None:
    a, b = draws(wells)
    with pytest.raises(InputError, match="samples must come from their own state: samples of A"):
        ns.free_energy(*wells, 3 * a + 4, b, method="plain")


class Slab:
    """Half a normal density, cut where it is highest."""

    event_shape = torch.Size([1])

    def __init__(self, side: float, center: float = 0.0) -> None:
        self.side, self.center = side, center

    def energy(self, x: Tensor) -> Tensor:
        y = x[:, 0] - self.center
        return torch.where(self.side * y >= 0, 0.5 * y.square(), torch.inf)


def halves(n: int = 400) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64).abs()
    return x[0], -x[1]


def test_a_density_cut_off_where_it_is_high_is_not_judged() -> None:
    x, _ = halves()
    score = energy_and_score(Slab(1), x)[1]
    assert not stein_check(x.numpy()[None], score.numpy()[None], correlated=False).fits  # a boundary term
    assert codes(Slab(1), Slab(1), x, x.flip(0)) == []


def test_samples_outside_of_their_support_are_counted() -> None:
    x = halves()[0]
    with pytest.raises(InputError, match=r"160 of 160 samples of B have energy \+inf"):
        ns.free_energy(Slab(1), Slab(-1), x, x, method="plain")


def test_supports_that_do_not_meet_are_named_and_a_map_mends_it() -> None:
    x, y = halves()
    result = ns.free_energy(Slab(1), Slab(-1), x, y, method="plain")
    assert result.delta_f.delta_f is None
    assert "disjoint_supports" in [flag.code for flag in result.flags]
    assert result.verdict.level == "not trusted"
    mirror = torch.distributions.transforms.AffineTransform(0.0, -1.0, event_dim=1)
    mended = ns.free_energy(Slab(1), TransformedTarget(Slab(-1), mirror), x, -y, method="plain")
    assert mended.delta_f.delta_f == pytest.approx(0, abs=1e-12)
    assert "disjoint_supports" not in [flag.code for flag in mended.flags]
    assert disjoint_supports([np.inf, np.inf], [np.inf, 0.0]) == ()


def test_a_density_without_gradients_is_taken_on_trust() -> None:
    class Opaque(Gaussian):
        def energy(self, x: Tensor) -> Tensor:
            return super().energy(x).detach()

    a, b = Opaque(torch.zeros(2), torch.ones(2)), Opaque(torch.ones(2), torch.ones(2))
    g = torch.Generator().manual_seed(0)
    samples = a.sample(400, generator=g), b.sample(400, generator=g)
    assert codes(a, b, *samples) == []
    energies_only = [NumpyDensity(lambda x, m=m: -0.5 * ((x - m) ** 2).sum(-1), 2) for m in (0.0, 1.0)]
    result = ns.free_energy(*energies_only, *samples, method="map")
    looked_at = 16  # the first eight samples of either end, for energies that are no numbers
    assert result.evaluations["state_a"]["endstates"] == {"energy": looked_at, "gradient": 0}
    with pytest.raises(InputError, match="exchange"):
        ns.free_energy(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)), *samples[::-1])


def test_too_few_samples_for_a_map_are_named() -> None:
    d = 30
    a, b = Gaussian(torch.zeros(d), torch.ones(d)), Gaussian(torch.zeros(d), 2 * torch.ones(d))
    g = torch.Generator().manual_seed(0)
    effort = ns.Effort(blocks=(0.02, 0.49, 0.49), feat=Training(0))
    with pytest.raises(InputError, match="the fit block of A has 8 of 400"):
        ns.free_energy(a, b, a.sample(400, generator=g), b.sample(400, generator=g), method="map", effort=effort)


@pytest.mark.parametrize("kind", ["constant", "two values", "cut off"])
def test_equal_values_are_no_resemblance_of_neighbours(kind: str) -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tied = x.clone()
    tied[:, 1] = {
        "constant": torch.zeros(1000),
        "two values": (x[:, 1] > 1.5).double(),
        "cut off": x[:, 1].clamp(min=1.5),
    }[kind]
    assert _in_order("A", tied) is None
    tied[:, 0] = x[:, 0].cumsum(0)
    flag = _in_order("A", tied)
    assert flag is not None
    assert flag.code == "correlated_samples"


def test_single_draws_of_many_chains_are_enough(wells: Wells) -> None:
    a, b = draws(wells, 1500)
    blocks = (1 / 3, 1 / 3, 1 / 3)
    three = [x.reshape(500, 3, 3) for x in (a, b)]
    assert codes(*wells, *three, effort=ns.Effort(blocks=blocks)) == []
    found = codes(*wells, three[0], three[1] + 0.2, effort=ns.Effort(blocks=blocks))
    assert set(found) == {"not_samples_of_b", "overlap_disagrees"}
