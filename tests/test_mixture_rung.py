"""Mixtures as candidates of the ladder: exact where modes are Gaussian, better than maps where they are not."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from scipy.stats import binom, kstest
from torch import Tensor

from nessampler.closed_form.fit_mixture_with_scores import fit_mixture_with_scores
from nessampler.errors import InputError
from nessampler.kernels import BranchingMap, Langevin
from nessampler.methods.difference import free_energy
from nessampler.methods.effort import Effort
from nessampler.methods.ends import Block, Ends, split_by_time
from nessampler.methods.ledger import Ledger
from nessampler.methods.mixtures import mixture_candidates
from nessampler.methods.one_sided import _Marked
from nessampler.methods.rungs import VECTOR_RUNGS, Structure
from nessampler.methods.stage import Stage
from nessampler.targets import AnharmonicWell, Counted, Gaussian, Tally
from nessampler.targets.mixture import GaussianMixture, random_mixture

EFFORT = Effort(fields_steps=24, tuning_samples=30)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _only(which: int) -> Structure:
    """The rung with one candidate: mixture map (0), fields of the interpolant (1), circular coordinates alone (2)."""
    return Structure(dict(VECTOR_RUNGS) | {"fields": lambda stage: islice(mixture_candidates(stage), which, which + 1)})


def _between(a, b, n: int, seed: int = 0, **options):
    x_a, x_b = (end.sample(n, generator=_generator(10 * seed + k)) for k, end in enumerate((a, b)))
    return free_energy(a, b, x_a, x_b, method="fields", seed=seed, effort=EFFORT, **options)


def _modes() -> tuple[GaussianMixture, GaussianMixture]:
    return random_mixture(3, 12, scale=0.1, spread=2.0, seed=0), random_mixture(5, 12, scale=0.2, spread=2.0, seed=1)


def test_modes_that_are_gaussian_are_found_and_their_free_energy_is_exact():
    result = _between(*_modes(), 500)
    assert isinstance(result.rung.pilot.transport.kernel, BranchingMap)
    assert abs(result.delta_f.delta_f) < 1e-8
    for state in ("state_a", "state_b"):
        assert result.rung.evaluations[state]["training"]["gradient"] == 200  # one for every sample of the fit block
    assert "3 to 5" in result.rung.description


def test_nothing_dearer_is_tried_where_works_are_all_the_same():
    a, b = _modes()
    x_a, x_b = (end.sample(500, generator=_generator(k)) for k, end in enumerate((a, b)))
    result = free_energy(a, b, x_a, x_b, effort=EFFORT)
    assert [r.name for r in result.rungs] == ["plain", "map", "fields"]


def test_fields_of_fitted_mixtures_transport_where_no_map_does():
    result = _between(*_modes(), 1000, structure=_only(1))
    assert isinstance(result.rung.pilot.transport.kernel, Langevin)
    assert result.delta_f.std_error < 0.1
    assert abs(result.delta_f.delta_f) < 4 * result.delta_f.std_error
    assert result.evaluations["networks"]["sampling"] == 800 * (24 + 1)
    plain = next(r for r in result.rungs if r.name == "map")
    assert plain.estimate.std_error is None or plain.estimate.std_error > 1


def test_components_fit_skewed_wells_better_than_any_affine_map():
    a = AnharmonicWell([0, 0, 0], stiffness=[1, 2, 4], quartic=[0.1, 0.2, 0.05], skew=[0.6, -0.4, 0.5], coupling=0.5)
    b = AnharmonicWell(
        [1.2, -0.8, 0.6], stiffness=[3, 1, 6], quartic=[0.3, 0.05, 0.2], skew=[-0.5, 0.8, 0.4], coupling=-0.4
    )
    result = _between(a, b, 2000, structure=_only(0))
    by_name = {r.name: r.estimate for r in result.rungs}
    assert by_name["fields"].std_error < 0.5 * by_name["map"].std_error
    assert abs(result.delta_f.delta_f - (a.log_z - b.log_z)) < 4 * result.delta_f.std_error


def test_a_single_mode_or_few_samples_leave_the_rung_without_mixtures():
    a, b = (GaussianMixture(m * torch.ones(1, 4).double(), torch.ones(1)) for m in (0.0, 1.0))
    assert "analytic Gaussian fields" in _between(a, b, 300).rung.description
    assert "analytic Gaussian fields" in _between(*_modes(), 200).rung.description
    few = a.sample(50, generator=_generator())
    with pytest.raises(InputError, match="at least 100 samples"):
        fit_mixture_with_scores(a, few, few, generator=_generator(1))
    with pytest.raises(InputError, match="nothing to offer"):
        _between(*_modes(), 200, structure=_only(0))


def test_how_many_samples_mixtures_need_is_said():
    for n, said_so in ((200, True), (250, False)):
        said: list[str] = []
        _between(*_modes(), n, say=said.append)
        told = [line for line in said if line.startswith("fields: no mixtures")]
        assert bool(told) == said_so
        assert all(
            "at least 100 samples" in line and "got 80 in" in line and "250 of each state" in line for line in told
        )


def _chains(end: Gaussian, seed: int, rho: float = 0.97) -> Tensor:
    """Chains of draws that resemble the ones before."""
    noise = torch.randn(300, 4, 2, generator=_generator(seed), dtype=torch.float64)
    for k in range(1, len(noise)):
        noise[k] = rho * noise[k - 1] + math.sqrt(1 - rho**2) * noise[k]
    return end.mean + end.scale * noise.transpose(0, 1)


@pytest.mark.parametrize("circular", [False, True])
def test_correlated_samples_of_one_mode_leave_the_rung_without_mixtures(circular, monkeypatch):
    a, b = (Gaussian(m * torch.ones(2).double(), torch.tensor([0.3, 1.0]).double()) for m in (0.0, 0.5))
    blocks = split_by_time(_chains(a, 0), _chains(b, 1), (0.5, 0.25, 0.25), correlated=True)
    ends = Ends(a, b, torch.tensor([circular, False]), (Counted(a), Counted(b)))
    stage = Stage(ends, *blocks[:2], EFFORT, Ledger(ends.counted, (Tally(), Tally())))
    assert list(mixture_candidates(stage)) == []
    monkeypatch.setattr(Block, "late", (None, None))
    assert len(list(mixture_candidates(stage))) == 2 + circular  # of copies of what is fitted, any number of components


@pytest.mark.slow
def test_intervals_cover_and_bounds_hold_over_many_seeds():
    """Every seed has samples, fits, pilots and walkers of its own; 60 of them."""
    z, covered, bounded = [], 0, 0
    for seed in range(60):
        result = _between(*_modes(), 500, seed, structure=_only(1))
        z.append(result.delta_f.delta_f / result.delta_f.std_error)
        covered += result.delta_f.ci95[0] <= 0.0 <= result.delta_f.ci95[1]
        bounded += result.bounds.lower_limit <= 0.0 <= result.bounds.upper_limit
    assert kstest(z, "norm").pvalue > 1e-3
    assert binom.ppf(0.0005, 60, 0.95) <= covered
    assert bounded >= 59


class Rotor:
    """An angle in one of two wells on either side of the cut, and a coordinate that follows it."""

    event_shape = torch.Size([2])
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[:-1]

    def __init__(self, place: float, bias: float, width: float) -> None:
        self.place, self.bias, self.width = place, bias, width
        self.density = torch.exp(-self._angular(self.grid))
        self.log_z = math.log(float(self.density.mean()) * 2 * math.pi * math.sqrt(2 * math.pi) * width)

    def _angular(self, angle: Tensor) -> Tensor:
        return 6 * torch.cos(2 * (angle - self.place)) + self.bias * torch.cos(angle - self.place - 0.5 * math.pi)

    def energy(self, x: Tensor) -> Tensor:
        follows = x[:, 1] - torch.sin(x[:, 0])
        return self._angular(x[:, 0]) + 0.5 * (follows / self.width) ** 2

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        angle = self.grid[torch.multinomial(self.density, n, replacement=True, generator=generator)]
        noise = torch.randn(n, generator=generator, dtype=torch.float64)
        return torch.stack([angle, torch.sin(angle) + self.width * noise], 1)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_circular_coordinates_are_turned_and_the_free_energy_is_right(which):
    a, b = Rotor(1.5, 0.5, 0.2), Rotor(2.6, -0.3, 0.4)
    result = _between(a, b, 2500, coordinates=_Marked(torch.tensor([True, False])), structure=_only(which))
    by_name = {r.name: r.estimate for r in result.rungs}
    assert result.delta_f.std_error < 0.03
    assert by_name["plain"].std_error > 3 * result.delta_f.std_error
    assert abs(result.delta_f.delta_f - (a.log_z - b.log_z)) < 4 * result.delta_f.std_error
