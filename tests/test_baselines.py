"""Annealed importance sampling and adaptive SMC: right log Z, tuned as promised, frozen, and counted."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import DenseMass, DiagonalMass, Inertial, Langevin, SpectralMass, UnitMass
from nessampler.methods.density import smc as smc_module
from nessampler.methods.density.ais import IntervalDiffusion, Unadjusted, Underdamped, ais
from nessampler.methods.density.smc import Particles, smc
from nessampler.methods.density.tuning import (
    Hamiltonian,
    Masses,
    Walk,
    adaptive_times,
    conditional_effective_sample_size,
    dense,
    diagonal,
    mala,
    next_time,
    pilot,
)
from nessampler.paths import DifferentiablePath, LinearPath
from nessampler.targets import Gaussian
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.phi4 import FreeField, Phi4, lattice_momenta


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(mean: float, scale: float, d: int) -> Gaussian:
    return Gaussian(torch.full((d,), mean, dtype=torch.float64), torch.full((d,), scale, dtype=torch.float64))


def always_accept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1e-300, dtype=torch.float64))


class NoGradient:
    """A density from numpy: torch sees nothing of it."""

    event_shape = torch.Size([2])
    log_z = math.log(2 * math.pi * 0.5)

    def energy(self, x: Tensor) -> Tensor:
        y = x.numpy() - np.array([1.0, -0.5])
        return torch.from_numpy(0.5 * (y[:, 0] ** 2 + 4 * y[:, 1] ** 2))


# ---- times ---------------------------------------------------------------------------------------------------------


def test_the_next_time_loses_as_many_walkers_as_it_may():
    path, n = LinearPath(gaussian(0, 1, 3), gaussian(1, 0.2, 3)), 2_000
    walkers = Hamiltonian().kernel(path, 0.3, UnitMass()).start(0.0, path.start.sample(n, generator=seeded(0)))
    weight = torch.zeros(n, dtype=torch.float64)
    t = next_time(path, walkers, weight, 0.8)
    increment = t * (path.start.energy(walkers.x) - path.end.energy(walkers.x))
    assert abs(conditional_effective_sample_size(weight, increment) - 0.8) < 0.01
    assert next_time(path, walkers, weight, 1e-6) == 1.0


def test_times_of_constant_conditional_ess_make_all_steps_as_hard():
    path = LinearPath(gaussian(0, 1, 3), gaussian(1, 0.1, 3))
    kernel = Hamiltonian(leapfrog_steps=3)
    annealing = ais(path, steps=25, mover=kernel, generator=seeded(0))
    assert len(annealing.times) == 26

    def losses(times: tuple[float, ...]) -> Tensor:
        own = ais(path, times=times, mover=kernel, generator=seeded(1))
        assert own.times == times
        history = own.draw(1_000, generator=seeded(2)).history
        assert history is not None
        assert history.increment_ess is not None
        return 1 - history.increment_ess

    adapted, even = losses(annealing.times), losses(tuple(np.linspace(0, 1, 26).tolist()))
    assert float(adapted.max() / adapted.median()) < 2.5
    assert float(even.max() / even.median()) > 10  # negative control


def test_interpolated_times_keep_the_ends_and_the_order():
    path, generator = LinearPath(gaussian(0, 1, 2), gaussian(1, 0.3, 2)), seeded(0)
    x = path.start.sample(200, generator=generator)
    for steps in (1, 2, 200):
        times = adaptive_times(path, x, steps=steps, generator=seeded(1))
        assert len(times) == steps + 1
        assert (times[0], times[-1]) == (0.0, 1.0)
        assert all(b > a for a, b in pairwise(times))
    still = LinearPath(gaussian(0, 1, 2), gaussian(0, 1, 2))
    assert adaptive_times(still, x, steps=4, generator=seeded(1)) == (0.0, 0.25, 0.5, 0.75, 1.0)


# ---- step sizes and masses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mover", [mala(), mala(step_size=20.0), mala(step_size=1e-3), Walk(repeats=3)])
def test_acceptance_meets_its_target_all_along_the_path(mover):
    path = LinearPath(gaussian(0, 1, 10), gaussian(0.5, 0.4, 10))
    annealing = ais(path, steps=40, mover=mover, pilots=300, generator=seeded(0))
    history = annealing.draw(1_000, generator=seeded(1)).history
    assert history is not None
    assert float((history.acceptance - mover.acceptance).abs().max()) < 0.12
    assert abs(float(history.acceptance.mean()) - mover.acceptance) < 0.06


def test_trajectories_are_cut_before_they_turn_back():
    size = 6
    mass = SpectralMass(2 * (lattice_momenta(size, 2) + 0.5))
    path = LinearPath(FreeField.massive(size, mass_squared=0.5), Phi4(size, quartic=0.5, mass_squared=0.0))
    mover = Hamiltonian(leapfrog_steps=5, mass=mass)
    found = pilot(path, path.start.sample(500, generator=seeded(0)), mover, generator=seeded(1))
    # All modes of the free field oscillate together, with period 2π, and what the weights see, a square, with π.
    lengths = [5 * found.step_sizes(t) for t in found.times]
    assert all(abs(math.remainder(length, math.pi)) > 0.5 for length in lengths)
    assert min(found.acceptance) > 0.6


def test_masses_learned_from_walkers_are_their_precision():
    factor = torch.tensor([[2.0, 0.0], [1.5, 0.5]], dtype=torch.float64)
    x = torch.randn(20_000, 2, generator=seeded(0), dtype=torch.float64) @ factor.T + 3
    weight = torch.where(x[:, 0] > 3, 1.5, 0.5).double()
    mirrored = torch.cat([x, 6 - x])  # weights that add up to two for each pair leave the covariance alone
    weight = torch.cat([weight, 2 - weight]) / (2 * len(x))
    exact = factor @ factor.T
    mean = (weight[:, None] * mirrored).sum(0) - 3
    found = dense(mirrored, weight)
    torch.testing.assert_close(found.cholesky @ found.cholesky.T + torch.outer(mean, mean), exact, rtol=0.05, atol=0)
    assert isinstance(found, DenseMass)
    torch.testing.assert_close(diagonal(mirrored, weight).variance + mean**2, exact.diagonal(), rtol=0.05, atol=0)
    few = dense(x[:4], torch.full((4,), 0.25, dtype=torch.float64))  # correlations shrink, and stay positive definite
    assert bool(torch.isfinite(few.cholesky).all())
    lattice = diagonal(torch.randn(50, 3, 4, generator=seeded(1)), torch.full((50,), 0.02, dtype=torch.float64))
    assert lattice.variance.shape == (3, 4)
    masses = Masses((0.0, 0.4, 1.0), (UnitMass(), found, DiagonalMass(torch.ones(2))))
    assert masses(0.6) is found


# ---- annealed importance sampling ----------------------------------------------------------------------------------

MOVERS = {
    "hmc": Hamiltonian(leapfrog_steps=3),
    "hmc with mass": Hamiltonian(3, mass=DiagonalMass(torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64))),
    "mala": mala(repeats=2),
    "walk": Walk(repeats=3),
    "unadjusted": Unadjusted(),
    "unadjusted, scaled": Unadjusted(torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64), (0.5, 1.0)),
    "underdamped": Underdamped(),
    "underdamped, scaled": Underdamped(DiagonalMass(torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64))),
}


@pytest.mark.parametrize("name", MOVERS)
def test_annealing_is_unbiased_forwards_and_backwards(wells, name):
    annealing = ais(LinearPath(*wells), steps=8, mover=MOVERS[name], pilots=200, generator=seeded(0))
    exact = wells[1].log_z - wells[0].log_z
    forward = annealing.draw(6_000, generator=seeded(1))
    reverse = annealing.reverse(wells[1].sample(6_000, generator=seeded(2)), generator=seeded(3))
    for run, truth in ((forward, exact), (reverse, -exact)):
        assert run.log_z_error < 0.03
        assert abs(run.log_z_ratio - truth) < 4 * run.log_z_error
    assert abs(forward.log_z_ratio + exact) > 8 * forward.log_z_error  # the sign matters


@pytest.mark.parametrize("name", ["hmc", "unadjusted", "underdamped"])
def test_what_the_pilot_decided_is_frozen(wells, name):
    annealing, other = (
        ais(LinearPath(*wells), steps=5, mover=MOVERS[name], pilots=100, generator=seeded(seed)) for seed in (0, 1)
    )
    one, two = (annealing.draw(50, generator=seeded(5)) for _ in range(2))
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.log_weight, two.log_weight)
    assert not torch.equal(one.x, other.draw(50, generator=seeded(5)).x)


def test_unadjusted_steps_are_chosen_for_the_least_variance_of_work(wells):
    path = LinearPath(*wells)
    best = ais(path, steps=10, mover=Unadjusted(), generator=seeded(0)).draw(2_000, generator=seeded(1)).work.var()
    worse = ais(path, steps=10, mover=Unadjusted(factors=(0.02,)), generator=seeded(0))
    assert float(worse.draw(2_000, generator=seeded(1)).work.var()) > 1.5 * float(best)
    # Steps with which walkers run away are passed over, or refused where there are no others.
    wild = ais(path, steps=10, mover=Unadjusted(factors=(1e4, 0.25)), generator=seeded(0))
    assert isinstance(wild.kernel, Langevin)
    assert isinstance(wild.kernel.diffusion, IntervalDiffusion)
    assert wild.kernel.diffusion.factor == 0.25
    with pytest.raises(InputError, match="needs a stable step"):
        ais(path, steps=10, mover=Unadjusted(factors=(1e4,)), generator=seeded(0))


def test_underdamped_steps_keep_momenta_where_that_leaves_less_variance():
    """A soft direction, along which overdamped walkers creep."""
    soft = torch.tensor([1.0, 8.0], dtype=torch.float64)
    path = LinearPath(Gaussian(torch.zeros(2).double(), soft), Gaussian(torch.tensor([0.0, 12.0]).double(), soft))
    found, overdamped = (
        ais(path, steps=60, mover=Underdamped(**options), generator=seeded(0))
        for options in ({}, {"persistences": (0.0,)})
    )
    assert isinstance(found.kernel, Inertial)
    assert found.kernel.persistence > 0.5
    variances = [float(a.draw(1_000, generator=seeded(1)).work.var()) for a in (found, overdamped)]
    assert variances[0] < 0.7 * variances[1]
    with pytest.raises(InputError, match="needs a stable step"):
        ais(path, steps=10, mover=Underdamped(factors=(1e4,)), generator=seeded(0))


@pytest.mark.parametrize("precondition", [diagonal, dense])
def test_preconditioning_pays_on_a_stretched_target(precondition):
    scales = torch.tensor([0.02, 1.0, 3.0], dtype=torch.float64)
    path = LinearPath(
        Gaussian(torch.zeros(3, dtype=torch.float64), 1.5 * scales),
        Gaussian(torch.tensor([0.01, 0.5, 3.0], dtype=torch.float64), scales),
    )
    ess = [
        ais(path, steps=12, mover=Hamiltonian(3), precondition=p, generator=seeded(0))
        .draw(2_000, generator=seeded(1))
        .ess
        for p in (None, precondition)
    ]
    assert ess[1] > ess[0] + 0.1


def test_annealing_without_gradients_asks_for_none():
    path = LinearPath(gaussian(0, 1.5, 2), NoGradient())
    run = ais(path, steps=10, mover=Walk(), generator=seeded(0)).draw(4_000, generator=seeded(1))
    assert run.log_z_error < 0.02
    assert abs(run.log_z_ratio + path.start.log_z - NoGradient.log_z) < 4 * run.log_z_error


def test_unusable_recipes_are_refused(wells):
    path = LinearPath(*wells)
    with pytest.raises(InputError, match=r"`steps`.*or `times`: got both"):
        ais(path, steps=3, times=[0.0, 1.0], generator=seeded(0))
    with pytest.raises(InputError, match="at least one step: got 0"):
        ais(path, steps=0, generator=seeded(0))
    with pytest.raises(InputError, match=r"from t = 0 to t = 1: got times from 0\.0 to 0\.9"):
        ais(path, times=[0.0, 0.9], generator=seeded(0))
    with pytest.raises(InputError, match=r"in \(0, 1\): got 1\.0; try 0\.8"):
        ais(path, conditional_ess=1.0, generator=seeded(0))
    with pytest.raises(InputError, match=r"a density with `sample`: got .* choose a base"):
        ais(LinearPath(NoGradient(), NoGradient()), generator=seeded(0))
    with pytest.raises(InputError, match="at least 8 islands: got 3"):
        smc(path, islands=3, generator=seeded(0))
    for chains in (1, 7, 100):
        with pytest.raises(InputError, match=f"chains of {chains} for 100 particles"):
            smc(path, particles=100, waste_free=chains, generator=seeded(0))


# ---- sequential Monte Carlo ----------------------------------------------------------------------------------------

WAYS = {
    "hmc": {},
    "dense mass": {"precondition": dense},
    "walk": {"mover": Walk(), "precondition": diagonal},
    "waste-free": {"waste_free": 5},
    "waste-free walk": {"waste_free": 5, "mover": Walk(repeats=6)},
    "mala, given steps": {"mover": mala(repeats=2), "steps": 20},
}


@pytest.mark.parametrize("way", WAYS)
def test_log_z_of_a_shifted_gaussian_in_ten_dimensions(way):
    path = LinearPath(gaussian(0, 1, 10), gaussian(1, 0.6, 10))
    options = {"conditional_ess": 0.8, **WAYS[way]}
    result = smc(path, particles=160, islands=8, generator=seeded(1), **options)
    assert result.std_error < 0.15
    assert abs(result.log_z - path.end.log_z) < 4 * result.std_error
    assert abs(result.log_z - path.start.log_z) > 8 * result.std_error
    assert result.x.shape == (1_280, 10)
    assert len(result.acceptance) == len(result.step_size) == len(result.times) - 1
    mean, error = result.ensemble.expect(lambda x: x.mean(1))
    assert float(error) < 0.03
    assert abs(float(mean) - 1) < 4 * float(error)


def test_moves_that_do_not_keep_the_target_are_found_out(monkeypatch):
    path = LinearPath(gaussian(0, 1, 10), gaussian(1, 0.6, 10))
    times = tuple(np.linspace(0, 1, 15).tolist())
    right = smc(path, particles=200, islands=8, steps=14, mover=mala(), generator=seeded(0))
    assert len(right.times) == len(times)
    real = smc_module.simulate

    def broken(*args, **options):
        with monkeypatch.context() as patch:
            always_accept(patch)
            patch.setattr("nessampler.weights._uniform", lambda w, n, g: torch.full((n,), 0.5, dtype=torch.float64))
            return real(*args, **options)

    monkeypatch.setattr(smc_module, "simulate", broken)
    wrong = smc(path, particles=200, islands=8, steps=14, mover=mala(), generator=seeded(0))
    assert abs(wrong.log_z - path.end.log_z) > 8 * right.std_error


@pytest.mark.parametrize("way", ["hmc", "waste-free"])
def test_a_mixture_of_eight_modes_is_found_with_its_log_z_and_weights(way):
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 6 * torch.stack([angle.cos(), angle.sin()], 1)
    share = torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    mixture = GaussianMixture(means, torch.full((8,), 0.7, dtype=torch.float64), share)
    path = LinearPath(gaussian(0, 5, 2), mixture)
    result = smc(path, particles=400, islands=10, generator=seeded(0), **WAYS[way])
    assert result.std_error < 0.08
    assert abs(result.log_z) < 4 * result.std_error
    found, error = result.ensemble.expect(
        lambda x: torch.nn.functional.one_hot(mixture.modes(x).long(), 8).to(torch.float64)
    )
    assert float(error.max()) < 0.06
    assert float(((found - share / 12) / error).abs().max()) < 4
    assert float(((found - 1 / 8) / error).abs().max()) > 4  # equal weights would not pass


def test_particles_on_a_lattice_take_the_mass_they_are_given():
    size, mass_squared = 4, 0.5
    base, target = (FreeField.massive(size, mass_squared=m) for m in (2.0, mass_squared))
    mover = Hamiltonian(3, mass=SpectralMass(2 * (lattice_momenta(size, 2) + mass_squared)))
    for options in ({}, {"waste_free": 4}):
        result = smc(LinearPath(base, target), particles=100, islands=10, mover=mover, generator=seeded(0), **options)
        assert result.x.shape == (1_000, size, size)
        assert result.std_error < 0.12
        assert abs(result.log_z - target.log_z) < 4 * result.std_error


@pytest.mark.parametrize("waste_free", [None, 5])
def test_paths_that_only_autograd_differentiates_work_too(waste_free):
    start, end = gaussian(0, 1, 2), gaussian(1, 0.5, 2)
    path = DifferentiablePath(
        start, end, lambda t, x: 0.5 * ((x - t[:, None]) / (1 - 0.5 * t[:, None])).square().sum(-1)
    )
    result = smc(path, particles=200, generator=seeded(0), waste_free=waste_free)
    assert result.std_error < 0.06
    assert abs(result.log_z - end.log_z) < 4 * result.std_error


def test_evaluations_of_sampling_are_counted():
    path = LinearPath(gaussian(0, 1, 3), gaussian(1, 0.6, 3))
    plain = smc(path, particles=50, mover=Hamiltonian(4, repeats=2), steps=6, generator=seeded(0))
    assert plain.evaluations["sampling"].gradient == 400 * (1 + 6 * 2 * 4)
    assert plain.evaluations["sampling"].energy == 0
    chains = smc(path, particles=50, mover=Hamiltonian(4), steps=6, waste_free=5, generator=seeded(0))
    assert chains.evaluations["sampling"].gradient == 400 + 6 * 80 * 4 * 4
    assert plain.evaluations["pilot"].gradient > 0


def test_thinned_ancestors_are_systematic_ones():
    log_weight = torch.tensor([0.3, -1.0, 1.2, 0.0, -2.0, 0.7, -0.5, 0.1], dtype=torch.float64)
    expected, generator = 2 * torch.softmax(log_weight, 0), seeded(0)

    def offspring(thin) -> Tensor:
        return torch.stack([torch.bincount(thin(), minlength=8) for _ in range(3_000)]).double()

    counts = offspring(lambda: smc_module._ancestors(log_weight, 4, generator))
    assert bool((counts.sum(1) == 2).all())
    assert bool(((counts - expected).abs() < 1).all())  # floor or ceiling of the mean

    def worst(counts: Tensor) -> float:
        return float(((counts.mean(0) - expected) / (counts.std(0) / math.sqrt(3_000) + 1e-3)).abs().max())

    assert worst(counts) < 4
    every = smc_module.systematic
    weights = torch.softmax(log_weight, 0)
    assert worst(offspring(lambda: every(weights, generator=generator)[::4])) > 8


def test_errors_over_seeds_are_calibrated_and_runs_repeat():
    path, z = LinearPath(gaussian(0, 1, 2), gaussian(1, 0.5, 2)), []

    def run(seed: int) -> Particles:
        return smc(
            path,
            particles=40,
            islands=10,
            steps=3,
            mover=mala(),
            pilots=100,
            conditional_ess=0.5,
            generator=seeded(seed),
        )

    for seed in range(30):
        result = run(seed)
        assert result.std_error < 0.3
        z.append((result.log_z - path.end.log_z) / result.std_error)
    assert abs(np.mean(z)) < 4 * 1.13 / math.sqrt(30)
    assert 0.54 < np.std(z) < 1.72  # t with 9 degrees of freedom: 1.13 ± 4 standard errors
    assert torch.equal(run(29).x, result.x)
