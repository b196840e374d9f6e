"""Densities that give energies and nothing else, by random walks: log Z, what is asked, and what is refused."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import nessampler as ns
from nessampler.kernels import DenseMass, RandomWalk
from nessampler.methods.density.again import rebuilt
from nessampler.methods.density.ais import ais
from nessampler.methods.density.bases import check_proper
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.tuning import Masses, Walk
from nessampler.methods.density.walks import spread
from nessampler.paths import LinearPath
from nessampler.targets import Gaussian
from nessampler.targets.callable import as_target
from nessampler.targets.normal import Normal
from nessampler.targets.numpy_density import NumpyDensity

WALKS = ns.DensityEffort(walkers=1600, steps=20, leapfrog_steps=5, kernel="walk", reverse_walkers=400)
BASE = Gaussian(torch.tensor([0.2, -0.3]).double(), torch.full((2,), 2.0).double())
EXACT = math.log(2 * (0.15 + 0.05))
METHODS = ("ais", "smc", "auto")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Ridge:
    """A kink along a slanted ridge, lopsided across it, in numpy and without a gradient."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.asked += len(x)
        across = x[:, 1] - 0.9 * x[:, 0]
        return -np.where(x[:, 0] > 0, x[:, 0], -x[:, 0]) - np.where(across > 0, across / 0.15, -across / 0.05)


@functools.cache
def run(method: str, budget: int | None = None) -> tuple[ns.methods.density.result.Sampled, Ridge]:
    ridge = Ridge()
    effort = replace(WALKS, budget=budget, reverse_walkers=0)
    return ns.sample(NumpyDensity(ridge, 2), base=BASE, method=method, seed=1, effort=effort), ridge


@pytest.mark.parametrize("budget", [None, 120_000])
@pytest.mark.parametrize("method", METHODS)
def test_log_z_of_a_numpy_density_without_gradient_is_the_exact_one(method, budget):
    found, _ = run(method, budget)
    assert found.log_z.std_error < 0.08
    assert abs(found.log_z.value - EXACT) < 4 * found.log_z.std_error
    assert abs(found.log_z.value - BASE.log_z) > 8 * found.log_z.std_error
    mean, error = found.expect(lambda x: x[:, 1] - 0.9 * x[:, 0])
    assert float(error) < 0.02
    assert abs(float(mean) - 0.1) < 4 * float(error)
    assert "random walks of 5 proposals" in found.attempt.description


@pytest.mark.parametrize("budget", [None, 120_000])
@pytest.mark.parametrize("method", METHODS)
def test_the_ledger_of_random_walks_holds_energies_and_no_gradients(method, budget):
    found, ridge = run(method, budget)
    tallies = [stage for a in found.attempts for stage in a.evaluations["target"].values()]
    assert sum(stage["gradient"] for stage in tallies) == 0
    energies, looked = sum(stage["energy"] for stage in tallies), 32 + 8 * (1 + 60 * 5)  # before any work
    if method == "ais":
        assert energies == ridge.asked - looked
    else:  # islands count t = 0 too, where a linear path does not ask the target
        assert 0.9 * energies < ridge.asked - looked <= energies
    if budget is not None:
        assert 0.9 * budget < energies < 1.03 * budget


def test_production_asks_for_an_energy_per_proposal_and_one_per_step():
    sampling = run("ais")[0].attempt.evaluations["target"]["sampling"]
    assert sampling == {"energy": WALKS.walkers * WALKS.steps * (WALKS.leapfrog_steps + 1), "gradient": 0}


