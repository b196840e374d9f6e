"""Networks that know the ends' scores, or predict the noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.errors import InputError
from nessampler.interpolants import Linear, LinearInterpolant, NoNoise, ScheduledInterpolant
from nessampler.networks import DenoiserFields, InformedFields
from nessampler.objectives.interpolant import InterpolantObjective, Weights
from nessampler.targets import AnharmonicWell, Counted, Gaussian, energy_and_score
from nessampler.training import fit, pairs

A = Gaussian(torch.zeros(2).double(), torch.ones(2).double())
B = Gaussian(torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 2.0]).double())
BASE = GaussianFields(A.mean, B.mean, torch.eye(2).double(), torch.diag(B.scale**2))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _informed(start, end, **options) -> InformedFields:
    options = {"center": torch.zeros(2), "scale": torch.ones(2), "width": 8, "depth": 1} | options
    return InformedFields(BASE, start, end, generator=_generator(0), **options)


def test_informed_network_starts_as_its_base_and_bills_a_gradient_of_each_end():
    ends = Counted(A), Counted(B)
    network = _informed(*ends)
    t, x = torch.rand(7, generator=_generator(1)).double(), A.sample(7, generator=_generator(2))
    for value, expected in zip(network(t, x)[:2], BASE(t, x)[:2], strict=True):
        assert torch.equal(value, expected)
    assert network.evaluations == 7
    assert [e.tally().gradient for e in ends] == [7, 7]
    assert not any("evaluations" in name for name in network.state_dict())


def test_walkers_seen_before_cost_no_gradients_while_they_are_remembered():
    ends = Counted(A), Counted(B)
    network = _informed(*ends)
    t, batches = torch.full((7,), 0.4).double(), [A.sample(7, generator=_generator(30 + i)) for i in range(3)]
    network.remember = 2
    first = [network(t, x).score for x in batches[:2]]
    for x, score in zip(batches[:2], first, strict=True):
        assert torch.equal(network(t, x).score, score)
    assert ends[0].tally().gradient == 14
    network(t, batches[2])  # the oldest is forgotten
    network(t, batches[0])
    assert ends[0].tally().gradient == 28
    network.remember = 0
    network(t, batches[0] + 1)
    network(t, batches[0])
    assert ends[1].tally().gradient == 42


def test_gains_pass_on_the_compressed_scores_of_either_end():
    network = _informed(A, B, scale=torch.tensor([0.5, 2.0]))
    with torch.no_grad():
        network.velocity_head.bias.copy_(torch.tensor([0, 0, 1, 1, 0, 0]))
        network.score_head.bias.copy_(torch.tensor([0, 0, 0, 0, -2, -2]))
    t, x = torch.full((5,), 0.3).double(), B.sample(5, generator=_generator(3))
    scale = torch.tensor([0.5, 2.0]).double()
    of_a, of_b = (torch.asinh(scale * energy_and_score(e, x)[1]) for e in (A, B))
    found, base = network(t, x), BASE(t, x)
    torch.testing.assert_close(found.velocity - base.velocity, of_a * scale)
    torch.testing.assert_close(found.score - base.score, -2 * of_b / scale)


def test_steep_or_forbidden_places_give_numbers():
    class Wall:
        event_shape = torch.Size([2])

        def energy(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > 0, x[:, 0] ** -12, torch.inf) + x.square().sum(-1)

    network = _informed(A, Wall())
    with torch.no_grad():
        network.velocity_head.bias.fill_(1.0)
    x = torch.tensor([[1e-6, 0.0], [-1.0, 0.0], [1.0, 1.0]]).double()
    assert bool(torch.isfinite(network(torch.full((3,), 0.5).double(), x).velocity).all())


def test_training_uses_the_scores_of_stiff_ends():
    """One step of training data, the same network with and without the ends' scores: they lower the held-out loss."""
    wells = (
        AnharmonicWell([0.0, 0.0], stiffness=[1.0, 1.0], quartic=[0.0, 0.5], skew=[2.5, 0.0], coupling=0.5),
        AnharmonicWell([0.5, 0.0], stiffness=[2.0, 1.0], quartic=[0.3, 0.0], skew=[0.0, -2.0], coupling=-0.5),
    )
    xs = [w.sample(3000, generator=_generator(10 + i)) for i, w in enumerate(wells)]
    base = GaussianFields(*(x.mean(0) for x in xs), *(torch.cov(x.T) for x in xs))
    scored = [energy_and_score(w, x)[1] for w, x in zip(wells, xs, strict=True)]
    held_out = next(pairs(*(v[2000:] for v in (*xs, *scored)), 1500, _generator(12)))
    blind = Gaussian(torch.zeros(2).double(), torch.full((2,), 1e6).double())  # no score anywhere
    found = []
    for start, end in (wells, (blind, blind)):
        network, g = (
            InformedFields(
                base,
                start,
                end,
                center=torch.zeros(2),
                scale=torch.ones(2),
                width=24,
                depth=1,
                generator=_generator(13),
            ),
            _generator(14),
        )
        objective = InterpolantObjective(network, base.interpolant, base.variance, control=base, reference=base)
        batches = pairs(*(v[:2000] for v in (*xs, *scored)), 128, g)
        rows = fit(
            network,
            objective,
            batches,
            steps=120,
            learning_rate=2e-2,
            generator=g,
            validate=lambda o=objective: o(held_out),
            every=60,
        )
        found.append(min(row["validation"] for row in rows))
    informed, uninformed = found
    assert informed < 1.1 * uninformed < 0  # both beat the base, and the informed one by more


