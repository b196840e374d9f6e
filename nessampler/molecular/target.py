"""An `openmm.System` at a temperature as a density: U in kT, with forces as the gradient."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import openmm
import torch
from jaxtyping import Float
from openmm import unit
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.contexts import ContextPool
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

    Raises:
        InputError: the system is no density on R^3N, or the temperature is not positive.
    """

    def __init__(
        self,
        system: openmm.System,
        temperature: float,
        *,
        platform: str = "Reference",
        pool: ContextPool | None = None,
    ) -> None:
        check_density(system)
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature must be positive, in kelvin: got {temperature}")
        self.event_shape = torch.Size((system.getNumParticles(), 3))
        self.temperature = float(temperature)
        self.kt = (unit.MOLAR_GAS_CONSTANT_R * temperature * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
        self.system_xml = openmm.XmlSerializer.serialize(system)
        self.platform = platform
        self.pool = pool or ContextPool(1)

    def energy(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """U in kT; costs forces as well only where `x` requires a gradient."""
        self._check(x)
        if x.requires_grad and torch.is_grad_enabled():
            return _Bridge.apply(x, self)  # pyright: ignore[reportReturnType]
        return self._evaluate(x, forces=False)[0]

    def energy_and_score(self, x: Float[Tensor, "n atoms 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n atoms 3"]]:
        """U in kT and -∇U in kT/nm, from one call of OpenMM per conformation."""
        self._check(x)
        energy, score = self._evaluate(x, forces=True)
        assert score is not None
        return energy, score

    def _evaluate(self, x: Tensor, forces: bool) -> tuple[Tensor, Tensor | None]:
        positions = x.detach().cpu().numpy().astype(np.float64)
        energy, force = self.pool.evaluate(self.system_xml, self.platform, positions, forces)
        score = None if force is None else torch.as_tensor(force / self.kt, dtype=x.dtype, device=x.device)
        return torch.as_tensor(energy / self.kt, dtype=x.dtype, device=x.device), score

    def _check(self, x: Tensor) -> None:
        if x.ndim != 3 or x.shape[1:] != self.event_shape:
            raise InputError(f"positions must be (n, {self.event_shape[0]}, 3) in nm: got {tuple(x.shape)}")
        bad = ~torch.isfinite(x).all(dim=-1)
        if bad.any():
            frame, atom = (int(i) for i in bad.nonzero()[0])
            raise InputError(
                f"coordinates must be finite: conformation {frame}, atom {atom} is {x[frame, atom].tolist()}"
            )


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
    backend: Literal["auto", "openmm"] = "auto",
    **options: Any,
) -> OpenMMTarget:
    """The Target, in kT, of an OpenMM system at a temperature in kelvin.

    `backend="openmm"` evaluates with OpenMM itself; `"auto"` takes the fastest that covers every force, today
    always OpenMM. Further options go to `OpenMMTarget`.
    """
    if backend not in ("auto", "openmm"):
        raise InputError(f"backend must be 'auto' or 'openmm': got {backend!r}")
    return OpenMMTarget(system, temperature, **options)
