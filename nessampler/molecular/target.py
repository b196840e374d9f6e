"""An `openmm.System` at a temperature as a density: U in kT, with forces as the gradient."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import openmm
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.contexts import ContextPool
from nessampler.molecular.force_field.force_field import unsupported_force
from nessampler.molecular.force_field.target import TorchForceFieldTarget, check_positions, thermal_energy
from nessampler.molecular.systems import check_density

__all__ = ["OpenMMTarget", "openmm_target"]


class OpenMMTarget:
    r"""The Boltzmann density of an OpenMM system, evaluated by OpenMM.

    $$U(x) = E(x) / k_B T, \qquad \nabla \log \rho(x) = -\nabla U(x) = F(x) / k_B T$$

    Positions `(n, atoms, 3)` in nm of any float dtype; energies `(n,)` in kT in the dtype of the positions.
    `energy` is differentiable once: autograd sees minus the forces. A second derivative raises.

    Args:
        system: without constraints, virtual sites, barostats or a periodic box.
        temperature: kelvin.
        platform: OpenMM's platform; Reference computes in double precision, which exact works deserve.
        pool: processes to share the conformations; by default this one alone.
        reason: why this backend was taken, in words, where it was chosen.

    Attributes:
        backend: "openmm".

    Raises:
        InputError: the system is no density on R^3N, or the temperature is not positive.

    Example:
        >>> spring = openmm.HarmonicBondForce()
        >>> _ = spring.addBond(0, 1, 0.1, 1000.0)
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(2)], system.addForce(spring)
        >>> x = torch.tensor([[[0.0, 0.0, 0.0], [0.15, 0.0, 0.0]]], dtype=torch.float64)
        >>> energy, score = OpenMMTarget(system, temperature=300.0).energy_and_score(x)
        >>> energy, score[0, 1]  # 1.25 kJ/mol, and -50 kJ/mol/nm along the bond
        (tensor([0.5011], dtype=torch.float64), tensor([-20.0454,   0.0000,   0.0000], dtype=torch.float64))
    """

    backend = "openmm"

    def __init__(
        self,
        system: openmm.System,
        temperature: float,
        *,
        platform: str = "Reference",
        pool: ContextPool | None = None,
        reason: str = "asked for",
    ) -> None:
        check_density(system)
        self.kt = thermal_energy(temperature)
        self.event_shape = torch.Size((system.getNumParticles(), 3))
        self.temperature = float(temperature)
        self.system_xml = openmm.XmlSerializer.serialize(system)
        self.platform = platform
        self.pool = pool or ContextPool(1)
        self.reason = reason

    def energy(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """U in kT; costs forces as well only where `x` requires a gradient."""
        check_positions(x, self.event_shape)
        if x.requires_grad and torch.is_grad_enabled():
            return _Bridge.apply(x, self)  # pyright: ignore[reportReturnType]
        return self._evaluate(x, forces=False)[0]

    def energy_and_score(self, x: Float[Tensor, "n atoms 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """U in kT and -∇U in kT/nm, from one call of OpenMM per conformation."""
        check_positions(x, self.event_shape)
        energy, score = self._evaluate(x, forces=True)
        assert score is not None
        return energy, score

    def _evaluate(self, x: Tensor, forces: bool) -> tuple[Tensor, Tensor | None]:
        positions = x.detach().cpu().numpy().astype(np.float64)
        energy, force = self.pool.evaluate(self.system_xml, self.platform, positions, forces)
        score = None if force is None else torch.as_tensor(force / self.kt, dtype=x.dtype, device=x.device)
        return torch.as_tensor(energy / self.kt, dtype=x.dtype, device=x.device), score


class _Bridge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, target: OpenMMTarget) -> Tensor:
        energy, score = target._evaluate(x, forces=True)
        ctx.save_for_backward(x, score)
        return energy

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_output: Tensor
    ) -> tuple[Tensor, None]:
        x, score = ctx.saved_tensors
        return _Gradient.apply(x, score, grad_output[0]), None  # pyright: ignore[reportReturnType]


class _Gradient(torch.autograd.Function):
    """The gradient, tied to the positions: a second derivative must raise, where a detached one would be dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, score: Tensor, grad_output: Tensor) -> Tensor:
        return -score * grad_output[:, None, None]

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> Any:
        raise NotImplementedError(
            "OpenMM gives energies and forces, no second derivatives: an energy was differentiated twice; "
            "use an objective that needs the score alone"
        )


def openmm_target(
    system: openmm.System,
    temperature: float,
    backend: Literal["auto", "torch", "openmm"] = "auto",
    **options: Any,
) -> OpenMMTarget | TorchForceFieldTarget:
    """The Target, in kT, of an OpenMM system at a temperature in kelvin.

    `backend="torch"` evaluates whole batches in torch and is differentiable twice; `"openmm"` evaluates with OpenMM
    itself, one conformation at a time; `"auto"` takes torch where it covers every force. The target's `backend` and
    `reason` say which it became and why.

    Args:
        options: those of `TorchForceFieldTarget` or `OpenMMTarget`; with `"auto"`, a `platform` asks for OpenMM, and a
            `pool` serves if it comes to that.

    Raises:
        UnsupportedForce: torch was asked for and does not cover a force.
        InputError: an unknown backend, or a system that is no density.

    Example:
        >>> spring = openmm.HarmonicBondForce()
        >>> _ = spring.addBond(0, 1, 0.1, 1000.0)
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(2)], system.addForce(spring)
        >>> x = torch.tensor([[[0.0, 0.0, 0.0], [0.15, 0.0, 0.0]]], dtype=torch.float64)
        >>> fast, slow = openmm_target(system, 300.0), openmm_target(system, 300.0, backend="openmm")
        >>> fast.backend, slow.backend, torch.allclose(fast.energy(x), slow.energy(x))
        ('torch', 'openmm', True)
    """
    if backend not in ("auto", "torch", "openmm"):
        raise InputError(f"backend must be 'auto', 'torch' or 'openmm': got {backend!r}")
    if backend == "torch":
        return TorchForceFieldTarget(system, temperature, **options)
    if backend == "openmm":
        return OpenMMTarget(system, temperature, **options)
    reason = "`platform` was given" if "platform" in options else unsupported_force(system)
    if reason is None:
        options.pop("pool", None)
        return TorchForceFieldTarget(system, temperature, **options)
    if of_torch := sorted(options.keys() - {"platform", "pool"}):
        raise InputError(
            f"OpenMM evaluates this system ({reason}) and knows no {', '.join(of_torch)}: leave that out, or ask for "
            'backend="torch" to see what torch does not cover'
        )
    return OpenMMTarget(system, temperature, reason=reason, **options)
