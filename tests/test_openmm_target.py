"""The bridge to OpenMM: energies and gradients in kT, from any number of processes, of densities only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.contexts import ContextPool, check_platform
from nessampler.molecular.systems import load_structure, parameterize
from nessampler.molecular.target import OpenMMTarget, openmm_target
from nessampler.runs import catalogue
from nessampler.targets import Counted, Target, energy_and_score

KT = 8.31446261815324e-3 * 300.0  # kJ/mol
STRUCTURE = catalogue.root() / "alanine-solvation" / "alanine-dipeptide.pdb"


@pytest.fixture(scope="module")
def system() -> openmm.System:
    return parameterize(load_structure(STRUCTURE), ["amber14-all.xml"])


@pytest.fixture(scope="module")
def target(system: openmm.System) -> OpenMMTarget:
    return OpenMMTarget(system, 300.0)


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Conformations a few hundredths of a nanometre around the crystal's."""
    start = torch.as_tensor(load_structure(STRUCTURE).positions)
    noise = torch.randn(7, *start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return start + 0.003 * noise


@pytest.fixture(scope="module")
def pool() -> Iterator[ContextPool]:
    with ContextPool(2) as pool:
        yield pool


def test_energy_is_that_of_openmm_over_kt(system: openmm.System, target: OpenMMTarget, x: Tensor) -> None:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    expected = []
    for positions in x.numpy():
        context.setPositions(positions)
        energy = context.getState(getEnergy=True).getPotentialEnergy()
        expected.append(energy.value_in_unit(unit.kilojoule_per_mole) / KT)
    np.testing.assert_allclose(target.energy(x).numpy(), expected, rtol=1e-13)
    assert np.ptp(expected) > 1  # or any constant would do


def test_energy_in_kt_falls_with_the_temperature(system: openmm.System, target: OpenMMTarget, x: Tensor) -> None:
    hot = OpenMMTarget(system, 600.0)
    torch.testing.assert_close(2 * hot.energy(x), target.energy(x), rtol=1e-14, atol=0)


def test_gradient_is_that_of_the_energy(target: OpenMMTarget, x: Tensor) -> None:
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(position).sum(), position)
    generator, h = torch.Generator().manual_seed(2), 1e-5
    for _ in range(4):
        along = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        near, far = (target.energy(x + k * h * along) - target.energy(x - k * h * along) for k in (1, 2))
        slope = (8 * near - far) / (12 * h)
        expected = (gradient * along).sum((1, 2))
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()))
        assert (slope - 1.0001 * expected).abs().max() > 1e-6 * float(gradient.abs().max())  # the test can see it


def test_score_is_minus_the_gradient_and_comes_with_the_same_energy(target: OpenMMTarget, x: Tensor) -> None:
    energy, score = target.energy_and_score(x)
    position = x.clone().requires_grad_()
    differentiable = target.energy(position)
    (gradient,) = torch.autograd.grad(differentiable.sum(), position)
    assert torch.equal(score, -gradient)
    assert torch.equal(energy, differentiable.detach())
    assert torch.equal(energy, target.energy(x))


def test_gradient_of_a_weighted_sum_weighs_every_conformation(target: OpenMMTarget, x: Tensor) -> None:
    weight = torch.linspace(-2, 3, len(x), dtype=torch.float64)
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((weight * target.energy(position).square()).sum(), position)
    energy, score = target.energy_and_score(x)
    torch.testing.assert_close(gradient, -(2 * weight * energy)[:, None, None] * score, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "of",
    [
        lambda gradient, position: gradient.sum(),
        lambda gradient, position: gradient.square().sum(),
        lambda gradient, position: (gradient * position).sum(),  # here the Hessian's term could be lost unnoticed
    ],
)
def test_a_second_derivative_raises_rather_than_being_zero(
    target: OpenMMTarget, x: Tensor, of: Callable[[Tensor, Tensor], Tensor]
) -> None:
    position = x[:1].clone().requires_grad_()
    for energy in (target.energy(position), target.energy(position).square()):
        (gradient,) = torch.autograd.grad(energy.sum(), position, create_graph=True)
        with pytest.raises(NotImplementedError, match="no second derivatives"):
            torch.autograd.grad(of(gradient, position), position)


def test_processes_change_no_bit(system: openmm.System, target: OpenMMTarget, pool: ContextPool, x: Tensor) -> None:
    shared = OpenMMTarget(system, 300.0, pool=pool)
    many = torch.cat([x + 1e-4 * k for k in range(25)])  # more than two chunks, the last of them short
    assert len(many) > 2 * ContextPool.CHUNK
    assert len(many) % ContextPool.CHUNK
    for here, there in zip(target.energy_and_score(many), shared.energy_and_score(many), strict=True):
        assert torch.equal(here, there)
    assert torch.equal(target.energy(many), shared.energy(many))


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_shape_and_type_of_the_batch(
    system: openmm.System, pool: ContextPool, x: Tensor, n: int, dtype: torch.dtype
) -> None:
    given = x[:n].to(dtype)
    for target in (OpenMMTarget(system, 300.0), OpenMMTarget(system, 300.0, pool=pool)):
        energy, score = target.energy_and_score(given)
        assert (energy.shape, score.shape) == ((n,), given.shape)
        assert (energy.dtype, score.dtype, target.energy(given).dtype) == (dtype, dtype, dtype)


def test_single_precision_rounds_the_result_only(target: OpenMMTarget, x: Tensor) -> None:
    rounded = x.float()
    assert torch.equal(target.energy(rounded), target.energy(rounded.double()).float())


