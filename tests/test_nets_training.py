"""Training raises the effective sample size and leaves the answer alone; interrupted, it ends with the same bits."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.fields import Evaluated, PathScore
from nessampler.kernels import HMC, Compose, Flow, Langevin
from nessampler.methods.density.nets import roll_out, train_nets, tune_diffusion
from nessampler.networks.drift import DriftNetwork, PotentialNetwork, path_score
from nessampler.networks.field import DriftFields, NetworkField
from nessampler.objectives.action_matching import ActionMatchingObjective
from nessampler.objectives.log_variance import LogVarianceObjective
from nessampler.objectives.pinn import FreeEnergyRate, PinnObjective
from nessampler.objectives.rollout import Rollout
from nessampler.paths import LinearPath
from nessampler.simulate import Ensemble, simulate
from nessampler.targets import AnharmonicWell, Counted, Gaussian, Tally
from nessampler.targets.mixture import GaussianMixture
from nessampler.training import fit

# The tests choose their own sizes: small networks, few walkers, coarse steps.


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


BASE = Gaussian(double(0.0, 0.0), double(2.0, 2.0))
TARGET = GaussianMixture(double([2.5, 1.0], [-1.0, -2.5]), double(0.7, 0.9), double(0.3, 0.7))
PATH = LinearPath(BASE, TARGET)
LOG_Z_RATIO = TARGET.log_z - BASE.log_z


def perceptron(seed: int = 1, *, score: bool = True) -> DriftNetwork:
    return DriftNetwork(
        center=BASE.mean,
        scale=BASE.scale,
        score=path_score(PATH) if score else None,
        width=16,
        generator=seeded(seed),
    )


def produce(network: nn.Module, diffusion=1.0, *, steps: int = 16, n: int = 4096, seed: int = 100) -> Ensemble:
    x = BASE.sample(n, generator=seeded(seed))
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return simulate(Langevin(DriftFields(PATH, network), diffusion), PATH, times, x, generator=seeded(seed + 1))


def log_z_score(ensemble: Ensemble) -> tuple[float, float]:
    weight = torch.exp(ensemble.log_weight - LOG_Z_RATIO)
    error = float(weight.std()) / math.sqrt(len(weight))
    return abs(float(weight.mean()) - 1) / error, error


class Careless(Langevin):
    """A kernel whose log ratio is half of what it should be."""

    def step(self, t0, t1, walkers, *, generator):
        moved, log_ratio = super().step(t0, t1, walkers, generator=generator)
        return moved, 0.5 * log_ratio


def _train(name: str, *, steps: int = 120) -> tuple[nn.Module, float, float]:
    """The effective fraction of fresh walkers before and after."""
    options = {"steps": steps, "rollout_steps": 16, "walkers": 128, "batch_walkers": 48, "pilots": 400, "refresh": 6}
    generator = seeded(3)
    if name == "action matching":
        network = PotentialNetwork(center=BASE.mean, scale=BASE.scale, width=16, generator=seeded(1))
        objective, options["batch_walkers"] = ActionMatchingObjective(network), 128
    else:
        network = perceptron()
        objective = {
            "variance form": lambda: PinnObjective(network),
            "learned rate": lambda: PinnObjective(network, rate=FreeEnergyRate(9)),
            "two probes": lambda: PinnObjective(network, probes=generator),
            "log-variance": lambda: LogVarianceObjective(network, 1.0),
        }[name]()
    if name == "log-variance":
        options |= {"resample_below": 0.0, "slots": 2}
    before = produce(network).ess
    x = BASE.sample(1500, generator=seeded(2))
    train_nets(PATH, x, network, objective, learning_rate=2e-2, every=40, generator=generator, **options)
    return network, before, produce(network).ess


@pytest.mark.parametrize(
    ("name", "gain"),
    [
        ("variance form", 2.0),
        ("learned rate", 2.0),
        ("two probes", 2.0),
        ("action matching", 2.0),
        ("log-variance", 2.0),
    ],
)
def test_training_raises_the_effective_sample_size_and_keeps_log_z(name: str, gain: float):
    network, before, after = _train(name)
    assert after > gain * before > 0.2
    ensemble = produce(network, n=8192, seed=200)
    z, error = log_z_score(ensemble)
    assert z <= 4
    assert error < 0.03
    if name == "log-variance":
        times, x = torch.linspace(0, 1, 17, dtype=torch.float64), BASE.sample(8192, generator=seeded(200))
        careless = simulate(Careless(DriftFields(PATH, network), 1.0), PATH, times, x, generator=seeded(201))
        assert log_z_score(careless)[0] > 6


class Interrupted(Exception):
    pass


def _short(folder: Path, file: str, *, stop: int | None = None, rate: bool = True, patience: int | None = None):
    network, generator = perceptron(), seeded(5)
    objective = PinnObjective(network, rate=FreeEnergyRate(5) if rate else None, probes=generator)

    def progress(now) -> None:
        if now.step == stop:
            raise Interrupted

    done = train_nets(
        PATH,
        BASE.sample(300, generator=seeded(6)),
        network,
        objective,
        steps=36,
        rollout_steps=4,
        walkers=32,
        batch_walkers=16,
        pilots=100,
        refresh=3,
        every=6,
        slots=2,
        patience=patience,
        checkpoint=folder / file,
        progress=progress,
        generator=generator,
    )
    return objective, done


def test_interrupted_training_resumes_to_the_same_bits(tmp_path: Path):
    whole, done = _short(tmp_path, "whole.safetensors")
    for stop in (8, 18, 35):
        with pytest.raises(Interrupted):
            _short(tmp_path, f"cut-{stop}.safetensors", stop=stop)
        resumed, again = _short(tmp_path, f"cut-{stop}.safetensors")
        # What an interruption threw away was paid for, yet is not part of the training that the file tells of.
        assert again == done
        for name, value in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name
    assert done.steps == (0, 6, 12, 18, 24, 30, 36)
    assert done.loss[0] is None
    assert all(0 < value <= 1 for value in done.ess)
    # Per step 16 walkers at 5 times; every third step a rollout of 32; 7 pilots of 100.
    assert done.evaluations == 36 * 16 * 5 + 12 * 32 * 5 + 7 * 100 * 5
    assert whole.rate.values.abs().max().item() > 0


def test_training_that_does_not_help_changes_nothing_and_stops():
    class Harmful(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, batch: Rollout) -> Tensor:
            return -self.network(batch.flat_times, batch.flat_x).sum()

    network, seen = perceptron(), []
    before = {k: v.clone() for k, v in network.state_dict().items()}
    done = train_nets(
        PATH,
        BASE.sample(600, generator=seeded(6)),
        network,
        Harmful(network),
        steps=80,
        learning_rate=0.05,
        rollout_steps=8,
        walkers=64,
        pilots=300,
        every=5,
        patience=2,
        curriculum=0.25,
        progress=seen.append,
        generator=seeded(7),
    )
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    # The curriculum ends with step 20; the two validations after it were no better than the start.
    assert done.steps[-1] == 30
    assert max(done.ess) == done.ess[0]
    assert [p.step for p in seen] == list(range(1, 31))
    assert math.isfinite(seen[-1].loss)
    assert seen[-1].steps == 80


def test_patience_waits_for_the_step_it_counts_from():
    line = nn.Linear(1, 1)
    options = {"steps": 60, "learning_rate": 0.1, "generator": seeded(0), "every": 5, "patience": 2}
    ones = iter(lambda: torch.ones(()), None)
    rows = fit(line, lambda b: line.weight.sum(), ones, validate=lambda: -line.weight.sum(), **options)
    later = fit(
        line, lambda b: line.weight.sum(), ones, validate=lambda: -line.weight.sum(), patience_from=30, **options
    )
    assert (rows[-1]["step"], later[-1]["step"]) == (10, 40)


def test_curriculum_and_replay_feed_the_loss():
    ends, sizes = [], set()

    class Watching(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network, self.seen, self.calls = network, 0, 0

        def calibrate(self, batch: Rollout) -> None:
            self.seen, self.calls = batch.x.shape[1], self.calls + 1

        def forward(self, batch: Rollout) -> Tensor:
            times = batch.times
            assert float(times[0]) == 0
            assert bool((times.diff() > 0).all())
            ends.append(float(times[-1]))
            sizes.add(tuple(batch.x.shape))
            point = PATH.evaluate(batch.flat_times, batch.flat_x)
            torch.testing.assert_close(batch.score.flatten(0, 1), point.score)
            torch.testing.assert_close(batch.time_derivative.flatten(), point.time_derivative)
            torch.testing.assert_close(batch.energy.flatten(), point.energy)
            return 0 * self.network.head.weight.sum()

    network = perceptron()
    objective = Watching(network)
    train_nets(
        PATH,
        BASE.sample(200, generator=seeded(6)),
        network,
        objective,
        steps=60,
        rollout_steps=5,
        walkers=40,
        batch_walkers=10,
        pilots=50,
        refresh=2,
        slots=3,
        curriculum=0.5,
        first_time=0.1,
        every=60,
        generator=seeded(8),
    )
    assert (objective.seen, objective.calls) == (40, 30)
    assert sizes == {(6, 10, 2)}
    assert ends[0] == pytest.approx(0.1)
    for k, end in enumerate(ends):  # of three rollouts, made two steps apart
        assert 0.1 + 0.9 * min(1, max(0, k - 6) / 30) <= end <= 0.1 + 0.9 * min(1, k / 30)
    assert ends[-1] == 1.0
    assert sum(a > b for a, b in pairwise(ends)) > 3  # older rollouts come again


def test_rollout_has_the_weights_of_a_simulation_and_asks_the_path_once():
    counted = Counted(TARGET)
    path = LinearPath(BASE, counted)
    times, x = [0.0, 0.2, 0.5, 1.0], BASE.sample(50, generator=seeded(9))
    network = perceptron(score=False)
    with torch.no_grad():
        network.head.bias.fill_(0.2)
    kernel = Langevin(DriftFields(path, network), 0.8)
    data = roll_out(kernel, path, times, x, generator=seeded(10))
    assert counted.tally() == Tally(gradient=4 * 50)
    walkers, total = kernel.start(0.0, x), PATH.energy(torch.zeros(50, dtype=torch.float64), x)
    generator = seeded(10)
    for t0, t1 in pairwise(times):
        walkers, log_ratio = kernel.step(t0, t1, walkers, generator=generator)
        total = total + log_ratio
    torch.testing.assert_close(data.log_weight[-1], total - PATH.energy(torch.ones(50, dtype=torch.float64), walkers.x))
    torch.testing.assert_close(data.x[-1], walkers.x)
    assert data.x.shape == (4, 50, 2)
    assert float(data.log_weight[0].abs().max()) == 0


@pytest.mark.parametrize("kernel", ["langevin", "flow and HMC"])
def test_resampled_rollouts_average_like_the_path_at_every_time(kernel: str):
    """Weighted means of the energy's time derivative along an anharmonic path, against quadrature."""
    end = AnharmonicWell([1.0], stiffness=[2.0], quartic=[0.3], skew=[-1.0], coupling=0.0)
    path = LinearPath(Gaussian(double(0.0), double(1.5)), end)
    mover = {
        "langevin": Langevin(PathScore(path, lambda t, x: 0.5 * torch.ones_like(x)), 0.5),
        "flow and HMC": Compose(Flow(NetworkField(lambda t, x: 0.5 - 0.3 * x)), HMC(path, 0.3, 2)),
    }[kernel]
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    x = path.start.sample(6000, generator=seeded(11))
    data = roll_out(mover, path, times.tolist(), x, resample_below=0.9, generator=seeded(12))
    assert any(float(w.std()) < 1e-12 for w in data.log_weight[1:]) or float(data.log_weight[-1].std()) < 0.6
    grid = torch.linspace(-12, 12, 6001, dtype=torch.float64)[:, None]
    for k in (3, 8):
        point = path.evaluate(times[k].expand(6001), grid)
        exact = float((torch.softmax(-point.energy, 0) * point.time_derivative).sum())
        weights = torch.softmax(data.log_weight[k], 0)
        mean = float((weights * data.time_derivative[k]).sum())
        # Resampling correlates walkers: the error allows for it threefold in variance.
        error = math.sqrt(3 * float((weights.square() * (data.time_derivative[k] - mean).square()).sum()))
        assert abs(mean - exact) <= 4 * error
        assert error < 0.1
    unweighted = abs(float(data.time_derivative[2].mean()) - float(data.time_derivative[8].mean()))
    assert unweighted > 0.1  # the quantity changes along the path


