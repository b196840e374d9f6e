"""The interpolant's fields are conditional expectations, and regressions on it find them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.interpolants import Interpolant, LinearInterpolant
from nessampler.kernels import Langevin
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights
from nessampler.paths import EndpointPath
from nessampler.simulate import simulate
from nessampler.targets import AnharmonicWell, energy_and_score
from nessampler.training import pairs

NOISES = ["start", "end", "mean"]
OFF = Weights(0.0, 0.0, 0.0, 0.0, 0.0)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


class Correlated:
    """A Gaussian with a full covariance."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance, self.event_shape = mean, covariance, mean.shape
        self.precision, self.factor = torch.linalg.inv(covariance), torch.linalg.cholesky(covariance)
        self.log_z = float(0.5 * torch.logdet(2 * math.pi * covariance))

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * ((x - self.mean) @ self.precision * (x - self.mean)).sum(-1)

    def score(self, x: Tensor) -> Tensor:
        return -(x - self.mean) @ self.precision

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        z = torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + z @ self.factor.T


def _ends(d: int = 3, seed: int = 1) -> tuple[Correlated, Correlated]:
    """Two Gaussians whose covariances do not commute."""
    spread = _normal(2, d, 2 * d, seed=seed) / math.sqrt(2 * d)
    means = _normal(2, d, seed=seed + 1)
    a, b = (Correlated(m, s @ s.T + 0.1 * torch.eye(d)) for m, s in zip(means, spread, strict=True))
    assert float((a.covariance @ b.covariance - b.covariance @ a.covariance).abs().max()) > 0.05
    return a, b


def _fields(a: Correlated, b: Correlated, **options) -> GaussianFields:
    return GaussianFields(a.mean, b.mean, a.covariance, b.covariance, **options)


