"""φ⁴ with couplings on ramps: the ends, the floor, the derivative, and an unbiased log Z."""

from __future__ import annotations

import math

import pytest
import torch

from nessampler.errors import InputError
from nessampler.kernels import HMC
from nessampler.paths.couplings import coupling_path, early, late
from nessampler.simulate import simulate
from nessampler.targets.phi4 import FreeField, Phi4


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_ends_are_the_free_field_and_the_target(dimensions):
    target = Phi4(3, quartic=0.7, mass_squared=-0.5, dimensions=dimensions)
    path = coupling_path(target, start_mass_squared=1.5)
    x = torch.randn(4, *target.event_shape, generator=seeded(0), dtype=torch.float64)
    free = FreeField.massive(3, mass_squared=1.5, dimensions=dimensions)
    for t, end in ((0.0, free), (1.0, target)):
        time = torch.full((4,), t, dtype=torch.float64)
        energy, score = path.energy_and_score(time, x)
        expected = end.energy_and_score(x)
        torch.testing.assert_close(energy, expected[0])
        torch.testing.assert_close(score, expected[1])


def test_the_time_derivative_and_the_score_are_those_of_the_energy():
    path = coupling_path(Phi4(4, quartic=0.9))
    x, t = torch.randn(6, 4, 4, generator=seeded(1), dtype=torch.float64), torch.linspace(0.05, 0.95, 6).double()
    point = path.evaluate(t, x)
    h = 1e-6
    rate = (path.energy(t + h, x) - path.energy(t - h, x)) / (2 * h)
    torch.testing.assert_close(point.time_derivative, rate, rtol=1e-6, atol=1e-6)
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(path.energy(t, position).sum(), position)
    torch.testing.assert_close(point.score, -gradient)


def test_a_schedule_changes_the_way_and_not_the_answer():
    """log Z of a two-site chain by quadrature; swapped ends as the control."""
    target = Phi4(2, quartic=0.8, mass_squared=-1.0, dimensions=1)
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    log_z = float(torch.logsumexp(-target.energy(grid), 0)) + 2 * math.log(float(axis[1] - axis[0]))
    times = torch.linspace(0, 1, 13).tolist()
    for mass, quartic in ((late, early), (lambda t: t, lambda t: t.sqrt())):
        path = coupling_path(target, mass=mass, quartic=quartic)
        x = path.start.sample(4000, generator=seeded(2))
        found = simulate(HMC(path, 0.3, 3), path, times, x, generator=seeded(3))
        value = found.log_z_ratio + path.start.log_z
        assert found.log_z_error < 0.02
        assert abs(value - log_z) < 4 * found.log_z_error
        assert abs(path.start.log_z - found.log_z_ratio - log_z) > 4 * found.log_z_error


def test_an_action_without_a_floor_and_ramps_that_stop_short_are_refused():
    with pytest.raises(InputError, match=r"floor all the way: at t = 0\.25 λ is 0 and m² is 0"):
        coupling_path(Phi4(4, quartic=0.8), mass=early, quartic=late)
    with pytest.raises(InputError, match=r"`quartic` goes from \[0\.0, 0\.5\]"):
        coupling_path(Phi4(4, quartic=0.8), quartic=lambda t: t / 2)
