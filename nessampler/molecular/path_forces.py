"""What dynamics asks of a force field, asked of a path: every replica has a time of its own."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nessampler.molecular.alchemical import AlchemicalPath
from nessampler.molecular.force_field.target import TorchForceFieldTarget
from nessampler.molecular.torch_dynamics import Forces
from nessampler.paths import AnnealingPath
from nessampler.paths.scheduled import ScheduledPath

__all__ = ["forces_of_states"]


def forces_of_states(path: AnnealingPath, t: Float[Tensor, " n"], kt: float) -> Forces:
    r"""$F = -k_BT\,\nabla U_t$ at fixed times, in kJ/mol/nm.

    Of paths whose terms are torch force fields, weights and parameters are worked out once and energies never: nothing
    waits for a GPU.

    Args:
        path: over positions `(n, atoms, 3)` in nm.
        t: of every replica.
        kt: kJ/mol, of the dynamics.
    """
    if isinstance(path, AlchemicalPath):
        return _Alchemical(path, t, kt / path.kt)
    if isinstance(path, ScheduledPath) and all(isinstance(term, TorchForceFieldTarget) for term in path.terms):
        return _Sum(path, t, kt)
    return _Any(path, t, kt)


class _Alchemical:
    def __init__(self, path: AlchemicalPath, t: Tensor, scale: float) -> None:
        self._field, self._parameters, self._scale = path.force_field, path.parameters(t), scale
        self.device, self.capturable = t.device, path.force_field.capturable

    def forces(self, x: Tensor) -> Tensor:
        return self._scale * self._field.forces(x, parameters=self._parameters)


class _Sum:
    def __init__(self, path: ScheduledPath, t: Tensor, kt: float) -> None:
        weights = path.schedule(t).unbind(-1)
        terms = [term for term in path.terms if isinstance(term, TorchForceFieldTarget)]
        self._parts = [
            (kt / term.kt * w[:, None, None], term)
            for w, term in zip(weights, terms, strict=True)
            if bool(w.count_nonzero())
        ]
        self.device = t.device
        elsewhere = any(
            isinstance(value, Tensor) and value.device != t.device
            for _, term in self._parts
            for value in term.parameters.values()
        )
        self.capturable = not elsewhere and all(term.force_field.capturable for _, term in self._parts)

    def forces(self, x: Tensor) -> Tensor:
        found = [w * term.force_field.forces(x, parameters=term.parameters) for w, term in self._parts]
        return sum(found[1:], found[0])


class _Any:
    capturable = False

    def __init__(self, path: AnnealingPath, t: Tensor, kt: float) -> None:
        self._path, self._t, self._kt, self.device = path, t, kt, t.device

    def forces(self, x: Tensor) -> Tensor:
        return self._kt * self._path.energy_and_score(self._t.to(x.dtype), x)[1]
