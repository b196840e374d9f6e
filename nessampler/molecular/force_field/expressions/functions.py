"""Functions that a user brings to an expression: tables, and short forms of longer expressions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

__all__ = ["Function", "Macro"]


class Function(Protocol):
    """A function of an expression beside those of the language: a table, mostly.

    Attributes:
        arity: how many arguments it takes.
        smooth: whether it has derivatives; those of a step function are zero.

    Example:
        >>> import torch
        >>> from nessampler.molecular.force_field.expressions import compile_expression
        >>> class Wave:  # each derivative of a sine is a quarter turn ahead of the last
        ...     arity, smooth = 1, True
        ...
        ...     def __call__(self, x, *, order):
        ...         return torch.sin(x + order[0] * torch.pi / 2)
        >>> energy = compile_expression("2*wave(x)", ["x"], functions={"wave": Wave()})
        >>> x = torch.zeros(1, requires_grad=True)
        >>> torch.autograd.grad(energy({"x": x}).sum(), x)[0]
        tensor([2.])
    """

    arity: int
    smooth: bool

    def __call__(self, *arguments: Tensor, order: tuple[int, ...]) -> Tensor:
        """The derivative of `order[k]` with respect to argument k, of tensors that broadcast; itself differentiable."""
        ...


@dataclass(frozen=True)
class Macro:
    """A function written in the language itself.

    Attributes:
        arguments: the names by which the text knows them.
        text: an expression of the arguments and of variables outside, `names`.
        points: names of points and their coordinates; a call may give a point where it would give its coordinates.

    Example:
        >>> import torch
        >>> from nessampler.molecular.force_field.expressions import compile_expression
        >>> points = {"p": ("x1", "y1"), "q": ("x2", "y2")}
        >>> far = Macro(("a", "b", "c", "d"), "sqrt(u^2 + v^2); u=c-a; v=d-b", points=points)
        >>> distance = compile_expression("far(p, q)", ["x1", "y1", "x2", "y2"], functions={"far": far})
        >>> distance(dict(zip(["x1", "y1", "x2", "y2"], torch.tensor([0.0, 0.0, 3.0, 4.0]), strict=True)))
        tensor(5.)
    """

    arguments: tuple[str, ...]
    text: str
    names: tuple[str, ...] = ()
    points: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