def test_walkers_that_leave_the_support_lose_their_weight_for_good():
    class Half(Gaussian):
        def energy(self, x: Tensor) -> Tensor:
            return torch.where(x[:, 0] > -1, super().energy(x), torch.inf)

    path = LinearPath(Gaussian(double(0.0), double(1.0)), Half(double(0.0), double(1.0)))
    x = path.start.sample(200, generator=seeded(13))
    kernel = Langevin(DriftFields(path, _still), 1.0)
    data = roll_out(kernel, path, [0.0, 0.3, 0.6, 1.0], x, generator=seeded(14))
    dead = data.log_weight == -torch.inf
    assert bool(dead.any())
    assert bool((dead[2:] >= dead[1:-1]).all())
    assert not bool(data.log_weight.isnan().any())
    assert bool((dead | data.alive)[1:].all())


def _still(t: Tensor, x: Tensor) -> Tensor:
    return torch.zeros_like(x)


def test_tuned_diffusion_is_the_best_of_the_sweep_and_scales_any_form_of_it():
    x, times = BASE.sample(600, generator=seeded(15)), torch.linspace(0, 1, 17, dtype=torch.float64)
    forms = (1.0, double(1.0, 1.0), lambda t: double(1.0, 1.0))
    tuned = [tune_diffusion(PATH, x, _still, times, diffusion=f, generator=seeded(16)) for f in forms]
    assert tuned[0].sweep == tuned[1].sweep == tuned[2].sweep
    best = tuned[0]
    assert best.factor == max(best.sweep, key=lambda row: row[1])[0]
    assert max(e for _, e in best.sweep) > 1.2 * min(e for _, e in best.sweep)
    assert best.diffusion == pytest.approx(best.factor)
    torch.testing.assert_close(tuned[2].diffusion(0.5), best.factor * double(1.0, 1.0))
    z, error = log_z_score(produce(_still, best.diffusion, n=8192, seed=300))
    assert z <= 4
    assert error < 0.06
    with pytest.raises(InputError, match="factors must be positive"):
        tune_diffusion(PATH, x, _still, times, factors=(1.0, 0.0), generator=seeded(16))


