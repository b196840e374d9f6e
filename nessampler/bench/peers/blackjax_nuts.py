"""The no-U-turn sampler by blackjax, with the warm-up of Stan."""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any

import numpy as np

from nessampler.bench.peers.in_jax import configure, in_jax
from nessampler.bench.peers.whitened import Evidence, Whitened
from nessampler.bench.row import NO_LOG_Z
from nessampler.targets import Counted

__all__ = ["blackjax_nuts"]

CHAINS = 16
WARM_UP, SHORTEST_WARM_UP, LONGEST_WARM_UP = 0.2, 100, 1000  # of the budget, and in trajectories
TYPICAL = 15  # leapfrogs of a trajectory, by which a warm-up is sized
BLOCK = 25  # trajectories, after each of which the budget is looked at
WITHOUT_BUDGET = 1000  # draws of each chain
MOST_DRAWS = 10_000  # of a chain


def blackjax_nuts(problem: Whitened, counted: Counted, left: int | None, seed: int) -> Evidence:
    """Chains from draws of the base; steps and a diagonal mass adapt in windows, chain by chain.

    Chains run side by side, and one that has turned waits for those that have not: what the target computes for it
    meanwhile is not counted, as a chain alone would not have asked. They stop at the first block beyond the budget.
    A sampler of averages: it gives no log Z.

    References: Hoffman & Gelman, The no-U-turn sampler, 2011, arXiv:1111.4246; Cabezas et al., BlackJAX, 2024,
    arXiv:2402.10797.
    """
    import blackjax
    import jax
    import jax.numpy as jnp

    configure()
    likelihood, tally = in_jax(problem), counted.tally()

    def log_density(z: Any) -> Any:
        return likelihood(z) - 0.5 * jnp.sum(z**2)

    warm_up = 1000 if left is None else int(WARM_UP * left / CHAINS / TYPICAL)
    warm_up = min(LONGEST_WARM_UP, max(SHORTEST_WARM_UP, warm_up))
    first, second, third = jax.random.split(jax.random.key(seed), 3)
    start = jax.random.normal(first, (CHAINS, problem.dimension))
    adapted = blackjax.window_adaptation(
        blackjax.nuts, log_density, adaptation_info_fn=lambda state, info, found: info.num_integration_steps
    )
    (states, found), leapfrogs = jax.jit(jax.vmap(lambda key, z: adapted.run(key, z, warm_up)))(
        jax.random.split(second, CHAINS), start
    )
    spent, kernel = CHAINS + int(leapfrogs.sum()), blackjax.nuts.build_kernel()

    def step(state: Any, key: Any) -> Any:
        def one(key: Any, state: Any, size: Any, mass: Any) -> Any:
            return kernel(key, state, log_density, size, mass)

        state, info = jax.vmap(one)(
            jax.random.split(key, CHAINS), state, found["step_size"], found["inverse_mass_matrix"]
        )
        return state, (state.position, info.num_integration_steps)

    block = jax.jit(lambda state, key: jax.lax.scan(step, state, jax.random.split(key, BLOCK)))
    draws = []
    for key in jax.random.split(third, MOST_DRAWS // BLOCK):
        states, (positions, leapfrogs) = block(states, key)
        spent += int(leapfrogs.sum())
        draws.append(np.asarray(positions))
        if (spent >= left) if left is not None else (len(draws) * BLOCK >= WITHOUT_BUDGET):
            break
    tally.energy, tally.gradient = 0, spent
    kept = np.concatenate(draws).swapaxes(0, 1)
    return Evidence(None, None, f"{NO_LOG_Z}; {CHAINS} chains of {kept.shape[1]} draws after {warm_up}", kept)
