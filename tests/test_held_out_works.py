"""Weights are kept, and training stopped, by works of held-out samples: what they cost, and what they tell apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.distributions.transforms import ComposeTransform

from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.kernels import Langevin
from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import Ends, split_by_time
from nessampler.methods.feat import feat_rung
from nessampler.methods.held_out_works import CARRIED, CHECKS, STEPS, WITHOUT_OVERLAP, watch
from nessampler.methods.ledger import Ledger
from nessampler.methods.maps import mapped
from nessampler.methods.stage import Pilot, Stage
from nessampler.methods.transport import Transport, Works
from nessampler.paths import EndpointPath
from nessampler.targets import Gaussian, Tally

NARROW = 0.05


class Shift(nn.Module):
    """Carries by a constant velocity; the score is that of a narrow Gaussian that moves along."""

    def __init__(self, velocity: float) -> None:
        super().__init__()
        self.velocity = nn.Parameter(torch.tensor(velocity, dtype=torch.float64))

    def forward(self, t: torch.Tensor, x: torch.Tensor) -> Evaluated:
        return Evaluated(self.velocity.expand_as(x), -(x - t[:, None]) / NARROW**2)


def _stage(**options) -> Stage:
    ends = [Gaussian(torch.full((1,), m).double(), torch.full((1,), NARROW).double()) for m in (0.0, 1.0)]
    samples = [e.sample(1000, generator=torch.Generator().manual_seed(i))[None] for i, e in enumerate(ends)]
    fit, select, _ = split_by_time(*samples, (0.4, 0.2, 0.4), correlated=False)
    both = Ends.of(*ends, None)
    training = Training(**({"steps": 40, "width": 8, "depth": 1, "batch_size": 32, "sampling_steps": 4} | options))
    effort = Effort(feat=training, tuning_samples=40)
    return Stage(both, fit, select, effort, Ledger(both.counted, (Tally(), Tally())))


def _transport(stage: Stage, velocity: float) -> Transport:
    kernel = Langevin(Shift(velocity), 1e-4)
    return Transport("feat", "", kernel, EndpointPath(stage.ends.a, stage.ends.b), (0.0, 0.5, 1.0))


def test_better_transports_are_judged_better_with_and_without_overlap():
    stage = _stage()
    values = []
    for velocity in (0.0, 0.5, 0.9, 1.0):
        judge = watch(stage, _transport(stage, velocity)).judge
        assert judge is not None
        values.append(judge())
        assert judge() == values[-1]  # the same samples and the same noise at every check
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[0] > values[1] > WITHOUT_OVERLAP
    assert values[3] < 0.5


def test_a_check_costs_an_energy_of_the_other_end_for_every_sample_and_the_ends_own_ones_once():
    stage = _stage()
    judge = watch(stage, _transport(stage, 0.9)).judge
    assert judge is not None
    block = stage.select.thinned(CARRIED)
    for checks in range(4):  # the ends' own before the first: a checkpoint of training then counts them
        if checks:
            judge()
        spent = [counted.tally().energy for counted in stage.ends.counted]
        assert spent == [len(block.flat_a) + checks * len(block.flat_b), len(block.flat_b) + checks * len(block.flat_a)]
    assert all(counted.tally().gradient == 0 for counted in stage.ends.counted)


def test_a_check_takes_some_of_the_steps_of_a_fine_rung():
    seen: list[float] = []
    stage = _stage()

    class Noted(Shift):
        def forward(self, t: torch.Tensor, x: torch.Tensor) -> Evaluated:
            seen.append(float(t[0]))
            return super().forward(t, x)

    fine = replace(_transport(stage, 1.0), kernel=Langevin(Noted(1.0), 1e-4), times=tuple(k / 256 for k in range(257)))
    judge = watch(stage, fine).judge
    assert judge is not None
    judge()
    there = seen[: len(seen) // 2]
    assert sorted(set(there)) == [k / STEPS for k in range(STEPS + 1)]


def test_the_loss_decides_where_it_is_asked_to_or_nothing_carries_samples():
    for stage, carried in ((_stage(stopping="loss"), True), (_stage(), False)):
        found = watch(stage, _transport(stage, 0.9) if carried else None)
        assert (found.judge, found.every, found.patience) == (None, 2, 6)
    assert watch(_stage(), _transport(_stage(), 0.9))[1:] == (7, 3)  # fewer checks, three of patience


@pytest.mark.parametrize("stopping", ["works", "loss"])
def test_the_learned_rung_bills_its_checks_to_training(stopping: str):
    stage = _stage(stopping=stopping, patience=20)
    transport = mapped(stage.ends, "nothing", ComposeTransform([]))
    works = Works(torch.zeros(2).numpy(), torch.zeros(2).numpy())
    stage.below["map"] = Pilot(transport, works, transport.estimate(works), 1.0, 1.0)
    list(feat_rung(stage))
    energies = [stage.ledger.evaluations("feat")[s]["training"]["energy"] for s in ("state_a", "state_b")]
    alone = _stage(stopping="loss", patience=20)
    alone.below["map"] = replace(
        stage.below["map"], transport=mapped(alone.ends, "nothing", transport.kernel.transform)
    )
    list(feat_rung(alone))
    without = [alone.ledger.evaluations("feat")[s]["training"]["energy"] for s in ("state_a", "state_b")]
    n = len(stage.select.thinned(CARRIED).flat_a)
    more = n + (CHECKS + 1) * n if stopping == "works" else 0
    assert [e - w for e, w in zip(energies, without, strict=True)] == [more, more]
    assert [("held_out_error" in row) for row in stage.metrics] == [stopping == "works"] * len(stage.metrics)


def test_a_stopping_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="stopping must be one of works, loss: got 'best'; leave it out for works"):
        Training(stopping="best")  # pyright: ignore[reportArgumentType]
