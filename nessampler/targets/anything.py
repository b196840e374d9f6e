"""Whatever a user calls a density becomes a target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from nessampler.errors import InputError
from nessampler.targets.callable import as_target, shape_of_event
from nessampler.targets.differences import central_differences
from nessampler.targets.numpy_density import NumpyDensity
from nessampler.targets.protocol import Target
from nessampler.targets.pymc import PyMCDensity, is_pymc_model
from nessampler.targets.stan import StanDensity, is_stan_model

__all__ = ["target_of"]

Array = np.ndarray


def target_of(
    density: object,
    *,
    event_shape: int | tuple[int, ...] | torch.Size | None = None,
    batched: bool = True,
    gradient: Callable[[Array], Array] | None = None,
) -> Target:
    r"""A target from any of these:

    | `density` | becomes |
    |---|---|
    | a target, with `event_shape` and `energy` | itself |
    | a `torch.distributions.Distribution` on $R^d$ | `DistributionTarget` |
    | a `bridgestan.StanModel` | `StanDensity`, unconstrained |
    | a `pymc.Model` | `PyMCDensity`, unconstrained |
    | a log-density in torch | `LogDensity` |
    | a log-density in numpy, with `gradient` | `NumpyDensity` |
    | a log-density in numpy alone | `NumpyDensity` with `central_differences` |

    A callable is one of numpy if it comes with `gradient`, or if it fails on tensors and takes arrays.

    Args:
        density: see above; callables give the log density, not the energy.
        event_shape: shape of one point, needed for a callable: `3` is `(3,)`.
        batched: whether a callable, and `gradient`, take many points at once.
        gradient: of a log-density in numpy, $\nabla\log\rho$: `(n, *event) -> (n, *event)`.

    Raises:
        InputError: as of `as_target`; `gradient` for something that is not a callable of numpy arrays.

    Example:
        >>> target = target_of(lambda x: -0.5 * np.einsum("ni,ni->n", x, x), event_shape=2)
        >>> type(target).__name__, target.energy(torch.ones(1, 2))
        ('NumpyDensity', tensor([1.]))
    """
    if is_stan_model(density):
        density = StanDensity(density)
    elif is_pymc_model(density):
        density = PyMCDensity(density)
    if isinstance(density, Distribution | Target) or not callable(density) or event_shape is None:
        if gradient is not None:
            raise InputError(
                "`gradient` belongs to a log-density in numpy, given with its event shape: got it with "
                f"{type(density).__name__}; leave it out"
            )
        return as_target(density, event_shape=event_shape, batched=batched)
    shape, log_density = shape_of_event(event_shape), cast(Callable[[Any], Any], density)
    if gradient is None and not _of_numpy(log_density, shape, batched):
        return as_target(density, event_shape=shape, batched=batched)
    many = log_density if batched else _row_by_row(log_density)
    if gradient is None:
        return NumpyDensity(many, shape, central_differences(many))
    return NumpyDensity(many, shape, gradient if batched else _row_by_row(gradient))


def _of_numpy(log_density: Callable[[Any], Any], shape: torch.Size, batched: bool) -> bool:
    """Whether it makes no tensor of tensors but numbers of arrays."""
    points = np.random.default_rng(0).normal(size=(2, *shape))
    x = torch.from_numpy(points).requires_grad_()  # as it will be asked: numpy refuses such a tensor
    if isinstance(_tried(log_density, x if batched else x[0]), Tensor):
        return False
    value = _tried(log_density, points.copy() if batched else points[0].copy())
    return isinstance(value, np.ndarray | np.floating | float) and np.shape(value) == ((2,) if batched else ())


def _tried(function: Callable[[Any], Any], x: Any) -> Any:
    # What a probe runs into is not reported: the check of the target that follows names it.
    try:
        with np.errstate(all="ignore"):
            return function(x)
    except Exception:
        return None


def _row_by_row(function: Callable[[Array], Any]) -> Callable[[Array], Array]:
    return lambda x: np.array([function(row) for row in x], dtype=np.float64)
