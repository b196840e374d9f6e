"""A parsed expression, called with named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nessampler.errors import InputError
from nessampler.molecular.force_field.expressions.functions import Function, Macro
from nessampler.molecular.force_field.expressions.graph import Graph
from nessampler.molecular.force_field.expressions.program import Program
from nessampler.molecular.force_field.expressions.reading import Reader

__all__ = ["Expression", "compile_expression"]


def compile_expression(
    text: str,
    names: Sequence[str],
    *,
    functions: Mapping[str, Function | Macro] | None = None,
    narrow: Sequence[str] = (),
    positive: Sequence[str] = (),
) -> Expression:
    r"""Read an expression and the definitions after its semicolons, `energy; a=...; b=...`.

    As in OpenMM a definition may use those that come after it in the text and hides a variable of the same name before
    it; $-x^2 = -(x^2)$ and $a^{b^c} = a^{(b^c)}$; `log` is natural, `step(0)` is 1, and `select(c, y, z)` is y where c
    is not zero.

    Args:
        text: in OpenMM's language.
        names: the variables that may occur.
        functions: further functions by name, which hide those of the language.
        narrow: variables whose tensors are small; products take them first. Any may be, without harm to the value.
        positive: variables that are never zero or below, whose roots and reciprocals need no care in a branch of
            `select` that is not taken.

    Raises:
        InputError: the text cannot be read, or names something that it does not know; the message gives the position.

    References:
        Eastman et al., OpenMM 8: Molecular Dynamics Simulation with Machine Learning Potentials, 2024, J. Phys. Chem. B
        128, 109 (custom forces); the language is that of OpenMM's parser Lepton.

    Example:
        >>> well = compile_expression("k*u^2; u=r-r0", ["r", "r0", "k"])
        >>> r = torch.tensor([0.9, 1.0, 1.5], requires_grad=True)
        >>> energy = well({"r": r, "r0": torch.tensor(1.0), "k": torch.tensor(2.0)})
        >>> energy
        tensor([0.0200, 0.0000, 0.5000], grad_fn=<...>)
        >>> torch.autograd.grad(energy.sum(), r)[0]
        tensor([-0.4000, 0.0000, 2.0000])
    """
    graph = Graph(narrow, positive)
    root = Reader(text, graph, names, functions or {}).read()
    return Expression(text, graph, root)


class Expression:
    """A function of named tensors that broadcast against one another.

    Attributes:
        text: what it was read from.
        names: the variables that occur, sorted.

    Example:
        >>> spring = compile_expression("k*u^2; u=r-r0", ["r", "r0", "k", "unused"])
        >>> spring.names
        ('k', 'r', 'r0')
        >>> spring({"r": torch.tensor([1.0, 3.0]), "r0": torch.tensor(1.0), "k": torch.tensor(2.0)})
        tensor([0., 8.])
    """

    def __init__(self, text: str, graph: Graph, root: int) -> None:
        self.text, self._graph, self._root = text, graph, root
        self.names: tuple[str, ...] = tuple(sorted(graph.variables_of(root)))
        self._programs: dict[tuple[int, ...], Program] = {}

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        """The value, differentiable any number of times; a constant expression gives a 0-d tensor in float64.

        Raises:
            InputError: a variable without a value.
        """
        for name in self.names:
            if name not in values:
                raise InputError(
                    f"the expression {self.text!r} needs a value of {name!r}: got {sorted(values)}; add it"
                )
        inputs = [values[name] for name in self.names]
        wanted = tuple(k for k, x in enumerate(inputs) if x.requires_grad)
        if not wanted or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.program(())(inputs)[0]
        return _Fused.apply(self, wanted, *inputs)[0]  # pyright: ignore[reportOptionalSubscript]

    def program(self, wanted: tuple[int, ...]) -> Program:
        """Plain torch operations that give the value, then its derivatives by the wanted inputs."""
        if wanted not in self._programs:
            slopes = self._graph.derivatives(self._root, [self.names[k] for k in wanted])
            self._programs[wanted] = Program(self._graph, self.names, [self._root, *slopes])
        return self._programs[wanted]

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class _Fused(torch.autograd.Function):
    """A value with its derivatives from one pass: autograd keeps these, not every step on the way.

    The derivatives are expressions themselves. Whoever differentiates twice has them evaluated again, by operations
    that autograd follows.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(expression: Expression, wanted: tuple[int, ...], *inputs: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found: list[Tensor] = []
        for x in expression.program(wanted)(inputs):  # autograd wants outputs that are tensors of their own
            found.append(x.detach() if any(x is y for y in (*inputs, *found)) else x)
        return tuple(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        expression, wanted, *tensors = inputs
        ctx.expression, ctx.wanted = expression, wanted
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *output[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if grads[0] is None:
            return (None,) * (2 + len(ctx.expression.names))
        n = len(ctx.expression.names)
        inputs, slopes = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        if torch.is_grad_enabled():
            slopes = ctx.expression.program(ctx.wanted)(inputs)[1:]
        found: list[Tensor | None] = [None] * n
        for k, slope in zip(ctx.wanted, slopes, strict=True):
            found[k] = (grads[0] * slope).sum_to_size(inputs[k].shape).to(inputs[k].dtype)
        return (None, None, *found)
