"""Ramps that are learned: monotone and smooth, never longer than what they start from, and no change of the answer."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.methods.density.ais import ais
from nessampler.methods.density.learned_schedule import learn_schedule
from nessampler.paths import LinearPath, ScheduledPath, coupling_path
from nessampler.paths.learned import MonotonePath, MonotoneRamps, length, reweighted_metric, shortest_ramps
from nessampler.targets import Gaussian
from nessampler.targets.phi4 import Phi4

D, STIFF = 4, 50.0


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Springs:
    """Half the squares of some of the coordinates."""

    event_shape = torch.Size([2 * D])

    def __init__(self, rows: slice) -> None:
        self.rows = rows

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * x[:, self.rows].square().sum(1)


def exchange() -> MonotonePath:
    """Four springs stiffen by 50 while four others soften: the metric, and its geodesics, are known.

    Each precision k costs (D/2) (dk/k)², so a straight line in both log k is the shortest way: log 50 · √(D/2) · √2.
    """
    soft, stiff = torch.ones(D, dtype=torch.float64), torch.full((D,), STIFF**-0.5, dtype=torch.float64)
    ends = [Gaussian(torch.zeros(2 * D).double(), torch.cat(scales)) for scales in ((soft, stiff), (stiff, soft))]
    grow = STIFF - 1
    terms = [Springs(slice(0, D)), Springs(slice(D, None))]
    return MonotonePath(ScheduledPath(terms, lambda t: torch.stack([1 + grow * t, STIFF - grow * t], -1), *ends))


def exact_metric(f: Tensor) -> Tensor:
    grow = STIFF - 1
    return torch.diag_embed(
        torch.stack([D / 2 * (grow / (1 + grow * f[:, 0])) ** 2, D / 2 * (grow / (STIFF - grow * f[:, 1])) ** 2], 1)
    )


GEODESIC = math.log(STIFF) * math.sqrt(D)


def fine(ramps: Tensor) -> Tensor:
    return MonotoneRamps(ramps)(torch.linspace(0, 1, 1025, dtype=torch.float64)).T


# ---- ramps ---------------------------------------------------------------------------------------------------------


def test_ramps_go_through_their_knots_and_never_turn_back() -> None:
    values = torch.tensor([[0.0, 0.0, 0.7, 0.71, 1.0], [0.0, 0.5, 0.5, 0.5, 1.0]], dtype=torch.float64)
    ramps = MonotoneRamps(values)
    torch.testing.assert_close(ramps(torch.linspace(0, 1, 5)).T, values)
    assert float(fine(values).diff(dim=1).min()) >= -1e-15


def test_ramps_are_continuously_differentiable() -> None:
    ramps = MonotoneRamps(torch.tensor([[0.0, 0.1, 0.7, 0.75, 1.0]]))
    knots = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    slopes = []
    for side in (-1e-9, 1e-9):
        t = (knots + side).requires_grad_()
        slopes.append(torch.autograd.grad(ramps(t).sum(), t)[0])
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-6)
    assert float(slopes[0].min()) > 0


@pytest.mark.parametrize("values", [[0.0, 0.6, 0.5, 1.0], [0.1, 1.0], [0.0, 0.9], [0.0]])
def test_values_that_are_no_ramp_are_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="ramps rise from 0 at the first knot to 1"):
        MonotoneRamps(torch.tensor([values]))


# ---- paths ---------------------------------------------------------------------------------------------------------


def test_linear_ramps_change_nothing() -> None:
    path = coupling_path(Phi4(4, quartic=0.8), mass=lambda t: t, quartic=lambda t: t)
    free = MonotonePath(path)
    x, t = torch.randn(5, 4, 4, generator=seeded(0)).double(), torch.linspace(0, 1, 5).double()
    for one, other in zip(path.evaluate(t, x)[:3], free.evaluate(t, x)[:3], strict=True):
        torch.testing.assert_close(one, other)


def test_the_ends_stay_and_the_time_derivative_is_that_of_the_energy() -> None:
    path = MonotonePath(coupling_path(Phi4(4, quartic=0.9)), torch.tensor([[0.0, 0.1, 1.0], [0.0, 0.6, 1.0]]))
    x, t = torch.randn(4, 4, 4, generator=seeded(1)).double(), torch.tensor([0.1, 0.4, 0.6, 0.9]).double()
    h = 1e-6
    rate = (path.energy(t + h, x) - path.energy(t - h, x)) / (2 * h)
    torch.testing.assert_close(path.evaluate(t, x).time_derivative, rate, rtol=1e-5, atol=1e-5)
    for time, end in ((0.0, path.start), (1.0, path.end)):
        torch.testing.assert_close(path.energy(torch.full((4,), time).double(), x), end.energy(x))


def test_ramps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="one ramp for every term that changes: got 1 for 2"):
        MonotonePath(coupling_path(Phi4(4, quartic=0.8)), torch.tensor([[0.0, 1.0]]))
    wide, narrow = Gaussian(torch.zeros(1), torch.full((1,), 2.0)), Gaussian(torch.zeros(1), torch.ones(1))
    single = ScheduledPath([wide], lambda t: (1 + 3 * t)[:, None], wide, narrow)
    with pytest.raises(InputError, match="one ramp alone is a matter of times"):
        learn_schedule(MonotonePath(single), generator=seeded(0))
    assert len(MonotonePath(LinearPath(wide, narrow)).changes) == 2  # base and target each have a ramp


# ---- the shortest way ----------------------------------------------------------------------------------------------


def test_a_known_geodesic_is_found() -> None:
    straight = torch.linspace(0, 1, 17).double().repeat(2, 1)
    ramps, _ = shortest_ramps(exact_metric, straight)
    assert length(exact_metric, fine(straight)) > 1.2 * GEODESIC
    assert GEODESIC - 0.01 < length(exact_metric, fine(ramps)) < 1.04 * GEODESIC
    # Equal lengths: the speed is found too.
    pieces = torch.tensor([length(exact_metric, fine(ramps)[:, 64 * j : 64 * j + 65]) for j in range(16)])
    assert float(pieces.std() / pieces.mean()) < 0.3


def test_the_metric_between_places_is_that_of_the_density_there() -> None:
    path = exchange()
    places = torch.tensor([[0.0, 0.0], [0.02, 0.3], [0.1, 0.6], [0.3, 0.9], [1.0, 1.0]], dtype=torch.float64)
    precision = path.weights_at(places).repeat_interleave(D, 1)
    noise = torch.randn(5, 3_000, 2 * D, generator=seeded(2), dtype=torch.float64)
    x = (noise / precision.sqrt()[:, None]).flatten(0, 1)
    terms = torch.stack([term.energy(x) for term in path.terms], 1)
    between = torch.tensor([[0.05, 0.45], [0.18, 0.8]], dtype=torch.float64)
    found = reweighted_metric(path, terms, places, caution=0.0)(between)
    exact = exact_metric(between)
    scale = exact.diagonal(dim1=1, dim2=2).sqrt()
    error = (found - exact) / (scale[:, :, None] * scale[:, None, :])
    assert float(error.abs().max()) < 0.15
    far = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    known = reweighted_metric(path, terms, places)
    assert float(known(far).diagonal(dim1=1, dim2=2).min()) > float(exact_metric(far).diagonal(dim1=1, dim2=2).min())


def test_learned_ramps_are_shorter_and_leave_less_variance_at_the_same_log_z() -> None:
    path = exchange()
    found = learn_schedule(path, pilots=192, steps=12, knots=9, rounds=2, generator=seeded(3))
    truly = length(exact_metric, fine(found.path.ramps.values))
    assert truly < 0.9 * length(exact_metric, fine(path.ramps.values))
    assert found.length < found.guesses[0]
    runs = [ais(p, steps=40, generator=seeded(4)).draw(3_000, generator=seeded(5)) for p in (path, found.path)]
    assert runs[1].work.var() < 0.95 * runs[0].work.var()
    exact = path.end.log_z - path.start.log_z  # pyright: ignore[reportAttributeAccessIssue]
    assert abs(runs[1].log_z_ratio - exact) < 4 * runs[1].log_z_error < 0.8


def test_evaluations_are_counted() -> None:
    asked = [0]

    class Asked(Springs):
        def energy(self, x: Tensor) -> Tensor:
            asked[0] += len(x)
            return super().energy(x)

    plain = exchange()
    terms = [Asked(slice(0, D)), Asked(slice(D, None))]
    path = MonotonePath(ScheduledPath(terms, plain.schedule, plain.start, plain.end))
    found = learn_schedule(path, pilots=64, steps=4, rounds=0, generator=seeded(6))
    assert 2 * found.evaluations == asked[0]


def test_the_same_seed_gives_the_same_ramps() -> None:
    one, other = (
        learn_schedule(exchange(), pilots=64, steps=4, rounds=0, generator=seeded(7)).path.ramps.values
        for _ in range(2)
    )
    assert torch.equal(one, other)
    assert all(float(b - a) >= 0 for row in one for a, b in pairwise(row))
