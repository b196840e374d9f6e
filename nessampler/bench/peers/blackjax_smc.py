"""Adaptive tempered SMC by blackjax, with HMC moves."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
from typing import Any

import numpy as np

from nessampler.bench.peers.in_jax import configure, in_jax
from nessampler.bench.peers.whitened import Evidence, Whitened
from nessampler.estimators import Flag
from nessampler.methods.density.smc import WIDEST_ISLANDS
from nessampler.targets import Counted

__all__ = ["blackjax_smc", "island", "mover", "scattered"]

ISLANDS = 8  # independent runs, as many as ours: their spread is the error
TRIAL, FEWEST = 128, 64  # particles
CONDITIONAL_ESS, LEAPFROG, MOVES = 0.9, 5, 1  # as of our own
ACCEPTANCE, FIRST_STEP = 0.8, 0.3
LONGEST = 1000  # temperatures


def blackjax_smc(problem: Whitened, counted: Counted, left: int | None, seed: int) -> Evidence:
    r"""Islands of particles whose temperatures, masses and step sizes adapt as they go.

    Temperatures by the ESS between them, masses from the variances of the particles, step sizes from the acceptance.
    $\hat Z$ is the mean over islands; since each adapts on its own particles it is consistent, not unbiased. A small
    island finds what a particle costs, and is not counted.

    References: Cabezas et al., BlackJAX, 2024, arXiv:2402.10797.
    """

    configure()
    move = mover(in_jax(problem))
    if left is None:
        particles = 1000
    else:
        before = counted.tally().copy()
        island(move, problem.dimension, TRIAL, seed + 10_000)
        spent = counted.tally() - before
        each = (spent.energy + spent.gradient) / TRIAL
        tally = counted.tally()
        tally.energy, tally.gradient = before.energy, before.gradient
        particles = max(FEWEST, int(left / ISLANDS / each))
    islands = [island(move, problem.dimension, particles, ISLANDS * seed + k) for k in range(ISLANDS)]
    found, draws = np.array([log_z for log_z, _ in islands]), np.concatenate([z for _, z in islands])
    share = np.exp(found - found.max())
    error = float(share.std(ddof=1) / share.mean() / math.sqrt(ISLANDS))
    log_z = float(np.log(share.mean()) + found.max())
    note = f"{ISLANDS} islands of {particles} particles"
    return Evidence(log_z, error, note, draws[None], scattered(math.sqrt(ISLANDS) * error))


def scattered(spread: float) -> tuple[Flag, ...]:
    """The flag of our own islands, where estimates of Z scatter by too large a part of their mean.

    >>> [flag.code for flag in scattered(0.4)], scattered(0.1)
    (['islands_disagree'], ())
    """
    if spread <= WIDEST_ISLANDS:
        return ()
    return (Flag("islands_disagree", f"islands' estimates of Z scatter by {spread:.0%}; take more particles"),)


def mover(log_likelihood: Any) -> Any:
    """One temperature of all particles, compiled: `(key, state, step size)` to state, increment of log Z, step size."""
    import blackjax
    import jax
    import jax.numpy as jnp
    from blackjax.smc import adaptive_tempered, extend_params
    from blackjax.smc.tuning.from_particles import particles_stds

    kernel = adaptive_tempered.build_kernel(
        lambda z: -0.5 * jnp.sum(z**2),
        log_likelihood,
        blackjax.hmc.build_kernel(),
        blackjax.hmc.init,
        blackjax.smc.resampling.systematic,
        CONDITIONAL_ESS,
    )

    @jax.jit
    def move(key: Any, state: Any, step: Any) -> Any:
        variance = particles_stds(state.particles) ** 2
        known = {"step_size": step, "inverse_mass_matrix": variance, "num_integration_steps": LEAPFROG}
        state, info = kernel(key, state, MOVES, extend_params(known))
        gain = 1.5 * (info.update_info.acceptance_rate.mean() - ACCEPTANCE)
        return state, info.log_likelihood_increment, step * jnp.exp(jnp.clip(gain, -0.7, 0.4))

    return move


def island(move: Any, dimension: int, particles: int, seed: int) -> tuple[float, np.ndarray]:
    """log Z of one run, and its particles, selected by their last weights."""
    import blackjax
    import jax
    import jax.numpy as jnp
    from blackjax.smc import tempered

    key, first = jax.random.split(jax.random.key(seed))
    state = tempered.init(jax.random.normal(first, (particles, dimension)))
    log_z, step = 0.0, jnp.asarray(FIRST_STEP)
    for _ in range(LONGEST):
        key, now = jax.random.split(key)
        state, increment, step = move(now, state, step)
        log_z += float(increment)
        if float(state.tempering_param) >= 1:
            chosen = blackjax.smc.resampling.systematic(jax.random.fold_in(key, 0), state.weights, particles)
            return log_z, np.asarray(state.particles[chosen])
    raise RuntimeError(f"blackjax did not reach the target in {LONGEST} temperatures")
