r"""$-\nabla U$ and $\nabla^2 U$ of a target, exactly: its own Laplacian, or the trace of its Hessian."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.protocol import Target, energy_and_score

__all__ = ["LARGEST_TRACE", "score_and_laplacian", "trace_passes"]

LARGEST_TRACE = 64


def score_and_laplacian(target: Target, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    r"""$-\nabla U$ and $\nabla^2 U = \sum_i \partial_i^2 U$, the latter in float64.

    From `target.laplacian` where there is one; otherwise by d backward passes through its energy, for up to 64
    coordinates: a random estimate of the trace would make log-determinants, and with them weights, inexact. Outside the
    support, where U is +inf, both are zero.

    Raises:
        InputError: more coordinates without a Laplacian of the target's own; an energy that torch cannot differentiate
            twice.

    Example:
        >>> class Quartic:
        ...     event_shape = torch.Size([2])
        ...
        ...     def energy(self, x):
        ...         return x.pow(4).sum(1)
        >>> score, laplacian = score_and_laplacian(Quartic(), torch.tensor([[1.0, 2.0]]))
        >>> score.tolist(), laplacian.tolist()
        ([[-4.0, -32.0]], [60.0])
    """
    own = getattr(target, "laplacian", None)
    if own is not None:
        return energy_and_score(target, x)[1], own(x).to(torch.float64)
    d = x.shape[1]
    if d > LARGEST_TRACE:
        raise InputError(
            f"a field along the gradient of an end needs its Laplacian: {type(target).__name__} has none, and the "
            f"trace of its Hessian takes a backward pass for each of {d} coordinates (at most {LARGEST_TRACE}); give "
            "it a method `laplacian(x)`, or leave these fields out"
        )
    with torch.enable_grad():
        position = x.detach().requires_grad_()
        energy = target.energy(position)
        inside = energy < torch.inf
        (gradient,) = torch.autograd.grad(torch.where(inside, energy, 0.0).sum(), position, create_graph=True)
        if not gradient.requires_grad:  # linear, or a score that was computed without a graph
            _check_twice(target, position)
            return -gradient, torch.zeros(len(x), dtype=torch.float64, device=x.device)
        rows = torch.eye(d, dtype=x.dtype, device=x.device)[:, None, :].expand(d, len(x), d)
        (hessian,) = torch.autograd.grad(gradient, position, rows, is_grads_batched=True, materialize_grads=True)
    trace = hessian.diagonal(dim1=0, dim2=2).sum(-1, dtype=torch.float64)
    return torch.where(inside[:, None], -gradient.detach(), 0.0), torch.where(inside, trace, 0.0)


def trace_passes(target: Target) -> int:
    """Evaluations that `score_and_laplacian` is worth: one, and a backward pass a coordinate where it takes them."""
    return 1 if hasattr(target, "laplacian") else 1 + target.event_shape.numel()


def _check_twice(target: Target, x: Tensor) -> None:
    """A gradient without a graph is constant for linear energies only."""
    with torch.no_grad():
        moved = energy_and_score(target, x.detach() + 0.1)[1]
        here = energy_and_score(target, x.detach())[1]
    if not torch.allclose(moved, here, rtol=1e-4, atol=1e-6):
        raise InputError(
            f"a field along the gradient of an end needs an energy that torch differentiates twice: that of "
            f"{type(target).__name__} is differentiable once; give it a method `laplacian(x)`"
        )
