r"""CustomGBForce: values summed over pairs, then energies of them; the generalized Born models of `openmm.app`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.molecular.force_field.custom_bonded import global_defaults, parameter_list
from nessampler.molecular.force_field.custom_nonbonded import (
    SQUARE,
    both,
    compile_pair_expression,
    particle_parameters,
)
from nessampler.molecular.force_field.expressions import Expression, Function, compile_expression
from nessampler.molecular.force_field.geometry import take
from nessampler.molecular.force_field.pairs import all_pairs, pairs_except, squared_distance
from nessampler.molecular.force_field.tabulated import tabulated_functions

__all__ = ["Computation", "CustomGB"]


@dataclass(frozen=True)
class Computation:
    """A computed value or an energy term.

    Attributes:
        text: an expression of an atom's or of a pair's names.
        kind: of an atom, of every pair that is not excluded, or of every pair.
        name: of a computed value, by which later computations know it.
    """

    text: str
    kind: Literal["atom", "pair", "any pair"]
    name: str = ""


class CustomGB(nn.Module):
    r"""Values $v_i$ computed one after the other, each of an atom or summed over pairs, then energies of them:

    $$v_i = f(\theta_i, v_i', x_i) \quad \text{or} \quad
      v_i = \sum_{j \ne i} f(r_{ij}; \theta_i, \theta_j, v_i', v_j')$$
    $$U = \sum_i g(\theta_i, v_i, x_i) + \sum_{i < j} h(r_{ij}; \theta_i, \theta_j, v_i, v_j)$$

    A value of pairs is not symmetric, so it is evaluated in both orders, over the same distances; an energy is
    evaluated once, with $i < j$.

    | symbol | argument | |
    |---|---|---|
    | $f$ | `values` | in order; each knows those before it |
    | $g$, $h$ | `energies` | kJ/mol |
    | $\theta$ | `names`, `parameters` | the name of every column of `(atoms, k)` |
    | | `excluded` | pairs that do not count for computations of kind "pair" |
    | | `default_parameters` | global parameters, names and defaults |
    | | `cutoff` | nm; pairs at this distance and farther do not count |

    Args:
        functions: tabulated functions by name.
        periodic: distances are those of nearest images.

    Shapes: positions `(3, atoms, walkers)` in nm, energies `(walkers,)` in kJ/mol.

    Raises:
        InputError: an expression that cannot be read.

    References:
        Onufriev, Bashford, Case, Exploring protein native states and large-scale conformational changes with a
        modified generalized Born model, 2004, Proteins 55, 383 (the model that this form of force was made for).

    Example:
        >>> crowd = CustomGB(
        ...     [Computation("s2/r", "pair", "I")], [Computation("I^2", "atom")],
        ...     names=["s"], parameters=torch.tensor([[1.0], [3.0]]),
        ... )
        >>> crowd(torch.tensor([[[0.0], [2.0]], [[0.0], [0.0]], [[0.0], [0.0]]]), {}, None)
        tensor([2.5000])
    """

    pairs: Tensor
    counted: Tensor

    def __init__(
        self,
        values: Sequence[Computation],
        energies: Sequence[Computation],
        *,
        names: Sequence[str],
        parameters: Float[Tensor, "atoms k"],
        excluded: Sequence[tuple[int, int]] = (),
        default_parameters: Mapping[str, float] | None = None,
        functions: Mapping[str, Function] | None = None,
        cutoff: float | None = None,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.parameter_names, self.parameter_values = tuple(names), parameter_list(parameters)
        self.default_parameters = dict(default_parameters or {})
        self.cutoff, self.periodic, self.n_atoms = cutoff, periodic, len(parameters)
        self.functions = nn.ModuleList(f for f in (functions or {}).values() if isinstance(f, nn.Module))
        self.register_buffer("pairs", all_pairs(self.n_atoms))
        self.register_buffer("counted", _positions(self.pairs, pairs_except(self.n_atoms, excluded), self.n_atoms))
        known = list(names)
        self.values: list[tuple[Computation, Expression]] = []
        for value in values:
            self.values.append((value, self._compiled(value, known, functions or {})))
            known.append(value.name)
        self.energies = [(term, self._compiled(term, known, functions or {})) for term in energies]

    @classmethod
    def from_openmm(cls, force: Any, system: Any) -> CustomGB:
        """The same computations, parameters and method."""
        kinds: dict[int, Literal["atom", "pair", "any pair"]] = {
            force.SingleParticle: "atom",
            force.ParticlePair: "pair",
            force.ParticlePairNoExclusions: "any pair",
        }
        values = [force.getComputedValueParameters(i) for i in range(force.getNumComputedValues())]
        energies = [force.getEnergyTermParameters(i) for i in range(force.getNumEnergyTerms())]
        method = force.getNonbondedMethod()
        names, parameters = particle_parameters(force)
        return cls(
            [Computation(text, kinds[kind], name) for name, text, kind in values],
            [Computation(text, kinds[kind]) for text, kind in energies],
            names=names,
            parameters=parameters,
            excluded=[tuple(force.getExclusionParticles(i)) for i in range(force.getNumExclusions())],
            default_parameters=global_defaults(force),
            functions=tabulated_functions(force),
            cutoff=None if method == force.NoCutoff else force.getCutoffDistance()._value,
            periodic=method == force.CutoffPeriodic,
        )

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, " walkers"]:
        return sum((rows.sum(0) for rows in self._parts(x, globals, box)), x.new_zeros(x.shape[-1]))

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, "summands walkers"]:
        """The energy of every atom or pair, term after term."""
        return torch.cat(self._parts(x, globals, box))

    def _compiled(
        self, computation: Computation, known: Sequence[str], functions: Mapping[str, Function]
    ) -> Expression:
        if computation.kind == "atom":
            narrow = [*self.parameter_names, *self.default_parameters]
            names = [*known, "x", "y", "z", *self.default_parameters]
            return compile_expression(computation.text, names, functions=functions, narrow=narrow)
        wide = [name for name in known if name not in self.parameter_names]
        return compile_pair_expression(computation.text, known, self.default_parameters, functions, wide)

    def _parts(
        self, x: Tensor, globals: Mapping[str, Tensor], box: Tensor | None
    ) -> list[Float[Tensor, "summands walkers"]]:
        shared = {name: globals[name] for name in self.default_parameters}
        atoms = dict(zip(self.parameter_names, self.parameter_values, strict=True))
        space = _Space(x, self.pairs, self.counted, squared_distance(x, self.pairs, box if self.periodic else None))
        for value, expression in self.values:
            if value.kind == "atom":
                atoms[value.name] = space.of_atoms(expression, atoms, shared)
            else:
                atoms[value.name] = space.summed(expression, atoms, shared, value.kind, self.cutoff)
        return [
            space.of_atoms(expression, atoms, shared)
            if term.kind == "atom"
            else space.of_pairs(expression, atoms, shared, term.kind, self.cutoff)
            for term, expression in self.energies
        ]


@dataclass(frozen=True)
class _Space:
    """Positions of one chunk of walkers, and what is known of its pairs."""

    x: Float[Tensor, "3 atoms walkers"]
    pairs: Int[Tensor, "2 pairs"]
    counted: Int[Tensor, " counted"]
    square: Float[Tensor, "pairs walkers"]

    def of_atoms(
        self, expression: Expression, atoms: Mapping[str, Tensor], shared: Mapping[str, Tensor]
    ) -> Float[Tensor, "atoms walkers"]:
        x, y, z = self.x.unbind(0)
        return expression({"x": x, "y": y, "z": z, **shared, **atoms}).to(self.x).expand(x.shape)

    def of_pairs(
        self,
        expression: Expression,
        atoms: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        kind: str,
        cutoff: float | None,
    ) -> Float[Tensor, "pairs walkers"]:
        pairs, square = self._pairs(kind)
        values = {SQUARE: square, **shared}
        for name, value in _needed(expression, atoms).items():
            values[f"{name}1"], values[f"{name}2"] = both(value, pairs).unbind(0)
        return self._inside(expression(values), square, cutoff).expand(square.shape)

    def summed(
        self,
        expression: Expression,
        atoms: Mapping[str, Tensor],
        shared: Mapping[str, Tensor],
        kind: str,
        cutoff: float | None,
    ) -> Float[Tensor, "atoms walkers"]:
        """Over the other atoms; both orders of every pair in one evaluation, for which the distance is the same."""
        pairs, square = self._pairs(kind)
        values = {SQUARE: square, **shared}
        for name, value in _needed(expression, atoms).items():
            one = both(value, pairs)
            values[f"{name}1"], values[f"{name}2"] = one, one.flip(0)
        found = self._inside(expression(values), square, cutoff).expand(2, *square.shape)
        return torch.zeros_like(self.x[0]).index_add(0, pairs.reshape(-1), found.flatten(0, 1))

    def _pairs(self, kind: str) -> tuple[Tensor, Tensor]:
        if kind == "any pair" or len(self.counted) == len(self.square):
            return self.pairs, self.square
        return self.pairs.index_select(1, self.counted), take(self.square, self.counted)

    def _inside(self, value: Tensor, square: Tensor, cutoff: float | None) -> Tensor:
        value = value.to(self.x)
        return value if cutoff is None else value * (square < cutoff**2).to(value.dtype)


def _needed(expression: Expression, atoms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in atoms.items() if f"{k}1" in expression.names or f"{k}2" in expression.names}


def _positions(pairs: Tensor, some: Tensor, n_atoms: int) -> Tensor:
    """Where some of the pairs stand among all of them."""
    return torch.searchsorted(pairs[0] * n_atoms + pairs[1], some[0] * n_atoms + some[1])
