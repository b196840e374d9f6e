"""Selection inside the sampling loop: unbiased weights, honest errors from islands, and what a run remembers."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import Evaluated, PathScore
from nessampler.kernels import HMC, Compose, Flow, Identity, Kernel, Langevin, RandomWalk, Walkers
from nessampler.paths import EndpointPath, LinearPath
from nessampler.simulate import Ensemble, History, simulate
from nessampler.targets import Gaussian

engine = importlib.import_module("nessampler.simulate")  # the module: the package's own name is the function

FORWARD = [0.0, 0.1, 0.3, 0.5, 0.75, 1.0]
NORMAL = Gaussian(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drift(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """From well to well; linear in x, so that the rule's log-determinant is exact to 1e-9."""
    shift = torch.tensor([-0.5, 0.5, -0.2], dtype=torch.float64)
    return shift - 0.06 * x, torch.full((len(x),), -0.18, dtype=torch.float64)


def wrong_drift(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    velocity, divergence = drift(t, x)
    return velocity, -divergence


KERNELS: dict[str, Callable[[LinearPath], Kernel]] = {
    "hmc": lambda path: HMC(path, 0.4, leapfrog_steps=2),
    "random walk": lambda path: RandomWalk(path, 0.6, repeats=2),
    "flow and hmc": lambda path: Compose(Flow(drift), HMC(path, 0.4, leapfrog_steps=2)),
    "flow": lambda path: Flow(drift),
    "langevin": lambda path: Langevin(PathScore(path), 0.4),
}


def annealed(wells, kernel: Callable[[LinearPath], Kernel], *, backward=False, n=20_000, seed=0, **options) -> Ensemble:
    path, times = LinearPath(*wells), FORWARD[::-1] if backward else FORWARD
    x = wells[1 if backward else 0].sample(n, generator=seeded(seed))
    return simulate(kernel(path), path, times, x, generator=seeded(seed + 1), **options)


def z_score(run: Ensemble, wells, backward: bool = False) -> float:
    """Of the mean weight, whose error is capped."""
    exact = (wells[1].log_z - wells[0].log_z) * (-1 if backward else 1)
    assert run.log_z_error < 0.03
    return (run.log_z_ratio - exact) / run.log_z_error


# ---- unbiased weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("resample", [None, 0.97], ids=["weighted", "resampled"])
def test_weights_average_to_the_ratio_of_partition_functions(wells, monkeypatch, name, backward, resample):
    selections = []
    chosen = engine.systematic
    monkeypatch.setattr(engine, "systematic", lambda *a, **o: selections.append(1) or chosen(*a, **o))
    run = annealed(wells, KERNELS[name], backward=backward, resample=resample, islands=8)
    assert (len(selections) >= 8) == (resample is not None)
    assert abs(z_score(run, wells, backward)) < 4


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("resample", [None, 0.97], ids=["weighted", "resampled"])
def test_broken_kernels_and_a_forgetful_selection_are_found_out(wells, monkeypatch, backward, resample):
    options = {"backward": backward, "resample": resample, "islands": 8}
    wrong = annealed(wells, lambda path: Compose(Flow(wrong_drift), HMC(path, 0.4)), **options)
    assert abs(z_score(wrong, wells, backward)) > 8
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1e-300, dtype=torch.float64))
        accepting = annealed(wells, lambda path: HMC(path, 0.6, leapfrog_steps=1), **options)
    assert abs(z_score(accepting, wells, backward)) > 5
    if resample is None:
        return
    with monkeypatch.context() as patch:
        patch.setattr(engine, "log_mean_exp", lambda log_weight: torch.zeros((), dtype=torch.float64))
        forgetful = annealed(wells, KERNELS["hmc"], **options)
    assert abs(z_score(forgetful, wells, backward)) > 8
    with monkeypatch.context() as patch:
        patch.setattr(engine, "systematic", lambda weights, **_: torch.arange(len(weights)))
        unselected = annealed(wells, KERNELS["hmc"], **options)
    assert abs(z_score(unselected, wells, backward)) > 8


