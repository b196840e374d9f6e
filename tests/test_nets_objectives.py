"""Losses along a path vanish, or are least, where the drift transports the densities; their estimates are unbiased."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from nessampler.divergence import exact_divergence, probed_divergence, rademacher
from nessampler.errors import InputError
from nessampler.fields import PathScore
from nessampler.kernels import Langevin
from nessampler.methods.density.nets import roll_out
from nessampler.objectives.action_matching import ActionMatchingObjective
from nessampler.objectives.log_variance import LogVarianceObjective
from nessampler.objectives.pinn import FreeEnergyRate, PinnObjective
from nessampler.objectives.rollout import Rollout, quadrature
from nessampler.paths import DifferentiablePath
from nessampler.targets import Gaussian

D = 3
SHIFT = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
GROWTH = torch.tensor([0.5, -0.4, 0.2], dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scale_at(t: Tensor) -> Tensor:
    return torch.exp(t[..., None] * GROWTH)


def moving_energy(t: Tensor, x: Tensor) -> Tensor:
    return 0.5 * ((x - t[:, None] * SHIFT) / scale_at(t)).square().sum(-1)


# Means m = t SHIFT, scales exp(t GROWTH): transported by b = SHIFT + GROWTH (x - m), and dF/dt = -sum GROWTH.
PATH = DifferentiablePath(
    Gaussian(torch.zeros(D, dtype=torch.float64), torch.ones(D, dtype=torch.float64)),
    Gaussian(SHIFT, torch.exp(GROWTH)),
    moving_energy,
)
EXACT = [SHIFT.clone(), GROWTH.clone()]


class Affine(nn.Module):
    """b = shift + growth (x - t SHIFT), the gradient of a potential; exact for two values of its parameters."""

    def __init__(self, shift: Tensor, growth: Tensor) -> None:
        super().__init__()
        self.shift, self.growth = nn.Parameter(shift.clone()), nn.Parameter(growth.clone())

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.shift + self.growth * (x - t[:, None] * SHIFT)

    def potential(self, t: Tensor, x: Tensor) -> Tensor:
        y = x - t[:, None] * SHIFT
        return (self.shift * y + 0.5 * self.growth * y.square()).sum(-1)


class Twisted(nn.Module):
    """A velocity that is no gradient, without an own divergence; its Jacobian has large off-diagonal elements."""

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        mixing = torch.tensor([[0.3, 2.0, -1.0], [-2.0, 0.5, 1.5], [1.0, 1.0, -0.4]], dtype=x.dtype)
        return torch.sin(x @ mixing.T) + 0.2 * t[:, None] * x.square()


def batch(n: int, seed: int, times: int = 9, spread: float = 1.0, offset: Tensor | float = 0.0) -> Rollout:
    """Weighted walkers from the moving Gaussian itself, from a wider one, or from one that moves faster."""
    t = torch.linspace(0, 1, times, dtype=torch.float64)
    noise = torch.randn(times, n, D, generator=seeded(seed), dtype=torch.float64)
    x = t[:, None, None] * (SHIFT + offset) + spread * scale_at(t)[:, None] * noise
    point = PATH.evaluate(t.repeat_interleave(n), x.flatten(0, 1))
    energy, score, rate = (v.view(times, n, *v.shape[1:]) for v in point[:3])
    proposal = 0.5 * noise.square().sum(-1)
    return Rollout(t, x, energy, score, rate, proposal - energy)


def true_rate() -> FreeEnergyRate:
    rate = FreeEnergyRate(2)
    with torch.no_grad():
        rate.values.fill_(-float(GROWTH.sum()))
    return rate


@pytest.mark.parametrize("spread", [1.0, 1.7])
def test_residual_vanishes_at_the_exact_drift_whatever_the_law_of_the_walkers(spread: float):
    data, exact = batch(50, 0, spread=spread), Affine(*EXACT)
    for rate in (None, true_rate()):
        assert PinnObjective(exact, rate=rate)(data).item() < 1e-20
        for wrong in (Affine(SHIFT, -GROWTH), Affine(1.1 * SHIFT, GROWTH), Affine(-SHIFT, GROWTH)):
            assert PinnObjective(wrong, rate=rate)(data).item() > 0.01
    assert float(PinnObjective(exact, rate=FreeEnergyRate())(data)) == pytest.approx(float(GROWTH.sum()) ** 2)


def test_residual_of_no_drift_is_the_variance_of_the_time_derivative():
    data, still = batch(200, 1), Affine(0 * SHIFT, 0 * GROWTH)
    expected = (quadrature(data.times) * data.time_derivative.var(1)).sum()
    torch.testing.assert_close(PinnObjective(still)(data), expected)
    rate = FreeEnergyRate(9)
    objective = PinnObjective(still, rate=rate)
    objective.calibrate(data._replace(log_weight=torch.zeros_like(data.log_weight)))
    torch.testing.assert_close(rate(data.times), data.time_derivative.mean(1))
    torch.testing.assert_close(objective(data), expected * 199 / 200)


def test_gradient_of_the_residual_leads_to_the_exact_drift_and_rate():
    rate, network = FreeEnergyRate(2), Affine(0 * SHIFT, 0 * GROWTH)
    for objective in (PinnObjective(network), PinnObjective(network, rate=rate)):
        with torch.no_grad():
            network.shift.zero_(), network.growth.zero_()
        optimizer, data = torch.optim.Adam(objective.parameters(), lr=0.05), batch(100, 2)
        for _ in range(400):
            optimizer.zero_grad()
            objective(data).backward()
            optimizer.step()
        torch.testing.assert_close(network.shift.detach(), SHIFT, rtol=0, atol=1e-3)
        torch.testing.assert_close(network.growth.detach(), GROWTH, rtol=0, atol=1e-3)
    assert rate.values.tolist() == pytest.approx([-float(GROWTH.sum())] * 2, abs=2e-3)


def test_exact_divergence_is_the_trace_of_the_jacobian():
    x, t = torch.randn(5, D, generator=seeded(3), dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    velocity, divergence = exact_divergence(Twisted(), t, x)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda y, i=i: Twisted()(t[i : i + 1], y[None])[0], x[i])
        assert float(divergence[i]) == pytest.approx(float(torch.trace(jacobian)), abs=1e-12)
    torch.testing.assert_close(velocity, Twisted()(t, x))
    with torch.no_grad():
        velocity, divergence = exact_divergence(Twisted(), t, x)
        assert not velocity.requires_grad
        assert not divergence.requires_grad
    constant, zero = exact_divergence(lambda t, x: torch.ones_like(x), t, x)
    assert float(zero.abs().max()) == 0
    assert constant.shape == x.shape


@pytest.mark.parametrize("rate", [True, False])
def test_two_probes_are_unbiased_where_the_square_of_one_is_not(rate: bool):
    data, learned = batch(20, 4, times=3), true_rate() if rate else None
    exact = float(PinnObjective(Twisted(), rate=learned)(data))
    objective = PinnObjective(Twisted(), rate=learned, probes=seeded(5))
    with torch.no_grad():
        paired = torch.stack([objective(data) for _ in range(1500)])
        residuals = torch.stack([objective.residuals(data)[0] for _ in range(1500)])
    if not rate:
        residuals = (residuals - residuals.mean(-1, keepdim=True)) * math.sqrt(20 / 19)
    squared = (residuals.square().mean(-1) * quadrature(data.times)).sum(-1)
    errors = [float(v.std()) / math.sqrt(1500) for v in (paired, squared)]
    assert abs(float(paired.mean()) - exact) < 4 * errors[0]
    assert errors[0] < 0.03 * exact
    assert float(squared.mean()) - exact > 10 * errors[1]


def test_one_probe_estimates_the_divergence_without_bias():
    x, t = torch.randn(1, D, generator=seeded(6), dtype=torch.float64), torch.rand(1, dtype=torch.float64)
    many, generator = x.expand(4000, D), seeded(7)
    _, (estimate,) = probed_divergence(
        Twisted(), t.expand(4000), many, rademacher(torch.empty(4000, D, dtype=torch.float64), generator=generator)
    )
    exact, error = float(exact_divergence(Twisted(), t, x)[1]), float(estimate.std()) / math.sqrt(4000)
    assert abs(float(estimate.detach().mean()) - exact) < 4 * error
    assert 0 < error < 0.1


def test_walkers_without_density_do_not_enter_any_loss():
    data = batch(40, 8)
    keep = data.select(torch.arange(39))
    energy, rate, weight = data.energy.clone(), data.time_derivative.clone(), data.log_weight.clone()
    energy[:, 39], rate[:, 39], weight[:, 39] = torch.inf, torch.nan, -torch.inf
    dead = data._replace(energy=energy, time_derivative=rate, log_weight=weight)
    network = Affine(SHIFT, -GROWTH)
    for objective in (
        PinnObjective(network),
        PinnObjective(network, rate=true_rate()),
        ActionMatchingObjective(network),
        LogVarianceObjective(network, 0.5),
    ):
        torch.testing.assert_close(objective(dead), objective(keep))
        objective(dead).backward()
        assert bool(torch.isfinite(network.shift.grad).all())
    with pytest.raises(InputError, match="needs two walkers with density at every time: got 1"):
        PinnObjective(network)(dead.select(torch.tensor([0, 39])))
    with pytest.raises(InputError, match="needs two paths with density: got 1"):
        LogVarianceObjective(network, 0.5)(dead.select(torch.tensor([0, 39])))


def _descend(objective: nn.Module, network: Affine, data: Rollout, steps: int = 300) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(data).backward()
        optimizer.step()


def test_least_action_belongs_to_the_exact_drift_on_weighted_walkers():
    network, offset = Affine(0 * SHIFT, 0 * GROWTH), torch.tensor([0.0, 0.4, 0.0], dtype=torch.float64)
    _descend(ActionMatchingObjective(network), network, batch(3000, 9), 150)
    torch.testing.assert_close(network.shift.detach(), SHIFT, rtol=0, atol=0.06)
    torch.testing.assert_close(network.growth.detach(), GROWTH, rtol=0, atol=0.06)
    ahead = batch(3000, 9, offset=offset)
    _descend(ActionMatchingObjective(network), network, ahead, 150)
    torch.testing.assert_close(network.shift.detach(), SHIFT, rtol=0, atol=0.1)
    # Without weights, it is the law of the walkers that is matched.
    _descend(ActionMatchingObjective(network), network, ahead._replace(log_weight=0 * ahead.log_weight), 150)
    # (The family turns about the old mean, t offset away on average over t.)
    expected = SHIFT + offset * (1 - 0.5 * GROWTH)
    torch.testing.assert_close(network.shift.detach(), expected, rtol=0, atol=0.06)


def test_action_equals_its_textbook_form_and_ignores_functions_of_time():
    data, network = batch(3000, 10, times=65), Affine(0.5 * SHIFT, -GROWTH)
    value = float(ActionMatchingObjective(network)(data))
    t = data.flat_times.clone().requires_grad_()
    phi = network.potential(t, data.flat_x)
    (rate,) = torch.autograd.grad(phi.sum(), t)
    phi, rate = (v.detach().view(65, -1) for v in (phi, rate))
    kinetic = 0.5 * network(data.flat_times, data.flat_x).square().sum(-1).view(65, -1)
    textbook = (quadrature(data.times) * (kinetic + rate).mean(1)).sum() + phi[0].mean() - phi[-1].mean()
    assert value == pytest.approx(float(textbook.detach()), abs=2e-3)

    class Shifted(Affine):
        def potential(self, t: Tensor, x: Tensor) -> Tensor:
            return super().potential(t, x) + 100 * torch.sin(9 * t)

    assert float(ActionMatchingObjective(Shifted(0.5 * SHIFT, -GROWTH))(data)) == pytest.approx(value, abs=1e-9)


def _paths(n: int, seed: int, steps: int = 40) -> Rollout:
    x = PATH.start.sample(n, generator=seeded(seed))
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
    return roll_out(Langevin(PathScore(PATH), 0.7), PATH, times, x, generator=seeded(seed + 1))


def test_path_weights_are_those_of_the_kernel_that_moved_the_walkers():
    network, generator = Affine(0.7 * SHIFT, 0.5 * GROWTH), seeded(11)
    x, times = PATH.start.sample(30, generator=generator), [0.0, 0.1, 0.35, 0.6, 1.0]

    def diffusion(t: float) -> Tensor:
        return torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64) * (1 + t)

    kernel = Langevin(PathScore(PATH, network), diffusion)
    data = roll_out(kernel, PATH, times, x, generator=generator)
    torch.testing.assert_close(LogVarianceObjective(network, diffusion).log_weight(data), data.log_weight[-1])
    assert not torch.allclose(LogVarianceObjective(network, 0.5).log_weight(data), data.log_weight[-1])


def test_gradient_of_the_log_variance_points_from_no_drift_to_the_exact_one():
    data = _paths(500, 12)
    network = Affine(0 * SHIFT, 0 * GROWTH)
    objective = LogVarianceObjective(network, 0.7)
    objective(data).backward()
    for parameter, target in ((network.shift, SHIFT), (network.growth, GROWTH)):
        assert bool((parameter.grad * target < 0).all())
        index, h = 1, 1e-5
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter[index] += sign * h
                values.append(float(objective(data)))
                parameter[index] -= sign * h
        assert float(parameter.grad[index]) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def test_log_variance_on_paths_of_another_process_is_least_near_the_exact_drift():
    data, network = _paths(400, 14), Affine(0 * SHIFT, 0 * GROWTH)
    objective = LogVarianceObjective(network, 0.7)
    before = float(objective(data))
    _descend(objective, network, data, 150)
    assert float(objective(data)) < 0.1 * before
    # At finite steps the best drift differs from that of continuous time, by the order of a step.
    torch.testing.assert_close(network.shift.detach(), SHIFT, rtol=0, atol=0.15)
    torch.testing.assert_close(network.growth.detach(), GROWTH, rtol=0, atol=0.15)
    assert float(LogVarianceObjective(Affine(-SHIFT, GROWTH), 0.7)(data)) > before


def test_diffusion_of_path_weights_must_be_positive():
    with pytest.raises(InputError, match="need a positive diffusion"):
        LogVarianceObjective(Affine(*EXACT), 0.0)(_paths(4, 16, steps=3))


def test_rate_starts_anew_only_where_a_curriculum_had_not_come():
    rate = FreeEnergyRate(5)  # knots at 0, 1/4, 1/2, 3/4, 1
    near, far = torch.tensor([0.0, 0.3]).double(), torch.linspace(0, 1, 9).double()
    rate.calibrate(near, torch.tensor([2.0, 2.0]))
    assert rate.values.tolist() == [2.0] * 5  # beyond, the last value that is known
    with torch.no_grad():
        rate.values += 1
    rate.calibrate(far, 8 * far)
    assert rate.values.tolist() == [3.0, 3.0, 4.0, 6.0, 8.0]


def test_rate_is_linear_between_knots():
    rate = FreeEnergyRate(5)
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    rate.calibrate(times, 3 * times - 1)
    t = torch.rand(20, generator=seeded(17), dtype=torch.float64)
    torch.testing.assert_close(rate(t).detach(), 3 * t - 1)
    with torch.no_grad():
        rate.values.zero_()
    rate.calibrate(times, 3 * times - 1)  # nothing is new: what was learned since stays
    assert float(rate.values.detach().abs().max()) == 0
    with pytest.raises(InputError, match="two knots"):
        FreeEnergyRate(1)
