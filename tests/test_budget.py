"""A budget of evaluations: it is met, it is paid for what was compared, and sizes follow from pilots."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from test_sample_density import WELL, Hand, problem
from torch import nn

from nessampler.bench.density_cell import _left
from nessampler.errors import InputError
from nessampler.fields import PathScore
from nessampler.kernels import Langevin
from nessampler.methods.density import attempts
from nessampler.methods.density.attempts import _pilot_share
from nessampler.methods.density.auto import FEWEST_TIMES, _paying
from nessampler.methods.density.budget import FORMAL, PILOT_SHARE, TOGETHER, Budget, Scatter
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.result import Sampled
from nessampler.methods.density.sample import DensityMethod, sample_density
from nessampler.methods.density.training_budget import TrainingPrice, TrainingSizes
from nessampler.paths import LinearPath
from nessampler.runs import catalogue
from nessampler.runs.config import DensityConfig, load, resolve
from nessampler.runs.density_problem import prepare_density
from nessampler.targets import Gaussian, Tally

BUDGET = 120_000
WITHIN = DensityEffort(pilot_walkers=600, pilot_steps=12, steps=12, leapfrog_steps=3, reverse_walkers=0, budget=BUDGET)
METHODS: tuple[DensityMethod, ...] = ("ais", "smc", "pt", "lsq", "auto")


@functools.cache
def run(method: DensityMethod, seed: int = 1, budget: int = BUDGET) -> tuple[Sampled, Hand]:
    hand = Hand()
    return sample_density(problem(hand), method=method, seed=seed, effort=replace(WITHIN, budget=budget)), hand


def counted(found: Sampled) -> int:
    """By the attempts themselves."""
    return sum(
        tally["energy"] + tally["gradient"]
        for attempt in found.attempts
        for stage, tally in attempt.evaluations["target"].items()
        if stage != "reverse"
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_is_met_and_every_evaluation_is_on_record(method):
    found, hand = run(method)
    assert 0.9 * BUDGET < counted(found) < 1.03 * BUDGET
    # Those at t = 0 ask the target for the time derivative only where a method wants it: the record may count more.
    assert counted(found) * 0.9 < hand.energies + hand.gradients <= counted(found)


def test_a_budget_chooses_the_number_of_waste_free_particles():
    found = sample_density(problem(), method="smc", seed=1, effort=replace(WITHIN, waste_free=6))
    assert 0.9 * BUDGET < counted(found) < 1.03 * BUDGET
    assert len(found.x) % (8 * 6) == 0
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - WELL.log_z) < 4 * found.log_z.std_error < 0.3


@pytest.mark.parametrize("method", [m for m in METHODS if m != "pt"])  # a larger one takes a minute
def test_the_answer_is_right_and_a_larger_budget_sharpens_it(method):
    errors = []
    for budget in (BUDGET, 4 * BUDGET):
        found, _ = run(method, budget=budget)
        value, error = found.log_z.value, found.log_z.std_error
        assert value is not None
        assert error is not None
        assert abs(value - WELL.log_z) < 4 * error < 0.3
        errors.append(error)
    assert errors[1] < 0.85 * errors[0]


def test_a_network_is_trained_for_its_share_and_the_rest_is_carried():
    budget = 3 * BUDGET
    found, hand = run("nets", budget=budget)
    assert 0.9 * budget < counted(found) < 1.03 * budget
    assert hand.energies + hand.gradients <= counted(found)
    training = found.attempt.evaluations["target"]["training"]
    assert 0.2 * budget < training["energy"] + training["gradient"] < 0.36 * budget  # the flow's error besides
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - WELL.log_z) < 4 * found.log_z.std_error < 0.3


@pytest.mark.parametrize("asks", [False, True])
def test_a_training_that_asks_the_target_in_its_loss_is_dearer(asks):
    path = CountedPath(LinearPath(*(Gaussian(torch.full((2,), m), torch.ones(2)) for m in (0.0, 1.0))))
    network, generator = nn.Identity(), torch.Generator().manual_seed(0)

    class Loss(nn.Module):
        def forward(self, batch):
            if asks:
                for t, x in zip(batch.times, batch.x, strict=True):
                    path.energy_and_score(t.expand(len(x)), x)

    x = Gaussian(torch.zeros(2), torch.ones(2)).sample(16, generator=generator)
    price = TrainingPrice.of(path, network, Loss(), lambda _: Langevin(PathScore(path), 1.0), x, generator=generator)
    assert price.move == 2.5  # five a walker, in two steps
    assert price.loss == (2 / 3 if asks else 0)  # of three times one is the base's, where the target is not asked
    sizes = {n: price.within(n, TrainingSizes(500, 256, 64, 512), rollout_steps=32, pilot_steps=32) for n in (1e4, 1e6)}
    assert sizes[1e6].steps == (240 if asks else 380)
    assert sizes[1e4].steps < sizes[1e6].steps


def test_a_drift_of_many_fields_is_compared_at_few_times():
    asked, said = [], []

    def solve(context, path, effort, *rest, **options):
        asked.append((effort.pilot_walkers, effort.pilot_steps))
        return attempts.solve_within(context, path, effort, *rest, **options)

    folder = catalogue.find("phi4-8").parent
    config = resolve(load(folder / "system.toml"), run={"seed": 0}, source="phi4-8")
    assert isinstance(config, DensityConfig)
    effort = replace(DensityEffort(**config.sampling.model_dump()), budget=250_000, reverse_steps=0)
    with mock.patch("nessampler.methods.density.auto.solve_within", solve):
        found = sample_density(
            prepare_density(config, folder).problem, method="auto", seed=0, effort=effort, say=said.append
        )
    assert asked == [(108, 12), (108, FEWEST_TIMES)]  # 99 fields ask for 396 walkers, which cost too much at 12 times
    assert found.chosen == "lsq"  # annealing has forty times its error here
    assert found.attempt.diagnostics["pilot_share"] < 0.1


def test_the_same_seed_gives_the_same_bits():
    again = sample_density(problem(), method="auto", seed=1, effort=WITHIN)
    assert again.log_z == run("auto")[0].log_z
    assert run("auto", seed=2)[0].log_z != again.log_z  # negative control


def test_auto_compares_for_less_than_a_tenth_and_says_what_it_found():
    found, _ = run("auto", budget=4 * BUDGET)
    (attempt,) = found.attempts
    alone, _ = run(attempt.name, budget=4 * BUDGET)
    own = alone.attempt.evaluations["target"]["pilot"]
    pilot = attempt.evaluations["target"]["pilot"]
    compared = pilot["energy"] + pilot["gradient"] - own["energy"] - own["gradient"]
    # A method alone looks at first walkers of its own, which a comparison counts as well.
    assert compared <= 4 * BUDGET * attempt.diagnostics["pilot_share"] < 0.1 * 4 * BUDGET
    assert attempt.note.startswith("chosen; variance × cost in the pilot:")
    assert {"ais", "smc", "lsq"} - {attempt.name} <= set(attempt.note.replace(",", "").split())


def test_what_comparing_took_is_all_that_was_lost_but_the_tuning_that_is_taken_over():
    tuning, lost = [], []

    def tuned(context, path):
        found = attempts.tuned(context, path)
        tuning.append(path.tally.total)
        return found

    def paying(attempt, tally, note):
        lost.append(tally.total)
        return _paying(attempt, tally, note)

    module = "nessampler.methods.density.auto"
    with mock.patch(f"{module}.tuned", tuned), mock.patch(f"{module}._paying", paying):
        found = sample_density(problem(), method="auto", seed=1, effort=WITHIN)
    assert tuning[0] > 0
    assert found.attempt.diagnostics["pilot_share"] == pytest.approx((lost[0] - tuning[0]) / BUDGET)


def test_auto_goes_on_where_a_drift_is_out_of_the_question():
    with mock.patch("nessampler.methods.density.auto._tried", return_value=None):
        found = sample_density(problem(), method="auto", seed=0, effort=WITHIN)
    assert found.chosen in ("ais", "smc")
    assert "lsq" not in found.attempt.note
    assert 0.9 * BUDGET < counted(found) < 1.03 * BUDGET


def test_steps_are_as_many_as_weights_can_forget():
    falling = Scatter.through((10, 4.0), (40, 1.0))
    assert (falling.floor, falling.slope) == pytest.approx((0.0, 40.0))
    stuck = Scatter.through((10, 2.05), (40, 2.0))  # what is never forgotten
    assert stuck.floor > 1.5
    assert stuck.best_steps(10_000) < Scatter.through((10, 8.0), (40, 2.0)).best_steps(10_000)
    assert Scatter(0.0, 1e9).at(1) < math.inf


def test_steps_leave_enough_walkers():
    budget = Budget(100_000, move=5)
    assert budget.drift_steps(2200) * 5 * FORMAL < 100_000
    assert budget.most_steps(50_000, 5) * 5 * FORMAL <= 50_000


def test_a_base_dearer_than_the_budget_is_refused():
    prepared = SimpleNamespace(evaluations=Tally(energy=100, gradient=60))
    with pytest.raises(InputError, match=r"pays for the base first: this one costs 160 of 150 evaluations; give more"):
        _left(prepared, 150)  # pyright: ignore[reportArgumentType]
    assert _left(prepared, 200) == 40  # pyright: ignore[reportArgumentType]


def test_pilots_of_a_drift_make_room_for_what_tuning_took():
    context = SimpleNamespace(budget=Budget(1000, move=1))
    cheap, dear = (SimpleNamespace(tally=Tally(energy=n)) for n in (50, 250))
    assert _pilot_share(context, cheap, None) == PILOT_SHARE  # pyright: ignore[reportArgumentType]
    assert _pilot_share(context, dear, None) == pytest.approx(TOGETHER - 0.25)  # pyright: ignore[reportArgumentType]
    compared = _pilot_share(context, cheap, left=700)  # pyright: ignore[reportArgumentType]
    assert compared == pytest.approx(TOGETHER - 0.3)


def test_without_a_budget_nothing_of_this_applies():
    plain = replace(WITHIN, budget=None, walkers=300)
    found = sample_density(problem(), method="ais", seed=1, effort=plain)
    assert len(found.x) == 300
    assert len(found.attempt.ensemble.times) == 13


def test_path_of_the_test_problem_is_linear():  # counts above rely on it
    assert isinstance(problem().path, LinearPath)
