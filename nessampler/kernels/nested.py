"""Tensors in tuples of tuples, which is how paths keep what they evaluated: one operation on all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["chosen", "joined", "mapped"]


def mapped(function: Callable[..., Tensor], first: Any, *others: Any) -> Any:
    """The same of every tensor, in tuples of the same kinds; whatever is no tensor stays.

    >>> mapped(lambda a, b: a + b, (torch.ones(1), (torch.ones(1), None)), (torch.ones(1), (torch.zeros(1), None)))
    (tensor([2.]), (tensor([1.]), None))
    """
    if isinstance(first, tuple):
        found = [mapped(function, *values) for values in zip(first, *others, strict=True)]
        return type(first)(*found) if hasattr(first, "_fields") else tuple(found)
    return function(first, *others) if isinstance(first, Tensor) else first


def joined(*pieces: Any) -> Any:
    """Rows of all pieces one after another.

    >>> joined((torch.zeros(1), torch.ones(1)), (torch.zeros(1), torch.ones(1)))
    (tensor([0., 0.]), tensor([1., 1.]))
    """
    return mapped(lambda *values: torch.cat(values), *pieces)


def chosen(which: Tensor, new: Any, old: Any) -> Any:
    """Rows of `new` where `which` is true, of `old` elsewhere.

    >>> chosen(torch.tensor([True, False]), torch.ones(2, 1), torch.zeros(2, 1)).tolist()
    [[1.0], [0.0]]
    """
    return mapped(lambda a, b: torch.where(which.view(-1, *[1] * (a.ndim - 1)), a, b), new, old)