class HalfLine:
    """A standard normal cut at zero: Z is half of the whole."""

    event_shape = torch.Size([1])

    def energy(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, 0.5 * x[:, 0].square(), torch.inf)


@pytest.mark.parametrize("name", ["hmc", "random walk", "langevin"])
def test_selection_keeps_walkers_that_may_come_back_into_a_support(monkeypatch, name):
    path, n = LinearPath(NORMAL, HalfLine()), 20_000
    x = NORMAL.sample(n, generator=seeded(0))

    def z() -> float:
        run = simulate(KERNELS[name](path), path, FORWARD, x, generator=seeded(1), resample=1.0, islands=20)
        assert run.log_z_error < 0.02
        return (run.log_z_ratio - math.log(0.5)) / run.log_z_error

    assert abs(z()) < 4
    if name == "langevin":  # negative control: dropping those outside loses the ones that would have come back
        kept = engine._select

        def dropped(walkers: Walkers, total: Tensor, energy: Tensor, threshold: float, generator: torch.Generator):
            return kept(walkers, torch.where(energy == torch.inf, -torch.inf, total), energy, threshold, generator)

        monkeypatch.setattr(engine, "_select", dropped)
        assert abs(z()) > 8


def test_an_island_whose_walkers_are_all_lost_counts_as_zero():
    class Nowhere(HalfLine):
        def energy(self, x: Tensor) -> Tensor:
            return torch.full_like(x[:, 0], torch.inf)

    path, x = LinearPath(NORMAL, Nowhere()), NORMAL.sample(32, generator=seeded(0))
    run = simulate(RandomWalk(path, 0.5), path, FORWARD, x, generator=seeded(1), resample=0.5)
    assert run.log_z_ratio == -math.inf
    assert run.log_z_error == math.inf
    assert run.history is not None
    assert run.history.ess is not None
    assert float(run.history.ess.max()) == 0.0


# ---- errors --------------------------------------------------------------------------------------------------------


def test_errors_of_independent_weights_and_of_islands_are_calibrated(wells_1d):
    grid = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    density = torch.as_tensor(wells_1d[1].marginal(0, grid.numpy()))
    mean = float(torch.trapezoid(grid * density, grid))
    exact = wells_1d[1].log_z - wells_1d[0].log_z
    path, z = LinearPath(*wells_1d), {"weights": [], "islands": [], "mean": [], "naive": []}
    for seed in range(30):
        x = wells_1d[0].sample(480, generator=seeded(seed))
        kernel, run = HMC(path, 0.5, leapfrog_steps=1), {}
        for resample in (None, 1.0):
            run[resample] = simulate(
                kernel, path, [0.0, 0.6, 1.0], x, generator=seeded(99 + seed), resample=resample, islands=8
            )
            assert run[resample].log_z_error < 0.2
        z["weights"].append((run[None].log_z_ratio - exact) / run[None].log_z_error)
        selected = run[1.0]
        z["islands"].append((selected.log_z_ratio - exact) / selected.log_z_error)
        value, error = selected.expect(lambda x: x[:, 0])
        z["mean"].append(float((value - mean) / error))
        z["naive"].append((selected.log_z_ratio - exact) / math.sqrt((1 / selected.ess - 1) / len(x)))
    for name, scores in z.items():
        spread = float(torch.tensor(scores).std())
        if name == "naive":  # negative control: the last weights know nothing of what was selected away
            assert spread > 1.9
        else:
            assert abs(sum(scores) / 30) < 4 * 1.13 / math.sqrt(30)
            assert 0.54 < spread < 1.8  # t with 7 degrees of freedom: 1.18 ± 4 standard errors


