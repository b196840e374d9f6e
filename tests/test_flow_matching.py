"""Targeted FEP along a learned flow: an exact divergence, an accurate map, and works that are right before training."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

import nessampler as ns
from nessampler.divergence import exact_divergence
from nessampler.errors import InputError
from nessampler.estimators import bar
from nessampler.kernels import Map
from nessampler.kernels.ode_map import OdeMap
from nessampler.methods import flow_matching
from nessampler.methods.effort import Training
from nessampler.methods.ends import Block, Ends, split_by_time
from nessampler.methods.flow_matching import map_error
from nessampler.methods.ledger import Ledger
from nessampler.methods.stage import Stage
from nessampler.methods.transport import Transport
from nessampler.networks.field import NetworkField
from nessampler.networks.velocity import VelocityNetwork
from nessampler.objectives.flow_matching import FlowMatching
from nessampler.objectives.interpolant import PairBatch
from nessampler.paths import EndpointPath
from nessampler.targets import AnharmonicWell, Tally, carry

Wells = tuple[AnharmonicWell, AnharmonicWell]


def untrained(d: int, *, circular: list[bool] | None = None, size: float = 1.0, seed: int = 0) -> VelocityNetwork:
    """A network that moves walkers about at random."""
    generator = torch.Generator().manual_seed(seed)
    center, scale = torch.linspace(-0.5, 0.5, d), torch.linspace(0.6, 1.4, d)
    mask = None if circular is None else torch.tensor(circular)
    network = VelocityNetwork(center, scale, circular=mask, width=24, generator=generator)
    with torch.no_grad():
        network.last.weight.normal_(0, size / math.sqrt(24), generator=generator)
        network.last.bias.normal_(0, 0.3, generator=generator)
    return network.double()


def points(n: int, d: int, seed: int = 1) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("circular", [None, [False, True, False, True]])
def test_the_divergence_in_closed_form_is_autograds(circular: list[bool] | None) -> None:
    network, x, t = untrained(4, circular=circular), points(7, 4), torch.linspace(0, 1, 7).double()
    velocity, divergence = network.velocity_and_divergence(t, x)
    by_autograd = exact_divergence(network, t, x)
    torch.testing.assert_close(velocity.detach(), by_autograd[0].detach(), atol=1e-12, rtol=0)
    divergence = divergence.detach()
    torch.testing.assert_close(divergence, by_autograd[1].detach(), atol=1e-12, rtol=0)
    assert float(divergence.abs().max()) > 0.1
    if circular is not None:
        assert not velocity[:, torch.tensor(circular)].any()
        moved, _ = network.velocity_and_divergence(t, x + 2 * math.pi * torch.tensor(circular))
        torch.testing.assert_close(moved, velocity)


def test_the_log_determinant_is_that_of_autograds_jacobian() -> None:
    network, x = untrained(3, size=2.0), points(2, 3)
    flow = OdeMap(NetworkField(network), 1e-8)
    y = carry(flow, x)
    log_det = flow.log_abs_det_jacobian(x, y)

    def end(point: Tensor) -> Tensor:
        def rate(t: Tensor, z: Tensor) -> Tensor:
            return network(t.expand(1), z.unsqueeze(0))[0]

        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return odeint(rate, point, times, rtol=1e-8, atol=1e-8)[-1]  # pyright: ignore

    jacobians = torch.stack([torch.autograd.functional.jacobian(end, row) for row in x])  # pyright: ignore
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobians).logabsdet, atol=1e-6, rtol=0)
    assert float(log_det.abs().max()) > 0.1


def test_the_inverse_closes_the_round_trip() -> None:
    flow, x = OdeMap(NetworkField(untrained(6, size=2.0)), 1e-8), points(20, 6)
    y = carry(flow, x)
    back = carry(flow.inv, y)
    assert float((back - x).abs().max()) < 1e-6
    assert float((y - x).abs().max()) > 0.3
    there, again = flow.log_abs_det_jacobian(x, y), flow.log_abs_det_jacobian(back, y)
    torch.testing.assert_close(there, again, atol=1e-6, rtol=0)


def test_every_walker_is_as_accurate_as_if_it_were_alone() -> None:
    flow, x = OdeMap(NetworkField(untrained(4, size=3.0)), 1e-6), points(200, 4)
    crowd = carry(flow, torch.cat([0.01 * x, x[:1]]))
    assert float((crowd[-1:] - carry(flow, x[:1])).abs().max()) < 2e-5


def works(wells: Wells, network: VelocityNetwork) -> tuple[float, float, float]:
    """ΔF by BAR through the untrained flow, its error, and the exact value."""
    generator = torch.Generator().manual_seed(3)
    a, b = (w.sample(3000, generator=generator) for w in wells)
    transport = Transport("tfep", "", Map(OdeMap(NetworkField(network), 1e-5)), EndpointPath(*wells), (0.0, 1.0))
    found = bar(*transport.works(Block(a[None], b[None], False), generator=generator))
    assert found.delta_f is not None
    assert found.std_error is not None
    return found.delta_f, found.std_error, wells[0].log_z - wells[1].log_z


def test_works_are_unbiased_before_any_training(wells: Wells) -> None:
    delta_f, error, exact = works(wells, untrained(3))
    assert error < 0.06
    assert abs(delta_f - exact) < 4 * error


def test_a_divergence_that_is_left_out_is_noticed(wells: Wells, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = VelocityNetwork.velocity_and_divergence

    def without(self: VelocityNetwork, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity, divergence = whole(self, t, x)
        return velocity, torch.zeros_like(divergence)

    monkeypatch.setattr(VelocityNetwork, "velocity_and_divergence", without)
    delta_f, error, exact = works(wells, untrained(3))
    assert abs(delta_f - exact) > 4 * error


def test_the_error_of_the_integration_falls_with_the_tolerance(wells: Wells) -> None:
    generator = torch.Generator().manual_seed(0)
    probes = Block(*(w.sample(8, generator=generator)[None] for w in wells), False)
    field = NetworkField(untrained(3, size=2.0))

    def at(tolerance: float) -> Transport:
        return Transport("tfep", "", Map(OdeMap(field, tolerance)), EndpointPath(*wells), (0.0, 1.0))

    errors = [map_error(at(tolerance), at(1e-9), probes) for tolerance in (1e-3, 1e-5, 1e-7)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] > 0


def test_works_that_are_infinite_either_way_have_not_changed() -> None:
    class Cut(AnharmonicWell):
        def energy(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > self.edge, torch.inf, super().energy(x))

    def transport(edge: float, tolerance: float) -> Transport:
        ends = [Cut([0.0], stiffness=[1.0], quartic=[0.0], skew=[0.0], coupling=0.0) for _ in "ab"]
        ends[0].edge, ends[1].edge = 0.0, edge
        push = OdeMap(lambda t, x: (torch.ones_like(x), x.new_zeros(len(x))), tolerance)
        return Transport("tfep", "", Map(push), EndpointPath(*ends), (0.0, 1.0))

    x = -torch.arange(1.0, 9.0, dtype=torch.float64).view(1, 8, 1) / 4
    probes = Block(x, x, False)
    works = transport(0.5, 1e-4).works(probes, generator=torch.Generator())
    assert math.inf in works.forward
    assert map_error(transport(0.5, 1e-4), transport(0.5, 1e-6), probes) < 1e-3
    assert map_error(transport(0.5, 1e-4), transport(0.3, 1e-6), probes) == math.inf


def test_the_integration_is_judged_by_samples_that_no_flow_was_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Block] = []

    def judged(transport: Transport, stricter: Transport, probes: Block) -> float:
        seen.append(probes)
        return 0.0

    monkeypatch.setattr(flow_matching, "map_error", judged)
    x = points(200, 2)[None]
    fit, select, _ = split_by_time(x, x + 1, (0.4, 0.2, 0.4), correlated=False)
    wells = [AnharmonicWell([0.0, 0.0], stiffness=[1, 1], quartic=[0, 0], skew=[0, 0], coupling=0.0) for _ in "ab"]
    ends = Ends.of(*wells, None)
    stage = Stage(ends, fit, select, ns.Effort(), Ledger(ends.counted, (Tally(), Tally())))
    field = NetworkField(untrained(2))

    def at(tolerance: float) -> Transport:
        return Transport("tfep", "", Map(OdeMap(field, tolerance)), EndpointPath(*wells), (0.0, 1.0))

    flow_matching.accurate(stage, torch.nn.Identity(), at)
    [probes] = seen
    for name in ("a", "b"):
        one, held_out, fitted = (getattr(block, name) for block in (probes, select, fit))
        assert torch.isin(one, held_out).all()
        assert not torch.isin(one, fitted).any()


def test_the_velocity_of_least_loss_is_the_conditional_mean() -> None:
    # Between N(0, 1) and N(2, 9): E[x_b - x_a | I_t = x] in closed form.
    g = torch.Generator().manual_seed(0)
    x_a, x_b = points(20_000, 1), 2 + 3 * points(20_000, 1, seed=2)
    t = torch.rand(20_000, generator=g, dtype=torch.float64)
    batch = PairBatch(x_a, x_b, None, None, t, x_a)

    def exact(t: Tensor, x: Tensor) -> Tensor:
        s = t.unsqueeze(-1)
        return 2 + (9 * s - (1 - s)) / ((1 - s) ** 2 + 9 * s**2) * (x - 2 * s)

    def loss(change: float) -> float:
        return float(FlowMatching(lambda t, x: exact(t, x) + change * x, torch.ones(1))(batch))

    assert loss(0.0) < min(loss(0.1), loss(-0.1))


def test_tfep_gives_the_difference_and_says_how_exact_it_is(wells: Wells) -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = (w.sample(700, generator=generator) for w in wells)
    effort = ns.Effort(feat=Training(steps=80, batch_size=128, width=8))
    result = ns.free_energy(*wells, a, b, method="tfep", effort=effort)
    assert [r.name for r in result.rungs] == ["plain", "map", "tfep"]
    error = result.delta_f.std_error
    assert error is not None
    assert result.delta_f.delta_f is not None
    assert abs(result.delta_f.delta_f - (wells[0].log_z - wells[1].log_z)) < 4 * error < 0.2
    wrong_by = result.rung.pilot.transport.systematic
    assert 0 < wrong_by < 1e-3
    statistical = bar(*result.rung.works).std_error
    assert statistical is not None
    assert error == pytest.approx(math.hypot(statistical, wrong_by))
    assert "works exact to" in result.rung.description
    assert result.evaluations["networks"]["training"] > 0


def test_auto_does_not_climb_to_tfep(wells: Wells, monkeypatch: pytest.MonkeyPatch) -> None:
    from nessampler.methods import ladder

    assert "tfep" in ladder.ON_REQUEST
    monkeypatch.setattr(ladder, "PATIENCE", 100)
    generator = torch.Generator().manual_seed(5)
    a, b = (w.sample(200, generator=generator) for w in wells)
    little = ns.Effort(switching_steps=2, fields_steps=3, tuning_samples=20, feat=Training(0))
    assert "tfep" not in [r.name for r in ns.free_energy(*wells, a, b, effort=little).rungs]


def explosive(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """Infinite before t = 1."""
    return 50 * x**3, 150 * x.square().sum(-1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OdeMap(NetworkField(untrained(2)), 0.0), "tolerance of an integrated flow must be positive"),
        (lambda: carry(OdeMap(lambda t, x: (x**3 * 50, x.new_zeros(len(x)))), torch.ones(1, 1).double()), "integrable"),
        (
            lambda: VelocityNetwork(torch.zeros(2), torch.zeros(2), generator=torch.Generator()),
            "scale must be positive",
        ),
    ],
)
def test_bad_input_is_refused(make: Callable, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
