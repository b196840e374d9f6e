"""What every force of a torch force field offers, and the error of a force that torch does not cover."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from jaxtyping import Float, Int
from openmm import unit
from torch import Tensor, nn

from nessampler.errors import InputError

__all__ = ["Convert", "Term", "UnsupportedForce", "column", "index_rows", "plain"]


class Term(Protocol):
    r"""One force of an `openmm.System`, an `nn.Module` that sums its interactions $U(x) = \sum_k u_k(x)$.

    Positions are `(3, atoms, walkers)` in nm, contiguous along the walkers, energies `(walkers,)` in kJ/mol. `globals`
    maps OpenMM's names of global parameters to tensors, 0-d or `(walkers,)`; `box` holds three reduced box vectors as
    rows in nm, or is None, and a force that is not periodic ignores it. Parameters of the force are `nn.Parameter`s
    `(interactions, 1)` without gradient until asked for, indices are buffers, and everything is made in float64 on
    the CPU; `module.to(...)` moves it.

    Attributes:
        default_parameters: OpenMM's default of every global parameter that the force reads.

    Example:
        >>> import openmm
        >>> from nessampler.molecular import TorchForceField
        >>> springs = openmm.HarmonicBondForce()
        >>> _ = springs.addBond(0, 1, 0.1, 1000.0), springs.addBond(1, 2, 0.1, 1000.0)
        >>> system = openmm.System()
        >>> _ = [system.addParticle(12.0) for _ in range(3)], system.addForce(springs)
        >>> term: Term = TorchForceField(system).terms["HarmonicBondForce"]
        >>> x = torch.zeros(3, 3, 1, dtype=torch.float64)
        >>> x[0, :, 0] = torch.tensor([0.0, 0.15, 0.3])  # one walker on the x axis
        >>> term(x, {}, None), term.contributions(x, {}, None).T
        (tensor([2.5000], dtype=torch.float64), tensor([[1.2500, 1.2500]], dtype=torch.float64))
    """

    default_parameters: dict[str, float]

    def __call__(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None, /
    ) -> Float[Tensor, " walkers"]:
        """The energy of every walker."""
        ...

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None, /
    ) -> Float[Tensor, "interactions walkers"]:
        """The summands, which say how much of an energy has cancelled."""
        ...


Convert: TypeAlias = Callable[[Any, Any], Term]  # (openmm.Force, openmm.System) to the term, or UnsupportedForce


class UnsupportedForce(InputError):
    """A force that the torch force field does not cover: which it is, why, and what to use instead."""


def plain(values: Iterable[Any]) -> list[Any]:
    """Quantities as floats in nm, kJ/mol, radian and elementary charge; everything else as it is."""
    system = unit.md_unit_system
    return [v.value_in_unit_system(system) if isinstance(v, unit.Quantity) else v for v in values]


def column(values: Sequence[float]) -> nn.Parameter:
    """A parameter of every interaction, `(interactions, 1)` in float64, frozen."""
    return nn.Parameter(torch.tensor(values, dtype=torch.float64).reshape(-1, 1), requires_grad=False)


def index_rows(values: Sequence[Sequence[int]], width: int) -> Int[Tensor, "width interactions"]:
    """Atom indices of every interaction, one row per place in it."""
    return torch.tensor(values, dtype=torch.int64).reshape(-1, width).T.contiguous()
