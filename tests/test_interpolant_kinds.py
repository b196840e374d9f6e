"""Every interpolant goes from one end to the other, and Gaussian ends have its fields in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.interpolants import (
    EncodingDecoding,
    Interpolant,
    Linear,
    NoNoise,
    OneSidedInterpolant,
    Quadratic,
    Retimed,
    ScheduledInterpolant,
    ShortestArc,
    SineSquared,
    SquareRoot,
    Trigonometric,
)
from nessampler.networks import OneSidedFields
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights
from nessampler.targets import AnharmonicWell, energy_and_score

SCHEDULES = {
    "linear": Linear(SquareRoot(0.7)),
    "quadratic": Linear(Quadratic(9.0)),
    "trigonometric": Trigonometric(SineSquared(0.5)),
    "encoding": EncodingDecoding(1.3),
    "retimed": Retimed(Linear(SquareRoot(2.0)), (0.0, 0.1, 0.7, 1.0)),
    "without noise": Trigonometric(NoNoise()),
}
TIMES = torch.tensor([0.03, 0.21, 0.4, 0.55, 0.8, 0.97], dtype=torch.float64)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _interpolants() -> dict[str, Interpolant]:
    noise = _normal(3, 3, seed=1)
    kinds: dict[str, Interpolant] = {k: ScheduledInterpolant(s, noise) for k, s in SCHEDULES.items()}
    return kinds | {"one-sided": OneSidedInterpolant(_normal(3, seed=2), noise, Trigonometric(NoNoise()))}


KINDS = _interpolants()


@pytest.mark.parametrize("kind", KINDS)
def test_velocity_and_gamma_rate_are_time_derivatives(kind: str):
    interpolant = KINDS[kind]
    assert isinstance(interpolant, Interpolant)
    x_a, x_b, z = _normal(3, 6, 3, seed=3)
    one = torch.ones_like(TIMES)
    velocity = torch.func.jvp(lambda t: interpolant.position(t, x_a, x_b, z), (TIMES,), (one,))[1]
    torch.testing.assert_close(interpolant.velocity(TIMES, x_a, x_b, z), velocity, rtol=1e-10, atol=1e-10)
    if kind != "without noise":
        rate = torch.func.jvp(interpolant.gamma, (TIMES,), (one,))[1]
        torch.testing.assert_close(interpolant.gamma_rate(TIMES), rate, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_path_begins_at_one_end_and_ends_at_the_other(kind: str):
    interpolant, zero = KINDS[kind], torch.zeros(5, dtype=torch.float64)
    x_a, x_b, z = _normal(3, 5, 3, seed=4)
    first = interpolant.first_end(z)[0] if kind == "one-sided" else x_a
    torch.testing.assert_close(interpolant.position(zero, x_a, x_b, z), first, rtol=0, atol=1e-12)
    torch.testing.assert_close(interpolant.position(zero + 1, x_a, x_b, z), x_b, rtol=0, atol=1e-12)


def test_encoding_decoding_forgets_one_end_before_it_knows_the_other():
    interpolant = ScheduledInterpolant(EncodingDecoding(2.0), torch.ones(3, dtype=torch.float64))
    x_a, x_b, z = _normal(3, 2, 3, seed=5)
    t = torch.tensor([0.25, 0.75], dtype=torch.float64)
    here, other = interpolant.position(t, x_a, x_b, z), interpolant.position(t, x_a + 1, x_b, z)
    assert bool((here[0] != other[0]).all() and (here[1] == other[1]).all())
    middle = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(interpolant.position(middle, x_a, x_b, z), math.sqrt(2) * z)


def _covariance(seed: int) -> Tensor:
    spread = _normal(3, 6, seed=seed) / math.sqrt(6)
    return spread @ spread.T + 0.1 * torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_gaussian_fields_of_any_schedule_are_exact_conditional_expectations(kind: str):
    mean_a, mean_b, cov_a, cov_b = _normal(3, seed=6), _normal(3, seed=7), _covariance(8), _covariance(9)
    fields, one = GaussianFields(mean_a, mean_b, cov_a, cov_b, schedule=SCHEDULES[kind]), torch.eye(3).double()
    factor, joint = fields.interpolant.noise, torch.block_diag(cov_a, cov_b, one)
    x = _normal(1, 3, seed=10)
    for t in TIMES:
        at = SCHEDULES[kind](t)
        position = torch.cat([at.alpha * one, at.beta * one, at.gamma * factor], 1)
        moving = torch.cat([at.alpha_rate * one, at.beta_rate * one, at.gamma_rate * factor], 1)
        precision = torch.linalg.inv(position @ joint @ position.T)
        deviation = x - at.alpha * mean_a - at.beta * mean_b
        drift = at.alpha_rate * mean_a + at.beta_rate * mean_b
        found = fields(t.view(1), x)
        velocity = drift + deviation @ (moving @ joint @ position.T @ precision).T
        torch.testing.assert_close(found.velocity, velocity, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.score, -deviation @ precision, rtol=1e-9, atol=1e-9)


WELLS = (
    AnharmonicWell([0.3], stiffness=[1.0], quartic=[0.5], skew=[1.5], coupling=0.0),
    AnharmonicWell([1.0], stiffness=[2.0], quartic=[0.1], skew=[-1.0], coupling=0.0),
)
GRID = torch.linspace(-8, 8, 801, dtype=torch.float64)


def _posterior(schedule, t: Tensor, x: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs on a grid and their weights given I_t = x: over both ends, or over one where there is no noise."""
    at = schedule(t)
    if float(at.gamma) > 0:
        x_a, x_b = (v.reshape(-1, 1) for v in torch.meshgrid(GRID[::2], GRID[::2], indexing="ij"))
        z = (x - at.alpha * x_a - at.beta * x_b) / at.gamma
    else:
        x_a = GRID.view(-1, 1)
        x_b, z = (x - at.alpha * x_a) / at.beta, torch.zeros_like(x_a)
    energy = WELLS[0].energy(x_a) + WELLS[1].energy(x_b) + 0.5 * z.square().sum(-1)
    return x_a, x_b, z, torch.softmax(-energy, 0)


