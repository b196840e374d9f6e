"""The divergence of a velocity: exact, one backward pass per coordinate, or along a random probe."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["exact_divergence", "probed_divergence", "rademacher"]

Velocity = Callable[[Tensor, Tensor], Tensor]


def exact_divergence(
    velocity: Velocity, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
    r"""$b(t, x)$ and $\nabla\cdot b = \sum_i \partial b_i/\partial x_i$: d backward passes in one vectorised call.

    Time and memory grow with the dimension d of an event, so this is for small d. Where gradients are enabled, both
    results can be differentiated with respect to parameters.

    Example:
        >>> _, divergence = exact_divergence(lambda t, x: x**2, torch.zeros(1), torch.tensor([[1.0, 3.0]]))
        >>> divergence.detach()
        tensor([8.])
    """
    value, position, keep = _at(velocity, t, x)
    if not value.requires_grad:
        return value, torch.zeros_like(t)
    flat = value.flatten(1)
    d = flat.shape[1]
    rows = torch.eye(d, dtype=flat.dtype, device=flat.device).unsqueeze(1).expand(d, len(x), d)
    (jacobian,) = torch.autograd.grad(
        flat, position, rows, is_grads_batched=True, create_graph=keep, materialize_grads=True
    )
    divergence = jacobian.flatten(2).diagonal(dim1=0, dim2=2).sum(-1)
    return (value, divergence) if keep else (value.detach(), divergence)


def probed_divergence(
    velocity: Velocity, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], *probes: Float[Tensor, " n *event"]
) -> tuple[Float[Tensor, " n *event"], list[Float[Tensor, " n"]]]:
    r"""$b(t, x)$ and one estimate $z^T (\partial b/\partial x)\, z$ of $\nabla\cdot b$ per probe, a backward pass each.

    An estimate is unbiased where $E[z z^T] = 1$; its square is not an unbiased estimate of the square: multiply the
    estimates of two independent probes instead.

    References:
        Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines, 1989,
        Commun. Stat. Simul. Comput. 18, 1059.

    Example:
        >>> ones = torch.ones(1, 2)
        >>> _, (estimate,) = probed_divergence(lambda t, x: x**2, torch.zeros(1), torch.tensor([[1.0, 3.0]]), ones)
        >>> estimate.detach()
        tensor([8.])
    """
    value, position, keep = _at(velocity, t, x)
    if not value.requires_grad:
        return value, [torch.zeros_like(t) for _ in probes]
    found = []
    for probe in probes:
        (felt,) = torch.autograd.grad(
            value, position, probe, create_graph=keep, retain_graph=True, materialize_grads=True
        )
        found.append((felt * probe).flatten(1).sum(1))
    return (value if keep else value.detach()), found


def rademacher(x: Float[Tensor, " n *event"], *, generator: torch.Generator) -> Float[Tensor, " n *event"]:
    """Independent signs, the probe of least variance for a diagonal-dominated matrix, in the shape of x.

    Example:
        >>> rademacher(torch.zeros(2, 3), generator=torch.Generator()).abs().sum()
        tensor(6.)
    """
    bits = torch.randint(2, x.shape, generator=generator, device=generator.device).to(x.device)
    return (2 * bits - 1).to(x.dtype)


def _at(velocity: Velocity, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor, bool]:
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        position = x.detach().requires_grad_()
        return velocity(t, position), position, keep
