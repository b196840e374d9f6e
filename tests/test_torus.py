"""Angles that move: exact weights with periodic fields, mixtures on the torus, and the fields between two of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nessampler.closed_form.torus_interpolant import TorusFields
from nessampler.closed_form.wrapped_mixture import WrappedMixture, fit_wrapped_mixture
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.kernels import Langevin
from nessampler.networks.torus import TorusResidual
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights
from nessampler.training import fit

TURN = 2 * math.pi


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circle(n: int) -> Tensor:
    return -math.pi + TURN / n * torch.arange(n, dtype=torch.float64)


def mixture(seed: int, k: int, d: int) -> WrappedMixture:
    g = seeded(seed)
    share = torch.rand(k, generator=g, dtype=torch.float64) + 0.2
    means = TURN * torch.rand(k, d, generator=g, dtype=torch.float64) - math.pi
    widths = 0.3 + 0.5 * torch.rand(k, d, generator=g, dtype=torch.float64)
    return WrappedMixture(share / share.sum(), means, widths.square())


def periodic_fields(t: Tensor, x: Tensor) -> Evaluated:
    """Wrong on purpose."""
    return Evaluated(0.7 * (2 * x + t[:, None]).sin() - 0.4, 0.9 * (x - 0.3).cos() + 0.5 * (3 * x).sin())


def half_periodic_fields(t: Tensor, x: Tensor) -> Evaluated:
    return Evaluated(0.7 * (0.5 * x + t[:, None]).sin() - 0.4, 0.9 * (0.5 * x).cos())


@pytest.mark.parametrize(("fields", "exact"), [(periodic_fields, True), (half_periodic_fields, False)])
def test_work_is_unbiased_on_the_circle_at_one_step_with_periodic_fields_only(fields, exact):
    def start(x: Tensor) -> Tensor:
        return -1.2 * x.cos() + 0.4 * (2 * x).sin()

    def end(x: Tensor) -> Tensor:
        return -0.9 * (x - 2.0).cos() - 0.3 * (3 * x).cos()

    kernel, n, m = Langevin(fields, diffusion=0.8), 200, 400
    noise = 9 * (2 * (torch.arange(m, dtype=torch.float64) + 0.5) / m - 1)
    x, xi = (v.reshape(-1, 1) for v in torch.meshgrid(circle(n), noise, indexing="ij"))
    sigma = math.sqrt(2 * 0.8)
    here = fields(torch.zeros(len(x)).double(), x)
    y = x + here.velocity + 0.8 * here.score + sigma * xi
    log_ratio = kernel.log_ratio(0.0, 1.0, x, y)
    density = (-0.5 * xi[:, 0].square()).exp() / math.sqrt(TURN) * 18 / m
    found = float((density * (log_ratio - end(y)[:, 0]).exp()).sum() * TURN / n)
    expected = float((-end(circle(n))).exp().mean() * TURN)
    assert (abs(found / expected - 1) < 1e-8) == exact
    wrapped = torch.remainder(y + math.pi, TURN) - math.pi
    assert torch.allclose(start(x), start(x + TURN))
    assert torch.allclose(end(wrapped), end(y))


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_the_fields_transport_their_density(t):
    """d/dt E[f] = E[b f'] for waves f, and the score is the gradient of the log density."""
    one, other = mixture(1, 2, 1), mixture(2, 3, 1)
    fields, x, step = TorusFields(one, other, torch.tensor([0]), 1), circle(720)[:, None], 1e-5

    def density(time: float) -> Tensor:
        width = (1 - time) * fields.widths[0] + time * fields.widths[1]
        return WrappedMixture(fields.weights, fields.means + time * fields.arcs, width.square()).log_density(x).exp()

    found = fields(torch.full((720,), t).double(), x)
    rate = (density(t + step) - density(t - step)) / (2 * step)
    for k in (1, 2):
        for wave, slope in (((k * x).cos(), -k * (k * x).sin()), ((k * x).sin(), k * (k * x).cos())):
            moved = float((rate * wave[:, 0]).mean() * TURN)
            carried = float((density(t)[:, None] * found.velocity * slope).mean() * TURN)
            assert abs(moved - carried) < 1e-5
            assert abs(moved) + abs(carried) > 1e-4
    log_p = density(t).log()
    slope = (log_p.roll(-1) - log_p.roll(1)) / (2 * TURN / 720)
    assert float((found.score[:, 0] - slope).abs().max()) < 2e-2


def test_the_ends_of_the_path_are_the_mixtures():
    one, other = mixture(3, 3, 2), mixture(4, 2, 2)
    fields = TorusFields(one, other, torch.tensor([2, 0]), 3)
    x = TURN * torch.rand(200, 2, generator=seeded(0), dtype=torch.float64)
    for t, end in ((0.0, one), (1.0, other)):
        z = torch.zeros(200, 3, dtype=torch.float64)
        z[:, [2, 0]] = x
        lifted = x.clone().requires_grad_()
        (score,) = torch.autograd.grad(end.log_density(lifted).sum(), lifted)
        found = fields(torch.full((200,), t).double(), z)
        torch.testing.assert_close(found.score[:, [2, 0]], score, rtol=0, atol=1e-6)
        assert not bool(found.velocity[:, 1].any() | found.score[:, 1].any())
    assert float(fields.variance(0.5)[1]) == 0
    shifted = fields(torch.full((200,), 0.4).double(), z + TURN)
    torch.testing.assert_close(
        shifted.velocity, fields(torch.full((200,), 0.4).double(), z).velocity, rtol=0, atol=1e-9
    )


def test_components_go_the_short_way_to_the_nearest_partner():
    narrow = torch.full((2, 1), 0.04, dtype=torch.float64)
    share = torch.tensor([0.5, 0.5], dtype=torch.float64)
    one = WrappedMixture(share, torch.tensor([[3.0], [0.0]]).double(), narrow)
    other = WrappedMixture(share, torch.tensor([[0.2], [-3.0]]).double(), narrow)
    fields = TorusFields(one, other, torch.tensor([0]), 1)
    assert len(fields.weights) == 2
    torch.testing.assert_close(
        fields.arcs.flatten().sort().values, torch.tensor([0.2, TURN - 6.0]).double(), rtol=0, atol=1e-6
    )


def test_expectation_maximisation_finds_the_mixture_also_across_the_cut():
    truth = WrappedMixture(
        torch.tensor([0.7, 0.3]).double(),
        torch.tensor([[3.1, 0.5], [-1.0, -2.0]]).double(),
        torch.tensor([[0.09, 0.25], [0.04, 0.09]]).double(),
    )
    g = seeded(0)
    label = (torch.rand(900, generator=g) > 0.7).long()
    noise = torch.randn(900, 2, generator=g, dtype=torch.float64) * truth.variances.sqrt()[label]
    x = torch.remainder(truth.means[label] + noise + math.pi, TURN) - math.pi
    found = fit_wrapped_mixture(x[:600], components=(1, 2, 4), generator=g)
    gap = float((truth.log_density(x[600:]) - found.log_density(x[600:])).mean())
    assert abs(gap) < 0.03
    assert float((truth.log_density(x[600:]) - fit_wrapped_mixture(x[:600], components=(1,), generator=g)
                  .log_density(x[600:])).mean()) > 0.3  # fmt: skip
    with pytest.raises(InputError, match="30 samples"):
        fit_wrapped_mixture(x[:20], generator=g)


def test_an_untrained_remainder_is_its_base_and_a_trained_one_is_periodic():
    base = TorusFields(mixture(3, 3, 2), mixture(4, 2, 2), torch.tensor([2, 0]), 4)
    network = TorusResidual(base, base.index, scale=torch.ones(2), width=16, depth=2, generator=seeded(0))
    x, t = torch.randn(30, 4, generator=seeded(1), dtype=torch.float64), torch.linspace(0, 1, 30).double()
    for found, expected in zip(network(t, x)[:2], base(t, x)[:2], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for head in (network.velocity_head, network.score_head):
        nn.init.constant_(head.weight, 0.1)
    moved, shifted = network(t, x), network(t, x + TURN)
    for found, again, start in zip(moved[:2], shifted[:2], base(t, x)[:2], strict=True):
        torch.testing.assert_close(found, again, rtol=0, atol=1e-4)  # the network computes in float32
        assert float((found - start)[:, [0, 2]].detach().abs().min()) > 0
        assert not bool((found - start)[:, [1, 3]].any())
    assert network.evaluations == 90


def test_lifted_pairs_are_samples_that_go_along_their_arcs():
    one, other = mixture(5, 2, 1), mixture(6, 2, 1)
    fields, g = TorusFields(one, other, torch.tensor([1]), 2), seeded(0)
    x_a, x_b = torch.rand(60, 2, generator=g).double() * TURN, torch.rand(50, 2, generator=g).double() * TURN
    a, b = fields.lifted_pairs(x_a, x_b, 4000, generator=g)
    for lifted, samples in ((a, x_a), (b, x_b)):
        apart = torch.remainder(lifted[:, None, 1] - samples[:, 1] + math.pi, TURN) - math.pi
        assert float(apart.abs().min(1).values.max()) < 1e-9
    assert torch.equal(a[:, 0], b[:, 0])
    widest = float(fields.arcs.abs().max())
    assert float((b - a)[:, 1].abs().max()) < widest + TURN
    spread = fields.interpolant.noise
    assert float(spread[0]) == 0 < float(spread[1])


def test_learning_mends_a_mixture_of_too_few_components():
    g = seeded(0)
    two = torch.where(torch.rand(400, 1, generator=g) > 0.4, 1.2, -1.2) + 0.25 * torch.randn(400, 1, generator=g)
    x_a, x_b = two.double(), two.double().neg() + 0.3
    one, other = (fit_wrapped_mixture(x, components=(1,), generator=g) for x in (x_a, x_b))
    base = TorusFields(one, other, torch.tensor([0]), 1)
    network = TorusResidual(base, base.index, scale=torch.ones(1), width=16, depth=2, generator=g)
    weights = Weights(velocity=1.0, denoising=1.0, controlled_velocity=0.0, controlled_score=0.0)
    objective = InterpolantObjective(network, base.interpolant, base.variance, weights=weights, reference=base)

    def batches(n: int) -> Iterator[PairBatch]:
        while True:
            a, b = base.lifted_pairs(x_a, x_b, n, generator=g)
            t = torch.rand(n, generator=g, dtype=torch.float64).clamp(0.01, 0.99)
            yield PairBatch(a, b, None, None, t, torch.randn(a.shape, generator=g, dtype=torch.float64))

    held_out = next(batches(512))
    assert float(objective(held_out).detach()) == 0
    fit(network, objective, batches(128), steps=50, learning_rate=1e-2, generator=g)
    assert float(objective(held_out).detach()) < -0.1
