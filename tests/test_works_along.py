"""The works on the way: what is recorded is what shorter runs give, costs nothing, and is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import synthetic_runs
import torch
import xarray
from command_line import nessampler
from torch.distributions.transforms import AffineTransform, IndependentTransform

from nessampler.estimators import jarzynski
from nessampler.kernels import HMC, Compose, Flow
from nessampler.methods.difference import free_energy
from nessampler.methods.effort import Effort
from nessampler.methods.ends import Block, Ends
from nessampler.methods.maps import mapped
from nessampler.methods.plain import plain
from nessampler.methods.switching import tuned_switching
from nessampler.methods.transport import Transport
from nessampler.paths import LinearPath
from nessampler.plots import WorksAlong
from nessampler.runs import report
from nessampler.runs.along import along_from_groups, along_groups
from nessampler.runs.page import rendered
from nessampler.simulate import simulate
from nessampler.targets import Gaussian


class HalfLine:
    """An exponential density on x > 0."""

    event_shape = torch.Size([1])

    def energy(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, 0] > 0, x[:, 0], torch.inf)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wells(n: int = 600) -> tuple[Ends, Block]:
    a = Gaussian(torch.zeros(2).double(), torch.ones(2).double())
    b = Gaussian(torch.tensor([1.0, -0.5]).double(), torch.tensor([0.6, 1.4]).double())
    samples = [target.sample(n, generator=generator(k)).double()[None] for k, target in enumerate((a, b))]
    return Ends.of(a, b, None), Block(*samples, False)


def identity() -> IndependentTransform:
    return IndependentTransform(AffineTransform(0.0, 1.0), 1)


def switched(steps: int = 8) -> tuple[Transport, Ends, Block]:
    ends, block = wells()
    return tuned_switching(ends, identity(), block.thinned(100), steps=steps, generator=generator(2)), ends, block


def test_the_works_end_as_those_that_are_estimated_from() -> None:
    transport, _, block = switched()
    for way, trip in zip(
        ("forward", "reverse"), transport.trips(block, generator=generator(), chunk_size=250), strict=True
    ):
        along = trip.along
        assert along is not None
        found = jarzynski(trip.work)
        assert along.ess[-1] == pytest.approx(found.ess[0], rel=1e-9)
        assert along.delta_f[-1] == pytest.approx(found.delta_f, rel=1e-9)
        assert along.mean_work[-1] == pytest.approx(trip.work.mean(), rel=1e-9)
        assert [column[0] for column in along[1:]] == [1.0, 0.0, 0.0]
        assert along.times.tolist() == pytest.approx(np.linspace(*((0, 1) if way == "forward" else (1, 0)), 9))
        dissipated = along.mean_work - along.delta_f
        assert (dissipated >= -1e-12).all()
        assert along.ess.min() < 0.99  # negative control: there is something to see


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_on_the_way_they_are_those_of_a_run_that_ends_there(reverse: bool) -> None:
    _, block = wells()
    path = LinearPath(*(wells()[0].counted[k] for k in (0, 1)))
    kernel, x = HMC(path, 0.4, 2), (block.flat_b if reverse else block.flat_a)
    times = [1.0, 0.7, 0.4, 0.0] if reverse else [0.0, 0.3, 0.6, 1.0]
    whole = simulate(kernel, path, times, x, generator=generator(5)).history
    assert whole is not None
    assert whole.mean_work is not None
    assert whole.ess is not None
    for k in (1, 2, 3):
        short = simulate(kernel, path, times[: k + 1], x, generator=generator(5))
        assert float(whole.mean_work[k - 1]) == pytest.approx(float(short.work.mean()), abs=1e-9)
        assert float(whole.ess[k - 1]) == pytest.approx(short.ess, abs=1e-9)


def test_they_cost_no_evaluation() -> None:
    transport, ends, block = switched(steps=8)
    with ends.counted[0].stage("a"), ends.counted[1].stage("a"):
        transport.trips(block, generator=generator())
    walkers = len(block)
    for counted in ends.counted:
        tally = counted.tally("a")
        assert tally.energy + tally.gradient == walkers * 8  # at nine times, of which one is the other end's alone


def test_many_times_are_thinned_and_the_last_stays() -> None:
    transport, _, block = switched(steps=100)
    along = transport.trips(block, generator=generator())[0].along
    assert along is not None
    assert len(along.times) == 41
    assert (along.times[0], along.times[-1]) == (0.0, 1.0)


def test_a_rung_without_a_way_records_none() -> None:
    ends, block = wells()
    for transport in (plain(ends), mapped(ends, "nothing", identity())):
        assert [trip.along for trip in transport.trips(block, generator=generator())] == [None, None]


def test_walkers_outside_the_support_make_the_mean_infinite_and_the_rest_stays() -> None:
    a, b = Gaussian(torch.zeros(1).double(), torch.ones(1).double()), HalfLine()
    path = LinearPath(a, b)
    x = a.sample(200, generator=generator()).double()
    history = simulate(HMC(path, 0.3, 1), path, [0.0, 0.5, 1.0], x, generator=generator(1)).history
    assert history is not None
    assert history.mean_work is not None
    assert history.ess is not None
    assert torch.isposinf(history.mean_work).all()
    assert (history.ess > 0).all()
    along = WorksAlong(*(np.array([0.0, 1.0]), np.array([1.0, 0.5]), np.array([0.0, np.inf]), np.array([0.0, 0.7])))
    drawn = report.compose(synthetic_runs.difference_result(), {}, along={"forward": along})
    assert "mean work so far / kT of forward ends at 0.00" in drawn.panels[3].alt


def test_selected_walkers_have_no_works() -> None:
    path = LinearPath(*(wells()[0].counted[k] for k in (0, 1)))
    _, block = wells()
    options = {"generator": generator(), "resample": 0.9}
    history = simulate(HMC(path, 0.4, 2), path, [0.0, 0.5, 1.0], block.flat_a, **options).history
    assert history is not None
    assert history.mean_work is None
    assert history.ess is not None


def test_only_rungs_that_were_climbed_have_trips() -> None:
    ends, block = wells()
    a, b = (counted.target for counted in ends.counted)
    effort = Effort(switching_steps=6, tuning_samples=50)
    result = free_energy(a, b, block.flat_a, block.flat_b, method="switching", effort=effort)
    assert {r.name for r in result.rungs if r.trips is not None} == {"plain", "map", "switching"}
    assert result.rung.trips is not None
    for trip, ess in zip(result.rung.trips, result.delta_f.ess, strict=True):
        assert trip.along is not None
        assert trip.along.ess[-1] == pytest.approx(ess, rel=1e-9)


def test_the_figure_comes_back_from_the_file(tmp_path: Path) -> None:
    along = synthetic_runs.along()
    straight, again = synthetic_runs.both_ways(tmp_path / "run", along_groups(along), along=along)
    assert rendered(again) == rendered(straight)
    titles = [panel.title for panel in again.panels]
    assert titles.index("Along the path") == titles.index("Convergence") + 1


def test_a_run_keeps_and_draws_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = nessampler("run", "anharmonic-wells", "--preset", "smoke", "--method", "switching", "--out", out)
    assert ended.code == 0, ended.err
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    found = along_from_groups({"along_path": xarray.open_dataset(out / "works.nc", group="along_path")})
    works = {way: xarray.open_dataset(out / "works.nc", group=way)["work_switching"].values for way in found}
    assert set(found) == {"forward", "reverse"}
    for way, along in found.items():
        assert along.ess[-1] == pytest.approx(result["ess"][way], rel=1e-9)
        assert along.mean_work[-1] == pytest.approx(works[way].mean(), rel=1e-9)
    assert len(list((out / "figures").glob("*-along-the-path.*"))) == 3
    assert nessampler("report", out, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "report.html").read_bytes() == (out / "report.html").read_bytes()


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_an_escorted_move_knows_them_both_ways_and_asks_no_more_than_its_moves_do(reverse: bool) -> None:
    ends, block = wells()
    counted = ends.counted
    path = LinearPath(*counted)
    kernel = Compose(Flow(lambda t, x: (0 * x + 0.1, torch.zeros(len(x)).double()), 2), HMC(path, 0.4, 2))
    x = block.flat_b if reverse else block.flat_a
    times = [1.0, 0.7, 0.4, 0.0] if reverse else [0.0, 0.3, 0.6, 1.0]
    with counted[0].stage("a"):
        ensemble = simulate(kernel, path, times, x, generator=generator(5))
    assert ensemble.history is not None
    assert ensemble.history.mean_work is not None
    assert float(ensemble.history.mean_work[-1]) == pytest.approx(float(ensemble.work.mean()), abs=1e-9)
    for k in (1, 2):
        short = simulate(kernel, path, times[: k + 1], x, generator=generator(5))
        assert float(ensemble.history.mean_work[k - 1]) == pytest.approx(float(short.work.mean()), abs=1e-9)
    tally = counted[0].tally("a")
    # Of A, which t = 1 does not ask for: at the start or the end, and twice in and before every other move.
    assert (tally.energy, tally.gradient) == (0, 9 * len(x))
