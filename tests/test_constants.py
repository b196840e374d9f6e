"""Global parameters written into expressions as numbers: the same energies, by fewer operations."""

from __future__ import annotations

import pytest
import torch

openmm = pytest.importorskip("openmm")

from nessampler.errors import InputError  # noqa: E402
from nessampler.molecular import TorchForceField  # noqa: E402
from nessampler.molecular.force_field.constants import with_constants  # noqa: E402

SHAPE = {"alpha": 0.5, "power": 6.0, "shift": -0.25}


def soft(kind: str) -> openmm.Force:
    text = "scale * (alpha + (r / 0.3)^power)^(1 / power) + shift"
    if kind == "bond":
        force = openmm.CustomBondForce(text)
        force.addBond(0, 1, [])
    elif kind == "pairs":
        force = openmm.CustomNonbondedForce("w1 * w2 + " + text)
        force.addPerParticleParameter("size")
        force.addComputedValue("w", "alpha * size^power")
        for size in (0.7, 1.2):
            force.addParticle([size])
    else:
        force = openmm.CustomGBForce()
        force.addComputedValue("depth", text, openmm.CustomGBForce.ParticlePair)
        force.addEnergyTerm("depth^power * scale", openmm.CustomGBForce.SingleParticle)
        for _ in range(2):
            force.addParticle([])
    for name, value in {"scale": 2.0, **SHAPE}.items():
        force.addGlobalParameter(name, value)
    return force


def system_of(force: openmm.Force) -> openmm.System:
    system = openmm.System()
    for _ in range(2):
        system.addParticle(12.0)
    system.addForce(force)
    return system


@pytest.mark.parametrize("kind", ["bond", "pairs", "generalized Born"])
def test_energies_forces_and_slopes_are_those_of_the_parameters(kind: str) -> None:
    x = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = torch.linspace(0.5, 2, 5, dtype=torch.float64).requires_grad_()
    found = []
    for constants in ((), tuple(SHAPE)):
        field = TorchForceField(system_of(soft(kind)), constants=constants)
        position = x.clone().requires_grad_()
        energy = field.energy(position, parameters={"scale": scale})
        found.append((energy.detach(), *torch.autograd.grad(energy.sum(), (position, scale))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert float(found[0][1].abs().max()) > 0.1


def test_a_constant_is_no_parameter_any_more() -> None:
    force = soft("bond")
    text = force.getEnergyFunction()
    with_constants(force, SHAPE)
    assert force.getEnergyFunction() == text  # whoever brought it keeps it
    field = TorchForceField(system_of(force), constants=["alpha", "power"])
    assert field.default_parameters == {"scale": 2.0, "shift": -0.25}
    with pytest.raises(InputError, match=r"scale, shift: got 'alpha'"):
        field.energy(torch.zeros(1, 2, 3), parameters={"alpha": 1.0})
    (term,) = field.terms.values()
    assert set(term.expression.names) & {"alpha", "power"} == set()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_force_that_reads_none_of_them_is_left_alone() -> None:
    force = soft("bond")
    assert with_constants(force, ["other"]) is force
    assert with_constants(openmm.HarmonicBondForce(), ["alpha"]) is not None
    collective = openmm.CustomCVForce("alpha * d")
    collective.addGlobalParameter("alpha", 1.0)
    assert with_constants(collective, ["alpha"]) is collective
