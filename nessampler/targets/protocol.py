"""What a density must offer: a batched energy, in kT."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Target", "energy_and_score"]


@runtime_checkable
class Target(Protocol):
    r"""An unnormalised density $\rho(x) \propto e^{-U(x)}$ with $U$ in kT.

    Optional, used where present: `sample(n, *, generator)`, `log_z` where known exactly,
    `energy_and_score(x)` where one call gives both, `check(x)` to refuse unusable input early, `observables(x)`, named
    numbers of every walker by which chains are judged, and `mirror(x)`, an
    involution that keeps volumes and that chains propose where no trajectory would cross.

    Example:
        >>> class Exponential:  # the density e^-x of x > 0, with log Z = 0
        ...     event_shape = torch.Size([1])
        ...
        ...     def energy(self, x):
        ...         return torch.where(x[:, 0] > 0, x[:, 0], torch.inf)
        >>> isinstance(Exponential(), Target), Exponential().energy(torch.tensor([[2.0], [-1.0]]))
        (True, tensor([2., inf]))
    """

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one walker."""
        ...

    def energy(self, x: Float[Tensor, " n *event"], /) -> Float[Tensor, " n"]:
        """U of every walker; +inf outside the support."""
        ...


def energy_and_score(
    target: Target, x: Float[Tensor, " n *event"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
    r"""$U(x)$ and $-\nabla U(x)$, from the target's own single call where it has one, otherwise by autograd.

    Outside the support, where U is +inf, the score is zero: there it steers nothing that the weights would keep.
    A NaN energy keeps its NaN score, so that it cannot pass unnoticed.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> energy, score = energy_and_score(Gaussian(torch.zeros(2), torch.ones(2)), torch.ones(1, 2))
        >>> energy, score
        (tensor([1.]), tensor([[-1., -1.]]))
    """
    if hasattr(target, "energy_and_score"):
        return target.energy_and_score(x)  # pyright: ignore[reportAttributeAccessIssue]
    with torch.enable_grad():
        position = x.detach().requires_grad_()
        energy = target.energy(position)
        outside = energy == torch.inf
        (gradient,) = torch.autograd.grad(torch.where(outside, 0.0, energy).sum(), position)
    return energy.detach(), torch.where(outside.view(-1, *[1] * (x.ndim - 1)), 0.0, -gradient)
