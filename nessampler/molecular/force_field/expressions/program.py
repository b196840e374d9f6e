"""A graph as a list of torch operations on registers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from nessampler.molecular.force_field.expressions.functions import Function
from nessampler.molecular.force_field.expressions.graph import Graph
from nessampler.molecular.force_field.expressions.operations import INTO, TORCH, PlusProduct

__all__ = ["Program"]


class _Table:
    """A call of a function at a given order of derivatives."""

    def __init__(self, function: Function, order: tuple[int, ...]) -> None:
        self.function, self.order = function, order

    def __call__(self, *args: Any) -> Tensor:
        tensors = [a for a in args if isinstance(a, Tensor)]
        like = tensors[0] if tensors else torch.zeros((), dtype=torch.float64)
        return self.function(*(a if isinstance(a, Tensor) else like.new_tensor(a) for a in args), order=self.order)


class _Step(NamedTuple):
    function: Callable[..., Tensor]
    into: Callable[..., Tensor] | None
    args: tuple[int, ...]
    to: int
    done: tuple[int, ...]  # registers that nothing needs afterwards


class Program:
    """A list of operations on registers.

    Where autograd need not follow, results are written over those that nothing needs any more: the memory in use
    stays small enough for the cache, and is not asked for and given back at every operation.
    """

    def __init__(self, graph: Graph, names: Sequence[str], outputs: Sequence[int]) -> None:
        operations = _operations(graph, outputs)
        slot: dict[int, int] = {graph.variable(name): k for k, name in enumerate(names)}
        self.constants: list[float] = []
        for n in graph.below(*outputs):
            if graph.nodes[n].kind == "constant":
                slot[n] = len(names) + len(self.constants)
                self.constants.append(graph.nodes[n].data)
        kept = set(slot) | set(outputs)
        last = {a: n for n, _, _, args in operations for a in args}
        self.steps: list[_Step] = []
        depends: list[frozenset[int]] = [frozenset([k]) for k in range(len(names))] + [frozenset()] * len(
            self.constants
        )
        for n, function, into, args in operations:
            slot[n] = len(slot)
            registers = tuple(slot[a] for a in args)
            done = tuple(slot[a] for a in set(args) if last[a] == n and a not in kept)
            self.steps.append(_Step(function, into, registers, slot[n], done))
            depends.append(frozenset().union(*(depends[k] for k in registers)))
        self.outputs = [slot[n] for n in outputs]
        self._depends = depends
        self._shapes: dict[tuple[torch.Size, ...], list[torch.Size]] = {}
        self._tensors: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        found = self._reusing(inputs) if _reusable(inputs) else self._simply(inputs)
        return [_as_tensor(x, inputs) for x in found]

    def _simply(self, inputs: Sequence[Tensor]) -> list[Any]:
        values: list[Any] = [*inputs, *self.constants, *[None] * len(self.steps)]
        for function, _, args, to, done in self.steps:
            values[to] = function(*[values[a] for a in args])
            for k in done:
                values[k] = None
        return [values[k] for k in self.outputs]

    def _reusing(self, inputs: Sequence[Tensor]) -> list[Any]:
        like = inputs[0]
        shapes = self._shapes_of(inputs)
        values: list[Any] = [*inputs, *self._constant_tensors(like), *[None] * len(self.steps)]
        free: dict[torch.Size, list[Tensor]] = {}
        for function, into, args, to, done in self.steps:
            operands = [values[a] for a in args]
            for k in done:  # before the result, which may take the place of an operand
                free.setdefault(shapes[k], []).append(values[k])
                values[k] = None
            if into is None:
                values[to] = function(*operands)
                continue
            places = free.get(shapes[to])
            place = places.pop() if places else like.new_empty(shapes[to])
            values[to] = into(*operands, out=place)
        return [values[k] for k in self.outputs]

    def _shapes_of(self, inputs: Sequence[Tensor]) -> list[torch.Size]:
        key = tuple(x.shape for x in inputs)
        if key not in self._shapes:
            if len(self._shapes) > 16:
                self._shapes.clear()
            known = {d: torch.broadcast_shapes(*(key[k] for k in d)) for d in set(self._depends)}
            self._shapes[key] = [known[d] for d in self._depends]
        return self._shapes[key]

    def _constant_tensors(self, like: Tensor) -> list[Tensor]:
        key = (like.dtype, like.device)
        if key not in self._tensors:
            self._tensors[key] = [like.new_tensor(c) for c in self.constants]
        return self._tensors[key]


def _reusable(inputs: Sequence[Tensor]) -> bool:
    """Whether results may be written over others: nobody follows the operations, and all tensors are of a kind."""
    if not inputs or torch.is_grad_enabled() or torch.compiler.is_compiling() or get_proxy_mode() is not None:
        return False
    first = inputs[0]
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore[reportAttributeAccessIssue]
    return all(x.dtype == first.dtype and x.device == first.device and not wrapped(x) for x in inputs)


def _as_tensor(value: Any, inputs: Sequence[Tensor]) -> Tensor:
    if isinstance(value, Tensor):
        return value
    device = inputs[0].device if inputs else None
    return torch.tensor(value, dtype=torch.float64, device=device)  # 0-d: the dtype of what it meets wins


_Operation = tuple[int, Callable[..., Tensor], Callable[..., Tensor] | None, tuple[int, ...]]


def _operations(graph: Graph, outputs: Sequence[int]) -> list[_Operation]:
    """What to do in order; a sum with a product that nothing else needs is one operation."""
    order = graph.below(*outputs)
    uses = dict.fromkeys(order, 0)
    for n in [a for m in order for a in graph.nodes[m].args] + list(outputs):
        uses[n] += 1
    found: dict[int, _Operation] = {}
    for n in order:
        kind, args, data = graph.nodes[n]
        inverse = graph.find("recip", n) if kind == "sqrt" else None
        if kind in ("constant", "variable") or n in found:
            continue
        if kind == "call":
            found[n] = (n, _Table(*data), None, args)
        elif inverse in uses and (uses[n] == 1 or graph.is_positive(n)):  # one root serves for both
            found[inverse] = (inverse, torch.rsqrt, torch.rsqrt, args)
            if uses[n] > 1:
                found[n] = (n, operator.mul, torch.mul, (*args, inverse))
        elif kind in ("add", "sub") and (sum_of := _with_product(graph, n, uses)) is not None:
            scale, args, absorbed = sum_of
            for product in absorbed:
                del found[product]
            operation = PlusProduct(scale)
            found[n] = (n, operation, operation.into, args)
        else:
            if kind == "mul" and args[0] == args[1]:
                kind, args = "square", args[:1]
            found[n] = (n, TORCH[kind], INTO.get(kind), args)
    return list(found.values())


def _with_product(
    graph: Graph, n: int, uses: Mapping[int, int]
) -> tuple[float, tuple[int, ...], tuple[int, ...]] | None:
    """A sum as scale, (addend, factor or two), and the products that it takes in."""
    kind, args, _ = graph.nodes[n]
    for addend, product in (args, args[::-1]) if kind == "add" else (args,):
        scale, absorbed, rest = (1.0 if kind == "add" else -1.0), (), product
        if (inner := _lone_product(graph, rest, uses)) and graph.nodes[inner[0]].kind == "constant":
            scale, absorbed, rest = scale * graph.nodes[inner[0]].data, (rest,), inner[1]
        if (inner := _lone_product(graph, rest, uses)) and sum(map(graph.is_narrow, (addend, *inner))) < 2:
            return scale, (addend, *inner), (*absorbed, rest)
        if absorbed:
            return scale, (addend, rest), absorbed
    return None


def _lone_product(graph: Graph, n: int, uses: Mapping[int, int]) -> tuple[int, ...] | None:
    return graph.nodes[n].args if graph.nodes[n].kind == "mul" and uses[n] == 1 else None