def test_islands_of_a_run_are_those_of_its_error(wells):
    run = annealed(wells, KERNELS["hmc"], n=100, resample=0.9, islands=8)
    assert sorted(run.islands) == [12] * 4 + [13] * 4
    assert run.resampled
    estimates = torch.stack([w.exp().mean() for w in run.log_weight.split(list(run.islands))])
    share = torch.tensor(run.islands).double() / 100
    total = (share * estimates).sum()
    error = ((share * (estimates / total - 1)).square().sum() * 8 / 7).sqrt()
    torch.testing.assert_close(torch.tensor(run.log_z_error).double(), error)
    torch.testing.assert_close(torch.tensor(run.log_z_ratio).double(), total.log())
    smaller = annealed(wells, KERNELS["hmc"], n=100, resample=0.9, chunk_size=10)
    assert smaller.islands == (10,) * 10


def test_works_of_a_resampled_ensemble_are_refused(wells):
    run = annealed(wells, KERNELS["hmc"], n=64, resample=0.5)
    with pytest.raises(InputError, match="resampled ensemble are not; use its log_z_ratio and log_z_error"):
        _ = run.work
    free = annealed(wells, KERNELS["hmc"], n=64)
    assert len(free.work) == 64
    assert free.islands == ()
    with pytest.raises(InputError, match="both were resampled or neither"):
        run.merge(free)
    both = run.merge(annealed(wells, KERNELS["hmc"], n=96, seed=5, resample=0.5))
    assert both.resampled
    assert both.islands == (8,) * 8 + (12,) * 8
    assert both.log_z_error > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resample": 0.0}, r"in \(0, 1\]: got 0\.0; 0\.5 is customary"),
        ({"resample": 1.5}, r"in \(0, 1\]: got 1\.5"),
        ({"resample": 0.5, "islands": 4}, "at least 8 islands.*got 4 islands for 40 walkers"),
        ({"resample": 0.5, "islands": 21}, "at least two walkers: got 21 islands for 40 walkers"),
        ({"resample": 0.5, "chunk_size": 1}, "at least two walkers: got 8 islands for 40 walkers"),
    ],
)
def test_unusable_selections_are_refused(wells, options, message):
    with pytest.raises(InputError, match=message):
        annealed(wells, KERNELS["hmc"], n=40, **options)


def test_a_path_without_interior_cannot_select(wells):
    x = wells[0].sample(40, generator=seeded(0))
    with pytest.raises(InputError, match=r"energy at interior times, which an EndpointPath has not: .* resample=None"):
        simulate(Identity(), EndpointPath(*wells), [0.0, 0.5, 1.0], x, generator=seeded(1), resample=0.5)


def test_nothing_is_selected_after_the_last_step(wells, monkeypatch):
    monkeypatch.setattr(engine, "systematic", lambda *_, **__: pytest.fail("selected"))
    path, x = LinearPath(*wells), wells[0].sample(64, generator=seeded(0))
    run = simulate(Identity(), path, [0.0, 1.0], x, generator=seeded(1), resample=1.0)
    torch.testing.assert_close(run.log_weight, wells[0].energy(x) - wells[1].energy(x))


# ---- determinism ---------------------------------------------------------------------------------------------------


def test_an_island_does_not_depend_on_the_others(wells):
    path, x = LinearPath(*wells), wells[0].sample(80, generator=seeded(0))
    other = torch.cat([x[:70], wells[1].sample(10, generator=seeded(9))])
    one, two = (
        simulate(HMC(path, 0.4), path, FORWARD, start, generator=seeded(1), resample=1.0) for start in (x, other)
    )
    assert torch.equal(one.x[:70], two.x[:70])
    assert torch.equal(one.log_weight[:70], two.log_weight[:70])
    assert not torch.equal(one.log_weight[70:], two.log_weight[70:])


def test_a_resampled_run_repeats_with_its_seed_and_cut(wells):
    runs = [annealed(wells, KERNELS["hmc"], n=80, resample=0.9, chunk_size=size) for size in (None, 10, 20, 5)]
    assert torch.equal(runs[0].log_weight, runs[1].log_weight)
    assert torch.equal(runs[0].x, runs[2].x)  # both are eight islands of ten
    assert not torch.equal(runs[0].x, runs[3].x)