def test_every_conformation_costs_one_evaluation(system: openmm.System, x: Tensor) -> None:
    asked: list[tuple[int, bool]] = []

    class Spy(ContextPool):
        def evaluate(self, system_xml: str, platform: str, x: np.ndarray, forces: bool) -> Any:
            asked.append((len(x), forces))
            return super().evaluate(system_xml, platform, x, forces)

    counted = Counted(OpenMMTarget(system, 300.0, pool=Spy(1)))
    with counted.stage("training"):
        counted.energy(x)
        energy_and_score(counted, x[:3])
        position = x[:2].clone().requires_grad_()
        counted.energy(position).sum().backward()
    assert asked == [(7, False), (3, True), (2, True)]
    assert (counted.tally("training").energy, counted.tally("training").gradient) == (7, 5)


def test_the_bridge_is_a_target(target: OpenMMTarget) -> None:
    assert isinstance(target, Target)
    assert target.event_shape == (22, 3)


# --- what is no density ------------------------------------------------------------------------------------------


def particles(n: int = 3) -> openmm.System:
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    return system


def constrained(system: openmm.System) -> None:
    system.addConstraint(0, 1, 0.1)


def barostat(system: openmm.System) -> None:
    force = openmm.MonteCarloBarostat(1.0, 300.0)
    force.setName("pressure")  # a name is no disguise
    system.addForce(force)


def virtual_site(system: openmm.System) -> None:
    system.setParticleMass(2, 0.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))


def massless(system: openmm.System) -> None:
    system.setParticleMass(1, 0.0)


def periodic(system: openmm.System) -> None:
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    for _ in range(system.getNumParticles()):
        force.addParticle(0.0, 0.1, 0.0)
    system.addForce(force)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (constrained, "flexible: the system has 1 constraints"),
        (barostat, "barostat"),
        (virtual_site, "virtual sites.*particle 2"),
        (massless, "mass: particle 1"),
        (periodic, "periodic"),
    ],
)
def test_a_system_without_density_is_refused(spoil: Callable[[openmm.System], None], rule: str) -> None:
    system = particles()
    OpenMMTarget(system, 300.0)
    spoil(system)
    with pytest.raises(InputError, match=rule):
        OpenMMTarget(system, 300.0)


def test_constraints_left_on_by_the_force_field_are_refused() -> None:
    molecule = load_structure(STRUCTURE)
    system = app.ForceField("amber14-all.xml").createSystem(molecule.topology, constraints=app.HBonds)
    with pytest.raises(InputError, match="12 constraints"):
        OpenMMTarget(system, 300.0)


@pytest.mark.parametrize("temperature", [-300.0, 0.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match="temperature must be positive"):
        OpenMMTarget(particles(), temperature)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("ask", ["energy", "energy_and_score"])
def test_coordinates_that_are_not_finite_are_refused_by_name(
    target: OpenMMTarget, x: Tensor, ask: str, value: float
) -> None:
    bad = x.clone()
    bad[2, 4, 1] = value
    with pytest.raises(InputError, match="conformation 2, atom 4"):
        getattr(target, ask)(bad)


@pytest.mark.parametrize("shape", [(22, 3), (1, 21, 3), (1, 66), (1, 22, 2)])
def test_positions_of_another_shape_are_refused(target: OpenMMTarget, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"must be \(n, 22, 3\) in nm"):
        target.energy(torch.zeros(shape))


def test_an_unknown_backend_and_an_absent_platform_are_refused() -> None:
    assert openmm_target(particles(), 300.0).backend == "torch"
    assert isinstance(openmm_target(particles(), 300.0, "openmm"), OpenMMTarget)
    with pytest.raises(InputError, match="backend"):
        openmm_target(particles(), 300.0, "jax")  # pyright: ignore[reportArgumentType]
    check_platform("Reference")
    with pytest.raises(InputError, match=r"Reference.*got 'Abacus'"):
        check_platform("Abacus")


def test_a_drude_oscillator_goes_over_the_bridge() -> None:
    system = openmm.System()
    charges, drude = openmm.NonbondedForce(), openmm.DrudeForce()
    for mass, charge in ((12.0, 1.5), (0.4, -1.0), (16.0, -0.5)):
        charges.addParticle(charge, 0.3, 0.2)
        system.addParticle(mass)
    charges.addException(0, 1, 0.0, 0.1, 0.0)
    drude.addParticle(1, 0, -1, -1, -1, -1.0, 0.001, 1.0, 1.0)
    system.addForce(charges)
    system.addForce(drude)
    x = torch.tensor([[[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [0.3, 0.1, 0.0]]], dtype=torch.float64)
    with ContextPool(1) as pool:
        found = openmm_target(system, 300.0, pool=pool)
        assert found.backend == "openmm"
        assert "DrudeForce" in found.reason
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(x[0].numpy())
        energy = context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        assert float(found.energy(x)[0]) == pytest.approx(energy / found.kt, rel=1e-12)


def test_what_only_torch_knows_is_refused_where_openmm_evaluates() -> None:
    system = openmm.System()
    system.addParticle(12.0)
    bonds = openmm.AmoebaVdwForce()
    bonds.addParticle(0, 0.3, 0.1, 1.0)
    system.addForce(bonds)
    with pytest.raises(InputError, match="knows no compile, dtype"):
        openmm_target(system, 300.0, dtype=torch.float32, compile=True)