def test_trainings_that_make_no_sense_are_refused():
    network, x = perceptron(), BASE.sample(100, generator=seeded(17))
    options = {"steps": 2, "generator": seeded(18), "walkers": 20, "batch_walkers": 10, "pilots": 30}
    for change, message in (
        ({"walkers": 80}, "walkers <= samples that are not held out: got 10, 80 and 70 of 100"),
        ({"batch_walkers": 21}, "1 <= batch_walkers <= walkers"),
        ({"rollout_steps": 1}, "rollouts need two steps"),
        ({"curriculum": 1.5}, r"curriculum lies in \[0, 1\]"),
        ({"first_time": 0.0}, r"first_time in \(0, 1\]"),
    ):
        with pytest.raises(InputError, match=message):
            train_nets(PATH, x, network, PinnObjective(network), **(options | change))
    with pytest.raises(InputError, match="must hold the network"):
        train_nets(PATH, x, network, PinnObjective(perceptron()), **options)


def test_fields_without_a_network_equal_annealing():
    x = BASE.sample(100, generator=seeded(19))
    t = torch.full((100,), 0.4, dtype=torch.float64)
    learned, plain = DriftFields(PATH, perceptron())(t, x), PathScore(PATH)(t, x)
    assert isinstance(learned, Evaluated)
    torch.testing.assert_close(learned.score, plain.score)
    torch.testing.assert_close(learned.energy, plain.energy)
    assert float(learned.velocity.detach().abs().max()) == 0
