"""A log-density in numpy, with or without its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.callable import shape_of_event

__all__ = ["NumpyDensity"]

Array = np.ndarray


class NumpyDensity:
    r"""The target of $\log \rho$ given as a numpy function of many points; energies are evaluated on the CPU.

    The function gives the **log density**, $U = -\log\rho$, −inf outside the support. With `gradient`,
    $\nabla \log \rho$, every kernel and transform works, differentiable once. Without it only kernels that ask for none
    do: random walks, `DensityEffort(kernel="walk")` with a base, methods ais and smc.

    Args:
        log_density: `(n, *event) -> (n,)`, both float64 arrays.
        event_shape: shape of one point: `3` is `(3,)`.
        gradient: `(n, *event) -> (n, *event)`, or None.

    Raises:
        InputError: at a call: an output of the wrong shape or dtype, or a gradient asked for where there is none.

    Example:
        >>> target = NumpyDensity(lambda x: -0.5 * (x**2).sum(-1), 2, gradient=lambda x: -x)
        >>> target.energy_and_score(torch.ones(1, 2))
        (tensor([1.]), tensor([[-1., -1.]]))
    """

    def __init__(
        self,
        log_density: Callable[[Array], Array],
        event_shape: int | tuple[int, ...] | torch.Size,
        gradient: Callable[[Array], Array] | None = None,
    ) -> None:
        self.log_density, self.gradient = log_density, gradient
        self.event_shape = shape_of_event(event_shape)

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """Minus the log density; differentiable where a gradient was given."""
        if self.gradient is None:
            return -_called(self.log_density, x, x.shape[:1], "log_density")
        return _Energy.apply(x, self.log_density, self.gradient)

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        """U and -∇U: one call of each function. The score is zero outside the support.

        Raises:
            InputError: no gradient was given.
        """
        gradient = self._known_gradient()
        energy = -_called(self.log_density, x, x.shape[:1], "log_density")
        score = _called(gradient, x, x.shape, "gradient")
        return energy, torch.where((energy == torch.inf).view(-1, *[1] * (x.ndim - 1)), 0.0, score)

    def _known_gradient(self) -> Callable[[Array], Array]:
        if self.gradient is None:
            raise InputError(
                "this kernel needs a gradient: got a NumpyDensity without one; pass gradient=..., write the density in "
                'torch, or take random walks: DensityEffort(kernel="walk") with a base (method ais, smc or auto)'
            )
        return self.gradient


class _Energy(torch.autograd.Function):
    """Minus a numpy log-density, its derivative from a second numpy function."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, log_density: Callable[[Array], Array], gradient: Callable[[Array], Array]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.gradient = gradient
        return -_called(log_density, x, x.shape[:1], "log_density")

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *upstream: Tensor
    ) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return _Gradient.apply(x, ctx.gradient, upstream[0]), None, None  # pyright: ignore[reportReturnType]


class _Gradient(torch.autograd.Function):
    """The gradient, tied to the positions: a second derivative must raise, where a detached one would be dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Callable[[Array], Array], upstream: Tensor) -> Tensor:
        outer = upstream.view(-1, *[1] * (x.ndim - 1))
        # Nothing flows back from a walker that was masked out, whatever its gradient there.
        return torch.where(outer == 0, 0.0, -outer * _called(gradient, x, x.shape, "gradient"))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        raise NotImplementedError(
            "a NumpyDensity gives energies and gradients, no second derivatives: an energy was differentiated twice; "
            "write the density in torch, or use an objective that needs the score alone"
        )


def _called(function: Callable[[Array], Array], x: Tensor, shape: torch.Size, name: str) -> Tensor:
    # A copy: what the function does to its argument is no business of the walkers.
    points = np.array(x.detach().cpu().numpy(), dtype=np.float64)
    value = np.asarray(function(points))
    if value.shape != tuple(shape):
        hint = "; it seems not batched: sum over the coordinates only (axis=-1)" if value.ndim == 0 else ""
        raise InputError(
            f"{name} must give shape {tuple(shape)} for points of shape {tuple(x.shape)}: got {value.shape}{hint}"
        )
    if not np.issubdtype(value.dtype, np.floating):
        raise InputError(
            f"{name} must give real numbers: got dtype {value.dtype}; keep its arithmetic in floating point"
        )
    return torch.from_numpy(value.astype(np.float64)).to(x)