@pytest.mark.parametrize("schedule", [Trigonometric(SquareRoot(1.5)), Linear(NoNoise()), EncodingDecoding(0.8)])
@pytest.mark.parametrize("t", [0.15, 0.6])
def test_controlled_targets_average_to_the_exact_fields_under_any_schedule(schedule, t: float):
    """By quadrature, with Gaussians that fit neither end."""
    moments = (torch.tensor(v, dtype=torch.float64) for v in ([0.0], [0.7], [[0.8]], [[0.4]]))
    fields, time = GaussianFields(*moments, noise="mean", schedule=schedule), torch.tensor(t, dtype=torch.float64)
    spread = fields.interpolant.noise[0, 0]

    def with_noise(t: Tensor):  # the quadrature's z has the scale of the fields' noise
        at = schedule(t)
        return at._replace(gamma_square=at.gamma_square * spread**2, gamma_product=at.gamma_product * spread**2)

    def log_density(x: float) -> Tensor:
        x_a, x_b, z, _ = _posterior(with_noise, time, x)
        return torch.logsumexp(-WELLS[0].energy(x_a) - WELLS[1].energy(x_b) - 0.5 * z.square().sum(-1), 0)

    at = with_noise(time)
    for x in (-0.5, 0.4, 1.2):
        x_a, x_b, z, weight = _posterior(with_noise, time, x)
        (_, s_a), (_, s_b) = (energy_and_score(w, e) for w, e in zip(WELLS, (x_a, x_b), strict=True))
        targets = fields.targets(time.expand(len(x_a)), torch.full_like(x_a, x), x_a, x_b, s_a, s_b)
        velocity = at.alpha_rate * x_a + at.beta_rate * x_b + at.gamma_rate * z
        torch.testing.assert_close(weight @ targets.velocity, weight @ velocity, rtol=0, atol=1e-7)
        slope = (log_density(x + 1e-4) - log_density(x - 1e-4)) / 2e-4
        torch.testing.assert_close(weight @ targets.score, slope.view(1), rtol=0, atol=1e-6)
        here = fields(time.view(1), torch.tensor([[x]], dtype=torch.float64))
        assert abs(float(here.velocity - weight @ velocity)) > 0.01  # the Gaussians alone are wrong


