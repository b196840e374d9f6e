"""The text of an expression into its graph."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nessampler.errors import InputError
from nessampler.molecular.force_field.expressions.functions import Function, Macro
from nessampler.molecular.force_field.expressions.graph import Graph

__all__ = ["Reader"]


_ARITIES = {
    1: "sqrt exp log sin cos sec csc tan cot asin acos atan sinh cosh tanh erf erfc step delta floor ceil abs square "
    "cube recip",
    2: "atan2 min max",
    3: "select",
}
_FUNCTIONS = {name: arity for arity, names in _ARITIES.items() for name in names.split()}

_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)"
    r"|(?P<symbol>[-+*/^(),])"
    r"|(?P<name>[^-+*/^(),;=\s]+)"
    r"|(?P<other>.)"
)
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 4}
_UNARY = 3  # tighter than a product, looser than a power


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


class Reader:
    """A parser that climbs precedences; definitions are read from the last to the first."""

    def __init__(
        self, text: str, graph: Graph, names: Sequence[str], functions: Mapping[str, Function | Macro]
    ) -> None:
        self.text, self.graph, self.functions = text, graph, functions
        self.scope: dict[str, int] = {name: graph.variable(name) for name in names}
        self.tokens: list[_Token] = []
        self.next = 0

    def read(self) -> int:
        parts = []
        start = 0
        for part in self.text.split(";"):
            parts.append((start, part))
            start += len(part) + 1
        for start, part in reversed(parts[1:]):
            if part.strip():
                name, equals, _ = part.partition("=")
                if not equals or not name.strip():
                    raise self._error(start, "a part after a semicolon defines a name, as in `; a=2*b`")
                shift = len(name) + 1
                self.scope[name.strip()] = self._whole(start + shift, part[shift:])
        return self._whole(*parts[0])

    def _whole(self, start: int, part: str) -> int:
        self.tokens = list(self._tokenize(start, part))
        self.next = 0
        result = self._expression(0)
        if self._peek().kind != "end":
            raise self._error(self._peek().position, "an operator should come here")
        return result

    def _tokenize(self, start: int, part: str) -> Iterator[_Token]:
        for match in _TOKEN.finditer(part):
            kind = str(match.lastgroup)
            if kind == "other":
                raise self._error(start + match.start(), "this character means nothing here")
            if kind != "space":
                yield _Token(kind, match.group(), start + match.start())
        yield _Token("end", "", start + len(part))

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self, text: str | None = None) -> _Token:
        token = self.tokens[self.next]
        if text is not None and token.text != text:
            raise self._error(token.position, f"`{text}` should come here")
        self.next += 1
        return token

    def _expression(self, binds: int) -> int:
        left = self._operand()
        while (token := self._peek()).text in _BINDS and _BINDS[token.text] >= binds:
            self._take()
            strength = _BINDS[token.text]
            right = self._expression(strength if token.text == "^" else strength + 1)
            left = self._combined(token.text, left, right)
        return left

    def _combined(self, symbol: str, left: int, right: int) -> int:
        if symbol == "^":
            return self.graph.power(left, right)
        if symbol == "/":
            return self.graph.apply("mul", left, self.graph.apply("recip", right))
        return self.graph.apply({"+": "add", "-": "sub", "*": "mul"}[symbol], left, right)

    def _operand(self) -> int:
        token = self._take()
        if token.kind == "number":
            return self.graph.constant(float(token.text))
        if token.text == "(":
            inside = self._expression(0)
            self._take(")")
            return inside
        if token.text == "-":
            return self.graph.apply("neg", self._expression(_UNARY))
        if token.kind != "name":
            raise self._error(token.position, "a number, a name, `-` or `(` should come here")
        if self._peek().text == "(":
            return self._call(token)
        if token.text not in self.scope:
            known = ", ".join(sorted(self.scope)) or "none"
            raise self._error(token.position, f"{token.text!r} is not known here, but {known}")
        return self.scope[token.text]

    def _call(self, name: _Token) -> int:
        function = self.functions.get(name.text)
        if function is None and name.text not in _FUNCTIONS:
            raise self._error(name.position, f"there is no function {name.text!r}")
        args = self._arguments(function.points if isinstance(function, Macro) else {})
        if isinstance(function, Macro):
            arity = len(function.arguments)
        else:
            arity = _FUNCTIONS[name.text] if function is None else function.arity
        if len(args) != arity:
            raise self._error(name.position, f"{name.text!r} takes {arity} arguments, not {len(args)}")
        if isinstance(function, Macro):
            return self._expanded(function, args)
        if function is not None:
            return self.graph.call(function, (0,) * arity, tuple(args))
        return self._builtin(name.text, args)

    def _arguments(self, points: Mapping[str, tuple[str, ...]]) -> list[int]:
        args: list[int] = []
        self._take("(")
        while True:
            if self._peek().text in points:
                args += [self.graph.variable(name) for name in points[self._take().text]]
            else:
                args.append(self._expression(0))
            if self._peek().text != ",":
                break
            self._take()
        self._take(")")
        return args

    def _expanded(self, macro: Macro, args: Sequence[int]) -> int:
        inner = Reader(macro.text, self.graph, macro.names, self.functions)
        inner.scope |= dict(zip(macro.arguments, args, strict=True))
        return inner.read()

    def _builtin(self, name: str, args: Sequence[int]) -> int:
        graph = self.graph
        if name == "select":
            return graph.select(*args)
        if name in ("square", "cube"):
            return graph.power(args[0], graph.constant(2 if name == "square" else 3))
        inverse = {"sec": "cos", "csc": "sin", "cot": "tan"}.get(name)
        if inverse is not None:
            return graph.apply("recip", graph.apply(inverse, *args))
        return graph.apply(name, *args)

    def _error(self, position: int, rule: str) -> InputError:
        shown = self.text[position : position + 20]
        where = f"before {shown!r}" if shown else "at its end"
        return InputError(
            f"an expression must follow OpenMM's language: {rule}, at position {position}, {where}; "
            f"correct {self.text!r}"
        )