def test_both_methods_of_auto_are_reported_and_one_is_chosen():
    found = run("auto")[0]
    assert [a.name for a in found.attempts] == ["ais", "smc"]
    assert sorted(a.note.startswith("chosen") for a in found.attempts) == [False, True]
    assert sorted(len(a.ensemble.x) for a in found.attempts) == [WALKS.walkers // 4, WALKS.walkers]
    alone = run("auto", 120_000)[0]
    assert "ais" in alone.attempt.note + alone.chosen
    assert "lsq" not in alone.attempt.note


def test_the_method_that_auto_does_not_choose_walks_with_as_many_as_are_asked_for():
    few = replace(WALKS, walkers=640, baseline_walkers=480, reverse_walkers=0)
    found = ns.sample(NumpyDensity(Ridge(), 2), base=BASE, effort=few)
    assert sorted(len(a.ensemble.x) for a in found.attempts) == [480, 640]


def test_acceptance_is_that_of_the_best_walk_all_along():
    history = run("ais")[0].attempt.ensemble.history
    assert abs(float(history.acceptance.mean()) - 0.3) < 0.05
    assert float((history.acceptance - 0.3).abs().max()) < 0.12


def test_proposals_shaped_as_the_walkers_keep_more_of_them():
    covariance = torch.tensor([[1.0, 1.9, 0.0], [1.9, 4.0, 0.0], [0.0, 0.0, 0.01]]).double()
    start, end = Normal(torch.zeros(3), 2.25 * covariance), Normal(torch.tensor([1.0, 2.0, 0.1]), covariance)
    path, ess = LinearPath(start, end), {}
    for shape in (None, spread):
        annealing = ais(path, steps=12, mover=Walk(5), precondition=shape, pilots=300, generator=seeded(0))
        run = annealing.draw(2_000, generator=seeded(1))
        assert abs(run.log_z_ratio + start.log_z - end.log_z) < 4 * run.log_z_error < 0.3
        ess[shape] = run.ess
        assert isinstance(annealing.kernel, RandomWalk)
        if shape is spread:
            assert isinstance(annealing.kernel.mass, Masses)
            assert all(isinstance(m, DenseMass) for m in annealing.kernel.mass.values)
    assert ess[spread] > ess[None] + 0.1


def test_proposals_of_a_mass_have_its_inverse_as_covariance():
    covariance = torch.tensor([[2.0, 1.2], [1.2, 1.0]]).double()
    flat = as_target(lambda x: 0 * x.sum(-1), event_shape=2)
    walk = RandomWalk(LinearPath(flat, flat), 0.5, 1, DenseMass(torch.linalg.cholesky(covariance)))
    x = torch.zeros(40_000, 2).double()
    moved, _ = walk.step(0.0, 1.0, walk.start(0.0, x), generator=seeded(0))
    torch.testing.assert_close(torch.cov(moved.x.T), 0.25 * covariance, rtol=0.03, atol=0)


def test_walks_go_both_ways_and_bound_log_z():
    def samples(n: int, generator: torch.Generator) -> torch.Tensor:
        uniform = torch.rand(n, 4, generator=generator, dtype=torch.float64)
        first = -uniform[:, 0].log() * torch.where(uniform[:, 1] < 0.5, -1.0, 1.0)
        across = -uniform[:, 2].log() * torch.where(uniform[:, 3] < 0.75, 0.15, -0.05)
        return torch.stack([first, across + 0.9 * first], -1)

    options = {"base": BASE, "method": "ais", "effort": replace(WALKS, steps=30)}
    found = ns.sample(NumpyDensity(Ridge(), 2), target_samples=samples, **options)
    low, high = found.attempt.bounds.tightest_limits
    assert low < EXACT < high < low + 0.6
    assert found.flags == ()
    assert found.attempt.evaluations["target"]["reverse"]["gradient"] == 0


def test_a_density_whose_gradient_says_nothing_is_walked_all_the_same():
    def steps(x: torch.Tensor) -> torch.Tensor:
        return -(3 * x.abs()).floor().sum(-1)

    with pytest.raises(ns.InputError, match=r'must follow the energy.*kernel="walk"'):
        ns.sample(steps, dim=2, base=BASE, method="ais")
    found = ns.sample(steps, dim=2, base=BASE, method="ais", effort=WALKS)
    exact = 2 * math.log(2 / 3 / (1 - math.exp(-1)))
    assert abs(found.log_z.value - exact) < 4 * found.log_z.std_error < 0.15


def test_the_frozen_walk_is_opened_again_to_the_same_bits():
    path = LinearPath(BASE, NumpyDensity(Ridge(), 2))
    annealing = run("ais")[0].attempt.annealing
    opened = rebuilt(DensityProblem(path, lambda x, g: None), "ais", annealing.state, torch.device("cpu"))
    one, two = (a.draw(50, generator=seeded(3)) for a in (annealing, opened))
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.log_weight, two.log_weight)


def test_an_improper_density_is_found_by_energies_alone():
    with pytest.raises(ns.InputError, match="not to be normalisable"):
        check_proper(NumpyDensity(lambda x: 0 * x[:, 0], 2), BASE, generator=seeded(0), walks=True)
    check_proper(NumpyDensity(Ridge(), 2), BASE, generator=seeded(0), walks=True)


def test_what_random_walks_cannot_do_is_refused():
    target = NumpyDensity(Ridge(), 2)
    with pytest.raises(ns.InputError, match=r'take random walks: DensityEffort\(kernel="walk"\) with a base'):
        ns.sample(target, base=BASE, method="ais")
    with pytest.raises(ns.InputError, match=r"kernel = 'walk' for none: got no base; pass base=Gaussian"):
        ns.sample(target, method="ais", effort=WALKS)
    for method in ("pt", "lsq", "nets"):
        with pytest.raises(ns.InputError, match=f"'walk' is for plain annealing and SMC: {method} asks for gradients"):
            ns.sample(target, base=BASE, method=method, effort=WALKS)
    with pytest.raises(ns.InputError, match="got reverse_steps = 40; set it to 0"):
        ns.sample(target, base=BASE, method="ais", effort=replace(WALKS, reverse_steps=40))