def test_one_denoiser_gives_both_fields_of_a_one_sided_interpolant():
    """A network that was never trained stays on the line that ties velocity and score together."""
    mean, scale = _normal(3, seed=11), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    schedule = Trigonometric(NoNoise())
    base = GaussianFields(mean, _normal(3, seed=12), torch.diag(scale**2), _covariance(13), schedule=schedule)
    network = OneSidedFields(base, schedule, mean, scale, width=8, depth=1, generator=torch.Generator().manual_seed(14))
    x = _normal(6, 3, seed=15)
    torch.testing.assert_close(network(TIMES, x).score, base(TIMES, x).score)
    with torch.no_grad():
        network.head.weight.normal_(generator=torch.Generator().manual_seed(16))
    at = schedule(TIMES.view(-1, 1))

    def off(fields: Evaluated) -> Tensor:
        turning = at.alpha * (at.alpha * at.beta_rate - at.alpha_rate * at.beta) / at.beta
        tied = at.alpha_rate * mean + at.beta_rate / at.beta * (x - at.alpha * mean) + turning * scale**2 * fields.score
        return fields.velocity - tied

    found = network(TIMES, x)
    assert float((found.score - base(TIMES, x).score).abs().max()) > 0.1
    torch.testing.assert_close(off(found), torch.zeros(6, 3).double(), rtol=0, atol=1e-5)
    assert float(off(found._replace(velocity=base(TIMES, x).velocity)).abs().max()) > 0.05
    first = network(torch.zeros(6, dtype=torch.float64), x)
    torch.testing.assert_close(first.score, -(x - mean) / scale**2)  # exact at the base, trained or not


def test_one_sided_regressions_see_the_noise_as_the_sample_of_a():
    """At the exact fields of Gaussian ends, controlled targets have no noise whatever stands in the batch's x_a."""
    mean, scale = _normal(3, seed=17), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    mean_b, cov_b = _normal(3, seed=18), _covariance(19)
    base = GaussianFields(mean, mean_b, torch.diag(scale**2), cov_b, schedule=Linear(NoNoise()))
    x_b = mean_b + _normal(6, 3, seed=20) @ torch.linalg.cholesky(cov_b).T
    score_b = -(x_b - mean_b) @ torch.linalg.inv(cov_b)
    batch = PairBatch(
        torch.full_like(x_b, torch.nan), x_b, torch.zeros_like(x_b), score_b, TIMES, _normal(6, 3, seed=21)
    )

    def shifted(t: Tensor, x: Tensor) -> Evaluated:
        here = base(t, x)
        return Evaluated(here.velocity + 0.1, here.score - 0.2)

    interpolant = OneSidedInterpolant(mean, scale)
    loss = InterpolantObjective(shifted, interpolant, base.variance, control=base, reference=base)(batch)
    variance = base.variance(TIMES)
    expected = (0.1**2 / variance + 0.2**2 * variance).sum(-1).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)


