"""Energies and forces by OpenMM's Reference platform, which torch force fields have to reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import openmm
import torch
from openmm import unit
from torch import Tensor

from nessampler.molecular.force_field import TorchForceField

__all__ = ["assert_agrees", "disagreement", "perturbed", "reference"]

_KJ = unit.kilojoule_per_mole


def perturbed(positions: object, n: int = 2, width: float = 0.005, seed: int = 0) -> Tensor:
    """Conformations `(n, atoms, 3)` in nm, displaced by normal noise of `width` nm."""
    start = torch.as_tensor(np.asarray(positions, dtype=np.float64))
    noise = torch.randn(n, *start.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return start + width * noise


def reference(
    system: openmm.System, x: Tensor, parameters: Mapping[str, float] | None = None
) -> dict[int, tuple[Tensor, Tensor]]:
    """Energies `(n,)` and forces `(n, atoms, 3)` of every force by its index, kJ/mol and nm."""
    system = deepcopy(system)
    for index, force in enumerate(system.getForces()):
        force.setForceGroup(index)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    for name, value in (parameters or {}).items():
        context.setParameter(name, value)
    found: dict[int, list[tuple[float, np.ndarray]]] = {k: [] for k in range(system.getNumForces())}
    for positions in x.numpy():
        context.setPositions(positions)
        for index, rows in found.items():
            state = context.getState(getEnergy=True, getForces=True, groups=1 << index)
            force = state.getForces(asNumpy=True).value_in_unit(_KJ / (unit.nano * unit.meter))
            rows.append((state.getPotentialEnergy().value_in_unit(_KJ), np.array(force)))
    return {
        index: (torch.tensor([e for e, _ in rows], dtype=torch.float64), torch.tensor(np.stack([f for _, f in rows])))
        for index, rows in found.items()
    }


def disagreement(
    system: openmm.System,
    x: Tensor,
    parameters: Mapping[str, float] | None = None,
    force_field: TorchForceField | None = None,
) -> dict[str, tuple[float, float]]:
    """By force, and in "total": the energy's error over the sum of absolute terms, and the forces' over the largest."""
    system = deepcopy(system)
    for index, force in enumerate(system.getForces()):
        force.setForceGroup(index)
    force_field = force_field or TorchForceField(system)
    truth = reference(system, x, parameters)
    given = force_field.default_parameters | dict(parameters or {})
    values = {k: torch.tensor(v, dtype=torch.float64) for k, v in given.items()}
    across = x.permute(2, 1, 0).contiguous()
    found: dict[str, tuple[float, float]] = {}
    total_size, names = torch.zeros(len(x)), list(force_field.groups)
    expected = [system.getForce(k) for k in range(system.getNumForces())]
    indices = [k for k, force in enumerate(expected) if type(force).__name__ != "CMMotionRemover"]
    assert len(indices) == len(names)
    for name, index in zip(names, indices, strict=True):
        group = force_field.groups[name]
        term = force_field.terms[name]
        size = term.contributions(across, values, force_field.box).abs().sum(0)  # pyright: ignore
        energy, forces = force_field.energy_and_forces(x, parameters=parameters, groups={group})
        found[name] = _errors(energy, forces, *truth[index], size)
        total_size = total_size + size
    everything = [sum(rows[k] for rows in truth.values()) for k in range(2)]
    energy, forces = force_field.energy_and_forces(x, parameters=parameters)
    found["total"] = _errors(energy, forces, everything[0], everything[1], total_size)  # pyright: ignore
    return found


def assert_agrees(
    system: openmm.System,
    x: Tensor,
    parameters: Mapping[str, float] | None = None,
    force_field: TorchForceField | None = None,
) -> None:
    """Energies within 1e-9 of the sum of absolute terms, forces within 1e-7 of the largest, per force and in total."""
    for name, (energy, force) in disagreement(system, x, parameters, force_field).items():
        assert energy < 1e-9, f"{name}: energies differ by {energy:.1e} of the sum of absolute terms"
        assert force < 1e-7, f"{name}: forces differ by {force:.1e} of the largest"


def _errors(
    energy: Tensor, forces: Tensor, true_energy: Tensor, true_forces: Tensor, size: Tensor
) -> tuple[float, float]:
    largest = true_forces.abs().amax((1, 2))
    floor = 1e-12  # kJ/mol and nm: a force that is nothing agrees with nothing
    return (
        float(((energy - true_energy).abs() / size.clamp_min(floor)).max()),
        float(((forces - true_forces).abs().amax((1, 2)) / largest.clamp_min(floor)).max()),
    )
