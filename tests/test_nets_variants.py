"""What `method="nets"` can be asked for: objectives, starts and kernels. Whatever is learned, weights stay exact."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import Inertial, Langevin
from nessampler.methods.density.again import rebuilt
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.dictionaries import default_dictionary, random_fourier
from nessampler.methods.density.effort import DensityEffort, check_nets
from nessampler.methods.density.nets import train_nets
from nessampler.methods.density.nets_training import divergence_passes, objective_for
from nessampler.methods.density.one_call import sample
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.result import Sampled
from nessampler.methods.density.sample import sample_density
from nessampler.methods.density.zero_drifts import score_is_smooth, zero_drift
from nessampler.networks.lattice_potential import LatticePotential
from nessampler.objectives.action_matching import ActionMatchingObjective
from nessampler.objectives.log_variance import LogVarianceObjective
from nessampler.objectives.pinn import PinnObjective
from nessampler.paths import LinearPath
from nessampler.targets import AnharmonicWell, Gaussian
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.numpy_density import NumpyDensity
from nessampler.targets.phi4 import FreeField, Phi4

OBJECTIVES, STARTS, KERNELS = (
    ("pinn", "pinn-rate", "action-matching", "log-variance"),
    ("closed-form", "zero"),
    ("flow", "langevin", "inertial"),
)
POSSIBLE = [
    *itertools.product(("pinn", "pinn-rate"), STARTS, KERNELS),
    *itertools.product(("action-matching",), ("zero",), ("langevin", "inertial")),
    *itertools.product(("log-variance",), STARTS, ("langevin",)),
]
EFFORT = DensityEffort(
    walkers=900,
    pilot_walkers=300,
    pilot_steps=5,
    steps=8,
    leapfrog_steps=4,
    reverse_walkers=0,
    nets_steps=20,
    training_walkers=192,
    flow_tolerance=0.05,
)
WELL = AnharmonicWell([1.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.5, 0.1], skew=[0.5, 0.0], coupling=1.0)
BASE = Gaussian(torch.zeros(2).double(), torch.tensor([1.1, 1.1]).double())
Choice = tuple[str, str, str]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plane() -> DensityProblem:
    return DensityProblem(LinearPath(BASE, WELL), random_fourier(40))


def lattice() -> DensityProblem:
    path = LinearPath(FreeField.massive(4, mass_squared=1.0), Phi4(4, quartic=0.8))
    return DensityProblem(path, lambda x, g: default_dictionary(path)(x, g))


def chosen(choice: Choice, effort: DensityEffort = EFFORT) -> DensityEffort:
    objective, start, kernel = choice
    return replace(effort, nets_objective=objective, nets_start=start, nets_kernel=kernel)


@contextmanager
def short(rollout_steps: int = 8, every: int = 10) -> Iterator[None]:
    """Trainings of seconds: rollouts of few steps, whose diffusion knows that they are few."""
    hasty = functools.partial(train_nets, rollout_steps=rollout_steps, every=every)
    with (
        mock.patch("nessampler.methods.density.nets_training.train_nets", hasty),
        mock.patch("nessampler.methods.density.nets_langevin.ROLLOUT_STEPS", rollout_steps),
    ):
        yield


@functools.cache
def run(choice: Choice, make=plane, steps: int = EFFORT.nets_steps) -> Sampled:
    with short():
        return sample_density(make(), method="nets", seed=1, effort=chosen(choice, replace(EFFORT, nets_steps=steps)))


def transport(found: Sampled) -> Annealing:
    assert found.attempt.annealing is not None
    return found.attempt.annealing


# ---- the number ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", POSSIBLE, ids="+".join)
def test_log_z_is_exact_within_its_error_whatever_was_learned(choice: Choice) -> None:
    found = run(choice)
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert found.log_z.std_error < 0.15
    assert abs(found.log_z.value - WELL.log_z) < 4 * found.log_z.std_error
    assert abs(found.log_z.value - BASE.log_z) > 4 * found.log_z.std_error
    if choice[2] != "flow":
        assert found.log_z.systematic == 0
    elif choice[1] != "zero":  # a network that was better off untouched has no drift to integrate
        assert found.log_z.systematic > 0


class Careless(Langevin):
    """A kernel whose log ratio is half of what it should be."""

    def step(self, t0, t1, walkers, *, generator):
        moved, log_ratio = super().step(t0, t1, walkers, generator=generator)
        return moved, 0.5 * log_ratio


def test_a_network_of_noise_costs_effective_walkers_and_not_the_answer() -> None:
    frozen = transport(run(("pinn", "zero", "langevin")))
    fields = frozen.kernel.fields  # pyright: ignore[reportAttributeAccessIssue]
    before = {k: v.clone() for k, v in fields.network.network.state_dict().items()}
    generator = seeded(5)
    with torch.no_grad():
        for value in fields.network.network.parameters():
            value.add_(0.15 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    noisy = frozen.draw(20_000, generator=seeded(6))
    careless = replace(frozen, kernel=Careless(fields, frozen.kernel.diffusion)).draw(20_000, generator=seeded(6))  # pyright: ignore[reportAttributeAccessIssue]
    fields.network.network.load_state_dict(before)
    errors = [abs(e.log_z_ratio + BASE.log_z - WELL.log_z) / e.log_z_error for e in (noisy, careless)]
    assert noisy.log_z_error < 0.05
    assert errors[0] < 4 < errors[1]
    assert noisy.ess < frozen.draw(4_000, generator=seeded(7)).ess - 0.1


def test_every_choice_changes_what_is_trained() -> None:
    """Two choices with the same losses would be one choice."""
    losses = {choice: tuple(row["loss"] for row in run(choice).metrics) for choice in POSSIBLE}
    assert len(set(losses.values())) == len(POSSIBLE)


@pytest.mark.parametrize(("back", "flagged"), [(0, True), (100, False)])
def test_a_drift_from_nothing_is_doubted_unless_walkers_come_back(back: int, flagged: bool) -> None:
    few = replace(
        EFFORT, walkers=300, steps=4, nets_steps=2, nets_start="zero", nets_kernel="langevin", reverse_walkers=back
    )
    base = Gaussian(torch.zeros(2).double(), torch.full((2,), 1.5).double())
    target = Gaussian(torch.ones(2).double(), torch.ones(2).double())
    found = sample(target, base=base, method="nets", effort=few)
    assert ("one_way" in {flag.code for flag in found.flags}) == flagged


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_from_zero_raises_the_effective_sample_size(objective: str) -> None:
    choice = (objective, "zero", "langevin")
    steps = 100 if objective in ("action-matching", "log-variance") else 60
    with short():
        effort = chosen(choice, replace(EFFORT, nets_steps=steps, training_walkers=512))
        found = sample_density(plane(), method="nets", seed=2, effort=effort)
    untrained = run(("pinn", "zero", "langevin"), plane, 1)
    assert found.ess > untrained.ess + 0.1
    assert max(row["ess"] for row in found.metrics) > found.metrics[0]["ess"] + 0.01


# ---- what is built -------------------------------------------------------------------------------------------------


def test_objectives_and_starts_are_those_asked_for() -> None:
    built, curricula = [], []

    def spy(path, x, network, objective, **options):
        built.append(objective)
        curricula.append((options["curriculum"], options["first_time"]))
        return train_nets(path, x, network, objective, **options, rollout_steps=4)

    choices = [("pinn", "zero", "flow"), ("pinn-rate", "closed-form", "flow"), *POSSIBLE[-3:]]
    with mock.patch("nessampler.methods.density.nets_training.train_nets", spy):
        for choice in choices:
            sample_density(plane(), method="nets", effort=chosen(choice, replace(EFFORT, walkers=64, nets_steps=2)))
    kinds = (PinnObjective, PinnObjective, ActionMatchingObjective, LogVarianceObjective, LogVarianceObjective)
    assert [type(o) for o in built] == list(kinds)
    assert [getattr(o, "rate", None) is not None for o in built[:2]] == [False, True]
    assert curricula == [(0.4, 0.1), (0.0, 1.0), (0.4, 0.1), (0.0, 1.0), (0.4, 0.1)]
    assert [built[k].network.base is None for k in (0, 1, 4)] == [True, False, True]
    assert [built[k].network.reads_score for k in (0, 1, 4)] == [True, False, True]


def test_langevin_walkers_ask_for_one_gradient_and_one_field_a_step() -> None:
    for choice in (("pinn", "zero", "langevin"), ("action-matching", "zero", "inertial")):
        attempt, steps = run(choice).attempt, EFFORT.steps * EFFORT.leapfrog_steps
        asked = EFFORT.walkers * (1 + steps)
        assert attempt.evaluations["target"]["sampling"] == {"energy": 0, "gradient": asked}
        assert attempt.evaluations["field"]["sampling"] == asked
        assert attempt.evaluations["field"]["training"] > 0


def test_the_diffusion_is_that_of_the_most_effective_pilot_walkers() -> None:
    frozen = transport(run(("pinn", "zero", "langevin")))
    kernel = frozen.kernel
    assert isinstance(kernel, Langevin)
    factor = float(frozen.state["diffusion"])
    ess = {
        f: replace(frozen, kernel=Langevin(kernel.fields, replace(kernel.diffusion, factor=f)))  # pyright: ignore[reportArgumentType, reportCallIssue]
        .draw(1000, generator=seeded(3))
        .ess
        for f in (factor, 100 * factor)
    }
    assert ess[factor] > ess[100 * factor] + 0.1
    assert isinstance(transport(run(("pinn", "zero", "inertial"))).kernel, Inertial)


def test_perceptrons_of_many_coordinates_learn_by_two_probes_and_flows_never_do() -> None:
    d = 80
    a, b = (
        Gaussian(torch.zeros(d).double(), torch.ones(d).double()),
        Gaussian(torch.ones(d).double(), torch.ones(d).double()),
    )
    path = CountedPath(LinearPath(a, b))
    made = DensityProblem(path.path, default_dictionary(path.path))
    x = a.sample(200, generator=seeded(0))
    network = zero_drift(made, path, x, potential=False, passes=2, generator=seeded(0)).network
    for kernel, probed in (("langevin", True), ("flow", False)):
        effort = chosen(("pinn", "zero", kernel))
        objective = objective_for(effort, network, 1.0, seeded(1))
        assert (objective.probes is not None) == probed
        assert divergence_passes(effort, d) == (2 if probed else d)


def test_scores_that_torch_cannot_follow_twice_are_not_read() -> None:
    blind = NumpyDensity(lambda x: -0.5 * (x**2).sum(-1), 2, gradient=lambda x: -x)
    x, generator = BASE.sample(16, generator=seeded(0)), seeded(1)
    smooth = [score_is_smooth(LinearPath(BASE, end), x, generator=generator) for end in (WELL, blind)]
    assert smooth == [True, False]
    mixture = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).double(), torch.ones(2).double())
    assert score_is_smooth(LinearPath(BASE, mixture), x, generator=generator)
    found = sample_density(
        replace(plane(), path=LinearPath(BASE, blind)),
        method="nets",
        effort=chosen(("pinn", "zero", "langevin"), replace(EFFORT, nets_steps=2)),
    )
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - math.log(2 * math.pi)) < 4 * found.log_z.std_error < 0.2


class Sheet:
    """A normal of two by two coordinates."""

    def __init__(self, mean: float) -> None:
        self.event_shape, self.mean, self.log_z = torch.Size([2, 2]), mean, 2 * math.log(2 * math.pi)

    def energy(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.mean).square().sum((1, 2))

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return self.mean + torch.randn(n, 2, 2, generator=generator, dtype=torch.float64)


def test_walkers_that_no_dictionary_is_for_need_none_from_zero() -> None:
    path = LinearPath(Sheet(0.0), Sheet(0.8))
    made = DensityProblem(path, lambda x, g: default_dictionary(path)(x, g))
    effort = chosen(("pinn", "zero", "langevin"), replace(EFFORT, nets_steps=2))
    found = sample_density(made, method="nets", effort=effort)
    assert found.log_z.value is not None
    assert found.log_z.std_error is not None
    assert abs(found.log_z.value - path.end.log_z) < 4 * found.log_z.std_error < 0.4  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="needs fields"):
        sample_density(made, method="nets", effort=replace(effort, nets_start="closed-form"))


def test_the_potential_of_a_lattice_has_its_symmetries_and_the_gradient_of_autograd() -> None:
    made, path = lattice(), CountedPath(lattice().path)
    x = path.start.sample(40, generator=seeded(0))  # pyright: ignore[reportAttributeAccessIssue]
    network = zero_drift(made, path, x, potential=True, passes=0, generator=seeded(0)).network
    assert isinstance(network, LatticePotential)
    with torch.no_grad():
        network.heights.copy_(torch.randn(network.heights.shape, generator=seeded(2), dtype=torch.float64))
    t, position = torch.linspace(0, 1, 40).double(), x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network.potential(t, position).sum(), position)
    torch.testing.assert_close(network(t, x), gradient)
    for same in (x.roll(1, 1), x.flip(1), x.transpose(1, 2), -x):
        torch.testing.assert_close(network.potential(t, same), network.potential(t, x))
    assert float((network.potential(t, x + 1) - network.potential(t, x)).detach().abs().min()) > 1e-6


# ---- saved, interrupted -------------------------------------------------------------------------------------------

REOPENED = [(choice, plane) for choice in POSSIBLE[1:]] + [
    (choice, lattice)
    for choice in (("pinn", "zero", "flow"), ("pinn-rate", "zero", "langevin"), ("action-matching", "zero", "inertial"))
]


@pytest.mark.parametrize(("choice", "make"), REOPENED)
def test_a_trained_transport_survives_as_tensors(choice: Choice, make) -> None:
    first = transport(run(choice) if make is plane else run(choice, make, 3))
    state = {key: value.clone() for key, value in first.state.items()}
    name = next(k for k in ("nets.head.weight", "nets.heights", "nets.change") if k in state)
    spoilt = {**state, name: state[name] + 0.3}
    one, other, third = (
        a.draw(50, generator=seeded(3)).log_weight
        for a in (first, *(rebuilt(make(), "nets", s, torch.device("cpu")) for s in (state, spoilt)))
    )
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert float((third - one).abs().max()) > 1e-3
    assert first.systematic == pytest.approx(rebuilt(make(), "nets", state, torch.device("cpu")).systematic)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    "choice", [("pinn-rate", "zero", "langevin"), ("action-matching", "zero", "inertial")], ids="+".join
)
def test_an_interrupted_training_ends_with_the_same_walkers(choice: Choice, tmp_path: Path) -> None:
    effort = chosen(choice, replace(EFFORT, walkers=64, nets_steps=12))

    def weights(file: str, stop: int | None = None) -> Tensor:
        def progress(done: int, total: int, what: str) -> None:
            if what == "training" and done == stop:
                raise Interrupted

        with short(4, 4):
            options = {"checkpoint": tmp_path / file, "progress": progress}
            found = sample_density(plane(), method="nets", effort=effort, **options)
        return found.attempt.ensemble.log_weight

    with pytest.raises(Interrupted):
        weights("cut", stop=9)
    assert torch.equal(weights("cut"), weights("whole"))


# ---- what makes no sense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (("log-variance", "zero", "flow"), "is the variance of Langevin path weights: got nets_kernel = 'flow'"),
        (("log-variance", "zero", "inertial"), "got nets_kernel = 'inertial'"),
        (("action-matching", "closed-form", "langevin"), "learns a potential: got nets_start = 'closed-form'"),
        (("action-matching", "zero", "flow"), "without its divergence: got nets_kernel = 'flow'"),
        (("pin", "zero", "flow"), "nets_objective must be one of pinn, pinn-rate"),
        (("pinn", "nought", "flow"), "nets_start must be one of closed-form, zero: got 'nought'"),
        (("pinn", "zero", "hmc"), "nets_kernel must be one of flow, langevin, inertial: got 'hmc'"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(choice: Choice, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_density(plane(), method="nets", effort=chosen(choice))


def test_choices_are_for_nets_and_gradients_of_the_ends_for_closed_forms() -> None:
    with pytest.raises(InputError, match="nets_kernel = 'langevin' is for method nets: got method lsq"):
        check_nets(DensityEffort(nets_kernel="langevin"), "lsq")
    with pytest.raises(InputError, match="end_gradients is for a drift in closed form"):
        check_nets(DensityEffort(nets_start="zero", end_gradients=True), "nets")
    with pytest.raises(InputError, match="a budget is shared out for a closed form and flow steps"):
        check_nets(DensityEffort(nets_kernel="langevin", budget=10**6), "nets")
    check_nets(DensityEffort(nets_objective="pinn-rate", budget=10**6), "nets")
    for choice in POSSIBLE:
        check_nets(chosen(choice), "nets")
    check_nets(DensityEffort(), "auto")
