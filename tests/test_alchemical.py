"""Alchemical systems and paths: OpenMM's energies and slopes, known ends, known ΔF by three routes, bad input."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

openmm = pytest.importorskip("openmm")
pytest.importorskip("openmmtools")

from openmm import app, unit  # noqa: E402
from openmm_reference import perturbed, reference  # noqa: E402

from nessampler.errors import InputError  # noqa: E402
from nessampler.estimators import FreeEnergy, bar  # noqa: E402
from nessampler.estimators.integration import GaussRule, thermodynamic_integration  # noqa: E402
from nessampler.estimators.multistate import mbar  # noqa: E402
from nessampler.fields import PathScore  # noqa: E402
from nessampler.kernels import Langevin  # noqa: E402
from nessampler.methods.density.ais import ais  # noqa: E402
from nessampler.methods.density.dictionaries import default_dictionary  # noqa: E402
from nessampler.methods.density.effort import DensityEffort  # noqa: E402
from nessampler.methods.density.problem import DensityProblem  # noqa: E402
from nessampler.methods.density.sample import sample_density  # noqa: E402
from nessampler.methods.staged import Staged, staged  # noqa: E402
from nessampler.molecular import (  # noqa: E402
    TorchForceField,
    TorchForceFieldTarget,
    alchemical,
    load_structure,
    parameterize,
)
from nessampler.molecular.alchemical import AlchemicalPath, PiecewiseLinear, alchemical_system  # noqa: E402
from nessampler.molecular.force_field import thermal_energy  # noqa: E402
from nessampler.molecular.state_dynamics import LangevinStates  # noqa: E402
from nessampler.paths import AnnealingPath, LinearPath, PathPoint  # noqa: E402
from nessampler.runs import catalogue  # noqa: E402
from nessampler.simulate import simulate  # noqa: E402

# openmmtools' files have the radii of another solvent model
pytestmark = pytest.mark.filterwarnings("ignore:Non-optimal GB parameters:UserWarning")

TEMPERATURE = 300.0
KT = thermal_energy(TEMPERATURE)
BENZENE, TOLUENE = range(12), range(12, 27)
TIMES = torch.tensor([0.0, 0.2, 0.5, 0.7, 1.0], dtype=torch.float64)


def amber(name: str) -> str:
    from openmmtools.testsystems import get_data_filename

    return get_data_filename(f"data/benzene-toluene-implicit/{name}")


def two_molecules(solvent: Any = None) -> tuple[openmm.System, Tensor]:
    """Benzene and toluene beside one another."""
    file = app.AmberPrmtopFile(amber("complex.prmtop"))
    system = file.createSystem(constraints=None, rigidWater=False, implicitSolvent=solvent)
    positions = app.AmberInpcrdFile(amber("complex.inpcrd")).getPositions(asNumpy=True)
    return system, perturbed(positions.value_in_unit(unit.nano * unit.meter), 2, 0.005)


def only(force: Any, cls: type) -> Any:
    (found,) = (f for f in force.getForces() if isinstance(f, cls))
    return found


SOLVENTS = {"vacuum": None, "HCT": app.HCT, "OBC2": app.OBC2, "GBn2": app.GBn2}


# --- energies and slopes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solvent", SOLVENTS.values(), ids=SOLVENTS)
@pytest.mark.parametrize("values", [(0.7, 1.0), (0.0, 0.4), (0.3, 0.6)])
def test_energies_and_slopes_are_those_of_openmm(solvent: Any, values: tuple[float, float]) -> None:
    plain, x = two_molecules(solvent)
    system = alchemical_system(plain, TOLUENE)
    names = ("lambda_electrostatics", "lambda_sterics")
    constant = {n: (lambda t, v=v: torch.full_like(t, v)) for n, v in zip(names, values, strict=True)}
    path = AlchemicalPath(system, TEMPERATURE, constant)
    found, t = path.slopes(torch.zeros(2), x), torch.zeros(2)
    energy, slopes = with_parameter_derivatives(system, x, dict(zip(names, values, strict=True)))
    torch.testing.assert_close(path.energy(t, x) * KT, energy, rtol=1e-9, atol=0)
    for name in names:
        torch.testing.assert_close(found[name] * KT, slopes[name], rtol=1e-9, atol=1e-9)
        assert (1.000001 * found[name] * KT - slopes[name]).abs().max() > 1e-6  # the test can see it


def with_parameter_derivatives(
    system: openmm.System, x: Tensor, values: dict[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Energies and their derivatives in global parameters by OpenMM, kJ/mol."""
    system = deepcopy(system)
    for force in system.getForces():
        if hasattr(force, "addEnergyParameterDerivative"):
            have = [force.getGlobalParameterName(k) for k in range(force.getNumGlobalParameters())]
            for name in values:
                if name in have:
                    force.addEnergyParameterDerivative(name)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"), {})
    for name, value in values.items():
        context.setParameter(name, value)
    energies, slopes = [], []
    for positions in x.numpy():
        context.setPositions(positions)
        state = context.getState(getEnergy=True, getParameterDerivatives=True)
        energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
        slopes.append(dict(state.getEnergyParameterDerivatives()))
    return torch.tensor(energies, dtype=torch.float64), {
        name: torch.tensor([s[name] for s in slopes], dtype=torch.float64) for name in values
    }