def test_angles_go_the_shorter_way_round():
    circular = torch.tensor([True, False])
    arc = ShortestArc(ScheduledInterpolant(Linear(), torch.ones(2)), circular)
    x_a, x_b = torch.tensor([[3.0, 3.0], [0.1, 0.1]]), torch.tensor([[-3.0, -3.0], [-0.2, 0.2]])
    t, z = torch.full((2,), 0.5), torch.zeros(2, 2)
    torch.testing.assert_close(arc.position(t, x_a, x_b, z), torch.tensor([[math.pi, 0.0], [-0.05, 0.15]]))
    torch.testing.assert_close(
        arc.velocity(t, x_a, x_b, z), torch.tensor([[2 * math.pi - 6, -6.0], [-0.3, 0.1]]), rtol=0, atol=1e-5
    )
    with pytest.raises(InputError, match="must add up to one at all times"):
        ShortestArc(ScheduledInterpolant(Trigonometric(), torch.ones(2)), circular)


def test_on_a_circle_the_denoiser_gives_the_score_and_the_ends_scores_do_not():
    """By quadrature over both angles; why `ShortestArc` has no `ends`."""
    angle = torch.linspace(-math.pi, math.pi, 301, dtype=torch.float64)[:-1]
    a, b = (v.reshape(-1, 1) for v in torch.meshgrid(angle, angle, indexing="ij"))
    arc, t, gamma = (
        ShortestArc(ScheduledInterpolant(Linear(), torch.ones(1)), torch.tensor([True])),
        0.4,
        math.sqrt(0.24),
    )
    middle = arc.position(torch.full((len(a),), t).double(), a, b, torch.zeros_like(a))
    log_pair = (1.2 * torch.cos(a - 0.5) + 0.8 * torch.cos(b + 1.9)).squeeze(-1)
    turns = 2 * math.pi * torch.arange(-2, 3, dtype=torch.float64)

    def log_terms(x: float) -> tuple[Tensor, Tensor]:
        z = (x + turns - middle) / gamma
        return log_pair.unsqueeze(-1) - 0.5 * z.square(), z

    def log_density(x: float) -> Tensor:
        return torch.logsumexp(log_terms(x)[0].flatten(), 0)

    for x in (-2.0, 0.3):
        terms, z = log_terms(x)
        weight = torch.softmax(terms.flatten(), 0).view(terms.shape)
        slope = (log_density(x + 1e-4) - log_density(x - 1e-4)) / 2e-4
        denoised = (weight * arc.noise_score(z.reshape(-1, 1)).view(z.shape)).sum() / gamma
        assert float(denoised) == pytest.approx(float(slope), abs=1e-6)
        of_a = (weight.sum(-1) * -1.2 * torch.sin(a - 0.5).squeeze(-1)).sum() / (1 - t)
        assert abs(float(of_a - slope)) > 0.05


def test_matching_the_scores_of_ends_on_a_circle_is_refused():
    base = GaussianFields(torch.zeros(1), torch.ones(1), torch.eye(1), torch.eye(1))
    arc, x = ShortestArc(base.interpolant, torch.tensor([True])), torch.zeros(2, 1)
    weights = replace(Weights(0, 0, 0, 0, 0), target_score=1.0)
    with pytest.raises(InputError, match="ShortestArc, which has no `ends`"):
        InterpolantObjective(base, arc, base.variance, weights=weights)(
            PairBatch(x, x, x, x, torch.tensor([0.2, 0.7]), x)
        )


def test_settings_that_make_no_sense_are_refused():
    one = torch.ones(2)
    for bad, message in (
        (lambda: SquareRoot(0.0), "strength must be positive"),
        (lambda: Quadratic(-1.0), "strength must be positive"),
        (lambda: Retimed(Linear(), (0.0, 0.5, 0.5, 1.0)), "must increase from 0 to 1"),
        (lambda: OneSidedInterpolant(one, torch.ones(3)), "must go together"),
        (lambda: OneSidedInterpolant(one, one, Linear()), "no noise beside its base"),
        (lambda: ScheduledInterpolant(Linear(), -one), "scales not negative"),
    ):
        with pytest.raises(InputError, match=message):
            bad()
