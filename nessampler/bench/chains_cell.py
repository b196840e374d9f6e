"""Long Hamiltonian chains on a density, for a budget of evaluations."""

from __future__ import annotations

import time
from pathlib import Path

from nessampler.bench.clock import cpu_seconds
from nessampler.bench.metrics import draw_metrics
from nessampler.bench.row import NO_LOG_Z, Row
from nessampler.methods.density.hmc_chains import FEWEST_TRAJECTORIES, hamiltonian_chains
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.methods.ends import generator_for
from nessampler.runs.config import DensityConfig
from nessampler.runs.density_problem import prepare_density

__all__ = ["chains_row"]

CHAINS = 64


def chains_row(config: DensityConfig, folder: Path, budget: int | None) -> Row:
    """Chains of our kernel from draws of the base, as long as the budget allows; without one, of as many draws as the
    preset has walkers. A row without a value, for the metrics of its draws."""
    started, busy = time.perf_counter(), cpu_seconds()
    prepared = prepare_density(config, folder)
    problem, sampling = prepared.problem, config.sampling
    base = prepared.evaluations.energy + prepared.evaluations.gradient
    if budget is None:
        trajectories = sampling.walkers // CHAINS
    else:
        trajectories = int(((budget - base) / CHAINS - 1) / sampling.leapfrog_steps)
    found = hamiltonian_chains(
        problem.path,
        chains=CHAINS,
        trajectories=max(FEWEST_TRAJECTORIES, trajectories),
        mover=Hamiltonian(sampling.leapfrog_steps, mass=problem.mass, step_size=problem.step_size),
        dtype=problem.dtype,
        generator=generator_for(config.run.seed, "hmc", config.run.device),
    )
    metrics = {"ess": found.ess, "effective_draws": found.effective_draws, "rhat": found.rhat}
    return Row.of_cell(
        config,
        "hmc",
        budget,
        chosen="hmc",
        value=None,
        std_error=None,
        evaluations=base + found.evaluations.energy + found.evaluations.gradient,
        fields=0,
        seconds=time.perf_counter() - started,
        cpu_seconds=cpu_seconds() - busy,
        metrics=metrics | draw_metrics(found.ensemble, problem.target, config.run.seed),
        note=f"{NO_LOG_Z}; {CHAINS} chains of {found.trajectories} trajectories",
    )