def _exact_denoiser(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    here, interpolant = BASE(t, x), BASE.interpolant
    gamma = interpolant.gamma(t).unsqueeze(-1)
    return here.velocity, -gamma * here.score @ interpolant.noise


def test_denoiser_gives_the_score_inside_and_stays_finite_at_the_ends():
    fields = DenoiserFields(_exact_denoiser, BASE.interpolant, margin=0.01)
    x = A.sample(4, generator=_generator(20))
    inside = torch.tensor([0.01, 0.3, 0.6, 0.99], dtype=torch.float64)
    torch.testing.assert_close(fields(inside, x).score, BASE(inside, x).score, rtol=1e-9, atol=1e-9)
    ends = torch.tensor([0.0, 0.001, 0.999, 1.0]).double()
    torch.testing.assert_close(fields(ends, x).score, BASE(ends.clamp(0.01, 0.99), x).score, rtol=1e-9, atol=1e-9)
    assert fields.evaluations == 8


def test_denoising_loss_is_that_of_the_denoiser_and_divides_by_nothing():
    interpolant = BASE.interpolant
    fields = DenoiserFields(lambda t, x: (0 * x, 0.3 * x), interpolant, margin=1e-4)
    x_a, x_b = A.sample(50, generator=_generator(21)), B.sample(50, generator=_generator(22))
    batch = next(pairs(x_a, x_b, None, None, 50, _generator(23)))
    weights = Weights(0, 1, 0, 0, 0)
    loss = InterpolantObjective(fields, interpolant, BASE.variance, weights=weights)(batch)
    double = batch.antithetic()
    x = interpolant.position(double.t, double.x_a, double.x_b, double.z)
    found, target = interpolant.noise_score(0.3 * x), interpolant.noise_score(double.z)
    expected = (found * (found - 2 * target) * BASE.variance(double.t)).sum(-1).mean()
    near = (double.t < 1e-4) | (double.t > 1 - 1e-4)
    assert not bool(near.any())
    torch.testing.assert_close(loss, expected)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="scales positive"):
        _informed(A, B, scale=torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="a margin lies inside"):
        DenoiserFields(_exact_denoiser, LinearInterpolant(torch.ones(2)), margin=0.5)
    silent = DenoiserFields(_exact_denoiser, ScheduledInterpolant(Linear(NoNoise()), torch.ones(2)), margin=0.1)
    with pytest.raises(InputError, match="needs noise inside the path"):
        silent(torch.full((2,), 0.5), torch.zeros(2, 2))