def test_one_evaluation_gives_energy_score_and_time_derivative() -> None:
    plain, x = two_molecules(app.OBC2)
    path = AlchemicalPath(alchemical_system(plain, TOLUENE), TEMPERATURE)
    x, t = torch.cat([x, x[:1]]), torch.tensor([0.1, 0.3, 0.8], dtype=torch.float64)  # on either side of the knot
    point = path.evaluate(t, x)
    energy, score = path.energy_and_score(t, x)
    torch.testing.assert_close(point.energy, energy)
    torch.testing.assert_close(point.score, score, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(path.energy(t, x), energy)
    h = 1e-4
    near, far = (path.energy(t + k * h, x) - path.energy(t - k * h, x) for k in (1, 2))
    expected = (8 * near - far) / (12 * h)
    torch.testing.assert_close(point.time_derivative, expected, rtol=1e-6, atol=0)
    assert (1.0001 * point.time_derivative - expected).abs().max() > 1e-6 * expected.abs().max()


def test_walkers_in_chunks_have_the_slopes_of_one_piece() -> None:
    plain, x = two_molecules()
    system, t = alchemical_system(plain, TOLUENE), torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    x = torch.cat([x, x, x, x])[:7]
    whole, cut = (AlchemicalPath(system, TEMPERATURE, chunk_size=size).evaluate(t, x) for size in (None, 3))
    for a, b in zip(whole[:3], cut[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("solvent", [None, app.HCT], ids=["vacuum", "HCT"])
def test_energies_of_many_states_are_those_of_each(solvent: Any) -> None:
    plain, x = two_molecules(solvent)
    path = AlchemicalPath(alchemical_system(plain, TOLUENE), TEMPERATURE)
    expected = torch.stack([path.energy(t.expand(2), x) for t in TIMES])
    torch.testing.assert_close(path.energies(x, TIMES), expected, rtol=1e-12, atol=1e-9)


def test_bonded_forces_are_evaluated_once_for_all_states(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, x = two_molecules(app.HCT)
    path = AlchemicalPath(alchemical_system(plain, TOLUENE), TEMPERATURE)
    calls = []
    energy = TorchForceField.energy
    monkeypatch.setattr(TorchForceField, "energy", lambda self, x, **k: calls.append(k) or energy(self, x, **k))
    path.energies(x, torch.linspace(0.0, 1.0, 9))
    assert len(calls) == 1 + 5 + 5  # what is never scaled; five values of either λ


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solvent", SOLVENTS.values(), ids=SOLVENTS)
def test_the_start_is_the_plain_system(solvent: Any) -> None:
    plain, x = two_molecules(solvent)
    path = AlchemicalPath(alchemical_system(plain, TOLUENE), TEMPERATURE)
    # openmmtools rounds Coulomb's constant where it rewrites a GBSAOBCForce
    tolerance = 1e-6 if solvent is app.OBC2 else 1e-10
    torch.testing.assert_close(
        path.start.energy(x), TorchForceFieldTarget(plain, TEMPERATURE).energy(x), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("solvent", [None, app.OBC2, app.HCT], ids=["vacuum", "OBC2", "HCT"])
def test_the_end_is_benzene_in_its_solvent_and_a_chargeless_toluene_in_vacuum(solvent: Any) -> None:
    plain, x = two_molecules(solvent)
    path = AlchemicalPath(alchemical_system(plain, TOLUENE), TEMPERATURE)
    alone = [molecule("receptor.prmtop"), molecule("solvent.prmtop")]
    without_charges(only(alone[1], openmm.NonbondedForce))
    if solvent is not None:
        alone[0].addForce(first_atoms(plain, 12))
    parts = (TorchForceFieldTarget(s, TEMPERATURE) for s in alone)
    expected = sum(p.energy(y) for p, y in zip(parts, (x[:, BENZENE], x[:, TOLUENE]), strict=True))
    tolerance = 1e-5 if solvent is app.OBC2 else 1e-10
    torch.testing.assert_close(path.end.energy(x), expected, rtol=0, atol=tolerance)
    moved = x + 0.1 * (torch.arange(27) >= 12)[:, None]
    torch.testing.assert_close(path.end.energy(moved), expected, rtol=0, atol=tolerance)
    assert (path.start.energy(moved) - path.start.energy(x)).abs().min() > 0.1  # toluene is seen at the start


def molecule(name: str) -> openmm.System:
    return app.AmberPrmtopFile(amber(name)).createSystem(constraints=None, rigidWater=False)


def without_charges(force: Any) -> None:
    for k in range(force.getNumParticles()):
        _, sigma, epsilon = force.getParticleParameters(k)
        force.setParticleParameters(k, 0.0, sigma, epsilon)
    for k in range(force.getNumExceptions()):
        i, j, _, sigma, epsilon = force.getExceptionParameters(k)
        force.setExceptionParameters(k, i, j, 0.0, sigma, epsilon)


def first_atoms(system: openmm.System, n: int) -> openmm.Force:
    """The implicit solvent of the first atoms alone, with the parameters that they have in the system."""
    (found,) = (f for f in system.getForces() if isinstance(f, openmm.CustomGBForce | openmm.GBSAOBCForce))
    rows = [found.getParticleParameters(k) for k in range(n)]
    if isinstance(found, openmm.GBSAOBCForce):
        copy = openmm.GBSAOBCForce()
        copy.setSolventDielectric(found.getSolventDielectric())
        for row in rows:
            copy.addParticle(*row)
        return copy
    copy = openmm.CustomGBForce()
    for k in range(found.getNumPerParticleParameters()):
        copy.addPerParticleParameter(found.getPerParticleParameterName(k))
    for k in range(found.getNumComputedValues()):
        copy.addComputedValue(*found.getComputedValueParameters(k))
    for k in range(found.getNumEnergyTerms()):
        copy.addEnergyTerm(*found.getEnergyTermParameters(k))
    for row in rows:
        copy.addParticle(row)
    return copy


def test_options_reach_openmmtools() -> None:
    plain, x = two_molecules()
    every = {"bonds": True, "angles": True, "torsions": True, "annihilate_sterics": True, "softcore": {"alpha": 0.3}}
    system = alchemical_system(plain, TOLUENE, **every)  # pyright: ignore[reportArgumentType]
    names = [f"lambda_{what}" for what in ("electrostatics", "sterics", "bonds", "angles", "torsions")]
    off = TorchForceField(system)(x, **dict.fromkeys(names, 0.0))
    benzene = TorchForceField(molecule("receptor.prmtop"))(x[:, BENZENE])
    improper = off - benzene  # openmmtools leaves the impropers
    assert (improper >= 0).all()
    assert (improper < 3).all()
    soft, hard = (
        AlchemicalPath(alchemical_system(plain, TOLUENE, softcore={"alpha": a}), TEMPERATURE) for a in (0.5, 0.3)
    )
    t = torch.full((2,), 0.75, dtype=torch.float64)
    assert (soft.energy(t, x) - hard.energy(t, x)).abs().min() > 1e-3


# --- exact differences -----------------------------------------------------------------------------------------------

K0, K1, TILT = 200.0, 900.0, 60.0
SPRING_PROTOCOL = {"stiffness": ((0.0, K0), (0.5, K1), (1.0, K1)), "tilt": ((0.0, 0.0), (0.5, 0.0), (1.0, TILT))}
SPRING_DELTA_F = 1.5 * math.log(K1 / K0) - TILT**2 / (2 * K1 * KT)


def spring() -> openmm.System:
    """An atom in a well that gets stiffer, and then is pulled at."""
    system = openmm.System()
    system.addParticle(12.0)
    for expression, name in (("0.5*stiffness*(x^2+y^2+z^2)", "stiffness"), ("tilt*x", "tilt")):
        force = openmm.CustomExternalForce(expression)
        force.addGlobalParameter(name, 1.0)
        force.addParticle(0, [])
        system.addForce(force)
    return system


def spring_samples(t: float, n: int, generator: torch.Generator) -> Tensor:
    k, f = (float(PiecewiseLinear(knots)(torch.tensor(t))) for knots in SPRING_PROTOCOL.values())
    noise = torch.randn(n, 1, 3, generator=generator, dtype=torch.float64)
    return noise * math.sqrt(KT / k) - torch.tensor([f / k, 0.0, 0.0])


def independent(draws: int = 400) -> Callable[..., Tensor]:
    def sampler(times: Tensor, *, generator: torch.Generator) -> Tensor:
        return torch.stack([spring_samples(float(t), 4 * draws, generator).view(4, draws, 1, 3) for t in times])

    return sampler


class Blind:
    """A path that forgot a force when it took the time derivative."""

    def __init__(self, path: AlchemicalPath, name: str) -> None:
        self.path, self.name, self.start, self.end, self.breaks = path, name, path.start, path.end, path.breaks

    def energy(self, t: Tensor, x: Tensor) -> Tensor:
        return self.path.energy(t, x)

    def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.path.energy_and_score(t, x)

    def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
        time = t.clone().requires_grad_()
        (rate,) = torch.autograd.grad(self.path.parameters(time)[self.name].sum(), time)
        point = self.path.evaluate(t, x)
        return point._replace(time_derivative=point.time_derivative - rate * self.path.slopes(t, x)[self.name])


def z_score(found: FreeEnergy, exact: float, largest_error: float) -> float:
    assert found.delta_f is not None
    assert found.std_error is not None
    assert found.std_error < largest_error
    return abs(found.delta_f - exact) / found.std_error


def test_integration_and_mbar_find_the_exact_difference() -> None:
    path = AlchemicalPath(spring(), TEMPERATURE, SPRING_PROTOCOL)
    found = staged(path, independent(), points=5, generator=torch.Generator().manual_seed(0))
    for one in (found.integration, found.multistate):
        assert z_score(one, SPRING_DELTA_F, 0.03) < 4
        assert z_score(one, SPRING_DELTA_F + 0.15, 0.03) > 4  # neither is too wide to see a wrong answer
        assert one.trusted, one
    blind = staged(Blind(path, "tilt"), independent(), points=5, generator=torch.Generator().manual_seed(0))
    assert z_score(blind.integration, SPRING_DELTA_F, 0.03) > 4


def test_errors_of_both_estimators_are_of_the_size_of_their_deviations() -> None:
    path = AlchemicalPath(spring(), TEMPERATURE, SPRING_PROTOCOL)
    scores = []
    for seed in range(24):
        found = staged(path, independent(60), points=4, generator=torch.Generator().manual_seed(seed))
        scores.append([(f.delta_f - SPRING_DELTA_F) / f.std_error for f in (found.integration, found.multistate)])  # pyright: ignore
    rms = np.sqrt(np.square(scores).mean(0))
    assert (rms < 1.6).all()  # χ² of 24: one in 10 000 is larger
    assert (rms > 0.4).all()


def test_switching_in_both_directions_finds_the_exact_difference() -> None:
    path = AlchemicalPath(spring(), TEMPERATURE, SPRING_PROTOCOL)
    generator = torch.Generator().manual_seed(1)
    ends = [spring_samples(t, 2000, generator) for t in (0.0, 1.0)]
    times = torch.linspace(0, 1, 21).tolist()
    kernel = Langevin(PathScore(path), diffusion=10 * KT / K1)
    forward, reverse = (
        simulate(kernel, path, grid, x, generator=generator).work
        for grid, x in zip((times, times[::-1]), ends, strict=True)
    )
    assert z_score(bar(forward, reverse), SPRING_DELTA_F, 0.03) < 4
    untilted = SPRING_DELTA_F + TILT**2 / (2 * K1 * KT)
    assert z_score(bar(forward, reverse), untilted, 0.03) > 4


def test_annealing_starts_from_samples_and_finds_the_exact_difference() -> None:
    generator = torch.Generator().manual_seed(2)
    samples = spring_samples(0.0, 3000, generator)
    path = AlchemicalPath(spring(), TEMPERATURE, SPRING_PROTOCOL, samples=samples)
    assert isinstance(path, AnnealingPath)
    annealing = ais(path, steps=8, pilots=200, generator=generator)
    ensemble = annealing.draw(2000, generator=generator)
    assert annealing.base_log_z == 0
    assert ensemble.log_z_error < 0.05
    assert abs(-ensemble.log_z_ratio - SPRING_DELTA_F) < 4 * ensemble.log_z_error
    assert abs(ensemble.log_z_ratio - SPRING_DELTA_F) > 4 * ensemble.log_z_error
    with pytest.raises(InputError, match="sample more"):
        path.start.sample(3001, generator=generator)  # pyright: ignore[reportAttributeAccessIssue]
    assert len(torch.unique(path.start.sample(3000, generator=generator)[:, 0, 0])) == 3000  # pyright: ignore


@pytest.mark.parametrize("t", [0.2, 0.7])
def test_the_exact_drift_solves_the_equation_that_nets_learns_from(t: float) -> None:
    """∇·b - ∇U·b - ∂U/∂t = -dF/dt for every x, if b carries the density along."""
    path = AlchemicalPath(spring(), TEMPERATURE, SPRING_PROTOCOL)
    k, f, k_rate, f_rate = (K0 + 2 * t * (K1 - K0), 0.0, 2 * (K1 - K0), 0.0)
    if t > 0.5:
        k, f, k_rate, f_rate = K1, (2 * t - 1) * TILT, 0.0, 2 * TILT
    center, shift = (torch.tensor([-value / k, 0.0, 0.0]) for value in (f, f_rate))
    x = perturbed(np.zeros((1, 3)), 50, 0.1)
    velocity, divergence = shift - k_rate / (2 * k) * (x - center), -1.5 * k_rate / k
    point = path.evaluate(torch.full((50,), t, dtype=torch.float64), x)
    residual = divergence + (point.score * velocity).sum((1, 2)) - point.time_derivative
    rate = 1.5 * k_rate / k - f * f_rate / (k * KT)
    torch.testing.assert_close(residual, torch.full_like(residual, -rate), rtol=1e-6, atol=0)


# --- a pair of charged atoms, by quadrature --------------------------------------------------------------------------

SIGMA, EPSILON, CHARGE, TETHER = 0.3, 1.0, 0.15, 60.0


def pair() -> openmm.System:
    """Two atoms of opposite charges on a spring, which is not switched off."""
    system, tether, force = openmm.System(), openmm.HarmonicBondForce(), openmm.NonbondedForce()
    tether.addBond(0, 1, 0.0, TETHER)
    for sign in (1, -1):
        system.addParticle(12.0)
        force.addParticle(sign * CHARGE, SIGMA, EPSILON)
    system.addForce(tether)
    system.addForce(force)
    return system


def pair_delta_f() -> float:
    """By the integral over the distance."""
    r = np.linspace(1e-4, 2.5, 200_001)
    tether = 0.5 * TETHER * r**2
    together = tether + 4 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6) - 138.935456 * CHARGE**2 / r
    # At a distance of a hundredth of σ a walker would see the charges and not the core: no such distance occurs.
    z = [np.trapezoid(r**2 * np.exp(-u / KT), r) for u in (together, tether)]
    return math.log(z[0] / z[1])


@pytest.fixture(scope="module")
def coupled() -> tuple[AlchemicalPath, LangevinStates]:
    path = AlchemicalPath(alchemical_system(pair(), [1]), TEMPERATURE)
    start = torch.tensor([[0.0, 0.0, 0.0], [0.34, 0.0, 0.0]], dtype=torch.float64)
    return path, LangevinStates(
        path,
        path.masses,
        TEMPERATURE,
        start,
        timestep=0.02,
        friction=3.0,
        chains=96,
        equilibration=2.0,
        production=8.0,
        interval=0.1,
    )


@pytest.fixture(scope="module")
def by_stages(coupled: tuple[AlchemicalPath, LangevinStates]) -> Staged:
    return staged(*coupled, points=7, generator=torch.Generator().manual_seed(3))


def test_the_quadrature_is_that_of_openmms_energies() -> None:
    x = torch.tensor([[[0.0, 0.0, 0.0], [0.31, 0.0, 0.0]]], dtype=torch.float64)
    r = 0.31
    expected = 0.5 * TETHER * r**2 + 4 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6) - 138.935456 * CHARGE**2 / r
    total = sum(float(energy) for energy, _ in reference(pair(), x).values())
    assert total == pytest.approx(expected, rel=1e-7)


def test_dynamics_at_every_state_finds_the_difference_by_quadrature(by_stages: Staged) -> None:
    exact = pair_delta_f()
    assert abs(exact) > 0.5
    for one in (by_stages.integration, by_stages.multistate):
        assert z_score(one, exact, 0.08) < 4
        assert z_score(one, -exact, 0.08) > 4
        assert one.trusted, one
    assert max(by_stages.inefficiency) > 1.5  # draws are correlated, and it is known
    assert by_stages.spent.gradient == 14 * 96 * 80


def test_every_state_is_sampled_with_the_variance_of_its_own_well() -> None:
    path = AlchemicalPath(spring(), TEMPERATURE, SPRING_PROTOCOL)
    pace = {"timestep": 0.02, "friction": 3.0, "equilibration": 2.0, "production": 8.0, "interval": 2.0}
    dynamics = LangevinStates(path, path.masses, TEMPERATURE, torch.zeros(1, 3), chains=600, **pace)
    draws = dynamics(torch.tensor([0.0, 0.25, 0.5]), generator=torch.Generator().manual_seed(5))
    for stiffness, x in zip((K0, (K0 + K1) / 2, K1), draws, strict=True):
        square = x.square().flatten() * stiffness / KT
        error = float(square.std()) / math.sqrt(len(square))
        assert error < 0.02
        assert abs(float(square.mean()) - 1) < 4 * error
        assert abs(float(square.mean()) - 1 / 0.9) > 4 * error  # forces a tenth too small would be seen


def test_switching_agrees_with_the_stages(coupled: tuple[AlchemicalPath, LangevinStates], by_stages: Staged) -> None:
    path, dynamics = coupled
    generator = torch.Generator().manual_seed(4)
    once = replace(dynamics, chains=600, equilibration=3.0, production=0.4)
    ends = once(torch.tensor([0.0, 1.0]), generator=generator)[:, :, -1]
    times = torch.linspace(0, 1, 41).tolist()
    kernel = Langevin(PathScore(path), diffusion=0.015)
    forward, reverse = (
        simulate(kernel, path, grid, x, generator=generator).work
        for grid, x in zip((times, times[::-1]), ends, strict=True)
    )
    found, staged_ = bar(forward, reverse), by_stages.multistate
    assert z_score(found, pair_delta_f(), 0.12) < 4
    both = math.hypot(found.std_error, staged_.std_error)  # pyright: ignore[reportArgumentType]
    assert abs(found.delta_f - staged_.delta_f) < 4 * both  # pyright: ignore[reportOperatorIssue]


# --- two force fields, and the catalogue -----------------------------------------------------------------------------

TOLUENE_FOLDER = catalogue.root() / "toluene-solvation"


def toluene(*files: str) -> openmm.System:
    structure = load_structure(TOLUENE_FOLDER / "toluene.pdb")
    return parameterize(structure, ["toluene-gaff.xml", *files], folder=TOLUENE_FOLDER)


def test_a_linear_path_joins_two_force_fields() -> None:
    x = perturbed(load_structure(TOLUENE_FOLDER / "toluene.pdb").positions, 3, 0.01)
    ends = [TorchForceFieldTarget(toluene(*f), TEMPERATURE) for f in ((), ("implicit/obc2.xml",))]
    path, t = LinearPath(*ends), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    a, b = (end.energy(x) for end in ends)
    point = path.evaluate(t, x)
    torch.testing.assert_close(point.energy, (1 - t) * a + t * b)
    torch.testing.assert_close(point.time_derivative, b - a)
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(path.energy(t, position).sum(), position)
    torch.testing.assert_close(point.score, -gradient)
    masses = torch.full((15,), 12.0)
    dynamics = LangevinStates(
        path, masses, TEMPERATURE, x[0], chains=2, equilibration=0.0, production=0.032, interval=0.008
    )
    draws = dynamics(torch.tensor([0.2, 0.9]), generator=torch.Generator().manual_seed(0))
    assert draws.shape == (2, 2, 4, 15, 3)
    assert dynamics.steps == 32
    assert bool(torch.isfinite(draws).all())


def test_toluene_of_the_catalogue_is_that_of_openmmtools() -> None:
    x = perturbed(load_structure(TOLUENE_FOLDER / "toluene.pdb").positions, 3, 0.02)
    mine, theirs = (TorchForceField(s).energy_by_force(x) for s in (toluene(), molecule("solvent.prmtop")))
    assert set(mine) == set(theirs)
    for name, energy in mine.items():
        torch.testing.assert_close(energy, theirs[name], rtol=1e-8, atol=0)


def test_toluene_has_the_same_atoms_in_openmmtools() -> None:
    structure = load_structure(TOLUENE_FOLDER / "toluene.pdb")
    theirs = app.AmberPrmtopFile(amber("solvent.prmtop")).topology
    assert [a.name for a in structure.topology.atoms()] == [a.name for a in theirs.atoms()]


# --- estimators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", [2, 3, 6])
def test_a_gauss_rule_is_exact_to_its_degree(points: int) -> None:
    rule = GaussRule(points, (0.0, 0.3, 1.0))
    degree = 2 * points - 1
    t = np.array(rule.nodes)
    assert rule.integral(list(t**degree)) == pytest.approx(1 / (degree + 1), abs=1e-14)
    assert rule.integral(list(np.abs(t - 0.3))) == pytest.approx((0.3**2 + 0.7**2) / 2, abs=1e-14)
    assert rule.integral(list(t ** (degree + 1))) != pytest.approx(1 / (degree + 2), abs=1e-14)


def test_a_slope_that_is_too_steep_for_its_nodes_is_flagged() -> None:
    rng, rule = np.random.default_rng(0), GaussRule(4)
    steep = [1 / (t + 0.001) + 0.01 * rng.normal(size=1000) for t in rule.nodes]
    found = thermodynamic_integration(steep, rule)
    assert [flag.code for flag in found.flags] == ["coarse_integration"]
    assert abs(found.delta_f - math.log(1001)) < 4 * found.std_error  # pyright: ignore
    smooth = [math.exp(t) + rng.normal(size=1000) for t in rule.nodes]
    assert thermodynamic_integration(smooth, rule).trusted


def test_mbar_of_two_states_is_bennetts() -> None:
    rng = np.random.default_rng(1)
    x = [rng.normal(size=900), 0.8 + 0.7 * rng.normal(size=500)]
    joined = np.concatenate(x)
    u = np.stack([0.5 * joined**2, 0.5 * ((joined - 0.8) / 0.7) ** 2])
    found, work = mbar(u, [900, 500]), u[1] - u[0]
    expected = bar(work[:900], -work[900:])
    assert found.delta_f == pytest.approx(expected.delta_f, abs=1e-6)
    assert found.std_error == pytest.approx(expected.std_error, rel=0.1)
    assert found.overlap == pytest.approx(expected.overlap, abs=1e-6)


def test_states_that_do_not_meet_are_flagged() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=400), 7 + rng.normal(size=400)])
    u = np.stack([0.5 * (x - c) ** 2 for c in (-7.0, 0.0, 7.0, 14.0)])
    assert [f.code for f in mbar(u, [0, 400, 400, 0]).flags] == ["poor_overlap", "far_end", "far_end"]


