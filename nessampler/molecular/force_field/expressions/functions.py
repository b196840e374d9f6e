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
    """

    arguments: tuple[str, ...]
    text: str
    names: tuple[str, ...] = ()
    points: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
