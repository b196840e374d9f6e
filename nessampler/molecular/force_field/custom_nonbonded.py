r"""CustomNonbondedForce: pairs of particles under an expression of their distance and their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nessampler.molecular.force_field.custom_bonded import global_defaults, parameter_list
from nessampler.molecular.force_field.expressions import Expression, Function, compile_expression
from nessampler.molecular.force_field.geometry import take
from nessampler.molecular.force_field.pairs import pairs_except, squared_distance
from nessampler.molecular.force_field.protocol import UnsupportedForce
from nessampler.molecular.force_field.tabulated import tabulated_functions

__all__ = ["SQUARE", "CustomNonbonded", "both", "compile_pair_expression", "grouped_pairs", "particle_parameters"]

SQUARE = "r.square"
"""The squared distance as a variable: what an expression needs of it alone comes without a root."""


class CustomNonbonded(nn.Module):
    r"""$U(x) = \sum_{(i, j)} S(r_{ij})\, u(r_{ij}; \theta_i, \theta_j, v_i, v_j, \lambda)$ over a list of pairs.

    The switching function is $S = 1 - 10 t^3 + 15 t^4 - 6 t^5$ with $t = (r - r_s) / (r_c - r_s)$ beyond $r_s$; pairs
    at the cutoff $r_c$ and farther do not count.

    | symbol | argument | |
    |---|---|---|
    | $u$ | `text` | kJ/mol, of `r` and of every name followed by 1 and 2 |
    | $(i, j)$ | `pairs` | `(2, pairs)` |
    | $\theta$ | `names`, `parameters` | the name of every column of `(atoms, k)` |
    | $v$ | `computed` | names and expressions of an atom's parameters |
    | $\lambda$ | `default_parameters` | names and defaults |
    | $r_c$, $r_s$ | `cutoff`, `switch` | nm |

    Args:
        functions: tabulated functions by name.
        periodic: distances are those of nearest images.

    Shapes: positions `(3, atoms, walkers)` in nm, energies `(walkers,)` in kJ/mol.

    Raises:
        InputError: an expression that cannot be read.

    Example:
        >>> charges = torch.tensor([[1.0], [-2.0]])
        >>> coulomb = CustomNonbonded("q1*q2/r", torch.tensor([[0], [1]]), names=["q"], parameters=charges)
        >>> coulomb(torch.tensor([[[0.0], [4.0]], [[0.0], [0.0]], [[0.0], [0.0]]]), {}, None)
        tensor([-0.5000])
    """

    pairs: Tensor

    def __init__(
        self,
        text: str,
        pairs: Int[Tensor, "2 pairs"],
        *,
        names: Sequence[str],
        parameters: Float[Tensor, "atoms k"],
        computed: Mapping[str, str] | None = None,
        default_parameters: Mapping[str, float] | None = None,
        functions: Mapping[str, Function] | None = None,
        cutoff: float | None = None,
        switch: float | None = None,
        periodic: bool = False,
    ) -> None:
        super().__init__()
        self.parameter_names, self.parameter_values = tuple(names), parameter_list(parameters)
        self.default_parameters = dict(default_parameters or {})
        self.cutoff, self.switch, self.periodic = cutoff, switch, periodic
        self.functions = nn.ModuleList(f for f in (functions or {}).values() if isinstance(f, nn.Module))
        self.register_buffer("pairs", pairs)
        known = [*names, *self.default_parameters]
        self.computed = {k: compile_expression(v, known, functions=functions) for k, v in (computed or {}).items()}
        per_atom = [*names, *self.computed]
        self.expression = compile_pair_expression(text, per_atom, self.default_parameters, functions or {})

    @classmethod
    def from_openmm(cls, force: Any, system: Any) -> CustomNonbonded:
        """The same pairs, parameters and method.

        Raises:
            UnsupportedForce: a long-range correction, which OpenMM integrates numerically in single precision.
        """
        method = force.getNonbondedMethod()
        periodic = method == force.CutoffPeriodic
        if periodic and force.getUseLongRangeCorrection():
            raise UnsupportedForce(
                "a CustomNonbondedForce without long-range correction can be evaluated in torch: this one has it, an "
                "integral that OpenMM takes numerically; call setUseLongRangeCorrection(False), or use "
                'backend="openmm"'
            )
        names, parameters = particle_parameters(force)
        cutoff = None if method == force.NoCutoff else force.getCutoffDistance()._value
        switched = cutoff is not None and force.getUseSwitchingFunction()
        excluded = [force.getExclusionParticles(i) for i in range(force.getNumExclusions())]
        groups = [force.getInteractionGroupParameters(i) for i in range(force.getNumInteractionGroups())]
        count = force.getNumParticles()
        computed = [force.getComputedValueParameters(i) for i in range(force.getNumComputedValues())]
        return cls(
            force.getEnergyFunction(),
            grouped_pairs(count, groups, excluded) if groups else pairs_except(count, excluded),
            names=names,
            parameters=parameters,
            computed=dict(computed),
            default_parameters=global_defaults(force),
            functions=tabulated_functions(force),
            cutoff=cutoff,
            switch=force.getSwitchingDistance()._value if switched else None,
            periodic=periodic,
        )

    def forward(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, " walkers"]:
        return self.contributions(x, globals, box).sum(0)

    def contributions(
        self, x: Float[Tensor, "3 atoms walkers"], globals: Mapping[str, Tensor], box: Float[Tensor, "3 3"] | None
    ) -> Float[Tensor, "pairs walkers"]:
        """The energy of every pair."""
        square = squared_distance(x, self.pairs, box if self.periodic else None)
        shared = {name: globals[name] for name in self.default_parameters}
        atoms = dict(zip(self.parameter_names, self.parameter_values, strict=True))
        computed = {name: self._column(e({**shared, **atoms})) for name, e in self.computed.items()}
        values = {SQUARE: square, **shared}
        for name, value in {**atoms, **computed}.items():
            values[f"{name}1"], values[f"{name}2"] = take(value, self.pairs[0]), take(value, self.pairs[1])
        energy = self.expression(values).to(x).expand(square.shape)
        if self.switch is not None and self.cutoff is not None:
            t = ((square.sqrt() - self.switch) / (self.cutoff - self.switch)).clamp_min(0)
            energy = energy * (1 + t**3 * (t * (15 - 6 * t) - 10))
        return energy if self.cutoff is None else energy * (square < self.cutoff**2).to(x.dtype)

    def _column(self, value: Tensor) -> Tensor:
        """One row per atom, also of a value that is the same for all."""
        return value.expand(len(self.parameter_values[0]), -1) if value.ndim == 2 else value.expand(1, 1)


def compile_pair_expression(
    text: str,
    per_atom: Sequence[str],
    others: Sequence[str] | Mapping[str, float],
    functions: Mapping[str, Function],
    wide: Sequence[str] = (),
) -> Expression:
    """An expression of `r`, of other names, and of every atom's names followed by 1 and 2; of these, some are wide."""
    names = [f"{name}{k}" for name in per_atom for k in (1, 2)]
    narrow = [name for name in names if name[:-1] not in wide]
    return compile_expression(
        f"{text}; r=sqrt({SQUARE})",
        [SQUARE, *names, *others],
        functions=functions,
        narrow=[*narrow, *others],
        positive=[SQUARE],
    )


