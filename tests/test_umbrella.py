"""A harmonic bias on the mean coordinate, and the reversal of a magnet as a Metropolis proposal."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nessampler.errors import InputError
from nessampler.kernels import HMC, Compose, Mirror
from nessampler.paths import LinearPath
from nessampler.runs.density_targets import build_target
from nessampler.targets import Gaussian
from nessampler.targets.phi4 import Phi4
from nessampler.targets.umbrella import Umbrella


def magnet(size: int = 4) -> Phi4:
    return Phi4(size, quartic=0.8)


def window(center: float = 0.6, stiffness: float = 5.0, size: int = 4) -> Umbrella:
    return Umbrella(magnet(size), stiffness=stiffness, center=center)


def fields(n: int = 3, size: int = 4) -> torch.Tensor:
    return torch.randn(n, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- the target --------------------------------------------------------------------------------------------------


def test_the_bias_acts_on_the_mean_without_a_half() -> None:
    x = fields()
    by_hand = torch.stack([5.0 * (field.sum() / 16 - 0.6) ** 2 for field in x])
    torch.testing.assert_close(window().energy(x) - magnet().energy(x), by_hand)
    torch.testing.assert_close(window().bias(x), by_hand)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_score_is_minus_the_gradient(dtype: torch.dtype) -> None:
    x = fields().to(dtype).requires_grad_()
    energy, score = window().energy_and_score(x)
    (gradient,) = torch.autograd.grad(window().energy(x).sum(), x)
    assert (energy.dtype, score.dtype) == (torch.float64, dtype)
    torch.testing.assert_close(score.detach(), -gradient)
    torch.testing.assert_close(energy, window().energy(x))


def test_the_free_energy_of_two_windows_is_gaussian_where_the_target_is() -> None:
    """log Z of N unit normals under κ (M - c)² is that of M, of variance 1/N, under the same bias."""
    target, grid = Gaussian(torch.zeros(3), torch.ones(3)), torch.linspace(-7, 7, 57, dtype=torch.float64)
    spot = Umbrella(target, stiffness=2.0, center=0.7)
    points = torch.cartesian_prod(grid, grid, grid)
    log_z = float(torch.logsumexp(-spot.energy(points), 0)) + 3 * math.log(float(grid[1] - grid[0]))
    exact = 1.5 * math.log(2 * math.pi) - 0.5 * math.log1p(2 * 2.0 / 3) - 2.0 * 0.49 / (1 + 2 * 2.0 / 3)
    assert abs(log_z - exact) < 1e-8


def test_bad_umbrellas_are_refused() -> None:
    with pytest.raises(InputError, match="finite centre"):
        window(center=math.nan)
    with pytest.raises(InputError, match="at least 0"):
        window(stiffness=-1.0)


def test_a_file_can_name_an_umbrella_on_the_lattice() -> None:
    table = {"size": 4, "quartic": 0.8, "stiffness": 5.0, "center": 0.6}
    found = build_target("phi4-umbrella", table, Path())
    torch.testing.assert_close(found.energy(fields()), window().energy(fields()))


def test_only_a_target_with_a_mirror_hands_one_on() -> None:
    assert torch.equal(window().mirror(fields()), -fields())
    assert not hasattr(Umbrella(Gaussian(torch.zeros(2), torch.ones(2)), stiffness=1.0, center=0.0), "mirror")


# --- the proposal ------------------------------------------------------------------------------------------------


def test_the_ratio_of_a_reversal_is_the_change_of_energy() -> None:
    target, x = window(), fields(64)
    path = LinearPath(target, target)
    kernel = Mirror(path, target.mirror)
    moved, ratio = kernel.step(1.0, 1.0, kernel.start(1.0, x), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ratio, target.energy(moved.x) - target.energy(x))
    assert moved.energy is not None
    torch.testing.assert_close(moved.energy, target.energy(moved.x))
    flipped = (moved.x == -x).flatten(1).all(1)
    assert bool((flipped | (moved.x == x).flatten(1).all(1)).all())
    assert 0 < int(flipped.sum()) < 64
    downhill = target.energy(-x) < target.energy(x)
    assert bool(flipped[downhill].all())


class Credulous(Mirror):
    """A reversal that is always accepted."""

    def _energy(self, t: float, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x),), -math.inf, dtype=torch.float64)


def share_beyond_zero(reversal: type[Mirror]) -> tuple[float, float]:
    """How many chains that start negative are positive after trajectories that hardly cross, and how many should be."""
    target = Umbrella(Phi4(2, quartic=2.0, mass_squared=-6.0), stiffness=0.6, center=0.4)
    path, generator = LinearPath(target, target), torch.Generator().manual_seed(2)
    kernel = Compose(HMC(path, 0.08, 3), reversal(path, target.mirror))
    walkers = kernel.start(1.0, -torch.full((1000, 2, 2), 1.2, dtype=torch.float64))
    for _ in range(30):
        walkers, _ = kernel.step(1.0, 1.0, walkers, generator=generator)
    grid = torch.linspace(-2.4, 2.4, 25, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid, grid, grid).view(-1, 2, 2)
    weight = torch.softmax(-target.energy(points), 0)
    m = points.flatten(1).mean(1)
    exact = float(weight[m > 1e-9].sum() + 0.5 * weight[m.abs() < 1e-9].sum())
    return float((walkers.x.flatten(1).mean(1) > 0).double().mean()), exact


def test_reversals_carry_chains_across_with_the_right_share() -> None:
    found, exact = share_beyond_zero(Mirror)
    error = math.sqrt(exact * (1 - exact) / 1000)
    assert abs(found - exact) < 4 * error
    assert error < 0.02
    wrong, _ = share_beyond_zero(Credulous)
    assert abs(wrong - exact) > 8 * error
