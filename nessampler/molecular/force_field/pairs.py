r"""Pairs of atoms: which there are, their squared distances, and pair functions whose slope is known in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nessampler.molecular.force_field.geometry import displacement

__all__ = ["all_pairs", "both_ways", "pairs_except", "squared_distance", "with_slopes"]


def all_pairs(n_atoms: int) -> Int[Tensor, "2 pairs"]:
    """Every pair once, $i < j$."""
    return torch.triu_indices(n_atoms, n_atoms, 1)


def pairs_except(n_atoms: int, left_out: Iterable[tuple[int, int]]) -> Int[Tensor, "2 pairs"]:
    """Every pair once, $i < j$, but for some."""
    i, j = all_pairs(n_atoms)
    keys = torch.tensor([min(p) * n_atoms + max(p) for p in left_out], dtype=torch.int64)
    kept = ~torch.isin(i * n_atoms + j, keys)
    return torch.stack([i[kept], j[kept]])


def both_ways(pairs: Int[Tensor, "2 pairs"]) -> Int[Tensor, "2 twice"]:
    """Every pair, then every pair the other way round."""
    return torch.cat([pairs, pairs.flip(0)], 1)


def squared_distance(
    x: Float[Tensor, "3 atoms walkers"], pairs: Int[Tensor, "2 pairs"], box: Float[Tensor, "3 3"] | None = None
) -> Float[Tensor, "pairs walkers"]:
    r"""$|x_j - x_i|^2$ in nm², in a periodic box that of the nearest images.

    Example:
        >>> x = torch.tensor([[0.0, 3.0], [0.0, 4.0], [0.0, 0.0]])[..., None]
        >>> squared_distance(x, all_pairs(2))
        tensor([[25.]])
    """
    if box is not None and box.requires_grad:
        d = displacement(x, pairs[0], pairs[1], box)
        return (d * d).sum(0)
    return _SquaredDistance.apply(x, pairs, box)  # pyright: ignore[reportReturnType]


class _SquaredDistance(torch.autograd.Function):
    """Autograd's own rules would write three gradients as large as the displacements; this writes one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pairs: Tensor, box: Tensor | None) -> Tensor:
        d = displacement(x, pairs[0], pairs[1], box)
        ctx.save_for_backward(x, pairs, box, d)
        return (d * d).sum(0)

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Tensor, None, None]:
        x, pairs, box, d = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again: then it has to be seen as a function of x
            d = displacement(x, pairs[0], pairs[1], box)
        pull = d * (2 * grad_output[0])
        return torch.zeros_like(x).index_add(1, pairs[1], pull).index_add(1, pairs[0], pull, alpha=-1), None, None


def with_slopes(
    function: Callable[..., tuple[Tensor, tuple[Tensor, ...]]],
    variables: tuple[Tensor, ...],
    parameters: tuple[Tensor, ...],
) -> Tensor:
    r"""The value of an elementwise function that also returns its partial derivatives in closed form.

    `function(*variables, *parameters)` returns the value and one derivative per variable; autograd then needs a
    product for each of them instead of running through every operation. Where a parameter wants a gradient, autograd
    does run through them.

    Example:
        >>> x = torch.tensor([2.0], requires_grad=True)
        >>> cube = with_slopes(lambda x, k: (k * x**3, (3 * k * x**2,)), (x,), (torch.tensor(0.5),))
        >>> cube.backward()
        >>> x.grad
        tensor([6.])
    """
    if not torch.is_grad_enabled() or any(p.requires_grad for p in parameters):
        return function(*variables, *parameters)[0]
    return _WithSlopes.apply(function, len(variables), *variables, *parameters)  # pyright: ignore[reportReturnType]


class _WithSlopes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], n: int, *tensors: Tensor) -> Tensor:
        value, slopes = function(*tensors)
        ctx.function, ctx.variables, ctx.tensors = function, n, len(tensors)
        ctx.save_for_backward(*tensors, *slopes)
        return value

    @staticmethod
    def backward(ctx: Any, *grad_output: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        tensors, slopes = saved[: ctx.tensors], saved[ctx.tensors :]
        if torch.is_grad_enabled():
            slopes = ctx.function(*tensors)[1]
        pulls = [(grad_output[0] * slope).sum_to_size(t.shape) for t, slope in zip(tensors, slopes, strict=False)]
        return None, None, *pulls, *[None] * (len(tensors) - ctx.variables)
