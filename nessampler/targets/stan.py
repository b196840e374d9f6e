"""The posterior of a Stan model, through BridgeStan, on its unconstrained parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.pointwise import PointwiseDensity

__all__ = ["StanDensity", "is_stan_model"]

Array = np.ndarray
TRIES = 20  # points in (-2, 2)^d, where Stan itself looks for a start


def is_stan_model(density: object) -> bool:
    """Whether it has what `bridgestan.StanModel` has; the library itself is never imported."""
    return all(hasattr(density, name) for name in ("log_density_gradient", "param_unc_num", "param_constrain"))


class StanDensity(PointwiseDensity):
    r"""$\log\rho$ of a `bridgestan.StanModel` on $R^d$, the log-determinant of its constraints included.

    No constant is dropped (`propto=False`), so that with `~` or `_lpdf` statements $\log Z$ is the log evidence. A
    point at which the model rejects, or fails as with a covariance that rounding made indefinite, has density zero, as
    it has for Stan's own samplers.

    Args:
        model: a `bridgestan.StanModel`, with its data.

    Attributes:
        model: as given.
        names: of the constrained parameters, the columns of `constrain`.

    Raises:
        InputError: a model without parameters, or one that fails wherever it is tried; its own words are quoted.

    References: Roualdes et al., BridgeStan: Efficient in-memory access to the methods of a Stan model, 2023,
        J. Open Source Softw. 8, 5236.

    Example:
        >>> class Model:  # as bridgestan.StanModel("rate.stan") of `parameters { real<lower=0> rate; }`, exponential(1)
        ...     def param_unc_num(self): return 1
        ...     def param_names(self): return ["rate"]
        ...     def param_constrain(self, theta_unc): return np.exp(theta_unc)
        ...     def log_density(self, theta_unc, *, propto=True, jacobian=True):
        ...         return float(theta_unc[0] - np.exp(theta_unc[0]))
        ...     def log_density_gradient(self, theta_unc, *, propto=True, jacobian=True):
        ...         return self.log_density(theta_unc), 1 - np.exp(theta_unc)
        >>> rate = StanDensity(Model())
        >>> rate.energy(torch.zeros(1, 1)), rate.constrain(torch.zeros(1, 1))
        (tensor([1.]), tensor([[1.]]))
    """

    def __init__(self, model: Any) -> None:
        dimension = int(model.param_unc_num())
        if dimension < 1:
            raise InputError(
                f"a Stan model is sampled in its parameters: got {dimension} of them; declare some in `parameters`"
            )
        self.model, self.names = model, tuple(model.param_names())

        def value(point: Array) -> float:
            try:
                return model.log_density(point, propto=False, jacobian=True)
            except RuntimeError:  # the model's `reject`, or an exception of its functions
                return -np.inf

        def both(point: Array) -> tuple[float, Array]:
            try:
                return model.log_density_gradient(point, propto=False, jacobian=True)
            except RuntimeError:
                return -np.inf, np.zeros_like(point)

        super().__init__(value, both, dimension)
        self._refuse_what_never_works(dimension)

    def constrain(self, y: Float[Tensor, "n d"]) -> Float[Tensor, "n parameters"]:
        """Parameters as the Stan program declares them, columns in the order of `names`."""
        points = np.array(y.detach().cpu().numpy(), dtype=np.float64)
        rows = np.array([self.model.param_constrain(point) for point in points], dtype=np.float64)
        return torch.from_numpy(rows.reshape(len(points), len(self.names))).to(y)

    def _refuse_what_never_works(self, dimension: int) -> None:
        message = ""
        for point in np.random.default_rng(0).uniform(-2, 2, (TRIES, dimension)):
            try:
                self.model.log_density(point, propto=False, jacobian=True)
                return
            except RuntimeError as error:
                message = str(error).strip()
        raise InputError(
            f"a Stan model must have a density somewhere: it failed at all {TRIES} points tried in "
            f"(-2, 2)^{dimension}, the last time with {message!r}; check its data and constraints"
        )