# ---- history -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hmc", "random walk", "langevin"])
def test_history_at_a_time_is_the_run_that_ends_there(wells, name):
    path, x = LinearPath(*wells), wells[0].sample(200, generator=seeded(0))

    def until(k: int) -> Ensemble:
        return simulate(KERNELS[name](path), path, FORWARD[: k + 1], x, generator=seeded(1), chunk_size=90)

    history, before = until(5).history, torch.zeros(200, dtype=torch.float64)
    assert isinstance(history, History)
    assert history.times == tuple(FORWARD[1:])
    assert history.ess is not None
    assert history.log_z_ratio is not None
    assert history.increment_ess is not None
    for k in range(1, 6):
        run = until(k)
        assert abs(float(history.ess[k - 1]) - run.ess) < 1e-12
        assert abs(float(history.log_z_ratio[k - 1]) - run.log_z_ratio) < 1e-12
        v, w = before.exp(), run.log_weight.exp()
        conditional = w.sum() ** 2 / (v.sum() * (w**2 / v).sum())
        assert abs(float(history.increment_ess[k - 1]) - float(conditional)) < 1e-12
        before = run.log_weight
    assert bool(history.acceptance.isnan().all()) == (name == "langevin")
    if name != "langevin":
        assert 0.1 < float(history.acceptance.min()) <= float(history.acceptance.max()) <= 1


def test_histories_merge_to_that_of_all_walkers(wells):
    one, two = (annealed(wells, KERNELS["hmc"], n=n, seed=n) for n in (50, 170))
    both = one.merge(two)
    assert both.history is not None
    assert both.history.ess is not None
    assert both.history.log_z_ratio is not None
    assert both.history.walkers == 220
    assert abs(float(both.history.ess[-1]) - both.ess) < 1e-12
    assert abs(float(both.history.log_z_ratio[-1]) - both.log_z_ratio) < 1e-12
    parts = [run.history.acceptance for run in (one, two) if run.history is not None]
    torch.testing.assert_close(both.history.acceptance, (50 * parts[0] + 170 * parts[1]) / 220)


def test_after_selection_history_goes_on_from_equal_weights(wells):
    run = annealed(wells, KERNELS["hmc"], n=8_000, resample=1.0)
    history = run.history
    assert history is not None
    assert history.ess is not None
    assert history.increment_ess is not None
    # Islands differ a little in their mean weights; within them, what a step starts from is uniform.
    torch.testing.assert_close(history.ess, history.increment_ess, atol=0.01, rtol=0)
    free = annealed(wells, KERNELS["hmc"], n=8_000).history
    assert free is not None
    assert free.ess is not None
    assert float(free.ess[-1]) < float(history.ess[-1]) - 0.05


class Watched(LinearPath):
    """A path that counts what it is asked."""

    def __init__(self, *ends) -> None:
        super().__init__(*ends)
        self.calls: list[str] = []

    def energy(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls.append("energy")
        return super().energy(t, x)

    def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append("score")
        return super().energy_and_score(t, x)


def test_a_run_asks_for_no_energy_that_selection_does_not_need(wells):
    x = wells[0].sample(80, generator=seeded(0))

    def calls(kernel: Callable[[Watched], Kernel], resample: float | None) -> tuple[int, int, bool]:
        path = Watched(*wells)
        run = simulate(kernel(path), path, FORWARD, x, generator=seeded(1), resample=resample, islands=8)
        assert run.history is not None
        return path.calls.count("energy"), path.calls.count("score"), run.history.ess is not None

    def unaware(path: Watched) -> Kernel:
        score = PathScore(path)
        return Langevin(lambda t, x: Evaluated(None, score(t, x).score), 0.3)

    assert calls(unaware, None) == (2, 6, False)
    assert calls(unaware, 0.9) == (8 * 6, 8 * 6, True)
    assert calls(lambda path: Langevin(PathScore(path), 0.3), None) == (0, 6, True)
    assert calls(lambda path: Langevin(PathScore(path), 0.3), 0.9) == (0, 8 * 6, True)
    assert calls(lambda path: HMC(path, 0.3, leapfrog_steps=1), 0.9) == (0, 0, True)
    assert calls(lambda _: Identity(), None) == (2, 0, False)
