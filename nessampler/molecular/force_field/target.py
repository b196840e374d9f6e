"""The Boltzmann density of an OpenMM system, evaluated in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.force_field.force_field import TorchForceField

__all__ = ["TorchForceFieldTarget", "check_positions", "thermal_energy"]


def thermal_energy(temperature: float) -> float:
    """$k_B T$ in kJ/mol.

    Raises:
        InputError: the temperature is not positive.

    Example:
        >>> thermal_energy(300.0)
        2.494...
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature must be positive, in kelvin: got {temperature}")
    return (unit.MOLAR_GAS_CONSTANT_R * temperature * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)


def check_positions(x: Tensor, event_shape: torch.Size) -> None:
    """Refuse positions of another shape, and those that are not finite.

    Raises:
        InputError: naming the conformation and the atom.
    """
    if x.ndim != 3 or x.shape[1:] != event_shape:
        raise InputError(f"positions must be (n, {event_shape[0]}, 3) in nm: got {tuple(x.shape)}")
    bad = ~torch.isfinite(x).all(dim=-1)
    if bad.any():
        frame, atom = (int(i) for i in bad.nonzero()[0])
        raise InputError(f"coordinates must be finite: conformation {frame}, atom {atom} is {x[frame, atom].tolist()}")


class TorchForceFieldTarget:
    r"""The Boltzmann density of an OpenMM system, evaluated in torch for many conformations at once.

    $$U(x) = E(x; \lambda) / k_B T$$

    Positions `(n, atoms, 3)` in nm, of any float dtype and device; energies `(n,)` in kT in theirs. Twice
    differentiable in positions and in global parameters. In a periodic system it is a density on the box's torus.

    Args:
        system: without constraints and virtual sites, every force of it covered by torch.
        temperature: kelvin.
        parameters: global parameters that are not at their defaults; tensors stay differentiable.
        device, dtype: where and in what precision to compute; works of exact kernels deserve double precision.
        chunk_size: walkers at a time, which bounds the memory; by default as many as keep the cache busy.
        compile: fuse energies and forces, after a first call of up to a minute; see `TorchForceField`.

    Attributes:
        force_field: the `TorchForceField`, in kJ/mol.
        backend: "torch".
        reason: why this backend, in words.

    Raises:
        UnsupportedForce: a force that torch does not cover.
        InputError: the system is no density, the temperature is not positive, or a parameter that no force has.

    Example:
        >>> spring = openmm.HarmonicBondForce()
        >>> _ = spring.addBond(0, 1, 0.1, 1000.0)
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(2)], system.addForce(spring)
        >>> target = TorchForceFieldTarget(system, temperature=300.0)
        >>> target.energy(torch.tensor([[[0.0, 0.0, 0.0], [0.15, 0.0, 0.0]]], dtype=torch.float64))
        tensor([0.5011], dtype=torch.float64)
    """

    backend = "torch"

    def __init__(
        self,
        system: openmm.System,
        temperature: float,
        *,
        parameters: Mapping[str, float | Tensor] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
        chunk_size: int | None = None,
        compile: bool = False,
    ) -> None:
        self.force_field = TorchForceField(system, device=device, dtype=dtype, chunk_size=chunk_size, compile=compile)
        self.event_shape = torch.Size((system.getNumParticles(), 3))
        self.kt = thermal_energy(temperature)
        self.temperature = float(temperature)
        self.parameters = dict(parameters or {})
        self.force_field.check_parameters(self.parameters)
        self.reason = "torch covers every force"

    def energy(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """U in kT."""
        check_positions(x, self.event_shape)
        return self.force_field.energy(x, parameters=self.parameters) / self.kt

    def energy_and_score(self, x: Float[Tensor, "n atoms 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """U in kT and -∇U in kT/nm, detached."""
        check_positions(x, self.event_shape)
        energy, forces = self.force_field.energy_and_forces(x, parameters=self.parameters)
        return energy / self.kt, forces / self.kt
