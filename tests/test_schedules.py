"""Fields move between schedules without loss, and a path can be run at the pace that its fields ask for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nessampler.closed_form import (
    GaussianFields,
    Transferred,
    TransferredFields,
    equal_length_times,
    mean_stretching,
)
from nessampler.closed_form import transfer as solved
from nessampler.errors import InputError
from nessampler.interpolants import EncodingDecoding, Linear, NoNoise, Retimed, SquareRoot, Trigonometric
from nessampler.kernels import Langevin
from nessampler.paths import EndpointPath
from nessampler.simulate import simulate
from nessampler.targets import Gaussian

TIMES = torch.tensor([0.0, 0.07, 0.3, 0.5, 0.81, 1.0], dtype=torch.float64)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _fields(schedule) -> GaussianFields:
    spread = _normal(2, 3, 6, seed=1) / math.sqrt(6)
    means = _normal(2, 3, seed=2)
    return GaussianFields(*means, *(s @ s.T + 0.1 * torch.eye(3) for s in spread), schedule=schedule)


@pytest.mark.parametrize(
    ("trained", "used"),
    [
        (Linear(SquareRoot(1.4)), Trigonometric()),
        (Trigonometric(SquareRoot(0.6)), Linear()),
        (Linear(NoNoise()), Trigonometric(NoNoise())),
        (Linear(SquareRoot(2.0)), Retimed(Linear(), (0.0, 0.1, 0.7, 1.0))),
    ],
)
def test_transferred_fields_are_those_of_the_other_schedule(trained, used):
    transfer = Transferred(trained, used)
    found, direct = TransferredFields(_fields(trained), transfer), _fields(transfer)
    x = _normal(6, 3, seed=3)
    for value, expected in zip(found(TIMES, x)[:2], direct(TIMES, x)[:2], strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
    assert float((found(TIMES, x).velocity - _fields(trained)(TIMES, x).velocity).abs().max()) > 0.1


def test_times_of_a_transfer_are_solved_in_float64_and_not_kept_for_ever(monkeypatch):
    transfer = Transferred(Linear(SquareRoot(1.4)), Trigonometric())
    single = torch.tensor([0.999], dtype=torch.float32)
    for one, other in zip(vars(transfer.at(single)).values(), vars(transfer.at(single.double())).values(), strict=True):
        assert torch.equal(one, other)
    assert transfer(single).gamma_square.dtype == torch.float32
    fields = TransferredFields(_fields(Linear(SquareRoot(1.4))), transfer)
    x = _normal(1, 3, seed=3)
    first = fields(single, x)  # the time that walkers in float64 find known next
    assert torch.equal(first.score, fields(single.double(), x).score)
    monkeypatch.setattr(solved, "REMEMBERED", 4)
    for t in torch.linspace(0.1, 0.9, 11, dtype=torch.float64):
        fields._at(t.view(1))
    assert len(fields._known) <= 4


def test_without_noise_a_transfer_is_the_schedule_itself():
    used = Trigonometric(NoNoise())
    found = TransferredFields(_fields(Linear(NoNoise())), Transferred(Linear(NoNoise()), used))
    x, direct = _normal(6, 3, seed=4), _fields(used)
    for value, expected in zip(found(TIMES, x)[:2], direct(TIMES, x)[:2], strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


def test_noise_follows_a_transfer():
    """Retiming transfers the noise along; the bridge's noise under cosine and sine is c alpha beta."""
    transfer = Transferred(Linear(SquareRoot(1.4)), Trigonometric())
    at = transfer(TIMES)
    torch.testing.assert_close(at.gamma_square, 1.4 * at.alpha * at.beta, rtol=0, atol=1e-12)
    inner = TIMES[1:-1]
    rate = torch.func.jvp(
        lambda t: 1.4 * torch.sin(math.pi * t / 2) * torch.cos(math.pi * t / 2), (inner,), (inner * 0 + 1,)
    )
    torch.testing.assert_close(transfer(inner).gamma_product, 0.5 * rate[1], rtol=0, atol=1e-12)
    slower = Retimed(Linear(SquareRoot(2.0)), (0.0, 0.1, 0.7, 1.0))
    for value, expected in zip(Transferred(Linear(SquareRoot(2.0)), slower)(inner), slower(inner), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


def test_schedules_whose_ratio_stands_still_are_not_transferred():
    with pytest.raises(InputError, match=r"EncodingDecoding\(strength=1.0\) does not"):
        Transferred(Linear(), EncodingDecoding())


def test_pace_makes_every_step_equally_long():
    fields = GaussianFields(
        *(torch.tensor(v).double() for v in ([0.0], [3.0], [[1.0]], [[1e-4]])), schedule=Linear(NoNoise())
    )
    times = torch.tensor(equal_length_times(fields.roughness, 64, floor=0.0, points=20_001)).double()
    fine = torch.linspace(0, 1, 200_001).double()
    speed = fields.roughness(fine).sqrt()
    length = torch.cat([torch.zeros(1), (0.5 * (speed[1:] + speed[:-1])).cumsum(0) / 200_000])
    steps = length[(times * 200_000).round().long()].diff()
    assert float(steps.max() / steps.min()) < 1.05
    # Averaged squared stretching: its least value is (total length)^2.
    paced = (64 * steps.square()).sum() * 64 / 64
    equidistant = torch.trapezoid(speed.square(), fine)
    assert float(paced) == pytest.approx(float(length[-1] ** 2), rel=1e-2)
    assert float(equidistant) > 2 * float(paced)


def test_pace_narrows_the_work_towards_a_narrow_end():
    d = 4
    a, b = (
        Gaussian(torch.zeros(d).double(), torch.ones(d).double()),
        Gaussian(torch.ones(d).double(), torch.full((d,), 0.05).double()),
    )
    fields = GaussianFields(a.mean, b.mean, torch.diag(a.scale**2), torch.diag(b.scale**2), strength=0.01)
    kernel, path, x = (
        Langevin(fields, fields.variance),
        EndpointPath(a, b),
        a.sample(400, generator=torch.Generator().manual_seed(5)),
    )
    spread = []
    for times in (equal_length_times(fields.roughness, 48), tuple(k / 48 for k in range(49))):
        work = simulate(kernel, path, times, x, generator=torch.Generator().manual_seed(6)).work
        spread.append(float(work.std()))
    assert spread[0] < 0.85 * spread[1]


def test_no_step_jumps_over_a_stretch_without_gradient():
    times = torch.tensor(equal_length_times(lambda t: (t > 0.5).double(), 20, floor=0.1))
    assert float(times.diff().max()) < 0.2
    assert equal_length_times(torch.zeros_like, 4) == (0.0, 0.25, 0.5, 0.75, 1.0)
    with pytest.raises(InputError, match="roughness must be finite"):
        equal_length_times(lambda t: 1 / t, 4)


def test_mean_stretching_is_the_squared_gradient():
    fields, t = _fields(Linear(SquareRoot(1.4))), torch.tensor([0.3], dtype=torch.float64)
    gradient = torch.func.jacrev(lambda y: fields(t, y.view(1, 3)).velocity.squeeze(0))(torch.zeros(3).double())
    x = _normal(4000, 3, seed=7)
    found = mean_stretching(fields, 0.3, x, generator=torch.Generator().manual_seed(8))
    assert float(found) == pytest.approx(float(gradient.square().sum()), rel=0.05)
    one = GaussianFields(*(torch.tensor(v).double() for v in ([0.0], [3.0], [[1.0]], [[0.2]])))
    alone = mean_stretching(one, 0.3, x[:, :1], generator=torch.Generator().manual_seed(9))
    assert float(alone) == pytest.approx(float(one.roughness(0.3)), rel=1e-10)