def particle_parameters(force: Any) -> tuple[list[str], Float[Tensor, "atoms k"]]:
    """Names and values of a custom force's per-particle parameters."""
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    rows = [list(force.getParticleParameters(i)) for i in range(force.getNumParticles())]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(names))
    return names, torch.from_numpy(table)


def grouped_pairs(
    n_atoms: int, groups: Sequence[tuple[Sequence[int], Sequence[int]]], excluded: Sequence[Sequence[int]]
) -> Int[Tensor, "2 pairs"]:
    """Every pair of one set with the other, group by group; a pair that both sets hold entirely counts once."""
    left_out = {n_atoms * i + j for a, b in excluded for i, j in ((a, b), (b, a))}
    found = [np.zeros((2, 0), dtype=np.int64)]
    for first, second in groups:
        sets = (np.array(sorted(set(atoms)), dtype=np.int64) for atoms in (first, second))
        i, j = (a.ravel() for a in np.meshgrid(*sets, indexing="ij"))
        twice = (i > j) & np.isin(j, list(first)) & np.isin(i, list(second))
        keep = (i != j) & ~np.isin(n_atoms * i + j, list(left_out)) & ~twice
        found.append(np.stack([i[keep], j[keep]]))
    return torch.from_numpy(np.concatenate(found, 1))


def both(value: Float[Tensor, "atoms any"], pairs: Int[Tensor, "2 pairs"]) -> Float[Tensor, "2 pairs any"]:
    """The value of the first atom of every pair, then that of the second."""
    return take(value, pairs.reshape(-1)).unflatten(0, (2, -1))
