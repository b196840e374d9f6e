"""Custom forces in torch against OpenMM's Reference platform: energies, forces, derivatives by global parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

openmm = pytest.importorskip("openmm")

from nessampler.errors import InputError  # noqa: E402
from nessampler.molecular.force_field.collective import CustomCV  # noqa: E402
from nessampler.molecular.force_field.custom_bonded import (  # noqa: E402
    custom_angle,
    custom_bond,
    custom_centroid_bond,
    custom_compound_bond,
    custom_external,
    custom_torsion,
)
from nessampler.molecular.force_field.custom_gb import CustomGB  # noqa: E402
from nessampler.molecular.force_field.custom_nonbonded import CustomNonbonded  # noqa: E402
from nessampler.molecular.force_field.protocol import UnsupportedForce  # noqa: E402
from nessampler.molecular.systems import load_structure, parameterize  # noqa: E402
from nessampler.runs import catalogue  # noqa: E402

ATOMS = 7
BOX = torch.tensor([[1.3, 0.0, 0.0], [0.2, 1.2, 0.0], [-0.3, 0.25, 1.4]], dtype=torch.float64)
Build = Callable[[], Any]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_values(*shape: int, seed: int) -> Tensor:
    return 0.3 + torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def positions(walkers: int = 4, seed: int = 0) -> Tensor:
    """Of seven atoms strewn over a nanometre, `(walkers, atoms, 3)`."""
    return torch.rand(walkers, ATOMS, 3, generator=generator(seed), dtype=torch.float64)


def table(periodic: bool = False) -> Any:
    return openmm.Continuous1DFunction([0.3, -0.2, 0.9, 1.4, 0.1, 0.3], 0.0, 2.0, periodic)


# Forces under test ----------------------------------------------------------------------------------------------------


def bond() -> Any:
    force = openmm.CustomBondForce("k*(exp(-a*(r-r0))-1)^2 + lam^2*step(r-r0)*r")
    for name in ("k", "r0"):
        force.addPerBondParameter(name)
    force.addGlobalParameter("a", 2.0)
    force.addGlobalParameter("lam", 0.7)
    for i, row in enumerate(random_values(5, 2, seed=1).tolist()):
        force.addBond(i, i + 2, row)
    return force


def periodic_bond() -> Any:
    force = bond()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def angle() -> Any:
    force = openmm.CustomAngleForce("k*(theta-1.9)^2 + lam*cos(theta)")
    force.addPerAngleParameter("k")
    force.addGlobalParameter("lam", 0.7)
    for i in range(4):
        force.addAngle(i, i + 1, i + 3, [1.0 + i])
    return force


def periodic_angle() -> Any:
    force = angle()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def torsion() -> Any:
    force = openmm.CustomTorsionForce("k*(1+cos(n*theta-lam)) + min(d, 6.283-d)^2; d=abs(theta-1)")
    for name in ("k", "n"):
        force.addPerTorsionParameter(name)
    force.addGlobalParameter("lam", 0.7)
    for i in range(4):
        force.addTorsion(i, i + 1, i + 2, i + 3, [0.5 + i, i + 1])
    return force


def periodic_torsion() -> Any:
    force = torsion()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def external() -> Any:
    force = openmm.CustomExternalForce("k*((x-x0)^2+2*y^2+lam*x*z)")
    force.addPerParticleParameter("k")
    force.addPerParticleParameter("x0")
    force.addGlobalParameter("lam", 0.7)
    for i in (0, 3, 6):
        force.addParticle(i, [1.0 + i, 0.1 * i])
    return force


def periodic_external() -> Any:
    force = openmm.CustomExternalForce("k*periodicdistance(x, y, z, x0, lam, 0.9)^2")
    force.addPerParticleParameter("k")
    force.addPerParticleParameter("x0")
    force.addGlobalParameter("lam", 0.7)
    for i in (0, 3, 6):
        force.addParticle(i, [1.0 + i, 1.5 - 0.4 * i])
    return force


def compound_bond() -> Any:
    force = openmm.CustomCompoundBondForce(
        4,
        "k*f(distance(p1,p3)) + angle(p2,p1,p4)*x2*lam + sin(dihedral(p4,p2,p3,p1))/distance(p2,p4) + between;"
        "between=pointdistance(x1, y1, z1, (x2+x3)/2, (y2+y3)/2, (z2+z3)/2)"
        "+pointangle(x1,y1,z1, x2,y2,z2, 0.3,0.2,lam)^2+cos(2*pointdihedral(x1,y1,z1, x2,y2,z2, x3,y3,z3, 0,0,x4))",
    )
    force.addTabulatedFunction("f", table())
    force.addPerBondParameter("k")
    force.addGlobalParameter("lam", 0.7)
    force.addBond([0, 2, 4, 6], [1.5])
    force.addBond([1, 0, 3, 5], [-0.5])
    return force


def periodic_compound_bond() -> Any:
    force = compound_bond()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def centroid_bond() -> Any:
    force = openmm.CustomCentroidBondForce(3, "k*(distance(g1,g2)-0.3)^2 + lam*angle(g1,g2,g3) + x3*z1")
    force.addPerBondParameter("k")
    force.addGlobalParameter("lam", 0.7)
    force.addGroup([0, 1, 4])  # by mass
    force.addGroup([2, 3], [0.3, 1.9])
    force.addGroup([5, 6, 0])
    force.addBond([0, 1, 2], [3.0])
    force.addBond([2, 0, 1], [1.0])
    return force


def periodic_centroid_bond() -> Any:
    force = centroid_bond()
    force.setUsesPeriodicBoundaryConditions(True)
    return force


def nonbonded(method: int = 0) -> Any:
    force = openmm.CustomNonbondedForce(
        "lam*4*eps*(s^12-s^6) + q1*q2*g(r)/(r+0.2) + odd; s=0.2*(sigma1+sigma2)/(r+0.1*lam); eps=sqrt(e1*e2);"
        # Only without a neighbour list does OpenMM promise which particle comes first.
        + ("odd=0.1*e1*r" if method == 0 else "odd=0")
    )
    for name in ("sigma", "e", "q"):
        force.addPerParticleParameter(name)
    force.addGlobalParameter("lam", 0.7)
    force.addTabulatedFunction("g", table())
    for row in random_values(ATOMS, 3, seed=2).tolist():
        force.addParticle(row)
    for pair in ((0, 1), (5, 2), (3, 6)):
        force.addExclusion(*pair)
    force.setNonbondedMethod(method)
    force.setCutoffDistance(0.55)
    return force


def nonbonded_in_groups() -> Any:
    force = nonbonded()
    force.addInteractionGroup([0, 1, 2, 3], [2, 3, 4, 0])
    force.addInteractionGroup([6], [0, 1, 2, 3, 4, 5])
    return force


def nonbonded_with_cutoff() -> Any:
    return nonbonded(openmm.CustomNonbondedForce.CutoffNonPeriodic)


def nonbonded_switched() -> Any:
    force = nonbonded_with_cutoff()
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.3)
    return force


def nonbonded_periodic() -> Any:
    force = nonbonded(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.4)
    return force


def nonbonded_with_types() -> Any:
    """Types are looked up in tables, and charges computed from other parameters."""
    force = openmm.CustomNonbondedForce("lam*a(type1,type2)/(r+0.3)^4 + charge1*charge2/(r+0.1)")
    force.addPerParticleParameter("type")
    force.addPerParticleParameter("raw")
    force.addComputedValue("charge", "lam*raw - 0.5*type")
    force.addGlobalParameter("lam", 0.7)
    force.addTabulatedFunction("a", openmm.Discrete2DFunction(3, 3, random_values(9, seed=3).tolist()))
    for i in range(ATOMS):
        force.addParticle([i % 3, 0.2 * i])
    return force


def born(method: int = 0) -> Any:
    force = openmm.CustomGBForce()
    for name in ("charge", "size"):
        force.addPerParticleParameter(name)
    force.addGlobalParameter("lam", 0.7)
    kinds = openmm.CustomGBForce
    force.addTabulatedFunction("g", table())
    force.addComputedValue(
        "I", "lam*size2*exp(-r/size1)/(r+size2) + select(step(r-0.4), log(r)*g(r), 0)", kinds.ParticlePair
    )
    force.addComputedValue("B", "1/(1+tanh(I)*size) + 0.1*x*lam", kinds.SingleParticle)
    force.addComputedValue("C", "I*B + y", kinds.SingleParticle)
    force.addEnergyTerm("lam*charge^2/B + C*z", kinds.SingleParticle)
    force.addEnergyTerm("charge1*charge2/sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2))) + C1*C2", kinds.ParticlePair)
    force.addEnergyTerm("lam*(I1+I2)*exp(-r)", kinds.ParticlePairNoExclusions)
    for row in random_values(ATOMS, 2, seed=4).tolist():
        force.addParticle(row)
    for pair in ((0, 1), (5, 2), (3, 6)):
        force.addExclusion(*pair)
    force.setNonbondedMethod(method)
    force.setCutoffDistance(0.55)
    return force


def born_of_any_pair() -> Any:
    force = born()
    name, text, _ = force.getComputedValueParameters(0)
    force.setComputedValueParameters(0, name, text, openmm.CustomGBForce.ParticlePairNoExclusions)
    return force


def born_with_cutoff() -> Any:
    return born(openmm.CustomGBForce.CutoffNonPeriodic)


def born_periodic() -> Any:
    return born(openmm.CustomGBForce.CutoffPeriodic)


def collective() -> Any:
    force = openmm.CustomCVForce("lam*d^2 + sin(t)*d + h(d)*height")
    force.addGlobalParameter("lam", 0.7)
    force.addGlobalParameter("height", 1.2)
    force.addTabulatedFunction("h", table())
    distance = openmm.CustomBondForce("r*depth")
    distance.addGlobalParameter("depth", 0.9)
    distance.addBond(0, 4, [])
    twist = openmm.CustomTorsionForce("theta")
    twist.addTorsion(0, 2, 3, 5, [])
    force.addCollectiveVariable("d", distance)
    force.addCollectiveVariable("t", twist)
    return force


def convert(force: Any, system: Any) -> Any:
    kinds: dict[str, Callable[[Any, Any], Any]] = {
        "CustomBondForce": custom_bond,
        "CustomAngleForce": custom_angle,
        "CustomTorsionForce": custom_torsion,
        "CustomExternalForce": custom_external,
        "CustomCompoundBondForce": custom_compound_bond,
        "CustomCentroidBondForce": custom_centroid_bond,
        "CustomNonbondedForce": CustomNonbonded.from_openmm,
        "CustomGBForce": CustomGB.from_openmm,
        "CustomCVForce": lambda f, s: CustomCV.from_openmm(f, s, convert),
    }
    return kinds[type(force).__name__](force, system)


OPEN = [
    bond,
    angle,
    torsion,
    external,
    compound_bond,
    centroid_bond,
    nonbonded,
    nonbonded_in_groups,
    nonbonded_with_cutoff,
    nonbonded_switched,
    nonbonded_with_types,
    born,
    born_of_any_pair,
    born_with_cutoff,
    collective,
]
PERIODIC = [
    periodic_bond,
    periodic_angle,
    periodic_torsion,
    periodic_external,
    periodic_compound_bond,
    periodic_centroid_bond,
    nonbonded_periodic,
    born_periodic,
]
ALL = [*OPEN, *PERIODIC]


# The comparison -------------------------------------------------------------------------------------------------------


def system_of(force: Any) -> Any:
    system = openmm.System()
    for i in range(ATOMS):
        system.addParticle(1.0 + 3 * i)
    system.setDefaultPeriodicBoxVectors(*BOX.tolist())
    system.addForce(force)
    return system


def with_openmm(system: Any, x: Tensor, parameters: dict[str, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Energies, forces, and derivatives by `lam` where the force was asked for them."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    for name, value in parameters.items():
        context.setParameter(name, value)
    energies, forces, slopes = [], [], []
    for conformation in x:
        context.setPositions(conformation.numpy())
        state = context.getState(getEnergy=True, getForces=True, getParameterDerivatives=True)
        energies.append(state.getPotentialEnergy()._value)
        forces.append(torch.from_numpy(state.getForces(asNumpy=True)._value.copy()))
        slopes.append(dict(state.getEnergyParameterDerivatives()).get("lam", 0.0))
    tensors = (torch.tensor(v, dtype=torch.float64) for v in (energies, slopes))
    energy, slope = tensors
    return energy, torch.stack(forces), slope


def inputs(term: Any, x: Tensor, **given: float) -> tuple[Tensor, dict[str, Tensor]]:
    values = {**term.default_parameters, **given}
    globals = {k: torch.tensor(v, dtype=x.dtype) for k, v in values.items()}
    return x.permute(2, 1, 0).contiguous().requires_grad_(), globals


def assert_equal(term: Any, system: Any, x: Tensor, box: Tensor | None, **given: float) -> None:
    expected, expected_forces, _ = with_openmm(system, x, given)
    y, globals = inputs(term, x, **given)
    energy = term(y, globals, box)
    scale = term.contributions(y, globals, box).abs().sum(0)
    assert ((energy - expected).abs() <= 1e-12 * scale).all()
    forces = -torch.autograd.grad(energy.sum(), y)[0].permute(2, 1, 0)
    assert (forces - expected_forces).abs().max() <= 1e-10 * expected_forces.abs().max()
    torch.testing.assert_close(term.contributions(y, globals, box).sum(0), energy, rtol=1e-12, atol=1e-12)
    assert expected.std() > 1e-3  # conformations differ, or any constant would do
    assert expected_forces.abs().max() > 1e-3


@pytest.mark.parametrize("build", ALL, ids=lambda b: b.__name__)
def test_energies_and_forces_are_those_of_openmm(build: Build) -> None:
    system = system_of(build())
    term = convert(system.getForce(0), system)
    x = positions() if build in OPEN else 3 * positions() - 1  # over several images
    assert_equal(term, system, x, BOX if build in PERIODIC else None)
    assert_equal(term, system, x, BOX if build in PERIODIC else None, lam=1.3)


def test_the_comparison_sees_a_part_in_a_million() -> None:
    system = system_of(nonbonded())
    term = convert(system.getForce(0), system)
    term.parameter_values[0][2] *= 1 + 1e-6
    with pytest.raises(AssertionError):
        assert_equal(term, system, positions(), None)


def test_a_periodic_force_needs_its_box() -> None:
    """The negative control of nearest images: without them the numbers are others."""
    system = system_of(nonbonded_periodic())
    term = convert(system.getForce(0), system)
    with pytest.raises(AssertionError):
        assert_equal(term, system, 3 * positions() - 1, None)


@pytest.mark.parametrize("build", ALL, ids=lambda b: b.__name__)
def test_the_slope_in_a_global_parameter_is_that_of_openmm(build: Build) -> None:
    force = build()
    analytic = hasattr(force, "addEnergyParameterDerivative") and build not in (collective, nonbonded_with_types)
    if analytic:
        force.addEnergyParameterDerivative("lam")
    system = system_of(force)
    term = convert(system.getForce(0), system)
    x, box = positions(), BOX if build in PERIODIC else None
    y, globals = inputs(term, x)
    globals["lam"] = torch.full((len(x),), 0.7, dtype=torch.float64, requires_grad=True)  # one per walker
    (slope,) = torch.autograd.grad(term(y, globals, box).sum(), globals["lam"])
    if analytic:
        expected = with_openmm(system, x, {})[2]
    else:
        above, below = (with_openmm(system, x, {"lam": 0.7 + h})[0] for h in (1e-4, -1e-4))
        expected = (above - below) / 2e-4
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("build", ALL, ids=lambda b: b.__name__)
def test_every_walker_has_its_own_parameter(build: Build) -> None:
    system = system_of(build())
    term = convert(system.getForce(0), system)
    y, globals = inputs(term, positions())
    box = BOX if build in PERIODIC else None
    lam = torch.tensor([0.1, 0.5, 0.9, 1.3], dtype=torch.float64)
    together = term(y, {**globals, "lam": lam}, box)
    apart = [term(y[..., k : k + 1], {**globals, "lam": lam[k]}, box) for k in range(4)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("build", [b for b in ALL if b not in (nonbonded_with_cutoff, born_with_cutoff, born_periodic)])
def test_second_derivatives_are_those_of_finite_differences(build: Build) -> None:
    system = system_of(build())
    term = convert(system.getForce(0), system)
    y, globals = inputs(term, positions(2, seed=5))
    box = BOX if build in PERIODIC else None
    lam = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def gradients(position: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        energy = term(position, {**globals, "lam": lam}, box)
        first, second = torch.autograd.grad(energy.sum(), (position, lam), create_graph=True)
        return first, second

    along = torch.randn(y.shape, generator=generator(6), dtype=torch.float64)
    first, second = gradients(y, lam)
    by_position, by_lam = torch.autograd.grad((first * along).sum() + second, (y, lam))
    h, step = 1e-5, torch.randn(y.shape, generator=generator(7), dtype=torch.float64)

    def along_at(position: Tensor, value: Tensor) -> Tensor:
        first, second = gradients(position.detach().requires_grad_(), value.detach().requires_grad_())
        return ((first * along).sum() + second).detach()

    by_step = (along_at(y + h * step, lam) - along_at(y - h * step, lam)) / (2 * h)
    assert (by_position * step).sum().item() == pytest.approx(by_step.item(), rel=1e-5, abs=1e-5)
    by_step = (along_at(y, lam + h) - along_at(y, lam - h)) / (2 * h)
    assert by_lam.item() == pytest.approx(by_step.item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("build", [bond, nonbonded, nonbonded_with_types, born], ids=lambda b: b.__name__)
def test_energies_are_differentiable_in_a_forces_own_parameters(build: Build) -> None:
    system = system_of(build())
    term = convert(system.getForce(0), system)
    assert not any(p.requires_grad for p in term.parameters())
    y, globals = inputs(term, 2 * positions())  # far enough apart for finite differences to keep their digits
    last = term.parameter_values[-1]
    last.requires_grad_(True)
    (slope,) = torch.autograd.grad(term(y, globals, None).sum(), last)
    with torch.no_grad():
        sides = []
        for h in (1e-5, -1e-5):
            last[3] += h
            sides.append(term(y, globals, None).sum().item())
            last[3] -= h
    assert slope[3].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6)
    assert slope[3].abs() > 1e-4


@pytest.mark.parametrize("build", OPEN, ids=lambda b: b.__name__)
def test_single_precision_agrees_to_its_digits(build: Build) -> None:
    system = system_of(build())
    term = convert(system.getForce(0), system)
    y, globals = inputs(term, positions())
    energy, scale = term(y, globals, None), term.contributions(y, globals, None).abs().sum(0)
    term.to(torch.float32)
    single = term(y.float(), {k: v.float() for k, v in globals.items()}, None)
    assert single.dtype == torch.float32
    assert ((single - energy).abs() < 3e-5 * scale + 1e-5).all()


# Single properties ----------------------------------------------------------------------------------------------------


def test_an_angle_has_finite_slopes_on_a_line_and_a_distance_at_zero() -> None:
    force = openmm.CustomCompoundBondForce(3, "angle(p1,p2,p3)^2 + distance(p1,p2)")
    force.addBond([0, 1, 2], [])
    force.addBond([3, 4, 5], [])
    term = convert(force, system_of(openmm.CustomBondForce("r")))
    y = torch.zeros(3, ATOMS, 1, dtype=torch.float64)
    y[0, :3, 0] = torch.tensor([0.0, 1.0, 2.0])  # in a row; the others on one spot
    y.requires_grad_()
    energy = term(y, {}, None)
    (gradient,) = torch.autograd.grad(energy.sum(), y)
    assert energy.item() == pytest.approx(1.25 * torch.pi**2 + 1)  # of points on one spot, a right angle
    assert torch.isfinite(gradient).all()


def test_a_force_of_nothing_has_no_energy() -> None:
    term = convert(openmm.CustomBondForce("7*r"), system_of(openmm.CustomBondForce("r")))
    y, _ = inputs(term, positions())
    assert torch.equal(term(y, {}, None), torch.zeros(4, dtype=torch.float64))


def test_an_empty_interaction_group_has_no_energy() -> None:
    """As of a molecule that is alchemical as a whole, and has nothing around it."""
    force = nonbonded()
    force.addInteractionGroup([0, 1, 2], [])
    system = system_of(force)
    y, globals = inputs(term := convert(system.getForce(0), system), positions())
    assert torch.equal(term(y, globals, None), torch.zeros(4, dtype=torch.float64))


def test_an_energy_that_depends_on_nothing_counts_every_bond() -> None:
    force = openmm.CustomBondForce("7")
    force.addBond(0, 1, [])
    force.addBond(1, 2, [])
    term = convert(force, system_of(openmm.CustomBondForce("r")))
    y, _ = inputs(term, positions())
    assert torch.equal(term(y, {}, None), torch.full((4,), 14.0, dtype=torch.float64))


def test_a_long_range_correction_is_refused() -> None:
    force = nonbonded_periodic()
    force.setUseLongRangeCorrection(True)
    with pytest.raises(UnsupportedForce, match=r"setUseLongRangeCorrection\(False\)"):
        convert(force, system_of(openmm.CustomBondForce("r")))


def test_an_expression_that_openmm_would_refuse_is_refused() -> None:
    force = openmm.CustomBondForce("k*r")
    force.addBond(0, 1, [])
    with pytest.raises(InputError, match="'k' is not known"):
        convert(force, system_of(openmm.CustomBondForce("r")))


# Implicit solvents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["hct", "obc1", "obc2", "gbn", "gbn2"])
def test_implicit_solvents_are_those_of_openmm(model: str) -> None:
    molecule = load_structure(catalogue.root() / "alanine-solvation" / "alanine-dipeptide.pdb")
    system = parameterize(molecule, ["amber14-all.xml", f"implicit/{model}.xml"], {"implicitSolventKappa": 0.7})
    for i in reversed(range(system.getNumForces())):
        if not isinstance(system.getForce(i), openmm.CustomGBForce):
            system.removeForce(i)
    start = torch.as_tensor(molecule.positions)
    x = start + 0.03 * torch.randn(3, *start.shape, generator=generator(8), dtype=torch.float64)
    term = convert(system.getForce(0), system)
    assert_equal(term, system, x, None)
    term.parameter_values[1][4] *= 1 + 1e-6
    with pytest.raises(AssertionError):
        assert_equal(term, system, x, None)


def test_a_force_can_be_written_down_as_one_graph() -> None:
    """What a compiler sees has no registers that are written twice, and leaves nothing behind."""
    system = system_of(born())
    term = convert(system.getForce(0), system)
    y, globals = inputs(term, positions())

    def energy_and_gradient(position: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            position = position.detach().requires_grad_()
            energy = term(position, {**globals, "lam": lam}, None)
            return energy.detach(), torch.autograd.grad(energy.sum(), position)[0]

    expected = energy_and_gradient(y, globals["lam"])
    with torch.no_grad():
        graph = make_fx(energy_and_gradient)(y.detach(), globals["lam"])
    assert not any(".out" in str(node.target) for node in graph.graph.nodes)
    other = positions(seed=11).permute(2, 1, 0).contiguous(), torch.tensor(1.1, dtype=torch.float64)
    for arguments, wanted in (((y.detach(), globals["lam"]), expected), (other, energy_and_gradient(*other))):
        for found, value in zip(graph(*arguments), wanted, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-12)
