"""The derivative of every operation, and which operations need a harmless argument where they do not count."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nessampler.molecular.force_field.expressions.graph import Graph

__all__ = ["FINE_IF_POSITIVE", "GUARDED", "SAFE", "SLOPES", "Algebra"]


class Algebra:
    """Short names for the rules of differentiation."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __getattr__(self, kind: str) -> Callable[..., int]:
        return lambda *args: self.graph.apply(kind, *args)

    def number(self, value: float) -> int:
        return self.graph.constant(value)

    def one_minus(self, a: int) -> int:
        return self.sub(self.number(1), a)

    def scaled(self, value: float, a: int) -> int:
        return self.mul(self.number(value), a)


def _of_power(g: Algebra, n: int, k: int, a: int, b: int) -> int:
    if k == 1:
        return g.xlogy(n, a)
    return g.mul(b, g.graph.power(a, g.sub(b, g.number(1))))


def _of_atan2(g: Algebra, n: int, k: int, y: int, x: int) -> int:
    inverse = g.recip(g.add(g.mul(x, x), g.mul(y, y)))
    return g.mul(x, inverse) if k == 0 else g.neg(g.mul(y, inverse))


def _of_error_function(sign: float) -> Callable[..., int]:
    def slope(g: Algebra, n: int, k: int, a: int) -> int:
        return g.scaled(sign * 2 / math.sqrt(math.pi), g.exp(g.neg(g.mul(a, a))))

    return slope


def _of_larger(first: bool) -> Callable[..., int]:
    def slope(g: Algebra, n: int, k: int, a: int, b: int) -> int:
        chosen = g.step(g.sub(a, b)) if first else g.step(g.sub(b, a))
        return chosen if k == 0 else g.one_minus(chosen)

    return slope


_Rule = Callable[..., int]
SLOPES: dict[str, _Rule] = {  # (algebra, node, which argument, *arguments) -> the derivative by that argument
    "add": lambda g, n, k, a, b: g.number(1),
    "sub": lambda g, n, k, a, b: g.number(1 - 2 * k),
    "mul": lambda g, n, k, a, b: b if k == 0 else a,
    "neg": lambda g, n, k, a: g.number(-1),
    "recip": lambda g, n, k, a: g.neg(g.mul(n, n)),
    "pow": _of_power,
    "sqrt": lambda g, n, k, a: g.scaled(0.5, g.recip(n)),
    "exp": lambda g, n, k, a: n,
    "log": lambda g, n, k, a: g.recip(a),
    "sin": lambda g, n, k, a: g.cos(a),
    "cos": lambda g, n, k, a: g.neg(g.sin(a)),
    "tan": lambda g, n, k, a: g.add(g.number(1), g.mul(n, n)),
    "asin": lambda g, n, k, a: g.recip(g.sqrt(g.one_minus(g.mul(a, a)))),
    "acos": lambda g, n, k, a: g.neg(g.recip(g.sqrt(g.one_minus(g.mul(a, a))))),
    "atan": lambda g, n, k, a: g.recip(g.add(g.number(1), g.mul(a, a))),
    "atan2": _of_atan2,
    "sinh": lambda g, n, k, a: g.cosh(a),
    "cosh": lambda g, n, k, a: g.sinh(a),
    "tanh": lambda g, n, k, a: g.one_minus(g.mul(n, n)),
    "erf": _of_error_function(1.0),
    "erfc": _of_error_function(-1.0),
    "abs": lambda g, n, k, a: g.sign(a),
    "max": _of_larger(True),
    "min": _of_larger(False),
    "xlogy": lambda g, n, k, a, b: g.log(b) if k == 0 else g.mul(a, g.recip(b)),
    # All that a guarded argument leads to is multiplied by the mask once, at the end of its branch.
    "or zero": lambda g, n, k, *args: g.number(1),
    "or one": lambda g, n, k, *args: g.number(1),
}

# Where an operation or its derivative may be infinite, a finite argument; the first argument unless said otherwise.
SAFE = dict.fromkeys(("recip", "log", "sqrt", "pow", "atan2"), 1) | dict.fromkeys(
    ("asin", "acos", "exp", "sinh", "cosh", "tan"), 0
)
GUARDED = {"atan2": 1}
FINE_IF_POSITIVE = ("recip", "log", "sqrt", "pow", "atan2")
