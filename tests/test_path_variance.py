"""The variance of path weights is the work's own, vanishes at exact fields, and lowers the work when it is lowered."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.interpolants import LinearInterpolant
from nessampler.kernels import Langevin
from nessampler.methods.path_refinement import record_paths, refine
from nessampler.objectives.action_matching import ActionMatchingObjective
from nessampler.objectives.path_variance import Paths, PathVarianceObjective, log_cosh
from nessampler.objectives.rollout import interpolant_rollout
from nessampler.paths import EndpointPath
from nessampler.simulate import simulate
from nessampler.targets import AnharmonicWell, Gaussian

ENDS = (
    Gaussian(torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 0.5]).double()),
    Gaussian(torch.tensor([2.0, -1.0]).double(), torch.tensor([0.4, 1.5]).double()),
)
PATH = EndpointPath(*ENDS)
EXACT = GaussianFields(ENDS[0].mean, ENDS[1].mean, *(torch.diag(e.scale**2) for e in ENDS))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _grid(steps: int) -> tuple[float, ...]:
    return tuple(k / steps for k in range(steps + 1))


def _kernel(fields) -> Langevin:
    return Langevin(fields, EXACT.variance)


def _draws(n: int, seed: int) -> tuple[Tensor, Tensor]:
    return ENDS[0].sample(n, generator=_generator(seed)), ENDS[1].sample(n, generator=_generator(seed + 1))


class Tilted(nn.Module):
    """The exact fields plus θ_0 + θ_1 x on the velocity and θ_2 + θ_3 x on the score."""

    def __init__(self, *theta: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(theta, dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Evaluated:
        here, theta = EXACT(t, x), self.theta
        return Evaluated(here.velocity + theta[0] + theta[1] * x, here.score + theta[2] + theta[3] * x)


def test_log_weights_of_recorded_paths_are_those_of_the_kernel_in_both_directions():
    kernel, times, (x_a, x_b) = _kernel(Tilted(0.3, 0.1, -0.2, 0.1)), _grid(7), _draws(5, 1)
    recorded = record_paths(kernel, PATH, times, x_a, x_b, generator=_generator(3))
    with torch.no_grad():
        found = PathVarianceObjective(kernel.fields, kernel.diffusion).log_weight(recorded)
        other = PathVarianceObjective(kernel.fields, 0.5).log_weight(recorded)
        pairs = list(zip(pairwise(times), pairwise(recorded.x), strict=True))
        there = sum(kernel.log_ratio(*t, *x) for t, x in pairs)
        back = sum(kernel.log_ratio(*t[::-1], *x[::-1]) for t, x in pairs)
    assert torch.equal(recorded.x[0, :5], x_a)
    assert torch.equal(recorded.x[-1, 5:], x_b)
    ends = ENDS[0].energy(recorded.x[0]) - ENDS[1].energy(recorded.x[-1])
    torch.testing.assert_close(found, ends + there, rtol=0, atol=1e-10)
    torch.testing.assert_close(-found, -ends + back, rtol=0, atol=1e-10)
    assert not torch.allclose(found, other)


def test_loss_vanishes_with_the_step_at_the_exact_fields_and_nowhere_else():
    loss = {}
    for steps in (16, 64, 256):
        paths = record_paths(_kernel(EXACT), PATH, _grid(steps), *_draws(150, 4), generator=_generator(6))
        loss[steps] = float(PathVarianceObjective(EXACT, EXACT.variance)(paths))
        for theta in ((0.3, 0, 0, 0), (0, 0.3, 0, 0), (0, 0, 0.3, 0), (0, 0, 0, 0.3)):
            with torch.no_grad():
                off = float(PathVarianceObjective(Tilted(*theta), EXACT.variance)(paths))
            assert off > loss[steps] + 0.02
    assert loss[256] < 0.03
    assert 2.5 < loss[16] / loss[64] < 6.5  # O(step size)
    assert 2.5 < loss[64] / loss[256] < 6.5


def test_gradient_is_that_of_the_variance():
    fields = Tilted(0.3, 0.1, -0.2, 0.1)
    paths = record_paths(_kernel(fields), PATH, _grid(8), *_draws(40, 7), generator=_generator(9))
    objective = PathVarianceObjective(fields, EXACT.variance)
    objective(paths).backward()
    for i, h in enumerate([1e-6] * 4):
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                fields.theta[i] += sign * h
                values.append(float(objective(paths)))
                fields.theta[i] -= sign * h
        assert float(fields.theta.grad[i]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4)


def test_refinement_narrows_the_works_of_fresh_walkers_in_both_directions():
    fields, times = Tilted(0.8, -0.4, 0.5, 0.3), _grid(24)
    kernel, fresh = _kernel(fields), _draws(400, 10)

    def spreads() -> list[float]:
        with torch.no_grad():
            return [
                float(simulate(kernel, PATH, grid, x, generator=_generator(12)).work.var())
                for grid, x in zip((times, times[::-1]), fresh, strict=True)
            ]

    before, (x_a, x_b) = spreads(), _draws(500, 13)
    held_out = _draws(100, 17)
    rows = refine(
        fields,
        kernel,
        PATH,
        times,
        x_a,
        x_b,
        held_out,
        steps=60,
        learning_rate=0.1,
        generator=_generator(15),
        walkers=40,
    )
    assert rows[-1]["validation"] < rows[0]["validation"]
    for wide, narrow in zip(before, spreads(), strict=True):
        assert narrow < 0.2 * wide


def test_refinement_narrows_the_works_between_ends_that_are_not_gaussian():
    wells = (
        AnharmonicWell([0.3], stiffness=[1.0], quartic=[0.1], skew=[0.6], coupling=0.0),
        AnharmonicWell([-0.7], stiffness=[1.8], quartic=[0.02], skew=[-0.8], coupling=0.0),
    )
    path, times = EndpointPath(*wells), _grid(16)
    x_a, x_b = (w.sample(500, generator=_generator(20 + i)) for i, w in enumerate(wells))
    base = GaussianFields(x_a.mean(0), x_b.mean(0), torch.cov(x_a.T).view(1, 1), torch.cov(x_b.T).view(1, 1))

    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(2, 4, dtype=torch.float64))

        def forward(self, t: Tensor, x: Tensor) -> Evaluated:
            here, time = base(t, x), t.unsqueeze(-1)
            shapes = torch.cat(
                [torch.sin(2 * x), torch.cos(2 * x), time * torch.sin(2 * x), time * torch.cos(2 * x)], -1
            )
            extra = shapes @ self.theta.T
            return Evaluated(here.velocity + extra[:, :1], here.score + extra[:, 1:])

    fields = Bent()
    kernel = Langevin(fields, base.variance)
    fresh = [w.sample(600, generator=_generator(30 + i)) for i, w in enumerate(wells)]
    held_out = tuple(w.sample(100, generator=_generator(40 + i)) for i, w in enumerate(wells))

    def spread() -> float:
        with torch.no_grad():
            works = [
                simulate(kernel, path, g, x, generator=_generator(50)).work
                for g, x in zip((times, times[::-1]), fresh, strict=True)
            ]
        return float(works[0].var() + works[1].var())

    before = spread()
    refine(
        fields,
        kernel,
        path,
        times,
        x_a,
        x_b,
        held_out,
        steps=80,
        learning_rate=0.1,
        generator=_generator(60),
        walkers=60,
    )
    assert spread() < 0.75 * before


def test_coordinates_without_diffusion_do_not_count():
    paths = record_paths(_kernel(EXACT), PATH, _grid(5), *_draws(10, 70), generator=_generator(72))
    still = paths._replace(x=torch.cat([paths.x, paths.x[:1, :, :1].expand(6, -1, 1)], -1))

    def wider(t: Tensor, x: Tensor) -> Evaluated:
        here, zero = EXACT(t, x[:, :2]), torch.zeros_like(x[:, :1])
        return Evaluated(torch.cat([here.velocity, zero], -1), torch.cat([here.score, zero + 9], -1))

    found = PathVarianceObjective(wider, lambda t: torch.cat([EXACT.variance(t), torch.zeros(1)]))(still)
    torch.testing.assert_close(found, PathVarianceObjective(EXACT, EXACT.variance)(paths))
    with pytest.raises(InputError, match="need a positive diffusion"):
        PathVarianceObjective(EXACT, 0.0)(paths)


def test_paths_without_density_are_left_out_and_too_few_refused():
    paths = record_paths(_kernel(EXACT), PATH, _grid(5), *_draws(10, 80), generator=_generator(82))
    keep = torch.arange(1, 20)
    energy = paths.energy_b.clone()
    energy[0] = torch.inf
    objective = PathVarianceObjective(EXACT, EXACT.variance)
    torch.testing.assert_close(objective(paths._replace(energy_b=energy)), objective(paths.select(keep)))
    assert isinstance(paths.select(keep).join(paths), Paths)
    with pytest.raises(InputError, match="two paths with density: got 1"):
        objective(paths.select(torch.tensor([3])))


def test_action_on_an_interpolant_is_least_at_the_gradient_field_that_carries_it():
    """b = θ_0 (m_b - m_a) + θ_1 C_t/V_t (x - m_t) is a gradient for each θ; of Gaussian ends, (1, 1) is exact."""
    times = torch.linspace(0, 1, 17, dtype=torch.float64)

    class Family(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor([0.2, 0.3], dtype=torch.float64))

        def parts(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            shift = (ENDS[1].mean - ENDS[0].mean).expand(x.shape)
            return shift, EXACT(t, x).velocity - shift

        def potential(self, t: Tensor, x: Tensor) -> Tensor:
            shift, pull = self.parts(t, x)
            middle = torch.lerp(ENDS[0].mean, ENDS[1].mean, t.unsqueeze(-1))
            return (self.theta[0] * shift * x + 0.5 * self.theta[1] * pull * (x - middle)).sum(-1)

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            shift, pull = self.parts(t, x)
            return self.theta[0] * shift + self.theta[1] * pull

    network, interpolant = Family(), EXACT.interpolant
    assert isinstance(interpolant, LinearInterpolant)
    x_a, x_b = _draws(4000, 90)
    z = torch.randn(4000, 2, generator=_generator(92), dtype=torch.float64)
    data = interpolant_rollout(interpolant, times, x_a, x_b, z)
    # The action is quadratic in θ: one Newton step is the minimum.
    (gradient,) = torch.autograd.grad(ActionMatchingObjective(network)(data), network.theta, create_graph=True)
    curvature = torch.stack([torch.autograd.grad(g, network.theta, retain_graph=True)[0] for g in gradient])
    least = network.theta - torch.linalg.solve(curvature, gradient)
    torch.testing.assert_close(least.detach(), torch.ones(2).double(), rtol=0, atol=0.05)


def test_robust_penalty_has_the_same_zero_and_counts_far_paths_by_their_distance():
    paths = record_paths(_kernel(EXACT), PATH, _grid(8), *_draws(20, 95), generator=_generator(97))
    robust = PathVarianceObjective(EXACT, EXACT.variance, penalty=log_cosh)
    spread = float(PathVarianceObjective(EXACT, EXACT.variance)(paths))
    assert 0.5 * spread < float(robust(paths)) < spread * 39 / 40 + 0.1
    far = paths._replace(energy_a=paths.energy_a + 1000.0 * (torch.arange(40) == 0))
    assert float(robust(far)) - float(robust(paths)) == pytest.approx(2000 / 40, rel=0.05)
    same = paths._replace(energy_a=robust.log_weight(paths).neg() + paths.energy_a)
    assert float(robust(same)) == pytest.approx(0, abs=1e-12)
    assert float(robust(paths._replace(energy_a=paths.energy_a + 7))) == pytest.approx(float(robust(paths)))
