"""Torch force fields, term by term: OpenMM's numbers, derivatives of all kinds, and refusals by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("openmm")

import openmm
from openmm_reference import assert_agrees, disagreement, perturbed, reference
from scipy.integrate import quad

from nessampler.errors import InputError
from nessampler.molecular import (
    OpenMMTarget,
    TorchForceField,
    TorchForceFieldTarget,
    UnsupportedForce,
    openmm_target,
)
from nessampler.molecular.force_field.compiled import energy_and_gradient, one_thread, traced_program, workers
from nessampler.molecular.force_field.nonbonded import Cutoff
from nessampler.targets import Target, energy_and_score

N = 12
BOX = np.array([[2.0, 0.0, 0.0], [0.3, 1.9, 0.0], [-0.4, 0.5, 2.1]])


def atoms(n: int = N) -> openmm.System:
    system = openmm.System()
    for _ in range(n):
        system.addParticle(12.0)
    return system


def scattered(n: int = N, seed: int = 0, spacing: float = 0.25) -> np.ndarray:
    """Atoms near the points of a lattice, in nm."""
    generator = np.random.default_rng(seed)
    side = math.ceil(n ** (1 / 3))
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n]
    return spacing * (lattice + 0.25 * generator.uniform(-1, 1, (n, 3)))


def bonds() -> openmm.System:
    system, force, generator = atoms(), openmm.HarmonicBondForce(), np.random.default_rng(1)
    for k in range(N - 1):
        force.addBond(k, k + 1, generator.uniform(0.1, 0.3), generator.uniform(100, 1e5))
    force.addBond(0, 7, 0.2, 0.0)
    system.addForce(force)
    return system


def angles() -> openmm.System:
    system, force, generator = atoms(), openmm.HarmonicAngleForce(), np.random.default_rng(2)
    for k in range(N - 2):
        force.addAngle(k, k + 1, k + 2, generator.uniform(0.5, 3.1), generator.uniform(10, 500))
    system.addForce(force)
    return system


def torsions() -> openmm.System:
    system, force, generator = atoms(), openmm.PeriodicTorsionForce(), np.random.default_rng(3)
    for k in range(N - 3):
        for n in (1, 2, 6)[: 1 + k % 3]:
            chain = (k, k + 1, k + 2, k + 3) if n != 2 else (k + 3, k + 2, k + 1, k)
            force.addTorsion(*chain, n, generator.uniform(-math.pi, math.pi), generator.uniform(-5, 20))
    system.addForce(force)
    return system


def rb_torsions() -> openmm.System:
    system, force, generator = atoms(), openmm.RBTorsionForce(), np.random.default_rng(4)
    for k in range(N - 3):
        force.addTorsion(k, k + 1, k + 2, k + 3, *generator.uniform(-10, 10, 6))
    system.addForce(force)
    return system


def maps() -> openmm.System:
    system, force, generator = atoms(), openmm.CMAPTorsionForce(), np.random.default_rng(5)
    for size in (6, 9):
        force.addMap(size, generator.uniform(-10, 10, size**2))
    for k in range(N - 4):
        force.addTorsion(k % 2, k, k + 1, k + 2, k + 3, k + 1, k + 2, k + 3, k + 4)
    system.addForce(force)
    return system


def charges(spread: float = 0.0) -> tuple[openmm.System, openmm.NonbondedForce]:
    """Atoms with exclusions and exceptions, and a net charge of `spread` per atom."""
    system, force, generator = atoms(), openmm.NonbondedForce(), np.random.default_rng(6)
    q = generator.uniform(-1, 1, N)
    for charge in q - q.mean() + spread:
        force.addParticle(charge, generator.uniform(0.1, 0.35), generator.uniform(0, 1.0))
    force.setParticleParameters(3, 0.2, 0.1, 0.0)  # as a hydrogen, without epsilon
    for k in range(N - 2):
        force.addException(k, k + 1, 0.0, 1.0, 0.0)
        force.addException(k + 2, k, generator.uniform(-0.5, 0.5), 0.2, generator.uniform(0, 0.5))
    system.addForce(force)
    return system, force


def no_cutoff() -> openmm.System:
    return charges()[0]


def offsets() -> openmm.System:
    system, force = charges()
    force.addGlobalParameter("charging", 0.3)
    force.addGlobalParameter("growing", 0.8)
    for k in range(4):
        force.addParticleParameterOffset("charging", k, 0.3 * (k - 1), 0.0, 0.0)
    force.addParticleParameterOffset("growing", 2, 0.1, 0.02, 0.3)
    force.addExceptionParameterOffset("charging", 1, 0.2, 0.01, 0.1)
    force.addExceptionParameterOffset("growing", 0, -0.1, 0.0, 0.0)  # an exclusion that a parameter turns on
    return system


def reaction_field() -> openmm.System:
    system, force = charges()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffNonPeriodic)
    force.setCutoffDistance(0.55)
    force.setReactionFieldDielectric(20.0)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.35)
    return system


def periodic() -> openmm.System:
    system, force = charges(spread=0.1)
    system.setDefaultPeriodicBoxVectors(*BOX)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.9)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.6)
    force.addGlobalParameter("growing", 0.5)
    force.addParticleParameterOffset("growing", 2, 0.0, 0.02, 0.3)  # enters the tail, too
    return system


def ewald(spread: float = 0.0, inside: bool = False) -> openmm.System:
    system, force = charges(spread)
    system.setDefaultPeriodicBoxVectors(*np.diag([1.2, 1.3, 1.7]))
    force.setNonbondedMethod(openmm.NonbondedForce.Ewald)
    force.setCutoffDistance(0.55)
    force.setExceptionsUsePeriodicBoundaryConditions(inside)
    return system


def charged_ewald() -> openmm.System:
    return ewald(spread=0.2, inside=True)


def born(method: int = 0) -> openmm.System:
    system, force, generator = atoms(), openmm.GBSAOBCForce(), np.random.default_rng(7)
    system.setDefaultPeriodicBoxVectors(*BOX)
    for k in range(N):
        # the last screens from within the ball of any other that comes near, and one is nearly swallowed
        scale = 0.05 if k == N - 1 else 2.5 if k == 0 else generator.uniform(0.7, 1.0)
        force.addParticle(generator.uniform(-1, 1), generator.uniform(0.1, 0.2), scale)
    force.setNonbondedMethod(method)
    force.setCutoffDistance(0.6)
    force.setSoluteDielectric(2.0)
    system.addForce(force)
    return system


def born_cutoff() -> openmm.System:
    return born(openmm.GBSAOBCForce.CutoffNonPeriodic)


def born_periodic() -> openmm.System:
    return born(openmm.GBSAOBCForce.CutoffPeriodic)


TERMS = [
    bonds, angles, torsions, rb_torsions, maps, no_cutoff, offsets, reaction_field, periodic, ewald, charged_ewald,
    born, born_cutoff, born_periodic,
]  # fmt: skip


def conformations(n: int = 3, seed: int = 0) -> Tensor:
    return perturbed(scattered(), n, 0.02, seed)


# --- OpenMM's numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS)
def test_energies_and_forces_are_those_of_openmm(term: Callable[[], openmm.System]) -> None:
    assert_agrees(term(), conformations())


@pytest.mark.parametrize("term", [bonds, angles, torsions, rb_torsions, maps, periodic, born_periodic, ewald])
def test_bonded_atoms_meet_their_nearest_images(term: Callable[[], openmm.System]) -> None:
    system = term()
    if term not in (periodic, born_periodic, ewald):
        system.setDefaultPeriodicBoxVectors(*BOX)
        system.getForce(0).setUsesPeriodicBoundaryConditions(True)
    box = np.array([v._value for v in system.getDefaultPeriodicBoxVectors()])
    x = conformations()
    if term is ewald:  # its exceptions are between the atoms as they are: keep these together
        assert_agrees(system, x + torch.tensor(box[0] + 2 * box[1]))
        return
    shift = torch.tensor(np.random.default_rng(0).integers(-2, 3, (N, 3)) @ box)
    if term is not periodic:
        assert_agrees(system, x + shift)
    moved, plain = TorchForceField(system).energy(x + shift), TorchForceField(system).energy(x)
    assert (moved - plain).abs().max() > 1e-3 or term is not periodic  # its exceptions do see the shift
    assert_agrees(system, x)


@pytest.mark.parametrize("term", TERMS)
def test_a_parameter_that_is_off_by_a_millionth_is_seen(term: Callable[[], openmm.System]) -> None:
    system, x = term(), conformations()
    force_field = TorchForceField(system)
    largest = max(
        (p for p in force_field.parameters() if p.numel() > 1),
        key=lambda p: _response(force_field, p, x),
    )
    with torch.no_grad():
        largest.mul_(1 + 1e-6)
    errors = disagreement(system, x, force_field=force_field)["total"]
    assert errors[0] > 1e-9 or errors[1] > 1e-7


def _response(force_field: TorchForceField, parameter: Tensor, x: Tensor) -> float:
    before = parameter.detach().clone()
    energy = force_field.energy(x)
    with torch.no_grad():
        parameter.mul_(1 + 1e-6)
        change = (force_field.energy(x) - energy).abs().max()
        parameter.copy_(before)
    return float(change)


def test_global_parameters_move_charges_sigmas_and_epsilons() -> None:
    system, x = offsets(), conformations()
    assert_agrees(system, x, {"charging": 0.9, "growing": -0.2})
    assert_agrees(periodic(), x, {"growing": 1.5})  # where the tail stays that of the default


def test_atoms_inside_each_other_screen_as_in_openmm() -> None:
    system = born()
    x = perturbed(0.25 * scattered(), 4, 0.01)
    distance = torch.cdist(x, x) + torch.eye(N)
    assert distance.min() < 0.05  # well inside the radii
    assert_agrees(system, x)


def test_the_tail_of_a_switched_cutoff_is_the_integral() -> None:
    switch, cutoff = 0.8, 0.9
    found = Cutoff(cutoff, switch=switch, periodic=True, tail=True).tail_integrals

    def taken(r: float) -> float:
        t = (r - switch) / (cutoff - switch)
        return t**3 * (10 - 15 * t + 6 * t**2)

    for power, value in zip((10, 4), found, strict=True):
        inside = quad(lambda r, p=power: r**-p * taken(r), switch, cutoff, epsabs=0, epsrel=1e-13)[0]
        assert value == pytest.approx(inside + cutoff ** (1 - power) / (power - 1), rel=1e-12)


# --- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS)
def test_autograd_gives_the_forces_by_either_road(term: Callable[[], openmm.System]) -> None:
    force_field, x = TorchForceField(term()), conformations()
    energy, forces = force_field.energy_and_forces(x)
    position = x.clone().requires_grad_()
    graph = force_field.energy(position)
    (gradient,) = torch.autograd.grad(graph.sum(), position, create_graph=True)
    torch.testing.assert_close(graph, energy, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(gradient, -forces, rtol=1e-9, atol=1e-9 * float(forces.abs().max()))


@pytest.mark.parametrize("term", TERMS)
def test_second_derivatives_are_differences_of_forces(term: Callable[[], openmm.System]) -> None:
    force_field, x = TorchForceField(term()), conformations(2)
    along = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(force_field.energy(position).sum(), position, create_graph=True)
    (product,) = torch.autograd.grad((gradient * along).sum(), position)
    h = 1e-5
    near, far = (force_field.forces(x - k * h * along) - force_field.forces(x + k * h * along) for k in (1, 2))
    expected = (8 * near - far) / (12 * h)
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(product, expected, rtol=0, atol=tolerance)
    assert (product - 1.001 * expected).abs().max() > tolerance  # the test can see it


@pytest.mark.parametrize("term", TERMS)
def test_energies_are_differentiable_in_every_parameter_of_a_force(term: Callable[[], openmm.System]) -> None:
    force_field, x = TorchForceField(term()).requires_grad_(True), conformations(2)
    named = dict(force_field.named_parameters())
    gradients = torch.autograd.grad(force_field.energy(x).sum(), list(named.values()))
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        assert torch.isfinite(gradient).all(), name
        direction = parameter.detach() * torch.randn(
            parameter.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2)
        )
        h, start = 1e-4, parameter.detach().clone()
        with torch.no_grad():
            values = []
            for k in (-2, -1, 1, 2):
                parameter.copy_(start + k * h * direction)
                values.append(force_field.energy(x).sum())
            parameter.copy_(start)
        slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
        size = float((gradient * direction).abs().sum())
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), abs=1e-6 * size + 1e-7), name


def test_derivatives_in_lambda_are_exact_for_one_value_and_for_one_per_walker() -> None:
    force_field, x = TorchForceField(offsets()), conformations(3)
    values = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    energy = force_field(x, charging=values)
    (slope,) = torch.autograd.grad(energy.sum(), values, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), values)
    h = 1e-3
    slope, curvature = slope.detach(), curvature.detach()
    for k, value in enumerate(values.tolist()):
        one = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        alone = force_field(x[k : k + 1], charging=one)
        torch.testing.assert_close(alone, energy[k : k + 1], rtol=1e-12, atol=1e-12)
        (own,) = torch.autograd.grad(alone.sum(), one)
        torch.testing.assert_close(own, slope[k], rtol=1e-11, atol=1e-9)
        down, here, up = (force_field(x[k : k + 1], charging=value + d)[0] for d in (-h, 0.0, h))
        assert float(slope[k]) == pytest.approx(float((up - down) / (2 * h)), rel=1e-5)
        assert float(curvature[k]) == pytest.approx(float((up - 2 * here + down) / h**2), rel=1e-3)


def test_mixed_derivatives_in_lambda_and_positions_exist() -> None:
    force_field, x = TorchForceField(offsets()), conformations(1).requires_grad_()
    value = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(force_field(x, growing=value).sum(), x, create_graph=True)
    (mixed,) = torch.autograd.grad(gradient[0, 2, 0], value)
    h = 1e-5
    up, down = (force_field.forces(x.detach(), parameters={"growing": 0.4 + d})[0, 2, 0] for d in (h, -h))
    assert float(mixed) == pytest.approx(float((down - up) / (2 * h)), rel=1e-6)


def test_gradients_are_finite_where_geometry_degenerates() -> None:
    system = atoms(4)
    for force, add in ((openmm.HarmonicBondForce(), "addBond"), (openmm.HarmonicAngleForce(), "addAngle")):
        getattr(force, add)(*range(2 if add == "addBond" else 3), 0.1, 100.0)
        system.addForce(force)
    torsion = openmm.PeriodicTorsionForce()
    torsion.addTorsion(0, 1, 2, 3, 2, 0.5, 3.0)
    system.addForce(torsion)
    line = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]], dtype=torch.float64)
    folded = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.0, 0, 0], [0.1, 0, 0]], dtype=torch.float64)
    point = torch.zeros(4, 3, dtype=torch.float64)
    energy, forces = TorchForceField(system).energy_and_forces(torch.stack([line, folded, point]))
    assert torch.isfinite(energy).all()
    assert torch.isfinite(forces[:1]).all()


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_chunks_change_nothing_but_rounding(chunk: int) -> None:
    system, x = offsets(), conformations(7)
    whole, cut = TorchForceField(system, chunk_size=100), TorchForceField(system, chunk_size=chunk)
    values = torch.linspace(0, 1, 7, dtype=torch.float64).requires_grad_()
    for given in ({}, {"charging": values}):
        position = x.clone().requires_grad_()
        results = []
        for force_field in (whole, cut):
            energy = force_field.energy(position, parameters=given)
            (gradient,) = torch.autograd.grad(energy.square().sum(), position, create_graph=True)
            (second,) = torch.autograd.grad(gradient.square().sum(), position)
            results.append((energy, gradient, second))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(a.detach().abs().max()))


@pytest.mark.parametrize(("n", "fits"), [(1, 16), (62, 64), (64, 64), (100, 64), (129, 48), (1000, 64)])
def test_a_chunk_is_chosen_that_a_batch_fills(n: int, fits: int) -> None:
    force_field = TorchForceField(no_cutoff(), chunk_size=64)
    assert force_field.chunk_for(n) == fits
    assert -(-n // fits) == -(-n // 64)  # as many chunks
    double, single = (
        TorchForceField(no_cutoff(), dtype=dtype, compile=True).chunk_for(10**6)
        for dtype in (torch.float64, torch.float32)
    )
    assert single == 2 * double  # as many bytes


def test_no_more_walkers_than_a_chunk_are_evaluated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    force_field, x = TorchForceField(no_cutoff(), chunk_size=3), conformations(8)
    seen: list[int] = []
    term = force_field.terms["NonbondedForce"]
    inner = term.forward
    monkeypatch.setattr(term, "forward", lambda p, *rest: (seen.append(p.shape[-1]), inner(p, *rest))[1])
    force_field.energy(x)
    force_field.energy_and_forces(x)
    force_field.energy(x.requires_grad_()).sum().backward()
    assert seen == [3, 3, 2] * 3


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_shape_and_type_of_the_batch(n: int, dtype: torch.dtype) -> None:
    x = conformations(5)[:n].to(dtype)
    for precision in (torch.float32, torch.float64):
        force_field = TorchForceField(no_cutoff(), dtype=precision)
        energy, forces = force_field.energy_and_forces(x)
        assert (energy.shape, forces.shape) == ((n,), x.shape)
        assert (energy.dtype, forces.dtype, force_field(x).dtype) == (dtype,) * 3


@pytest.mark.parametrize("term", TERMS)
def test_single_precision_is_good_to_six_digits(term: Callable[[], openmm.System]) -> None:
    x = conformations(4)
    energy, forces = TorchForceField(term()).energy_and_forces(x)
    rough, pull = TorchForceField(term(), dtype=torch.float32).energy_and_forces(x)
    assert (rough - energy).abs().max() < 2e-5 * energy.abs().max() + 1e-3
    assert (pull - forces).abs().max() < 1e-4 * forces.abs().max()


def test_energies_by_force_add_up_and_groups_select() -> None:
    system = bonds()
    for other in (angles(), torsions(), bonds()):
        force = deepcopy(other.getForce(0))
        force.setForceGroup(2 if isinstance(force, openmm.HarmonicAngleForce) else 0)
        system.addForce(force)
    system.addForce(openmm.CMMotionRemover())
    force_field, x = TorchForceField(system), conformations()
    parts = force_field.energy_by_force(x)
    assert list(parts) == ["HarmonicBondForce 0", "HarmonicAngleForce", "PeriodicTorsionForce", "HarmonicBondForce 3"]
    torch.testing.assert_close(sum(parts.values()), force_field(x), rtol=1e-13, atol=0)
    torch.testing.assert_close(force_field.energy(x, groups={2}), parts["HarmonicAngleForce"], rtol=1e-13, atol=0)
    assert not force_field.energy(x, groups={5}).any()


def test_another_box_changes_the_energy_as_in_openmm() -> None:
    system, x = ewald(), conformations()
    wider = np.diag([1.3, 1.25, 1.6])
    other = deepcopy(system)
    force_field = TorchForceField(system)
    energy = force_field(x, box=torch.tensor(wider))
    context = openmm.Context(other, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPeriodicBoxVectors(*wider)  # with the waves of the default box
    for k, positions in enumerate(x.numpy()):
        context.setPositions(positions)
        assert float(energy[k]) == pytest.approx(
            context.getState(getEnergy=True).getPotentialEnergy()._value, rel=1e-12
        )
    assert (energy - force_field(x)).abs().min() > 1e-3


@pytest.mark.parametrize("term", [bonds, periodic, ewald, born_periodic])
def test_energies_are_differentiable_in_the_box(term: Callable[[], openmm.System]) -> None:
    system = term()
    system.getForce(0).setUsesPeriodicBoundaryConditions(True) if term is bonds else None
    force_field, x = TorchForceField(system), 3 * conformations()  # wide enough that images matter
    assert force_field.box is not None
    box = force_field.box.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(force_field(x, box=box).sum(), box)
    h, along = 1e-6, torch.diag(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    up, down = (force_field(x, box=box.detach() + d * along).sum() for d in (h, -h))
    assert float((gradient * along).sum()) == pytest.approx(float((up - down) / (2 * h)), rel=1e-5)


@pytest.mark.parametrize("term", TERMS)
def test_every_term_can_be_written_down_for_the_compiler(term: Callable[[], openmm.System]) -> None:
    force_field, x = TorchForceField(term()), conformations(4).permute(2, 1, 0).contiguous()
    values = {k: torch.tensor(v, dtype=x.dtype) for k, v in force_field.default_parameters.items()}
    arguments, terms = (x, values, force_field.box), list(force_field.terms.values())
    traced = traced_program(terms, *arguments)
    there = (x.roll(1, -1), {k: v + 0.1 for k, v in values.items()}, force_field.box)  # not what it was traced with
    for a, b in zip(traced(*there), energy_and_gradient(terms)(*there), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * float(b.abs().max()))


@pytest.mark.slow
def test_a_compiled_force_field_gives_the_same_numbers() -> None:
    x = conformations(9)
    for term in (offsets, born):
        plain, fast = TorchForceField(term()), TorchForceField(term(), compile=True, chunk_size=4)
        for a, b in zip(plain.energy_and_forces(x), fast.energy_and_forces(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(a.abs().max()))
    given = {"charging": torch.linspace(0, 1, 9, dtype=torch.float64)}
    plain, fast = TorchForceField(offsets()), TorchForceField(offsets(), compile=True, chunk_size=4)
    for _ in range(2):  # parameters are read when the program runs
        for a, b in zip(*(f.energy_and_forces(x, parameters=given) for f in (plain, fast)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * float(a.abs().max()))
        for force_field in (plain, fast):
            force_field.terms["NonbondedForce"].charge.mul_(1.1)  # pyright: ignore


def test_threads_share_the_chunks_of_a_compiled_force_field_and_give_the_same_bits() -> None:
    x, fast, threads = (
        conformations(11),
        TorchForceField(no_cutoff(), compile=True, chunk_size=4),
        torch.get_num_threads(),
    )
    found = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(fast.energy_and_forces(x))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    plain = TorchForceField(no_cutoff()).energy_and_forces(x)
    for one, other, truth in zip(*found[:2], plain, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)
        torch.testing.assert_close(one, truth, rtol=1e-10, atol=1e-10 * float(truth.abs().max()))
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=0)
    with torch.no_grad():  # the same program: its bits are not those of the terms called one by one
        torch.testing.assert_close(fast.energy(x), found[0][0], rtol=0, atol=0)


def test_threads_are_started_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers(2) is workers(2)
    assert workers(2) is not workers(3)
    before = workers(2)
    monkeypatch.setattr("os.getpid", lambda: -1)  # as in a forked process, which has no threads
    assert workers(2) is not before


def test_threads_that_meet_inside_leave_the_number_as_it_was() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        outer, inner = one_thread(), one_thread()
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        inner.__exit__(None, None, None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def lonely(kind: str) -> tuple[openmm.System, str]:
    """A system of three atoms with a force that does not fit it, and what is said."""
    system = openmm.System()
    for _ in range(3):
        system.addParticle(12.0)
    if kind == "particles":
        force, words = openmm.NonbondedForce(), "NonbondedForce must have exactly as many particles"
        force.addParticle(1.0, 0.3, 1.0)
    elif kind == "Born particles":
        force, words = openmm.GBSAOBCForce(), "GBSAOBCForce must have exactly as many particles"
        force.addParticle(1.0, 0.2, 1.0)
    elif kind == "atom":
        force, words = openmm.HarmonicBondForce(), "HarmonicBondForce: Illegal particle index"
        force.addBond(0, 7, 0.1, 1000.0)
    elif kind == "parameters":
        force, words = openmm.CustomBondForce("k*r"), "as many parameters as it declares"
        force.addPerBondParameter("k")
        force.addBond(0, 1, [])
    else:
        force, words = openmm.CustomBondForce("k*r"), "force 0 of the system, CustomBondForce: .*'k' is not known"
        force.addBond(0, 1, [])
    system.addForce(force)
    return system, words


@pytest.mark.parametrize("kind", ["particles", "Born particles", "atom", "parameters", "name"])
def test_a_force_that_does_not_fit_its_system_is_named(kind: str) -> None:
    system, words = lonely(kind)
    with pytest.raises(InputError, match=words):
        TorchForceField(system)


def test_two_defaults_of_one_parameter_are_refused() -> None:
    system = openmm.System()
    system.addParticle(12.0)
    for value in (1.0, 2.0):
        force = openmm.CustomExternalForce("k*x^2")
        force.addGlobalParameter("k", value)
        force.addParticle(0)
        system.addForce(force)
    with pytest.raises(InputError, match="different default values for the parameter 'k'"):
        TorchForceField(system)


def test_whole_numbers_are_no_positions() -> None:
    with pytest.raises(InputError, match="int64"):
        TorchForceField(offsets()).energy(torch.zeros(1, N, 3, dtype=torch.int64))


# --- the density -----------------------------------------------------------------------------------------------------


def test_the_target_is_the_energy_over_kt() -> None:
    system, x = offsets(), conformations()
    target = TorchForceFieldTarget(system, 300.0, parameters={"charging": 0.7})
    truth = reference(system, x, {"charging": 0.7})
    kt = 8.31446261815324e-3 * 300.0
    torch.testing.assert_close(target.energy(x), sum(e for e, _ in truth.values()) / kt, rtol=1e-11, atol=0)
    energy, score = energy_and_score(target, x)
    torch.testing.assert_close(energy, target.energy(x), rtol=1e-12, atol=0)
    position = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.energy(position).sum(), position)
    torch.testing.assert_close(score, -gradient, rtol=1e-12, atol=1e-9)
    assert isinstance(target, Target)
    assert target.event_shape == (N, 3)


def test_auto_takes_torch_where_it_covers_every_force_and_says_why_not() -> None:
    covered, refused = no_cutoff(), no_cutoff()
    refused.addForce(openmm.RMSDForce(scattered()))
    torch_target, bridge = openmm_target(covered, 300.0), openmm_target(refused, 300.0)
    assert isinstance(torch_target, TorchForceFieldTarget)
    assert (torch_target.backend, torch_target.reason) == ("torch", "torch covers every force")
    assert isinstance(bridge, OpenMMTarget)
    assert bridge.backend == "openmm"
    assert "force 1" in bridge.reason
    assert "RMSDForce" in bridge.reason
    chosen = openmm_target(covered, 300.0, platform="Reference")
    assert (chosen.backend, chosen.reason) == ("openmm", "`platform` was given")
    assert isinstance(openmm_target(covered, 300.0, "torch", dtype=torch.float32), TorchForceFieldTarget)
    assert isinstance(openmm_target(covered, 300.0, "openmm"), OpenMMTarget)
    with pytest.raises(UnsupportedForce, match=r"force 1 of the system, RMSDForce.*backend"):
        openmm_target(refused, 300.0, "torch")
    with pytest.raises(InputError, match="backend must be"):
        openmm_target(covered, 300.0, "jax")  # pyright: ignore


def test_both_backends_are_one_density() -> None:
    system, x = born(), conformations()
    a, b = (openmm_target(system, 310.0, backend).energy_and_score(x) for backend in ("torch", "openmm"))
    torch.testing.assert_close(a[0], b[0], rtol=1e-11, atol=0)
    torch.testing.assert_close(a[1], b[1], rtol=0, atol=1e-10 * float(b[1].abs().max()))


# --- refusals --------------------------------------------------------------------------------------------------------


def method(kind: str) -> Callable[[openmm.System], None]:
    def spoil(system: openmm.System) -> None:
        system.setDefaultPeriodicBoxVectors(*np.diag([3.0, 3.0, 3.0]))
        system.getForce(0).setNonbondedMethod(getattr(openmm.NonbondedForce, kind))

    return spoil


def add(force: openmm.Force) -> Callable[[openmm.System], None]:
    return lambda system: system.addForce(force)


def half_ewald(system: openmm.System) -> None:
    method("Ewald")(system)
    system.getForce(0).setIncludeDirectSpace(False)


def inner_force(system: openmm.System) -> None:
    outer = openmm.CustomCVForce("d")
    outer.addCollectiveVariable("d", openmm.RMSDForce(scattered()))
    system.addForce(outer)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (method("PME"), "force 0 of the system, NonbondedForce.*PME.*Ewald"),
        (method("LJPME"), "LJPME"),
        (half_ewald, "direct part"),
        (add(openmm.CustomHbondForce("0")), "force 1.*CustomHbondForce.*backend"),
        (add(openmm.CustomManyParticleForce(3, "0")), "CustomManyParticleForce"),
        (add(openmm.AndersenThermostat(300, 1)), "AndersenThermostat.*velocities.*remove"),
        (add(openmm.MonteCarloBarostat(1, 300)), "MonteCarloBarostat.*box.*remove"),
        (add(openmm.AmoebaMultipoleForce()), "AmoebaMultipoleForce"),
        (inner_force, "force 1 of the system, CustomCVForce.*RMSDForce"),
    ],
)
def test_a_force_that_torch_does_not_cover_is_refused_by_name(
    spoil: Callable[[openmm.System], None], message: str
) -> None:
    system = no_cutoff()
    spoil(system)
    with pytest.raises(UnsupportedForce, match=message):
        TorchForceField(system)


def test_constraints_and_virtual_sites_are_refused() -> None:
    for spoil, message in (
        (lambda s: s.addConstraint(0, 1, 0.1), "1 constraints"),
        (lambda s: s.setParticleMass(2, 0.0), "mass: particle 2"),
        (lambda s: s.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5)), "virtual sites.*particle 3"),
    ):
        system = bonds()
        if "virtual" in message:
            system.setParticleMass(3, 0.0)
        spoil(system)
        with pytest.raises(InputError, match=message):
            TorchForceField(system)


def test_what_does_not_fit_the_system_is_refused() -> None:
    force_field, x = TorchForceField(offsets()), conformations()
    with pytest.raises(InputError, match=r"one that a force reads, charging, growing: got 'lambda'"):
        force_field(x, **{"lambda": 0.5})
    with pytest.raises(InputError, match=r"\(3,\): charging has shape \(2,\)"):
        force_field(x, charging=torch.zeros(2))
    with pytest.raises(InputError, match="periodic"):
        force_field(x, box=torch.eye(3))
    with pytest.raises(InputError, match=r"\(n, 12, 3\) in nm: got \(3, 11, 3\)"):
        force_field(x[:, 1:])
    with pytest.raises(InputError, match="one that a force reads"):
        TorchForceFieldTarget(offsets(), 300.0, parameters={"lambda": 1.0})
    target = TorchForceFieldTarget(offsets(), 300.0)
    x[1, 2, 0] = float("nan")
    with pytest.raises(InputError, match="conformation 1, atom 2"):
        target.energy(x)
    for temperature in (-1.0, 0.0, float("nan")):
        with pytest.raises(InputError, match="temperature must be positive"):
            TorchForceFieldTarget(offsets(), temperature)
