"""Sampling a density by every method: log Z, its error, its bounds, its cost, and what is said when it is wrong."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators.log_z import log_z
from nessampler.kernels import HMC
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.dictionaries import curvature_fields, default_dictionary, random_fourier
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.nets import train_nets
from nessampler.methods.density.one_call import sample
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.result import Sampled
from nessampler.methods.density.sample import DensityMethod, sample_density
from nessampler.methods.density.smc import Particles
from nessampler.methods.density.verdict import GRAVE
from nessampler.paths import LinearPath, ScheduledPath
from nessampler.simulate import Ensemble
from nessampler.targets import AnharmonicWell, Counted, Gaussian, Tally, Target
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.normal import Normal
from nessampler.targets.phi4 import FreeField, Phi4

METHODS: tuple[DensityMethod, ...] = ("ais", "smc", "pt", "lsq", "nets", "auto")
WELL = AnharmonicWell([1.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.5, 0.1], skew=[0.5, -0.4], coupling=1.0)
BASE = Gaussian(torch.zeros(2).double(), torch.tensor([1.5, 1.2]).double())
EFFORT = DensityEffort(
    walkers=600,
    pilot_walkers=400,
    pilot_steps=6,
    steps=6,
    leapfrog_steps=3,
    reverse_walkers=300,
    nets_steps=4,
    training_walkers=256,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(end: Target = WELL, base: Target = BASE, exact: Target | None = WELL) -> DensityProblem:
    """From base to end, with samples of `exact` to carry back."""

    def samples(n: int, generator: torch.Generator) -> Tensor:
        return exact.sample(n, generator=generator)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]

    given = {} if exact is None else {"target_samples": samples, "origin": "exact"}
    return DensityProblem(LinearPath(base, end), random_fourier(60), **given)


class Hand:
    """A target that counts on its fingers."""

    def __init__(self) -> None:
        self.event_shape, self.energies, self.gradients = WELL.event_shape, 0, 0

    def energy(self, x: Tensor) -> Tensor:
        self.energies += len(x)
        return WELL.energy(x)

    def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.gradients += len(x)
        return Counted(WELL).energy_and_score(x)


@functools.cache
def run(method: DensityMethod) -> tuple[Sampled, Hand]:
    hand = Hand()
    short = functools.partial(train_nets, rollout_steps=6, pilots=64)  # a training of seconds, of hardly any use
    with mock.patch("nessampler.methods.density.nets_training.train_nets", short):
        return sample_density(problem(hand), method=method, seed=1, effort=effort(method)), hand


def effort(method: DensityMethod) -> DensityEffort:
    """Less where a network is evaluated, more where draws are correlated."""
    if method == "pt":
        return replace(EFFORT, walkers=2400)
    return replace(EFFORT, walkers=300, reverse_walkers=150, steps=3) if method == "nets" else EFFORT


# ---- the number ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_log_z_of_every_method_is_the_exact_one_within_its_error(method: DensityMethod) -> None:
    found, _ = run(method)
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert found.log_z.std_error < 0.05
    assert abs(found.log_z.value - WELL.log_z) < 4 * found.log_z.std_error
    assert abs(found.log_z.value - BASE.log_z) > 4 * found.log_z.std_error
    assert found.verdict.level == "trusted", str(found)
    assert found.x.shape == (effort(method).walkers, 2)
    assert found.method == method


@pytest.mark.parametrize("method", METHODS)
def test_averages_are_those_of_the_target_within_their_errors(method: DensityMethod) -> None:
    found, _ = run(method)
    exact = WELL.sample(200_000, generator=seeded(0)).mean(0)
    mean, error = found.expect(lambda x: x)
    assert float(error.max()) < 0.1
    assert float(((mean - exact) / error).abs().max()) < 4
    assert float(((BASE.mean - exact) / error).abs().max()) > 4


@pytest.mark.parametrize("method", ["ais", "lsq", "nets", "auto"])
def test_bounds_from_both_sides_contain_log_z(method: DensityMethod) -> None:
    found, _ = run(method)
    for attempt in found.attempts:
        assert attempt.reverse is not None
        assert attempt.bounds is not None
        low, high = attempt.bounds.lower_limit, attempt.bounds.upper_limit
        assert low is not None
        assert high is not None
        assert low < WELL.log_z < high
        assert high - low < 1.5
    assert found.origin_of_target_samples == "exact"


def test_a_drift_in_closed_form_makes_more_walkers_effective() -> None:
    assert run("lsq")[0].ess > 0.9
    assert run("lsq")[0].ess > run("ais")[0].ess + 0.02
    quality = run("lsq")[0].attempt.quality
    assert min(quality.r_squared) > 0.8
    assert len(quality.r_squared) == len(quality.times) == len(quality.step_size)


def test_auto_reports_the_better_method_and_keeps_the_other() -> None:
    found, _ = run("auto")
    assert {a.name for a in found.attempts} == {"ais", "lsq"}
    assert found.attempt.note == "chosen"
    other = next(a for a in found.attempts if a is not found.attempt)
    assert "that of" in other.note
    assert len(other.ensemble.x) < len(found.x)


# ---- what it costs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_ledger_holds_what_the_target_was_asked(method: DensityMethod) -> None:
    found, hand = run(method)
    tallies = [stage for a in found.attempts for stage in a.evaluations["target"].values()]
    gradients, energies = sum(s["gradient"] for s in tallies), sum(s["energy"] for s in tallies)
    if method == "smc":  # its pilot counts moves at t = 0 too, where a linear path does not ask the target
        assert hand.gradients < gradients < 1.3 * hand.gradients
    else:
        assert gradients == hand.gradients
    assert energies == hand.energies


def asked(found: Sampled) -> tuple[int, int]:
    """Energies and gradients of the whole ledger."""
    own = [Tally(**stage) for a in found.attempts for stage in a.evaluations["target"].values()]
    every = [*own, *found.shared.values()]
    return sum(t.energy for t in every), sum(t.gradient for t in every)


def test_the_ledger_holds_the_long_chains_of_the_target_too() -> None:
    hand = Hand()
    few = replace(EFFORT, walkers=64, steps=3, reverse_walkers=32, reverse_steps=20)
    found = sample_density(problem(hand, exact=None), method="ais", seed=0, effort=few)
    assert set(found.shared) == {"chains"}
    assert found.shared["chains"].gradient > 32 * 20 * few.leapfrog_steps
    assert found.shared_seconds["chains"] > 0
    assert asked(found) == (hand.energies, hand.gradients)


@pytest.mark.parametrize("base", [None, BASE])
def test_the_ledger_holds_what_one_call_spends_on_its_base_and_its_checks(base: Target | None) -> None:
    hand = Hand()
    few = replace(EFFORT, walkers=64, steps=3, reverse_walkers=0)
    found = sample(hand, base=base, method="ais", effort=few)
    assert set(found.shared) == ({"checks", "base"} if base is None else {"checks"})
    assert asked(found) == (hand.energies, hand.gradients)


@pytest.mark.parametrize("method", ["ais", "lsq"])
def test_production_takes_one_gradient_per_leapfrog_and_none_besides(method: DensityMethod) -> None:
    attempt = run(method)[0].attempt
    between = 1 if method == "lsq" else 0  # after the flow's step walkers are somewhere new
    each = 1 + EFFORT.steps * (EFFORT.leapfrog_steps + between)
    assert attempt.evaluations["target"]["sampling"] == {"energy": 0, "gradient": EFFORT.walkers * each}
    if method == "lsq":
        per_step = attempt.evaluations["field"]["sampling"] / (EFFORT.walkers * EFFORT.steps)
        assert per_step in (2, 4, 8, 16)  # one evaluation per stage of the rule chosen


@pytest.mark.parametrize("method", ["ais", "lsq"])
def test_no_more_walkers_than_a_chunk_are_ever_held_at_the_target(method: DensityMethod) -> None:
    class Widest(Hand):
        rows = 0

        def energy_and_score(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.rows = max(self.rows, len(x))
            return super().energy_and_score(x)

    for walkers in (3000, 6000):
        hand, few = Widest(), replace(EFFORT, walkers=walkers, pilot_walkers=260, steps=3, reverse_walkers=walkers)
        sample_density(replace(problem(hand), chunk_size=1500), method=method, seed=0, effort=few)
        assert hand.rows == 1500  # checks afterwards take a thousand at once


@pytest.mark.parametrize(("steps", "held"), [(6, False), (40, True)])
def test_a_flow_beyond_its_tolerance_is_flagged_and_one_within_it_is_not(steps: int, held: bool) -> None:
    few = replace(EFFORT, steps=steps, reverse_walkers=0)
    found = sample(lambda x: -0.75 * (x**2 - 4).square().sum(-1), dim=2, method="lsq", effort=few)
    assert (found.log_z.systematic < few.flow_tolerance) == held
    assert ("coarse_flow" in {flag.code for flag in found.flags}) == (not held)
    assert (found.verdict.level == "trusted") == held


@pytest.mark.parametrize(("given", "expected"), [(None, 256), (600, 600)])
def test_the_method_that_auto_does_not_choose_has_as_many_walkers_as_are_asked_for(
    given: int | None, expected: int
) -> None:
    found = sample_density(problem(), seed=0, effort=replace(EFFORT, baseline_walkers=given, reverse_walkers=0))
    assert {a.log_z.n for a in found.attempts if a.name != found.chosen} == {expected}
    assert found.log_z.n == EFFORT.walkers


class Wary:
    """A base that notes how many walkers it is asked for at once."""

    def __init__(self) -> None:
        self.event_shape, self.energy, self.log_z, self.asked = BASE.event_shape, BASE.energy, BASE.log_z, []

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        self.asked.append(n)
        return BASE.sample(n, generator=generator)


def test_the_base_is_asked_for_no_more_at_once_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    wary = Wary()
    path = LinearPath(wary, WELL)
    annealing = Annealing("ais", "", HMC(path, 0.3), path, (0.0, 0.5, 1.0))
    whole = annealing.draw(1_000, generator=seeded(0))
    monkeypatch.setattr("nessampler.methods.density.annealing.DRAWN_AT_ONCE", 800)  # numbers, of two coordinates
    many = annealing.draw(1_000, generator=seeded(0))
    assert wary.asked == [1_000, 400, 400, 200]
    assert torch.equal(many.x, whole.x)  # normals come one after the other
    assert torch.equal(many.log_weight, whole.log_weight)
    assert abs(many.log_z_ratio + BASE.log_z - WELL.log_z) < 4 * many.log_z_error < 0.4


def test_fields_along_the_gradient_count_as_gradients_too() -> None:
    target = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double(), torch.ones(2).double())
    path = CurvedPath(Normal(torch.zeros(2), 2 * torch.eye(2)), target)
    posed = replace(problem(target, exact=None), path=path, dictionary=curvature_fields(path))
    attempt = sample_density(posed, method="lsq", seed=0, effort=replace(EFFORT, reverse_walkers=0)).attempt
    gradients = attempt.evaluations["target"]["sampling"]["gradient"]
    fields = attempt.evaluations["field"]["sampling"]
    assert gradients == EFFORT.walkers * (1 + EFFORT.steps * (EFFORT.leapfrog_steps + 1)) + fields


def test_plain_annealing_with_inertia_takes_as_many_gradients() -> None:
    spent = replace(EFFORT, kernel="inertial", walkers=2_000)
    found = sample_density(problem(), method="ais", seed=1, effort=spent)
    assert "underdamped" in found.attempt.description
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - WELL.log_z) < 4 * found.log_z.std_error < 0.2
    # One gradient a step, and none at t = 0, where the target has no weight.
    sampling = found.attempt.evaluations["target"]["sampling"]
    assert sampling["gradient"] == 2_000 * EFFORT.steps * EFFORT.leapfrog_steps
    with pytest.raises(InputError, match="kernel = 'inertial' is for plain annealing: lsq moves by"):
        sample_density(problem(), method="lsq", effort=spent)


def test_plain_annealing_by_langevin_steps_takes_as_many_gradients() -> None:
    spent = replace(EFFORT, kernel="langevin", walkers=2_000)
    found = sample_density(problem(), method="ais", seed=1, effort=spent)
    assert "unadjusted Langevin" in found.attempt.description
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - WELL.log_z) < 4 * found.log_z.std_error < 0.2
    sampling = found.attempt.evaluations["target"]["sampling"]
    assert sampling["gradient"] == 2_000 * EFFORT.steps * EFFORT.leapfrog_steps
    with pytest.raises(InputError, match="which no budget bounds: got kernel = 'langevin' and a budget of 600000"):
        sample_density(problem(), method="ais", effort=replace(spent, budget=600_000))


@pytest.mark.parametrize("options", [{"precondition": "diagonal"}, {"precondition": "dense"}, {"waste_free": 5}])
def test_smc_by_its_keys(options: dict[str, Any]) -> None:
    effort = replace(EFFORT, walkers=4_000)
    found = sample_density(problem(), method="smc", seed=2, effort=replace(effort, **options))
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - WELL.log_z) < 4 * found.log_z.std_error < 0.2
    plain = sample_density(problem(), method="smc", seed=2, effort=effort)
    assert plain.log_z.value != found.log_z.value  # the key was looked at


def test_smc_of_a_lattice_takes_its_spectrum() -> None:
    lattice, free = Phi4(4, quartic=0.8), FreeField.massive(4, mass_squared=1.0)
    path = LinearPath(free, lattice)
    posed = DensityProblem(path, default_dictionary(path))
    effort = DensityEffort(walkers=1600, steps=12, precondition="spectral", reverse_walkers=0)
    found = sample_density(posed, method="smc", seed=0, effort=effort)
    plain = sample_density(posed, method="ais", seed=0, effort=replace(effort, precondition="problem"))
    assert "in the particles' spectral mass" in found.attempt.description
    assert (
        found.log_z.value
        != sample_density(posed, method="smc", effort=replace(effort, precondition="problem")).log_z.value
    )
    gap = found.log_z.value - plain.log_z.value
    assert abs(gap) < 4 * math.hypot(found.log_z.std_error, plain.log_z.std_error) < 0.5


def tempered(last: float = 1.0) -> DensityProblem:
    """The base, and what the target has beyond it, turned on as the cube of time."""

    class Beyond:
        event_shape = WELL.event_shape

        def energy(self, x: Tensor) -> Tensor:
            return WELL.energy(x) - BASE.energy(x)

    def schedule(t: Tensor) -> Tensor:
        return torch.stack([torch.ones_like(t), last * t**3], -1)

    return replace(problem(exact=None), path=ScheduledPath([BASE, Beyond()], schedule, BASE, WELL))


@pytest.mark.parametrize("method", ["ais", "lsq"])
def test_a_tempered_path_leads_to_the_same_log_z(method: DensityMethod) -> None:
    found = sample_density(tempered(), method=method, seed=1, effort=EFFORT).log_z
    assert found.std_error is not None
    assert abs(found.value - WELL.log_z) < 4 * found.std_error < 0.2
    colder = sample_density(tempered(0.4), method="ais", seed=1, effort=EFFORT).log_z  # stops on its way
    assert abs(colder.value - WELL.log_z) > 8 * found.std_error


# ---- the same again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ais", "lsq"])
def test_the_same_seed_gives_the_same_result(method: DensityMethod) -> None:
    first = run(method)[0]
    again = sample_density(problem(), method=method, seed=1, effort=EFFORT)
    assert again.log_z.value == first.log_z.value
    assert torch.equal(again.x, first.x)
    if method == "ais":
        other = sample_density(problem(), method=method, seed=2, effort=EFFORT)
        assert other.log_z.value != first.log_z.value


def test_more_walkers_come_from_the_frozen_transport() -> None:
    found, hand = run("lsq")
    before = hand.gradients
    more = found.more(500, generator=seeded(3))
    assert hand.gradients - before == 500 * (1 + EFFORT.steps * (EFFORT.leapfrog_steps + 1))
    value, error = BASE.log_z + more.log_z_ratio, math.hypot(more.log_z_error, found.log_z.systematic)
    assert error < 0.03
    assert abs(value - WELL.log_z) < 4 * error
    hand.gradients = before
    with pytest.raises(InputError, match="frozen transport"):
        run("smc")[0].more(10, generator=seeded(3))


def test_draws_have_no_weights() -> None:
    found = run("ais")[0]
    exact, spread = (getattr(WELL.sample(100_000, generator=seeded(4)), f)(0) for f in ("mean", "std"))
    draws = found.draws(generator=seeded(5))
    assert draws.shape == (600, 2)
    assert float(((draws.mean(0) - exact) / (spread / math.sqrt(600 * found.ess / 2))).abs().max()) < 4
    assert found.draws(50, generator=seeded(5)).shape == (50, 2)


# ---- when it is wrong ----------------------------------------------------------------------------------------------


class CurvedPath(LinearPath):
    """A linear path that knows its Laplacian."""

    def laplacian(self, t: Tensor, x: Tensor) -> Tensor:
        one, other = (end.laplacian(x) for end in (self.start, self.end))  # pyright: ignore[reportAttributeAccessIssue]
        return torch.lerp(one, other, t)


@pytest.mark.parametrize(("method", "steps", "fair_ess"), [("lsq", 8, 0.5), ("ais", 60, 0.2)])
def test_lost_modes_are_flagged_by_walkers_carried_back_although_the_ess_looks_fine(method, steps, fair_ess) -> None:
    # Eight modes in fifty dimensions, half of them so far out that no walker goes there on a linear path.
    direction = torch.randn(8, 50, generator=seeded(1), dtype=torch.float64)
    radius = torch.tensor([3.0] * 4 + [10.0] * 4).double()[:, None]
    mixture = GaussianMixture(radius * direction / direction.norm(dim=1, keepdim=True), torch.ones(8).double())
    path = CurvedPath(Normal(torch.zeros(50), 1.5**2 * torch.eye(50)), mixture)
    posed = replace(
        problem(),
        path=path,
        dictionary=curvature_fields(path, affine="isotropic"),
        step_size=0.5,
        target_samples=lambda n, g: mixture.sample(n, generator=g),
    )
    spent = DensityEffort(300, 128, 6, steps, 4, reverse_walkers=300)
    found = sample_density(posed, method=method, seed=0, effort=spent)
    assert found.ess > fair_ess
    assert found.log_z.value is not None
    assert abs(found.log_z.value) > 0.5  # exact: 0
    assert (found.log_z.std_error or 1) < 0.15
    assert "unreached" in {flag.code for flag in found.flags} & GRAVE
    assert found.verdict.level == "not trusted"
    # Forward walkers alone cannot know.
    alone = log_z(found.log_weight.numpy(), base=0.0)
    assert alone.trusted
    assert alone.value == pytest.approx(found.log_z.value)


class Box:
    """The uniform density on a square, unnormalised: a base with edges."""

    event_shape = torch.Size([2])

    def __init__(self, side: float) -> None:
        self.side, self.log_z = side, 2 * math.log(side)

    def energy(self, x: Tensor) -> Tensor:
        return torch.where((x.abs() < self.side / 2).all(1), 0.0 * x.sum(1), torch.inf)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.side * (torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5)


def test_a_base_that_misses_a_part_of_the_support_is_flagged() -> None:
    found = sample_density(problem(base=Box(2.0)), method="ais", seed=3, effort=EFFORT)
    assert found.log_z.value is not None
    assert abs(found.log_z.value - WELL.log_z) > 4 * (found.log_z.std_error or 1)
    assert "no_way_back" in {flag.code for flag in found.flags}
    assert found.verdict.level == "not trusted"
    wide = sample_density(problem(base=Box(12.0)), method="ais", seed=3, effort=EFFORT)
    assert "no_way_back" not in {flag.code for flag in wide.flags}


def test_what_a_base_was_told_is_owned_up_to() -> None:
    spent = DensityEffort(300, reverse_walkers=0, steps=4)
    told = sample(WELL, base=BASE, method="ais", knowledge="the wells", effort=spent)
    assert told.knowledge == "the wells"
    assert "Base or path were told of the wells." in str(told)
    assert "told" not in str(sample(WELL, base=BASE, method="ais", effort=spent))


def test_weights_that_collapse_are_flagged() -> None:
    d = 10
    far = Normal(torch.full((d,), 2.0), 0.02 * torch.eye(d))
    posed = problem(far, Normal(torch.zeros(d), torch.eye(d)), None)
    spent = DensityEffort(300, reverse_walkers=0, steps=2, leapfrog_steps=2)
    found = sample_density(posed, method="ais", seed=4, effort=spent)
    assert {flag.code for flag in found.flags} & {"heavy_tail", "few_effective_samples"}
    assert found.verdict.level == "not trusted"


def test_a_wrong_energy_of_the_target_is_seen_by_its_own_samples() -> None:
    class Shifted:
        """The well, somewhere else."""

        event_shape = WELL.event_shape

        def energy(self, x: Tensor) -> Tensor:
            return WELL.energy(x - 1.0)

    found = sample_density(problem(Shifted()), method="ais", seed=5, effort=EFFORT)
    assert {flag.code for flag in found.flags} & {"directions_disagree", "crossed_bounds"}
    assert all("ΔF" not in flag.message for flag in found.flags)
    assert found.verdict.level == "not trusted"


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_unusable_questions_are_refused() -> None:
    with pytest.raises(InputError, match="method must be one of"):
        sample_density(problem(), method="magic")  # pyright: ignore[reportArgumentType]

    class Bare:
        event_shape = WELL.event_shape
        energy = WELL.energy

    with pytest.raises(InputError, match="has no sample"):
        sample_density(problem(base=Bare()))
    greedy = replace(problem(), dictionary=lambda x, g: random_fourier(60)(x.repeat(50, 1), g))
    with pytest.raises(InputError, match="at least four pilot walkers for each field"):
        sample_density(greedy, method="lsq", effort=DensityEffort(pilot_walkers=100))


def test_samples_of_the_target_that_lack_a_mode_are_seen_from_the_walkers_that_arrive_there() -> None:
    base = Gaussian(torch.zeros(2).double(), torch.full((2,), 3.0).double())
    modes = torch.tensor([[-2.0, 0.0], [2.0, 0.0]]).double()
    target = GaussianMixture(modes, torch.tensor([0.6, 0.6]).double())

    def lacking(n: int, generator: torch.Generator) -> Tensor:
        x = target.sample(4 * n, generator=generator)
        return x[x[:, 0] < 0][:n]  # satisfies Stein's identity: nothing is wrong within the mode

    small = DensityEffort(walkers=1000, pilot_walkers=500, steps=12, reverse_walkers=800)
    for draws, codes in ((lacking, True), (lambda n, g: target.sample(n, generator=g), False)):
        posed = DensityProblem(LinearPath(base, target), random_fourier(60), target_samples=draws)
        found = sample_density(posed, method="ais", effort=small, seed=0)
        assert ("overlap_disagrees" in [flag.code for flag in found.flags]) is codes
        assert (found.verdict.level == "not trusted") is codes


def test_islands_that_scatter_are_flagged_and_those_that_agree_are_not() -> None:
    def particles(spread: float) -> Particles:
        scatter = torch.tensor([-1.0, -0.8, -0.3, 0.0, 0.0, 0.3, 0.8, 1.0], dtype=torch.float64)
        log_weight = (spread * scatter).repeat_interleave(4)
        ensemble = Ensemble(torch.zeros(32, 1), log_weight, (0.0, 1.0), None, True, (4,) * 8)
        return Particles(ensemble, 0.0, (), (), {})

    assert [flag.code for flag in particles(0.5).flags] == ["islands_disagree"]
    assert particles(0.2).flags == ()
    assert particles(0.2).island_spread == pytest.approx(0.2 * 0.73, rel=0.05)


def test_the_interval_of_smc_knows_that_its_error_comes_from_eight_islands() -> None:
    estimate = run("smc")[0].log_z
    assert estimate.ci95 is not None
    assert estimate.ci95[1] - estimate.ci95[0] == pytest.approx(2 * 2.364624 * (estimate.std_error or 0.0))  # t, 7 dof


def far_too_wide(x: Tensor) -> Tensor:
    """Energies of e^70 within the base: a drift that is solved from them leads nowhere."""
    return -0.5 * (x[:, 1] * x[:, 0].exp()) ** 2 - x[:, 0] ** 2 / 2 - 0.05 * x[:, 1] ** 2


def test_auto_goes_without_a_drift_that_carries_every_walker_away():
    base = Gaussian(torch.zeros(2).double(), torch.tensor([12.0, 6.0]).double())
    effort = DensityEffort(walkers=200, pilot_walkers=600, pilot_steps=6, steps=6)
    with pytest.raises(InputError, match=r"a drift must leave walkers where the target has density.*method ais"):
        sample(far_too_wide, dim=2, base=base, effort=effort, method="lsq")
    found = sample(far_too_wide, dim=2, base=base, effort=effort)
    (attempt,) = found.attempts
    assert (found.chosen, attempt.note.split(":")[0]) == ("ais", "chosen, for want of a drift")
    alone = sample(far_too_wide, dim=2, base=base, effort=effort, method="ais")
    assert torch.equal(found.log_weight, alone.log_weight)
    spent, own = (a.evaluations["target"]["pilot"]["gradient"] for a in (attempt, alone.attempt))
    assert spent > own + 600  # what the drift cost is paid for
