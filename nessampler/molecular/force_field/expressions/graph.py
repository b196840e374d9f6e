"""An expression as a graph in which equal subexpressions are one node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from nessampler.molecular.force_field.expressions.functions import Function
from nessampler.molecular.force_field.expressions.operations import TORCH
from nessampler.molecular.force_field.expressions.slopes import FINE_IF_POSITIVE, GUARDED, SAFE, SLOPES, Algebra

__all__ = ["Graph", "Node"]


class Node(NamedTuple):
    """`kind` of the operation; a constant has a value, a variable a name, a call its function and orders."""

    kind: str
    args: tuple[int, ...] = ()
    data: Any = None


class Graph:
    """Nodes by number, arguments before those that use them, equal ones only once."""

    def __init__(self, narrow: Sequence[str], positive: Sequence[str]) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self._narrow, self._positive = frozenset(narrow), frozenset(positive)
        self._is_narrow: list[bool] = []
        self._is_positive: list[bool] = []

    def constant(self, value: float) -> int:
        return self._number(Node("constant", (), float(value)))

    def variable(self, name: str) -> int:
        return self._number(Node("variable", (), name))

    def call(self, function: Function, order: tuple[int, ...], args: tuple[int, ...]) -> int:
        return self._number(Node("call", args, (function, order)))

    def apply(self, kind: str, *args: int) -> int:
        """An operation of the language, simplified where that changes no digit worth having."""
        values = [self.nodes[a].data if self.nodes[a].kind == "constant" else None for a in args]
        if all(v is not None for v in values):
            tensors = [torch.tensor(v, dtype=torch.float64) for v in values]
            return self.constant(TORCH[kind](*tensors).item())
        simpler = getattr(self, f"_{kind}", None)
        found = simpler(*args, *values) if simpler else None
        if found is not None:
            return found
        if kind in ("add", "mul", "min", "max"):
            args = tuple(sorted(args))
        return self._number(Node(kind, args))

    def find(self, kind: str, *args: int) -> int | None:
        """The number of a node, if there is one."""
        return self._numbers.get(Node(kind, args))

    def power(self, base: int, exponent: int) -> int:
        """Integer and half-integer powers become products, reciprocals and roots."""
        node = self.nodes[exponent]
        if node.kind != "constant" or not float(2 * node.data).is_integer() or abs(node.data) > 64:
            return self.apply("pow", base, exponent)
        if node.data < 0:
            return self.apply("recip", self.power(base, self.constant(-node.data)))
        whole, half = divmod(node.data, 1)
        result = self.apply("sqrt", base) if half else self.constant(1)
        square, n = base, int(whole)
        while n:
            if n % 2:
                result = self.apply("mul", result, square)
            n //= 2
            if n:
                square = self.apply("mul", square, square)
        return result

    def select(self, condition: int, yes: int, no: int) -> int:
        r"""$m\,y + (1 - m)\,z$ with a mask of zeros and ones.

        The branch not taken is multiplied by zero, so it has to be finite, and so do its derivatives. Operations
        that may not be get a harmless argument there.
        """
        mask = self.mask(condition)
        if self.nodes[mask].kind == "constant":
            return yes if self.nodes[mask].data else no
        inverse = self.apply("sub", self.constant(1), mask)
        yes, no = self.guarded(yes, mask), self.guarded(no, inverse)
        return self.apply("add", self.apply("mul", mask, yes), self.apply("mul", inverse, no))

    def product(self, a: int, b: int) -> int:
        """A constant, times what is narrow, times what is wide: wide tensors are multiplied last."""
        (c, n, w), (d, m, v) = self._factors(a), self._factors(b)
        scale = c * d
        narrow, wide = self._multiplied(n, m), self._multiplied(w, v)
        if scale == 0 or (narrow is None and wide is None):
            return self.constant(scale)
        if narrow is None or wide is None:
            return self._scaled(scale, narrow if wide is None else wide)
        return self._number(Node("mul", (self._scaled(scale, narrow), wide)))

    def _factors(self, a: int) -> tuple[float, int | None, int | None]:
        """The constant, the narrow and the wide factor of a product."""
        kind, args, data = self.nodes[a]
        if kind == "constant":
            return data, None, None
        if kind == "neg":
            c, n, w = self._factors(args[0])
            return -c, n, w
        if kind == "mul":
            first, second = args
            if self.nodes[first].kind == "constant":
                c, n, w = self._factors(second)
                return c * self.nodes[first].data, n, w
            if self._is_narrow[first] and not self._is_narrow[second]:
                c, n, _ = self._factors(first)
                return c, n, second
        return (1.0, a, None) if self._is_narrow[a] else (1.0, None, a)

    def _multiplied(self, a: int | None, b: int | None) -> int | None:
        if a is None or b is None:
            return b if a is None else a
        if a == b and self.nodes[a].kind == "sqrt":
            return self.nodes[a].args[0]
        return self._number(Node("mul", (min(a, b), max(a, b))))

    def _scaled(self, scale: float, a: int | None) -> int:
        assert a is not None
        if scale == 1:
            return a
        if scale == -1:
            return self._number(Node("neg", (a,)))
        return self._number(Node("mul", (self.constant(scale), a)))

    def mask(self, condition: int) -> int:
        if self.nodes[condition].kind in ("step", "delta"):
            return condition
        return self.apply("sub", self.constant(1), self.apply("delta", condition))

    def guarded(self, root: int, mask: int) -> int:
        """The same function where the mask is one, and finite where it is zero."""
        done: dict[int, int] = {}
        for number in self.below(root):
            kind, args, data = self.nodes[number]
            new = [done[a] for a in args]
            k = GUARDED.get(kind, 0)
            if kind in SAFE and not (self._is_positive[new[k]] and kind in FINE_IF_POSITIVE):
                new[k] = self.guard(new[k], mask, SAFE[kind])
            done[number] = self._rebuilt(number, kind, tuple(new), data)
        return done[root]

    def guard(self, argument: int, mask: int, safe: int) -> int:
        if self.nodes[argument].kind == "constant":
            return argument
        if safe == 0:
            return self._number(Node("or zero", (argument, mask)))
        return self._number(Node("or one", (argument, mask, self.apply("sub", self.constant(1), mask))))

    def _rebuilt(self, number: int, kind: str, args: tuple[int, ...], data: Any) -> int:
        if args == self.nodes[number].args:
            return number
        if kind == "call":
            function, order = data
            return self.call(function, order, args)
        return self._number(Node(kind, args)) if kind.startswith("or ") else self.apply(kind, *args)

    def below(self, *roots: int) -> list[int]:
        """The nodes that the roots need, themselves included, arguments first."""
        found, todo = set(roots), list(roots)
        while todo:
            fresh = set(self.nodes[todo.pop()].args) - found
            found |= fresh
            todo += fresh
        return sorted(found)

    def is_narrow(self, n: int) -> bool:
        return self._is_narrow[n]

    def is_positive(self, n: int) -> bool:
        return self._is_positive[n]

    def variables_of(self, root: int) -> set[str]:
        return {self.nodes[n].data for n in self.below(root) if self.nodes[n].kind == "variable"}

    def derivatives(self, root: int, names: Sequence[str]) -> list[int]:
        """Of the root by some variables, accumulated from the root down."""
        order = self.below(root)
        needed: set[int] = set()
        for n in order:
            kind, args, data = self.nodes[n]
            if (kind == "variable" and data in names) or any(a in needed for a in args):
                needed.add(n)
        zero = self.constant(0)
        adjoint = {root: self.constant(1)}
        for n in reversed(order):
            if n not in needed or n not in adjoint:
                continue
            kind, args, _ = self.nodes[n]
            for k, a in enumerate(args):
                if a in needed:
                    slope = self._slope(n, k)
                    if slope is not None:
                        share = self.apply("mul", adjoint[n], slope)
                        adjoint[a] = self.apply("add", adjoint[a], share) if a in adjoint else share
        return [adjoint.get(self.variable(name), zero) for name in names]

    def _slope(self, n: int, k: int) -> int | None:
        kind, args, data = self.nodes[n]
        if kind == "call":
            function, order = data
            if not function.smooth:
                return None
            return self.call(function, tuple(o + (i == k) for i, o in enumerate(order)), args)
        rule = SLOPES.get(kind)
        return rule(Algebra(self), n, k, *args) if rule else None

    def _number(self, node: Node) -> int:
        if node not in self._numbers:
            self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
            self._is_narrow.append(node.data in self._narrow if node.kind == "variable" else self._all_narrow(node))
            self._is_positive.append(self._surely_positive(node))
        return self._numbers[node]

    def _all_narrow(self, node: Node) -> bool:
        return all(self._is_narrow[a] for a in node.args)

    def _surely_positive(self, node: Node) -> bool:
        if node.kind == "constant":
            return node.data > 0
        if node.kind == "variable":
            return node.data in self._positive
        if node.kind in ("mul", "add", "sqrt", "recip", "min"):
            return all(self._is_positive[a] for a in node.args)
        return node.kind == "max" and any(self._is_positive[a] for a in node.args)

    # Simplifications: arguments, then their values where they are constants.

    def _mul(self, a: int, b: int, x: float | None, y: float | None) -> int | None:
        return self.product(a, b)

    def _neg(self, a: int, x: float | None) -> int | None:
        kind, args, _ = self.nodes[a]
        return self.apply("sub", args[1], args[0]) if kind == "sub" else self.product(self.constant(-1), a)

    def _add(self, a: int, b: int, x: float | None, y: float | None) -> int | None:
        if x == 0 or y == 0:
            return b if x == 0 else a
        if a == b:
            return self.product(self.constant(2), a)
        if self.nodes[b].kind == "neg":
            return self.apply("sub", a, self.nodes[b].args[0])
        if self.nodes[a].kind == "neg":
            return self.apply("sub", b, self.nodes[a].args[0])
        return None

    def _sub(self, a: int, b: int, x: float | None, y: float | None) -> int | None:
        if y == 0:
            return a
        if x == 0:
            return self.apply("neg", b)
        if self.nodes[b].kind == "neg":
            return self.apply("add", a, self.nodes[b].args[0])
        if x == 1 and self.nodes[b].kind == "sub":  # one minus (one minus a mask)
            first, second = self.nodes[b].args
            if self.nodes[first] == Node("constant", (), 1.0) and self.nodes[second].kind in ("step", "delta"):
                return second
        return None

    def _max(self, a: int, b: int, x: float | None, y: float | None) -> int | None:
        return a if a == b else None

    _min = _max

    def _recip(self, a: int, x: float | None) -> int | None:
        kind, args, _ = self.nodes[a]
        if kind == "recip":
            return args[0]
        if kind == "neg":
            return self.apply("neg", self.apply("recip", args[0]))
        if kind == "mul" and args[0] == args[1]:
            inverse = self.apply("recip", args[0])
            return self.apply("mul", inverse, inverse)
        if kind == "mul" and self.nodes[args[0]].kind == "constant":
            return self.apply("mul", self.constant(1 / self.nodes[args[0]].data), self.apply("recip", args[1]))
        return None
