"""A likelihood computed in torch, as JAX wants it."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import numpy as np

from nessampler.bench.peers.whitened import Whitened

__all__ = ["configure", "in_jax"]


def configure() -> None:
    """Before JAX is first used: float64, and dispatch that waits, since callbacks and dispatch ahead can lock up."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # jax issue 25861


def in_jax(problem: Whitened) -> Any:
    """The likelihood as a JAX function with a gradient, evaluated in torch, many points at a time."""
    import jax
    import jax.numpy as jnp

    def value(z: Any) -> Any:
        z = np.asarray(z)
        return problem.log_likelihood(z.reshape(-1, z.shape[-1])).reshape(z.shape[:-1])

    def both(z: Any) -> Any:
        z = np.asarray(z)
        found, gradient = problem.log_likelihood_and_gradient(z.reshape(-1, z.shape[-1]))
        return found.reshape(z.shape[:-1]), gradient.reshape(z.shape)

    def shaped(z: Any) -> Any:
        return jax.ShapeDtypeStruct(z.shape[:-1], jnp.float64)

    @jax.custom_vjp
    def likelihood(z: Any) -> Any:
        return jax.pure_callback(value, shaped(z), z, vmap_method="broadcast_all")

    def forward(z: Any) -> Any:
        found, gradient = jax.pure_callback(
            both, (shaped(z), jax.ShapeDtypeStruct(z.shape, jnp.float64)), z, vmap_method="broadcast_all"
        )
        return found, gradient

    likelihood.defvjp(forward, lambda gradient, g: (g * gradient,))  # pyright: ignore[reportFunctionMemberAccess]
    return likelihood
