"""Maps between states: exact inverses, exact log-determinants, and the works that follow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.affine import ConditionalAffine, fit_map, fit_standardizer
from nessampler.closed_form.preconditioner import Linear, force_whitening
from nessampler.errors import InputError
from nessampler.kernels import Identity, Kernel, Map
from nessampler.paths import EndpointPath
from nessampler.simulate import simulate
from nessampler.targets import Gaussian, TransformedTarget

CIRCULAR = torch.tensor([False, True, False, False, True])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(seed: int, n: int = 400) -> Tensor:
    """Correlated coordinates, some of which follow two angles."""
    z = torch.randn(n, 5, generator=seeded(seed), dtype=torch.float64)
    mix = torch.randn(5, 5, generator=seeded(seed + 1), dtype=torch.float64) / 2 + torch.eye(5, dtype=torch.float64)
    x = z @ mix + seed
    angle = torch.remainder(x[:, CIRCULAR], 2 * math.pi) - math.pi
    x[:, ~CIRCULAR] += angle.cos() @ torch.ones(2, 3, dtype=torch.float64)
    x[:, CIRCULAR] = angle
    return x


VARIANTS = [
    pytest.param({"scale": scale, "shrink": shrink, "conditional": conditional, "circular": circular}, id=name)
    for name, scale, shrink, conditional, circular in [
        ("none", "none", 0.25, False, None),
        ("diagonal", "diagonal", 0.25, False, None),
        ("full", "full", 1.0, False, None),
        ("shrunk", "full", 0.25, False, None),
        ("none-circular", "none", 0.25, False, CIRCULAR),
        ("conditional-none", "none", 0.25, True, CIRCULAR),
        ("conditional-diagonal", "diagonal", 0.25, True, CIRCULAR),
        ("conditional-full", "full", 0.5, True, CIRCULAR),
    ]
]


@pytest.mark.parametrize("options", VARIANTS)
def test_the_reversed_step_is_the_exact_inverse(options):
    kernel, x = Map(fit_map(draws(0), draws(2), **options)), draws(4, n=50)
    there, log_ratio = kernel.step(0.0, 1.0, kernel.start(0.0, x), generator=seeded(0))
    back, inverse_log_ratio = kernel.step(1.0, 0.0, there, generator=seeded(0))
    torch.testing.assert_close(back.x, x, rtol=0, atol=1e-11)
    torch.testing.assert_close(log_ratio, -inverse_log_ratio, rtol=0, atol=1e-12)
    assert (there.time, back.time) == (1.0, 0.0)
    assert float((there.x - x).abs().max()) > 0.1


@pytest.mark.parametrize("options", VARIANTS)
def test_the_log_determinant_is_that_of_the_jacobian(options):
    transform, x = fit_map(draws(0), draws(2), **options), draws(4, n=7)
    y = transform(x)
    jacobians = torch.stack([torch.autograd.functional.jacobian(transform, row) for row in x])
    expected = torch.linalg.slogdet(jacobians)[1]
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), expected, rtol=0, atol=1e-11)
    if options["scale"] != "none":
        assert float(expected.abs().min()) > 0.05
    _, log_ratio = Map(transform).step(0.0, 1.0, Map(transform).start(0.0, x), generator=seeded(0))
    torch.testing.assert_close(log_ratio, expected, rtol=0, atol=1e-11)
    _, log_ratio = Map(transform).step(1.0, 0.0, Map(transform).start(1.0, y), generator=seeded(0))
    torch.testing.assert_close(log_ratio, -expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", [v for v in VARIANTS if v.values[0]["circular"] is not None])
def test_circular_coordinates_stay_as_they_are(options):
    transform, x = fit_map(draws(0), draws(2), **options), draws(4, n=20)
    assert torch.equal(transform(x)[:, CIRCULAR], x[:, CIRCULAR])
    assert torch.equal(transform.inv(x)[:, CIRCULAR], x[:, CIRCULAR])


def test_a_conditional_map_is_periodic_in_its_angles():
    transform, x = fit_map(draws(0), draws(2), CIRCULAR, conditional=True), draws(4, n=20)
    turned = x + 2 * math.pi * CIRCULAR.double()
    torch.testing.assert_close(transform(turned)[:, ~CIRCULAR], transform(x)[:, ~CIRCULAR])


def test_a_conditional_map_follows_the_angle_that_an_unconditional_one_averages_over():
    x_a, x_b = draws(0, n=4000), draws(0, n=4000)
    x_b[:, ~CIRCULAR] += 3 * x_b[:, CIRCULAR].sin() @ torch.ones(2, 3, dtype=torch.float64)
    expected = x_b[:, ~CIRCULAR]

    def miss(conditional: bool) -> float:
        mapped = fit_map(x_a, x_b, CIRCULAR, scale="none", conditional=conditional)(x_a)[:, ~CIRCULAR]
        return float((mapped - expected).square().mean().sqrt())

    assert miss(conditional=True) < 0.02  # ridge
    assert miss(conditional=False) > 1.0


@pytest.mark.parametrize("seed", [0, 6])
def test_optimal_transport_carries_one_gaussian_to_the_other_exactly(seed):
    x_a, x_b = draws(seed), draws(seed + 2)
    transform = fit_map(x_a, x_b, scale="full", shrink=1.0)
    y = transform(x_a)
    torch.testing.assert_close(y.mean(0), x_b.mean(0), rtol=0, atol=1e-11)
    torch.testing.assert_close(y.T.cov(), x_b.T.cov(), rtol=0, atol=1e-10)
    # Among the maps that do so, the optimal one is symmetric and positive.
    torch.testing.assert_close(transform.matrix, transform.matrix.T, rtol=0, atol=1e-11)
    assert float(torch.linalg.eigvalsh(transform.matrix).min()) > 0
    # Negative control: the diagonal map has the variances but not the correlations.
    diagonal = fit_map(x_a, x_b, scale="diagonal")(x_a).T.cov()
    torch.testing.assert_close(diagonal.diagonal(), x_b.T.cov().diagonal())
    assert float((diagonal - x_b.T.cov()).abs().max()) > 0.1


def test_a_shift_moves_the_means_and_nothing_else():
    x_a, x_b = draws(0), draws(2)
    y = fit_map(x_a, x_b, scale="none")(x_a)
    torch.testing.assert_close(y - x_a, (x_b.mean(0) - x_a.mean(0)).expand_as(y))


@pytest.mark.parametrize("conditional", [False, True])
def test_a_standardizer_gives_mean_zero_and_unit_covariance(conditional):
    x = draws(0)
    transform = fit_standardizer(x, CIRCULAR, shrink=1.0, conditional=conditional)
    y = transform(x)[:, ~CIRCULAR]
    torch.testing.assert_close(y.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-11)
    torch.testing.assert_close(y.T.cov(), torch.eye(3).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(transform.inv(transform(x)), x, rtol=0, atol=1e-11)
    row = x[0]
    jacobian = torch.autograd.functional.jacobian(transform, row)
    assert abs(float(torch.linalg.slogdet(jacobian)[1] - transform.log_abs_det_jacobian(row, row))) < 1e-11


def test_force_whitening_gives_scores_of_unit_covariance():
    scores = draws(0)[:, :3]
    transform, x = force_whitening(scores, shrink=1.0), draws(2)[:, :3]
    # s_y = C^{-1} s for y = C^T x.
    whitened = torch.linalg.solve(transform.matrix.T, scores.T).T
    torch.testing.assert_close(whitened.T @ whitened / len(scores), torch.eye(3).double(), rtol=0, atol=1e-11)
    torch.testing.assert_close(transform.inv(transform(x)), x, rtol=0, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(transform, x[0])
    assert abs(float(torch.linalg.slogdet(jacobian)[1] - transform.log_abs_det_jacobian(x[0], x[0]))) < 1e-12


@pytest.mark.parametrize(
    ("scores", "received"),
    [
        (torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.5, 0.0]]), r"zero at all of 3 samples along coordinates \[1\]"),
        (torch.tensor([[1.0, 1.0], [torch.nan, 1.0], [0.5, -1.0]]), "got scores that are not, of 1 of 3 samples"),
        (torch.tensor([[1.0, 1.0], [-2.0, -2.0], [0.3, 0.3]]), "a combination of whose 2 coordinates is zero"),
    ],
)
def test_scores_without_a_whitening_are_refused(scores, received):
    with pytest.raises(InputError, match=received):
        force_whitening(scores, shrink=1.0)


def test_force_whitening_makes_every_step_size_one():
    stiff = Gaussian(torch.zeros(2, dtype=torch.float64), torch.tensor([0.01, 5.0], dtype=torch.float64))
    x = stiff.sample(20_000, generator=seeded(0))
    image = TransformedTarget(stiff, force_whitening(-x / stiff.scale**2))
    y = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    _, score = image.energy_and_score(y)
    torch.testing.assert_close(score, -y, rtol=0.06, atol=0.0)


@pytest.mark.parametrize(
    ("x_a", "x_b", "options", "received"),
    [
        (torch.randn(2, 3), torch.randn(9, 3), {}, "more than 2 samples of each state: A has 2"),
        (torch.randn(9, 3), torch.randn(2, 3), {}, "more than 2 samples of each state: B has 2"),
        (torch.randn(4, 5), torch.randn(9, 5), {"circular": CIRCULAR, "conditional": True}, "more than 6 .*: A has 4"),
        (torch.randn(9, 3), torch.ones(9, 3), {}, "coordinate 0 does not vary in the samples of B"),
    ],
)
def test_samples_that_fix_no_map_are_refused(x_a, x_b, options, received):
    with pytest.raises(InputError, match=received):
        fit_map(x_a, x_b, **options)


# ---- works ---------------------------------------------------------------------------------------------------------


def test_map_works_are_the_plain_works_of_the_pushed_forward_state(wells):
    x_a, x_b = (w.sample(300, generator=seeded(i)) for i, w in enumerate(wells))
    transform = fit_map(x_a, x_b, scale="full", shrink=0.5)
    pushed = EndpointPath(TransformedTarget(wells[0], transform), wells[1])
    path = EndpointPath(*wells)
    mapped = simulate(Map(transform), path, [0.0, 1.0], x_a, generator=seeded(0))
    plain = simulate(Identity(), pushed, [0.0, 1.0], transform(x_a), generator=seeded(0))
    torch.testing.assert_close(mapped.work, plain.work, rtol=0, atol=1e-11)
    torch.testing.assert_close(mapped.x, plain.x)
    mapped = simulate(Map(transform), path, [1.0, 0.0], x_b, generator=seeded(0))
    plain = simulate(Identity(), pushed, [1.0, 0.0], x_b, generator=seeded(0))
    torch.testing.assert_close(mapped.work, plain.work, rtol=0, atol=1e-11)
    torch.testing.assert_close(mapped.x, transform.inv(plain.x))


@pytest.mark.parametrize("forward", [True, False])
def test_map_works_give_the_exact_ratio_of_normalisers(wells_1d, forward):
    start, end = wells_1d if forward else wells_1d[::-1]
    scale, mean_in, mean_out = (torch.tensor(v, dtype=torch.float64) for v in ([0.8], [[0.3]], [[-0.6]]))
    transform = ConditionalAffine(scale, mean_in, mean_out, torch.tensor([False]))
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    times = [0.0, 1.0] if forward else [1.0, 0.0]
    run = simulate(Map(transform), EndpointPath(*wells_1d), times, grid, generator=seeded(0))
    average = float(torch.exp(-start.energy(grid) - start.log_z + run.log_weight).sum() * (grid[1] - grid[0]))
    assert abs(average / math.exp(end.log_z - start.log_z) - 1) < 1e-10


def test_a_perfect_map_has_constant_work():
    a = Gaussian(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 2.0]).double())
    b = Gaussian(torch.tensor([-3.0, 0.0]).double(), torch.tensor([1.5, 0.1]).double())
    zero = torch.zeros(2, dtype=torch.bool)
    transform = ConditionalAffine(b.scale / a.scale, a.mean[None], b.mean[None], zero)
    run = simulate(
        Map(transform), EndpointPath(a, b), [0.0, 1.0], a.sample(50, generator=seeded(0)), generator=seeded(0)
    )
    torch.testing.assert_close(run.work, torch.full_like(run.work, a.log_z - b.log_z), rtol=0, atol=1e-12)


@pytest.mark.parametrize("times", [[0.0, 0.5, 1.0], [0.0, 0.5], [1.0, 0.5]])
def test_a_map_is_one_step(wells, times):
    kernel, x = Map(Linear(torch.eye(3, dtype=torch.float64))), torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(InputError, match=r"one step between t = 0 and t = 1: got .*; use times \[0, 1\]"):
        kernel.step(times[0], times[1], kernel.start(times[0], x), generator=seeded(0))


@pytest.mark.parametrize("kernel", [Identity(), Map(Linear(torch.eye(1)))])
def test_deterministic_kernels_satisfy_the_protocol(kernel):
    assert isinstance(kernel, Kernel)