@pytest.mark.parametrize(
    ("energies", "counts", "message"),
    [
        (np.zeros((2, 5)), [2, 2], r"\(2, 5\)"),
        (np.zeros((2, 4)), [4, 0], "two states"),
        (np.array([[0.0, np.nan], [0.0, 0.0]]), [1, 1], "sample 1"),
    ],
)
def test_bad_energies_are_refused(energies: np.ndarray, counts: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mbar(energies, counts)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        ([], {}, "at least one"),
        ([0, 0], {}, "different"),
        ([0, 2], {}, "below 2"),
        ([1], {"softcore": {"gamma": 1.0}}, "alpha.*gamma"),
    ],
)
def test_alchemical_atoms_that_cannot_be_are_refused(atoms: list[int], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        alchemical_system(pair(), atoms, **options)


def test_a_solvent_that_openmmtools_would_replace_is_refused() -> None:
    plain, _ = two_molecules(app.OBC2)
    only(plain, openmm.GBSAOBCForce).setSurfaceAreaEnergy(0.0)
    with pytest.raises(InputError, match=r"surface energy.*got 0"):
        alchemical_system(plain, TOLUENE)


def test_openmmtools_is_imported_for_a_system_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openmmtools", "openmmtools.alchemy"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = spec_from_file_location("imported_again", alchemical.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, again)
    spec.loader.exec_module(again)
    with pytest.raises(InputError, match=r"nessampler\[alchemy\]"):
        again.alchemical_system(pair(), [1])


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({}, "none"),
        ({"lambda_bonds": ((0.0, 1.0), (1.0, 0.0))}, "reads, stiffness, tilt: got 'lambda_bonds'"),
        ({"stiffness": ((0.0, 1.0), (0.5, 0.0))}, "from 0 to 1"),
        ({"stiffness": ((0.0, 1.0), (0.6, 0.0), (0.6, 1.0), (1.0, 0.0))}, "rising"),
        ({"stiffness": ((0.0, 1.0), (1.0, math.nan))}, "finite"),
        ({"stiffness": lambda t: 1.0}, "of stiffness gave 1.0"),
    ],
)
def test_protocols_that_cannot_be_are_refused(protocol: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AlchemicalPath(spring(), TEMPERATURE, protocol)


def test_a_sampler_of_another_shape_is_refused() -> None:
    path = AlchemicalPath(spring(), TEMPERATURE, SPRING_PROTOCOL)
    with pytest.raises(InputError, match="states, chains, draws"):
        staged(path, lambda times, *, generator: torch.zeros(3, 1, 3), generator=torch.Generator())
    with pytest.raises(InputError, match="an interval of"):
        LangevinStates(path, path.masses, TEMPERATURE, torch.zeros(1, 3), timestep=0.01, interval=0.001)


def test_a_parameter_that_a_force_without_expression_shares_stays_one() -> None:
    system = spring()
    charges = openmm.NonbondedForce()
    charges.addGlobalParameter("share", 1.0)
    for _ in range(system.getNumParticles()):
        charges.addParticle(1.0, 0.1, 0.0)
    charges.addParticleParameterOffset("share", 0, 0.5, 0.0, 0.0)
    external = openmm.CustomExternalForce("share * x^2 + shape * y^2")
    for name in ("share", "shape"):
        external.addGlobalParameter(name, 1.0)
    external.addParticle(0)
    system.addForce(charges)
    system.addForce(external)
    path = AlchemicalPath(system, TEMPERATURE, {"stiffness": ((0.0, 1.0), (1.0, 2.0))})
    assert set(path.force_field.default_parameters) == {"stiffness", "share"}
    *_, term = path.force_field.terms.values()
    assert {"share", "shape"} & set(term.expression.names) == {"share"}  # pyright: ignore[reportAttributeAccessIssue]


def test_a_parameter_within_a_collective_variable_can_move() -> None:
    inner = openmm.CustomBondForce("scale * r")
    inner.addGlobalParameter("scale", 1.0)
    inner.addBond(0, 1, [])
    collective = openmm.CustomCVForce("100 * d^2")
    collective.addCollectiveVariable("d", inner)
    system = openmm.System()
    for _ in range(2):
        system.addParticle(12.0)
    system.addForce(collective)
    path = AlchemicalPath(system, TEMPERATURE, {"scale": ((0.0, 1.0), (1.0, 2.0))})
    x = torch.tensor([[[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]] * 2, dtype=torch.float64)
    energy = path.energy(torch.tensor([0.0, 1.0], dtype=torch.float64), x) * path.kt
    torch.testing.assert_close(energy, torch.tensor([1.0, 4.0], dtype=torch.float64))


@pytest.mark.slow
def test_a_learned_drift_along_lambda_beats_annealing_and_keeps_the_answer() -> None:
    """NETS from zero. Nothing holds the pair where it is, so Stein's identity is no check."""
    system = alchemical_system(pair(), [1])
    start = torch.tensor([[0.0, 0.0, 0.0], [0.34, 0.0, 0.0]], dtype=torch.float64)
    pace = {"timestep": 0.02, "friction": 3.0, "equilibration": 3.0, "production": 0.1, "interval": 0.1}
    plain = AlchemicalPath(system, TEMPERATURE)
    dynamics = LangevinStates(plain, plain.masses, TEMPERATURE, start, chains=4000, **pace)
    samples = dynamics(torch.zeros(1, dtype=torch.float64), generator=torch.Generator().manual_seed(0))[0, :, 0]
    path = AlchemicalPath(system, TEMPERATURE, samples=samples)
    problem = DensityProblem(path, default_dictionary(path), step_size=0.02)
    sizes = {"walkers": 600, "steps": 20, "pilot_walkers": 300, "pilot_steps": 8}
    annealed = sample_density(problem, method="ais", effort=DensityEffort(**sizes))
    learned = sample_density(problem, method="nets", effort=DensityEffort(**sizes, nets_steps=150, nets_start="zero"))
    exact = -pair_delta_f()
    for found, cap in ((annealed, 0.05), (learned, 0.01)):
        assert found.log_z.value is not None
        assert found.log_z.std_error is not None
        assert found.log_z.std_error < cap
        assert abs(found.log_z.value - exact) < 4 * found.log_z.std_error
    assert abs(learned.log_z.value + 0.05 - exact) > 4 * learned.log_z.std_error  # pyright: ignore[reportOptionalOperand]
    assert learned.ess > 0.9 > annealed.ess + 0.2  # pyright: ignore[reportOptionalOperand]