def test_gamma_and_velocity_are_the_time_derivatives():
    interpolant = LinearInterpolant(_normal(2, 2, seed=3), strength=0.7)
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    x_a, x_b, z = _normal(3, 7, 2, seed=4)
    gamma, gamma_rate = torch.func.jvp(interpolant.gamma, (t,), (torch.ones_like(t),))
    velocity = torch.func.jvp(lambda s: interpolant.position(s, x_a, x_b, z), (t,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(gamma.square(), 0.7 * t * (1 - t), rtol=1e-12, atol=0)
    torch.testing.assert_close(interpolant.gamma_rate(t), gamma_rate, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(interpolant.velocity(t, x_a, x_b, z), velocity, rtol=1e-12, atol=1e-12)
    assert isinstance(interpolant, Interpolant)


def test_interpolant_begins_at_a_and_ends_at_b_exactly():
    interpolant = LinearInterpolant(torch.tensor([1.0, 0.0]))
    x_a, x_b, z = _normal(3, 5, 2, seed=5).float()
    assert torch.equal(interpolant.position(torch.zeros(5), x_a, x_b, z), x_a)
    assert torch.equal(interpolant.position(torch.ones(5), x_a, x_b, z), x_b)


@pytest.mark.parametrize("noise", [[2.0, 0.0, 0.5], [[2.0, 0, 0], [0, 0, 0], [0.7, 0, 0.5]]])
def test_noise_score_is_gamma_times_the_score_given_both_ends(noise):
    z, t = _normal(4, 3, seed=6), torch.full((4,), 0.3, dtype=torch.float64)
    noise = torch.tensor(noise, dtype=torch.float64)
    interpolant = LinearInterpolant(noise)
    factor = torch.diag(noise) if noise.ndim == 1 else noise
    kept = torch.tensor([True, False, True])
    covariance = (interpolant.gamma(t)[0] ** 2 * factor @ factor.T)[kept][:, kept]
    increment = interpolant.position(t, torch.zeros(4, 3), torch.zeros(4, 3), z)[:, kept]
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[:, kept] = -increment @ torch.linalg.inv(covariance) * interpolant.gamma(t)[0]
    torch.testing.assert_close(interpolant.noise_score(z), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("t", [0.02, 0.4, 0.9])
def test_gaussian_fields_are_exact_conditional_expectations(noise, t):
    a, b = _ends()
    fields, x, one = _fields(a, b, noise=noise, strength=0.7), _normal(6, 3, seed=7), torch.eye(3, dtype=torch.float64)
    time, factor = torch.full((6,), t, dtype=torch.float64), fields.interpolant.noise
    gamma, rate = fields.interpolant.gamma(time)[0], fields.interpolant.gamma_rate(time)[0]
    joint = torch.block_diag(a.covariance, b.covariance, one)  # of x_a, x_b and z
    position, velocity = (
        torch.cat([(1 - t) * one, t * one, gamma * factor], 1),
        torch.cat([-one, one, rate * factor], 1),
    )
    variance = position @ joint @ position.T
    gain = velocity @ joint @ position.T @ torch.linalg.inv(variance)
    deviation = x - (1 - t) * a.mean - t * b.mean
    found = fields(time, x)
    torch.testing.assert_close(found.velocity, b.mean - a.mean + deviation @ gain.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.score, -deviation @ torch.linalg.inv(variance), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fields.variance(t), variance.diagonal(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fields.variance(time)[3], variance.diagonal(), rtol=1e-10, atol=1e-10)


def test_gaussian_fields_transport_their_density():
    fields = GaussianFields(
        *(torch.tensor(v, dtype=torch.float64) for v in ([-1.0], [2.0], [[0.5]], [[3.0]])), noise="start", strength=1.3
    )

    def log_density(t: Tensor, x: Tensor) -> Tensor:
        mean = (1 - t) * fields.mean_a + t * fields.mean_b
        variance = (1 - t) ** 2 * 0.5 + t**2 * 3.0 + 1.3 * t * (1 - t) * 0.5
        return -0.5 * (x - mean) ** 2 / variance - 0.5 * variance.log()

    t, x = torch.linspace(0.0, 1.0, 11, dtype=torch.float64), torch.linspace(-4, 5, 11, dtype=torch.float64)
    one, idle = torch.ones_like(t), torch.zeros_like(t)
    change, along = (torch.func.jvp(log_density, (t, x), tangent)[1] for tangent in ((one, idle), (idle, one)))
    here = fields(t, x.view(-1, 1))
    velocity = here.velocity.squeeze(-1)
    divergence = torch.func.jvp(lambda y: fields(t, y.view(-1, 1)).velocity.squeeze(-1), (x,), (one,))[1]
    torch.testing.assert_close(here.score.squeeze(-1), along, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(change + divergence + velocity * along, idle, rtol=0, atol=1e-12)


def test_work_between_gaussians_is_free_energy_up_to_the_step_size():
    a, b = _ends()
    fields = _fields(a, b)
    kernel, path = Langevin(fields, lambda t: 2 * fields.variance(t)), EndpointPath(a, b)
    spread = {}
    for k in (32, 512):
        times = torch.linspace(0, 1, k + 1, dtype=torch.float64)
        for start, grid, sign in ((a, times, 1), (b, times.flip(0), -1)):
            x = start.sample(500, generator=_generator(8))
            work = simulate(kernel, path, grid, x, generator=_generator(9)).work
            error = sign * (a.log_z - b.log_z) - work
            spread[k, sign] = float(error.square().mean().sqrt())
    for sign in (1, -1):
        assert spread[512, sign] < 0.25
        # Work fluctuates by O(step size^1/2): a factor of 4 between the two.
        assert 3 < spread[32, sign] / spread[512, sign] < 6


def test_coordinates_that_do_not_move_have_no_fields_and_do_not_change_the_others():
    a, b = _ends()
    moving = torch.tensor([True, False, True])
    covariances = [c.covariance.clone() for c in (a, b)]
    for c in covariances:
        c[1], c[:, 1] = 0.0, 0.0  # a frozen coordinate may even have none
    fields = GaussianFields(a.mean, b.mean, *covariances, moving=moving)
    alone = GaussianFields(a.mean[moving], b.mean[moving], *(c[moving][:, moving] for c in covariances))
    t, x = torch.rand(5, generator=_generator(10), dtype=torch.float64), _normal(5, 3, seed=11)
    found, expected = fields(t, x), alone(t, x[:, moving])
    for value, reference in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(value[:, ~moving], torch.zeros(5, 1))
        torch.testing.assert_close(value[:, moving], reference, rtol=1e-12, atol=1e-12)
    assert fields.variance(0.5)[1] == 0
    x_a = x.clone()
    moved = fields.interpolant.position(t, x_a, x_a, _normal(5, 3, seed=12))
    torch.testing.assert_close(moved[:, 1], x_a[:, 1], rtol=1e-14, atol=0)
    walkers = simulate(
        Langevin(fields, fields.variance),
        EndpointPath(a, b),
        [0.0, 0.5, 1.0],
        x,
        generator=_generator(13),
    )
    assert torch.equal(walkers.x[:, 1], x[:, 1])


def test_fitted_fields_have_the_moments_of_the_samples():
    a, b = _ends()
    x_a, x_b = a.sample(50, generator=_generator(14)), b.sample(60, generator=_generator(15))
    fields = fit_gaussian_fields(x_a, x_b, shrink=0.4)
    basis, (alpha, beta, _) = fields.basis, fields.spectra
    for x, spectrum in ((x_a, alpha), (x_b, beta)):
        covariance = torch.cov(x.T)
        expected = 0.4 * covariance + 0.6 * torch.diag(covariance.diagonal())
        torch.testing.assert_close(basis * spectrum @ basis.T, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fields.mean_a, x_a.mean(0))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("t", [0.05, 0.6])
def test_controlled_targets_average_to_the_exact_fields_of_non_gaussian_ends(noise, t):
    """By quadrature over both ends in one dimension, with Gaussians that fit neither end."""
    wells = (
        AnharmonicWell([0.3], stiffness=[1.0], quartic=[0.5], skew=[1.5], coupling=0.0),
        AnharmonicWell([1.0], stiffness=[2.0], quartic=[0.1], skew=[-1.0], coupling=0.0),
    )
    moments = (torch.tensor(v, dtype=torch.float64) for v in ([0.0], [0.7], [[0.8]], [[0.4]]))
    fields = GaussianFields(*moments, noise=noise, strength=1.5)
    interpolant = fields.interpolant
    grid = torch.linspace(-8, 8, 641, dtype=torch.float64)
    x_a, x_b = (v.reshape(-1, 1) for v in torch.meshgrid(grid, grid, indexing="ij"))
    (u_a, s_a), (u_b, s_b) = (energy_and_score(w, x) for w, x in zip(wells, (x_a, x_b), strict=True))
    time = torch.full((len(x_a),), t, dtype=torch.float64)
    spread = (interpolant.gamma(time[:1]) * interpolant.noise[0]).unsqueeze(-1)
    for x in (-0.5, 0.4, 1.2):
        z = (x - (1 - t) * x_a - t * x_b) / spread
        posterior = torch.softmax(-u_a - u_b - 0.5 * z.square().squeeze(-1), 0)
        targets = fields.targets(time, torch.full_like(x_a, x), x_a, x_b, s_a, s_b)
        velocity = interpolant.velocity(time, x_a, x_b, z)
        exact = [posterior @ velocity, -(posterior @ z) / spread.squeeze(-1)]
        torch.testing.assert_close(posterior @ targets.velocity, exact[0], rtol=0, atol=1e-8)
        torch.testing.assert_close(posterior @ targets.score, exact[1], rtol=0, atol=1e-8)
        here = fields(time[:1], torch.tensor([[x]], dtype=torch.float64))
        assert abs(float(here.velocity - exact[0])) > 0.01  # the Gaussians alone are wrong


def test_controlled_targets_of_gaussian_ends_have_no_noise():
    a, b = _ends()
    fields, n = _fields(a, b), 50
    t = torch.rand(n, generator=_generator(16), dtype=torch.float64)
    x_a, x_b = a.sample(n, generator=_generator(17)), b.sample(n, generator=_generator(18))
    x = fields.interpolant.position(t, x_a, x_b, _normal(n, 3, seed=19))
    targets, here = fields.targets(t, x, x_a, x_b, a.score(x_a), b.score(x_b)), fields(t, x)
    torch.testing.assert_close(targets.velocity, here.velocity, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(targets.score, here.score, rtol=1e-10, atol=1e-10)


class Tilted(nn.Module):
    """Fields plus θ_0 + θ_1 x on the velocity and θ_2 + θ_3 x on the score."""

    def __init__(self, fields, sign: float = 1.0) -> None:
        super().__init__()
        self.fields, self.sign = fields, sign
        self.theta = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Evaluated:
        here, theta = self.fields(t, x), self.theta
        velocity, score = here.velocity * self.sign, here.score * self.sign
        return Evaluated(velocity + theta[0] + theta[1] * x, score + theta[2] + theta[3] * x)


def _gradient_z(fields: Tilted, base: GaussianFields, ends, weights: Weights) -> tuple[float, float]:
    """Largest |mean gradient| over its standard error, and the largest standard error, over 40 batches."""
    objective = InterpolantObjective(fields, base.interpolant, base.variance, weights=weights, control=base)
    # Far more samples than draws: what a finite pool adds to the error is not in the batches' spread.
    x_a, x_b = (e.sample(400_000, generator=_generator(20 + i)) for i, e in enumerate(ends))
    batches = pairs(x_a, x_b, ends[0].score(x_a), ends[1].score(x_b), 500, _generator(22))
    gradients = torch.stack([torch.autograd.grad(objective(next(batches)), fields.theta)[0] for _ in range(40)])
    used = gradients.abs().sum(0) > 0
    error = gradients.std(0)[used] / math.sqrt(len(gradients))
    return float((gradients.mean(0)[used].abs() / error).max()), float(error.max())


@pytest.mark.parametrize("term", ["velocity", "denoising", "target_score"])
def test_regressions_are_stationary_at_the_exact_fields_and_nowhere_else(term):
    ends = _ends(2)
    base, weights = _fields(*ends), replace(OFF, **{term: 1.0})
    z, error = _gradient_z(Tilted(base), base, ends, weights)
    assert z <= 4
    assert error < 0.05
    wrong, _ = _gradient_z(Tilted(base, sign=0.8), base, ends, weights)
    assert wrong > 10


def test_loss_is_negative_exactly_where_the_fields_beat_the_reference():
    ends = _ends(2)
    base = _fields(*ends)
    x_a, x_b = (e.sample(4000, generator=_generator(23 + i)) for i, e in enumerate(ends))
    batch = next(pairs(x_a, x_b, ends[0].score(x_a), ends[1].score(x_b), 4000, _generator(25)))
    for weights in (Weights(), Weights(1, 1, 1, 0, 0)):
        for fields, reference, sign in ((base, Tilted(base, 0.8), -1), (Tilted(base, 0.8), base, 1)):
            options = {"weights": weights, "control": base, "reference": reference}
            loss = InterpolantObjective(fields, base.interpolant, base.variance, **options)(batch)
            assert sign * loss.item() > 0.02
        same = InterpolantObjective(base, base.interpolant, base.variance, control=base, reference=base)(batch)
        assert float(same) == 0.0


def test_loss_does_not_depend_on_the_units_of_a_coordinate():
    ends, units = _ends(2), torch.tensor([1.0, 1e-3], dtype=torch.float64)
    x_a, x_b = (e.sample(200, generator=_generator(26 + i)) for i, e in enumerate(ends))
    losses = []
    for u in (torch.ones_like(units), units):
        scaled = [Correlated(e.mean * u, e.covariance * u[:, None] * u) for e in ends]
        base = _fields(*scaled)
        scores = (scaled[0].score(x_a * u), scaled[1].score(x_b * u))
        batch = next(pairs(x_a * u, x_b * u, *scores, 200, _generator(28)))
        # The eigenvectors' order and signs are free, so noise enters through the position it makes.
        interpolant = LinearInterpolant(u)
        options = {"weights": Weights(1, 1, 1, 1, 1), "control": base}
        losses.append(float(InterpolantObjective(base, interpolant, base.variance, **options)(batch)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_pairs_share_the_coordinates_that_do_not_move():
    x_a, x_b = torch.zeros(50, 2), torch.ones(70, 2)
    batch = next(pairs(x_a, x_b, None, None, 4000, _generator(29), moving=torch.tensor([True, False])))
    assert torch.equal(batch.x_a[:, 1], batch.x_b[:, 1])
    assert bool((batch.x_a[:, 0] == 0).all())
    assert bool((batch.x_b[:, 0] == 1).all())
    # B's value with probability t: mean of t (1 - t) is 1/6 per Bernoulli draw.
    for early in (True, False):
        half = (batch.t < 0.5) == early
        assert abs(float(batch.x_a[half, 1].mean()) - (0.25 if early else 0.75)) < 4 * math.sqrt(1 / 6 / 2000)


def test_what_cannot_be_used_is_refused():
    one = torch.eye(2)
    with pytest.raises(InputError, match="positive definite"):
        GaussianFields(torch.zeros(2), torch.zeros(2), one, torch.diag(torch.tensor([1.0, 0.0])))
    with pytest.raises(InputError, match="noise must be one of"):
        GaussianFields(torch.zeros(2), torch.zeros(2), one, one, noise="none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="coordinate 1 does not vary"):
        fit_gaussian_fields(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.eye(2))
    with pytest.raises(InputError, match="strength"):
        LinearInterpolant(torch.ones(2), strength=0.0)
    base = GaussianFields(torch.zeros(2), torch.zeros(2), one, one)
    with pytest.raises(InputError, match="control"):
        InterpolantObjective(base, base.interpolant, base.variance)
    objective = InterpolantObjective(base, base.interpolant, base.variance, control=base)
    with pytest.raises(InputError, match="score of every end sample"):
        objective(PairBatch(one, one, None, None, torch.full((2,), 0.5), one))
