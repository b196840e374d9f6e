"""Adaptive SMC here and by blackjax, side by side on GMM-40 from one normal: accuracy and time at equal evaluations.

    make .venv-peers/.installed
    .venv-peers/bin/python docs/benchmarks/blackjax_smc.py --seeds 20

Blackjax gets the target twice: through torch, where evaluations are counted and its particles are sized, and written
in JAX, where it is timed, compiled before the clock starts. Both use one thread.
"""

from __future__ import annotations

import argparse
import math
import os
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import numpy as np
import torch

from nessampler.bench.peers.blackjax_smc import ISLANDS, LEAPFROG, TRIAL, island, mover
from nessampler.bench.peers.in_jax import configure, in_jax
from nessampler.bench.peers.whitened import Whitened
from nessampler.methods.density.smc import smc
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.runs import catalogue
from nessampler.runs.config import load, resolve
from nessampler.runs.density_problem import prepare_density
from nessampler.targets import Counted

SYSTEM = "gmm-40-linear"  # log Z = 0


def native(problem):
    """The likelihood of `Whitened` in JAX."""
    import jax.numpy as jnp
    from jax.scipy.special import logsumexp

    base, mixture = problem.path.start, problem.path.end
    mean, scale = (jnp.asarray(v.double().numpy()) for v in (base.mean, base.scale))
    mu, sigma, weight = (jnp.asarray(v.double().numpy()) for v in (mixture.means, mixture.scales, mixture.weights))
    sigma = jnp.broadcast_to(sigma[:, None], mu.shape) if sigma.ndim == 1 else sigma
    constant = 0.5 * len(mean) * math.log(2 * math.pi) + jnp.log(scale).sum()

    def log_likelihood(z):
        terms = -0.5 * (((mean + scale * z - mu) / sigma) ** 2).sum(-1) - jnp.log(sigma).sum(-1)
        log_density = logsumexp(terms + jnp.log(weight)) - 0.5 * len(mean) * math.log(2 * math.pi)
        return log_density + 0.5 * (z**2).sum() + constant

    return log_likelihood


def islands(move, dimension: int, particles: int, seed: int) -> tuple[float, float]:
    """log Z and its error."""
    found = np.array([island(move, dimension, particles, ISLANDS * seed + k)[0] for k in range(ISLANDS)])
    share = np.exp(found - found.max())
    error = float(share.std(ddof=1) / share.mean() / math.sqrt(ISLANDS))
    return float(np.log(share.mean()) + found.max()), error


def ours(problem, budget: int, seed: int) -> tuple[float, float]:
    """log Z and its error."""
    found = smc(
        problem.path,
        mover=Hamiltonian(LEAPFROG, mass=problem.mass, step_size=problem.step_size),
        pilots=128,
        budget=budget,
        dtype=problem.dtype,
        generator=torch.Generator().manual_seed(seed),
    )
    return found.log_z, found.std_error


def timed(run):
    """What it gives, and wall seconds."""
    started = time.perf_counter()
    found = run()
    return found, time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=1_000_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    configure()
    path = catalogue.find(SYSTEM)
    config = resolve(load(path), source=str(path))
    problem = prepare_density(config, path.parent).problem

    counted = Counted(problem.path.end)
    through_torch = Whitened(problem.path.start, counted)
    island(mover(in_jax(through_torch)), through_torch.dimension, TRIAL, 10_000)
    each = (counted.tally().energy + counted.tally().gradient) / TRIAL
    particles = int(asked.budget / ISLANDS / each)
    z = np.random.default_rng(0).normal(size=(5, through_torch.dimension))
    likelihood = native(problem)
    np.testing.assert_allclose([likelihood(row) for row in z], through_torch.log_likelihood(z), rtol=1e-9)
    move = mover(likelihood)
    island(move, through_torch.dimension, particles, 10_000)  # compiles

    rows: dict[str, list[tuple[float, float, float]]] = {"smc": [], "blackjax": []}
    for seed in range(asked.seeds):
        found, seconds = timed(lambda seed=seed: ours(problem, asked.budget, seed))
        rows["smc"].append((*found, seconds))
        found, seconds = timed(lambda seed=seed: islands(move, through_torch.dimension, particles, seed))
        rows["blackjax"].append((*found, seconds))
    print(f"| {SYSTEM}, {asked.budget / 1e6:g} M | rms distance | rms error claimed | within 2.36 errors | s |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        value, error, seconds = np.array(found).T
        rms, claimed = np.sqrt((value**2).mean()), np.sqrt((error**2).mean())
        held = int((np.abs(value) < 2.36 * error).sum())  # Student's limits of eight islands
        print(f"| {name} | {rms:.4f} | {claimed:.4f} | {held} of {len(found)} | {np.median(seconds):.2f} |")


if __name__ == "__main__":
    main()
