"""CustomCVForce: an expression of collective variables, each the energy of a force of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from nessampler.molecular.force_field.custom_bonded import global_defaults
from nessampler.molecular.force_field.expressions import Function, compile_expression
from nessampler.molecular.force_field.protocol import Convert, Term
from nessampler.molecular.force_field.tabulated import tabulated_functions

__all__ = ["CustomCV"]


class CustomCV(nn.Module):
    r"""$U(x) = u(\xi_1(x), \ldots, \xi_m(x); \lambda)$, where the collective variables $\xi_k$ are energies of forces.

    Args:
        text: $u$ in kJ/mol.
        variables: the terms whose energies are the collective variables, by name.
        default_parameters: global parameters of $u$; those of the variables are added.
        functions: tabulated functions by name.

    Shapes: positions `(3, atoms, walkers)` in nm, energies `(walkers,)` in kJ/mol.

    Raises:
        InputError: an expression that cannot be read.

    Example:
        >>> import torch
        >>> from nessampler.molecular.force_field.custom_bonded import CustomBonded
        >>> distance = CustomBonded("distance(p1,p2)", torch.tensor([[0, 1]]))
        >>> restraint = CustomCV("k*(d-2)^2", {"d": distance}, default_parameters={"k": 10.0})
        >>> x = torch.tensor([[[0.0], [3.0]], [[0.0], [0.0]], [[0.0], [0.0]]])
        >>> restraint(x, {"k": torch.tensor(10.0)}, None)
        tensor([10.])
    """

    def __init__(
        self,
        text: str,
        variables: Mapping[str, Term],
        *,
        default_parameters: Mapping[str, float] | None = None,
        functions: Mapping[str, Function] | None = None,
    ) -> None:
        super().__init__()
        self.variable_names = tuple(variables)
        self.variables = nn.ModuleList(variables.values())  # pyright: ignore[reportArgumentType]
        self.functions = nn.ModuleList(f for f in (functions or {}).values() if isinstance(f, nn.Module))
        own = dict(default_parameters or {})
        self.default_parameters = own | {
            k: v for term in variables.values() for k, v in term.default_parameters.items()
        }
        self.expression = compile_expression(text, [*self.variable_names, *own], functions=functions)

    @classmethod
    def from_openmm(cls, force: Any, system: Any, convert: Convert) -> CustomCV:
        """The same expression; `convert` makes the terms of the forces inside."""
        count = force.getNumCollectiveVariables()
        names = [force.getCollectiveVariableName(i) for i in range(count)]
        return cls(
            force.getEnergyFunction(),
            {name: convert(force.getCollectiveVariable(i), system) for i, name in enumerate(names)},
            default_parameters=global_defaults(force),
            functions=tabulated_functions(force),
        )

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, " walkers"]:
        """The energy of every walker."""
        values = {k: term(x, globals, box) for k, term in zip(self.variable_names, self.variables, strict=True)}
        own = {name: globals[name] for name in self.expression.names if name not in values}
        return self.expression({**own, **values}).to(x).expand(x.shape[-1])

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, "1 walkers"]:
        """The energy, in one piece."""
        return self(x, globals, box)[None]
