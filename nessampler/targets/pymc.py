"""The joint log-density of a PyMC model on its unconstrained value variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.pointwise import PointwiseDensity

__all__ = ["PyMCDensity", "is_pymc_model"]

Array = np.ndarray


def is_pymc_model(density: object) -> bool:
    """Whether it has what `pymc.Model` has; the library itself is never imported."""
    return all(hasattr(density, name) for name in ("compile_logp", "compile_dlogp", "continuous_value_vars"))


class PyMCDensity(PointwiseDensity):
    r"""$\log\rho$ of a `pymc.Model` in its value variables, one vector, the log-determinants of transforms included.

    Priors and likelihood are normalised, so $\log Z$ is the log evidence (a `Potential` counts as it is). Variables
    follow one another in the order of `model.continuous_value_vars`, each raveled; `split` takes walkers apart again.

    Args:
        model: a `pymc.Model`, observed variables and all; it is compiled once.

    Attributes:
        model: as given.
        names: of the value variables, such as `sigma_log__`.

    Raises:
        InputError: a model with discrete variables, or without any free variable.
    """

    def __init__(self, model: Any) -> None:
        discrete = [variable.name for variable in model.discrete_value_vars]
        if discrete:
            raise InputError(
                f"walkers move in continuous coordinates: the PyMC model has the discrete {', '.join(discrete)}; sum "
                "them out, as with pm.Mixture, or observe them"
            )
        variables = list(model.continuous_value_vars)
        if not variables:
            raise InputError("a PyMC model is sampled in its free variables: got none; leave some unobserved")
        self.model, self.names = model, tuple(v.name for v in variables)
        start = model.initial_point()
        self._like = {name: np.asarray(start[name], dtype=np.float64) for name in self.names}
        self._sizes = [value.size for value in self._like.values()]
        log_density, both = model.compile_logp(), model.compile_fn([model.logp(), model.dlogp()])

        def value_and_gradient(point: Array) -> tuple[float, Array]:
            value, gradient = both(self._point(point))
            return float(value), np.asarray(gradient)

        super().__init__(lambda point: float(log_density(self._point(point))), value_and_gradient, sum(self._sizes))

    def split(self, x: Float[Tensor, "n d"]) -> Mapping[str, Float[Tensor, " n *shape"]]:
        """Value variables by name, each with its own shape; `sigma_log__` is the logarithm of `sigma`."""
        parts = torch.split(x, self._sizes, dim=-1)
        return {name: part.view(len(x), *self._like[name].shape) for name, part in zip(self.names, parts, strict=True)}

    def _point(self, x: Array) -> dict[str, Array]:
        parts = np.split(x, np.cumsum(self._sizes)[:-1])
        return {name: part.reshape(self._like[name].shape) for name, part in zip(self.names, parts, strict=True)}
