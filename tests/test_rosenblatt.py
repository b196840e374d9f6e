"""Maps of angles: exact inverses and log-determinants on the circle, and what they do to densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions.transforms import ComposeTransform

from nessampler.closed_form.affine import fit_map
from nessampler.closed_form.periodic_density import PeriodicDensity, fit_periodic_density, quiet_angle
from nessampler.closed_form.rosenblatt import CircularRosenblatt, fit_rosenblatt, slaved
from nessampler.errors import InputError
from nessampler.kernels import Map

TURN = 2 * math.pi
CIRCULAR = torch.tensor([True, False, True, False])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wrapped(x: Tensor) -> Tensor:
    return torch.remainder(x + math.pi, TURN) - math.pi


def draws(seed: int, n: int = 300) -> Tensor:
    """Two dependent angles and two hard coordinates that follow them."""
    z = torch.randn(n, 4, generator=seeded(seed), dtype=torch.float64)
    z[:, 0] = wrapped(0.6 * z[:, 0] + seed)
    z[:, 2] = wrapped(0.4 * z[:, 2] + z[:, 0].sin() + torch.where(z[:, 1] > 0, 2.0, -0.5))
    z[:, 1] = 0.1 * z[:, 1] + z[:, 0].cos()
    z[:, 3] = 0.2 * z[:, 3] - z[:, 2].sin()
    return z


def grid_density(seed: int, shape: tuple[int, ...]) -> PeriodicDensity:
    values = torch.rand(shape, generator=seeded(seed), dtype=torch.float64) + 0.05
    return PeriodicDensity(values, torch.linspace(-1.0, 2.0, len(shape), dtype=torch.float64))


def maps() -> dict[str, object]:
    a, b = draws(0), draws(1)
    one, two = torch.tensor([0]), torch.tensor([2, 0])
    hard = fit_map(a, b, CIRCULAR, scale="full", shrink=0.5, conditional=True)
    return {
        "one angle": fit_rosenblatt(a, b, one),
        "two angles": fit_rosenblatt(a, b, two),
        "rough grids": CircularRosenblatt(grid_density(3, (7, 5)), grid_density(4, (4, 9)), two),
        "two angles and the rest": slaved(fit_rosenblatt(a, b, two), hard),
    }


MAPS = maps()


@pytest.mark.parametrize("name", MAPS)
def test_the_reversed_step_is_the_exact_inverse(name):
    kernel, x = Map(MAPS[name]), draws(4, n=300)  # pyright: ignore[reportArgumentType]
    there, log_ratio = kernel.step(0.0, 1.0, kernel.start(0.0, x), generator=seeded(0))
    back, inverse_log_ratio = kernel.step(1.0, 0.0, there, generator=seeded(0))
    apart = torch.where(CIRCULAR, wrapped(back.x - x), back.x - x)
    assert float(apart.abs().max()) < 1e-10
    torch.testing.assert_close(log_ratio, -inverse_log_ratio, rtol=0, atol=1e-9)
    assert float((there.x - x).abs().max()) > 0.3


@pytest.mark.parametrize("name", MAPS)
def test_the_log_determinant_is_that_of_the_jacobian(name):
    transform, x = MAPS[name], draws(5, n=12)
    y = transform(x)  # pyright: ignore[reportCallIssue]
    jacobians = torch.stack([torch.autograd.functional.jacobian(transform, row) for row in x])  # pyright: ignore
    expected = torch.linalg.slogdet(jacobians)[1]
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), expected, rtol=0, atol=1e-9)  # pyright: ignore
    inverse = torch.stack([torch.autograd.functional.jacobian(transform.inv, row) for row in y])  # pyright: ignore
    torch.testing.assert_close(inverse @ jacobians, torch.eye(4).double().expand(12, 4, 4), rtol=0, atol=1e-9)
    assert float(expected.abs().min()) > 1e-3


@pytest.mark.parametrize("shape", [(6,), (5, 7)])
def test_the_grid_density_is_normalised_and_carried_to_the_uniform_one(shape):
    density, n = grid_density(0, shape), 420  # a multiple of both grids, so that the trapezoid rule sees no kink
    axes = [c + TURN / n * torch.arange(n, dtype=torch.float64) for c in density.cut]
    points = torch.cartesian_prod(*axes).reshape(-1, len(shape))
    p = density.log_density(points).exp()
    torch.testing.assert_close(float(p.mean()) * TURN ** len(shape), 1.0, rtol=0, atol=1e-9)
    u = density.to_unit(points)
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    for power in (1, 2):  # moments of the uniform distribution, by quadrature
        moment = (p[:, None] * u**power).mean(0) * TURN ** len(shape)
        assert float((moment - 1 / (power + 1)).abs().max()) < 4 / n


@pytest.mark.parametrize("lift", [-TURN, TURN])
def test_maps_are_periodic_and_continuous_across_the_cut(lift):
    transform, x = MAPS["two angles"], draws(6, n=50)
    shifted = torch.where(CIRCULAR, x + lift, x)
    torch.testing.assert_close(transform(shifted), transform(x), rtol=0, atol=1e-9)  # pyright: ignore[reportCallIssue]
    cut = transform.source.cut  # pyright: ignore[reportAttributeAccessIssue]
    sides = []
    for step in (-1e-7, 1e-7):
        x[:, 2] = cut[0] + step
        sides.append(transform(x))  # pyright: ignore[reportCallIssue]
    assert float(wrapped(sides[0] - sides[1]).abs().max()) < 1e-3


def test_the_average_of_exp_minus_work_is_the_ratio_of_norms_whatever_the_map():
    def energy_a(x: Tensor) -> Tensor:
        return -1.5 * x[:, 0].cos() - 0.4 * (2 * x[:, 0]).sin()

    def energy_b(x: Tensor) -> Tensor:
        return -2.0 * (x[:, 0] - 1.2).cos() + 0.3 * (3 * x[:, 0]).cos()

    n = 20_000
    x = (-math.pi + TURN / n * torch.arange(n, dtype=torch.float64))[:, None]
    exact = float(energy_b(x).neg().exp().mean() / energy_a(x).neg().exp().mean())
    for seed in (1, 2):
        transform = CircularRosenblatt(grid_density(seed, (6,)), grid_density(seed + 7, (9,)), torch.tensor([0]))
        y = transform(x)
        work = energy_b(y) - energy_a(x) - transform.log_abs_det_jacobian(x, y)  # pyright: ignore[reportArgumentType]
        found = float((-energy_a(x) - work).exp().mean() / energy_a(x).neg().exp().mean())
        assert abs(found / exact - 1) < 1e-4
        assert abs(float((-energy_b(y)).exp().mean() / energy_a(x).neg().exp().mean()) / exact - 1) > 0.05  # no log-det


def test_the_map_carries_one_density_to_the_other_arcs_included():
    g = seeded(3)
    a = 0.5 + 0.3 * torch.rand(3000, 1, generator=g, dtype=torch.float64)  # arcs: empty elsewhere
    b = wrapped(3.0 + 0.2 * torch.randn(3000, 1, generator=g, dtype=torch.float64))  # across ±π
    moved = fit_rosenblatt(a[:1500], b[:1500], torch.tensor([0]))(a[1500:])
    grid = torch.linspace(2.4, 3.6, 13, dtype=torch.float64)
    below = [(torch.remainder(x, TURN) < grid).double().mean(0) for x in (moved, b[1500:])]
    assert float((below[0] - below[1]).abs().max()) < 0.08
    unmoved = (torch.remainder(a[1500:], TURN) < grid).double().mean(0)
    assert float((unmoved - below[1]).abs().max()) > 0.5


def test_hard_coordinates_follow_the_moved_angles():
    a, b, fresh = draws(0, 1500), draws(1, 1500), draws(0, 3000)[1500:]
    hard = fit_map(a, b, CIRCULAR, scale="diagonal", conditional=True)
    following = slaved(fit_rosenblatt(a, b, torch.tensor([0, 2])), hard)(fresh)
    staying = ComposeTransform([hard, fit_rosenblatt(a, b, torch.tensor([0, 2]))])(fresh)
    spread = [float((y[:, 1] - y[:, 0].cos()).std()) for y in (following, staying)]
    assert spread[0] < 0.15 < 0.3 < spread[1]


def test_circles_are_cut_where_samples_are_fewest():
    angles = torch.cat([draws(0)[:, [0]], wrapped(draws(1)[:, [0]])])
    assert float(wrapped(quiet_angle(angles) - (0.5 + math.pi)).abs()) < 1.0


def test_smoothing_is_narrower_where_samples_are_many():
    few, many = (fit_periodic_density(0.2 * torch.randn(n, 1, generator=seeded(0)).double()) for n in (40, 4000))
    peak = [float(d.log_density(torch.zeros(1, 1).double())) for d in (few, many)]
    assert abs(peak[1] + math.log(0.2 * math.sqrt(TURN))) < 0.1
    assert peak[0] < peak[1] + 0.1


@pytest.mark.parametrize(
    ("values", "cut", "words"),
    [
        (torch.ones(2), torch.zeros(1), "grid"),
        (torch.tensor([1.0, 0.0, 1.0]), torch.zeros(1), "positive"),
        (torch.ones(4, 4), torch.zeros(1), "cut"),
    ],
)
def test_bad_densities_are_refused_in_words(values, cut, words):
    with pytest.raises(InputError, match=words):
        PeriodicDensity(values, cut)
    with pytest.raises(InputError, match="20 samples"):
        fit_periodic_density(torch.zeros(5, 1))
