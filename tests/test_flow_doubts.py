"""Steps of a flow that did not come back are counted and told, walkers that left the support are not."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from nessampler.kernels import HMC, Compose, Flow
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.effort import Effort
from nessampler.methods.ends import Block
from nessampler.methods.flow_doubts import flow_checked
from nessampler.methods.rungs import VECTOR_RUNGS, Structure
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.transport import Transport, Works
from nessampler.paths import EndpointPath, LinearPath
from nessampler.simulate import Ensemble, simulate
from nessampler.targets import Gaussian

A = Gaussian(torch.zeros(1).double(), torch.ones(1).double())
B = Gaussian(torch.zeros(1).double(), torch.full((1,), 2.0).double())
PATH = EndpointPath(A, B)


def torn(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """Pulls apart at the origin, so steeply that a single step folds."""
    v = torch.tanh(12 * x)
    return v, 12 * (1 - v.square()).sum(-1)


class Half:
    """B where x is positive."""

    event_shape = torch.Size([1])

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, B.energy(x), torch.inf)


def carried(kernel: Flow | Compose, path: EndpointPath | LinearPath, *, back: bool, chunk: int = 512) -> Ensemble:
    generator = torch.Generator().manual_seed(0)
    x = (B if back else A).sample(2000, generator=generator)
    times = (1.0, 0.5, 0.0) if back else (0.0, 0.5, 1.0)
    return simulate(kernel, path, times, x, generator=generator, chunk_size=chunk)


def test_walkers_without_a_way_back_are_marked_in_every_chunk() -> None:
    found = carried(Flow(torn), PATH, back=True)
    assert found.lost is not None
    assert 0.1 < float(found.lost.double().mean()) < 0.5
    assert torch.equal(found.lost, found.log_weight == -torch.inf)
    fine = carried(Flow(torn, 4, 16), PATH, back=True)
    assert fine.lost is not None
    assert not fine.lost.any()
    both = found.merge(fine)
    assert both.lost is not None
    assert both.lost.sum() == found.lost.sum()


def test_a_loss_among_moves_is_remembered() -> None:
    path = LinearPath(A, B)
    found = carried(Compose(Flow(torn), HMC(path, 0.3, 2)), path, back=True)
    assert found.lost is not None
    assert found.lost.any()
    assert torch.equal(found.lost, found.log_weight == -torch.inf)
    assert carried(Compose(HMC(path, 0.3, 2), HMC(path, 0.3, 2)), path, back=True).lost is None


def test_a_walker_thrown_out_of_all_proportion_is_lost_forwards() -> None:
    wild = Flow(lambda t, x: (1e4 * x**3, 3e4 * x.square().sum(-1)))
    found = carried(wild, PATH, back=False)
    assert found.lost is not None
    assert found.lost.any()


def test_a_walker_outside_the_support_is_not_lost() -> None:
    still = Flow(lambda t, x: (0 * x, x.new_zeros(len(x))))
    found = carried(still, EndpointPath(A, Half()), back=False)
    assert float((found.log_weight == -torch.inf).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert found.lost is not None
    assert not found.lost.any()


def checked(flow: Flow, b: Gaussian | Half = B, systematic: float = 0.0) -> tuple[set[str], float]:
    """Flags of the flow, and by how much it widened the error."""
    generator = torch.Generator().manual_seed(0)
    x_b = B.sample(2000, generator=generator)
    block = Block(A.sample(2000, generator=generator)[None], (x_b.abs() if isinstance(b, Half) else x_b)[None], False)
    transport = Transport("", "", flow, EndpointPath(A, b), (0.0, 1.0), systematic=systematic)
    trips = transport.trips(block, generator=generator)
    plain = transport.estimate(Works(trips[0].work, trips[1].work))
    found = flow_checked(plain, systematic, trips)
    assert found.delta_f == plain.delta_f
    assert found.std_error is not None
    assert plain.std_error is not None
    codes = {flag.code for flag in found.flags} - {flag.code for flag in plain.flags}
    return codes, math.sqrt(found.std_error**2 - plain.std_error**2)


def test_only_what_the_flow_lost_is_flagged() -> None:
    assert checked(Flow(torn))[0] == {"no_way_back"}
    assert checked(Flow(torn, 4, 16)) == (set(), 0.0)
    assert checked(Flow(lambda t, x: (0 * x, x.new_zeros(len(x)))), Half()) == (set(), 0.0)


def test_a_few_lost_walkers_enter_the_error() -> None:
    generator = torch.Generator().manual_seed(0)
    block = Block(A.sample(2000, generator=generator)[None], B.sample(2000, generator=generator)[None], False)
    transport = Transport("", "", Flow(torn, 4, 16), PATH, (0.0, 1.0))
    there, back = transport.trips(block, generator=generator)
    plain = transport.estimate(transport.works(block, generator=generator))
    found = flow_checked(plain, 0.0, (there, back._replace(lost=0.005)))
    assert found.flags == plain.flags
    assert plain.std_error is not None
    assert found.std_error == pytest.approx(math.hypot(plain.std_error, math.log(1 / 0.995)))
    (flag,) = flow_checked(plain, 0.0, (there._replace(lost=0.02), back._replace(lost=1.0))).flags
    assert "2.00% of the walkers from A and 100.00% of the walkers from B" in flag.message


@pytest.mark.parametrize(("systematic", "told"), [(1e-3, set()), (0.05, {"coarse_flow"})])
def test_a_coarse_flow_is_flagged(systematic: float, told: set[str]) -> None:
    assert checked(Flow(torn, 4, 16), systematic=systematic) == (told, 0.0)


def difference(flow: Flow, systematic: float = 0.0) -> Difference:
    """Through the ladder, with a rung that is this flow."""

    def rung(stage: Stage) -> Iterator[Candidate]:
        path = EndpointPath(stage.ends.a, stage.ends.b)
        yield Transport("fields", "a flow", flow, path, (0.0, 1.0), systematic=systematic), None

    generator = torch.Generator().manual_seed(0)
    x_a, x_b = (end.sample(1500, generator=generator) for end in (A, B))
    structure = Structure({"map": VECTOR_RUNGS["map"], "fields": rung})
    return free_energy(A, B, x_a, x_b, method="fields", structure=structure, effort=Effort())


def test_a_difference_by_a_flow_that_loses_walkers_is_not_trusted() -> None:
    found = difference(Flow(torn))
    assert "no_way_back" in {flag.code for flag in found.delta_f.flags}
    assert "no_way_back" in {flag.code for flag in found.flags}
    assert found.verdict.level == "not trusted"
    assert "The estimate itself is flagged" in found.verdict.text
    assert not {"no_way_back", "coarse_flow"} & {flag.code for flag in difference(Flow(torn, 4, 16)).flags}


def test_a_difference_by_a_coarse_flow_says_so() -> None:
    found = difference(Flow(torn, 4, 16), systematic=0.05)
    (told,) = (flag for flag in found.delta_f.flags if flag.code == "coarse_flow")
    assert "shift ΔF by up to 5.0e-02" in told.message
    assert found.verdict.level == "caution"


def test_bounds_and_averages_know_what_integrated_works_may_be_off() -> None:
    plain, wide = (difference(Flow(torn, 4, 16), systematic=s) for s in (0.0, 0.05))
    for before, after, by in zip(plain.bounds.tightest_limits, wide.bounds.tightest_limits, (-0.05, 0.05), strict=True):
        assert before is not None
        assert after == pytest.approx(before + by)
    for name in ("bar", "jarzynski_forward", "jarzynski_reverse"):
        before, after = plain.estimators[name], wide.estimators[name]
        assert after.delta_f == before.delta_f
        assert before.std_error is not None
        assert after.std_error == pytest.approx(math.hypot(before.std_error, 0.05))
    assert wide.estimators["plain_bar"] == plain.estimators["plain_bar"]


def test_averages_that_lack_what_a_flow_lost_say_so() -> None:
    for name in ("jarzynski_forward", "jarzynski_reverse"):
        assert "no_way_back" in {flag.code for flag in difference(Flow(torn)).estimators[name].flags}
