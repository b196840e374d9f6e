"""A network on top of mixture fields: it starts as they are, learns some of what they leave over, changes no answer."""

from __future__ import annotations

import torch
from torch import Tensor

from nessampler.methods.effort import Effort, Training
from nessampler.methods.ends import Block, Ends, split_by_time
from nessampler.methods.ledger import Ledger
from nessampler.methods.mixture_feat import learned_mixture_fields
from nessampler.methods.stage import Stage
from nessampler.targets import Tally


class SkewedModes:
    """Two modes on the first axis, each a product of Gumbel densities: far from normal, of known log Z = `log_z`."""

    event_shape = torch.Size([2])

    def __init__(self, apart: float, scale: float, log_z: float) -> None:
        self.centre, self.scale, self.log_z = torch.tensor([apart, 0.0]).double(), scale, log_z

    def energy(self, x: Tensor) -> Tensor:
        modes = []
        for sign in (-1.0, 1.0):
            u = (x - sign * self.centre) / self.scale
            modes.append(-(u + torch.exp(-u)).sum(-1))
        log_density = (
            torch.logsumexp(torch.stack(modes), 0) - torch.tensor(2.0).log() - 2 * torch.tensor(self.scale).log()
        )
        return -(log_density + self.log_z)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(n, 2, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        sign = torch.randint(2, (n, 1), generator=generator) * 2.0 - 1.0
        return sign * self.centre - self.scale * torch.log(-torch.log(uniform))


A, B = SkewedModes(4.0, 0.6, 0.3), SkewedModes(5.0, 1.0, -0.4)


def _stage(steps: int) -> tuple[Stage, object]:
    generator = torch.Generator().manual_seed(0)
    samples = [end.sample(2000, generator=generator)[None] for end in (A, B)]
    fit, select, evaluate = split_by_time(*samples, (0.4, 0.2, 0.4), correlated=False)
    ends = Ends.of(A, B, None)
    training = Training(steps=steps, batch_size=128, width=32, depth=2, sampling_steps=48, learning_rate=5e-3)
    effort = Effort(feat=training, tuning_samples=100)
    return Stage(ends, fit, select, effort, Ledger(ends.counted, (Tally(), Tally()))), evaluate


def test_a_remainder_on_mixtures_is_learned_and_changes_no_answer() -> None:
    stage, evaluate = _stage(400)
    [(transport, network)] = learned_mixture_fields(stage)
    losses = [row["validation"] for row in stage.metrics]
    assert losses[0] == 0  # relative to the mixture fields, which the network starts as
    assert min(losses) < -0.02
    found = transport.estimate(transport.works(evaluate, generator=torch.Generator().manual_seed(1)))
    exact = A.log_z - B.log_z
    assert found.std_error < 0.02
    assert abs(found.delta_f - exact) < 4 * found.std_error
    assert abs(found.delta_f + exact) > 4 * found.std_error  # the other sign would be seen
    assert network.evaluations > 0
    gradients = stage.ledger.evaluations("feat")["state_a"]["training"]["gradient"]
    assert gradients == 800 + 400  # a score for every sample of the fit and of the select block, and no more


def test_nothing_is_learned_where_nothing_may_be_or_samples_are_few() -> None:
    assert list(learned_mixture_fields(_stage(0)[0])) == []
    for steps, told in ((10, 1), (0, 0)):  # nothing is said of samples where nothing would be learned from more
        said: list[str] = []
        stage, _ = _stage(steps)
        stage.fit, stage.say = stage.fit.thinned(60), said.append
        assert list(learned_mixture_fields(stage)) == []
        assert ["feat: no mixtures" in line and "250 of each state would do" in line for line in said] == [True] * told


def _stay(x: Tensor) -> Tensor:
    """As a chain that stays for four draws, all but where it is."""
    x = x.repeat_interleave(4, 1)
    return x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)


def test_correlated_samples_do_not_make_components_of_single_draws(monkeypatch) -> None:
    stage, _ = _stage(1)
    stage.fit = Block(_stay(stage.fit.a), _stay(stage.fit.b), True)
    [(_, network)] = learned_mixture_fields(stage)
    monkeypatch.setattr(Block, "late", (None, None))
    [(_, other)] = learned_mixture_fields(stage)
    assert 4 * len(network.base.weight) < len(other.base.weight)
