"""Staged MBAR in a cell of a difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nessampler.bench.ends import prepared_ends
from nessampler.bench.outcome import Outcome, cost_of
from nessampler.estimators import Flag
from nessampler.methods.annealed_switching import CountedInterior
from nessampler.methods.ends import generator_for
from nessampler.methods.rungs.cluster import hardening, is_cluster
from nessampler.methods.staged import Staged, staged
from nessampler.methods.staged_chains import HamiltonianStates
from nessampler.methods.verdict import judge_states
from nessampler.paths import AnnealingPath, LinearPath
from nessampler.runs.config import DifferenceConfig
from nessampler.targets import Counted, Target, carry

__all__ = ["staged_outcome"]

NODES, CLUSTER_NODES, CHAINS, LEAPFROG, EQUILIBRATION = 9, 13, 64, 10, 0.2
DRAWS = 200  # stored of a chain
KEPT = 0.25  # about, of these, for MBAR: their energies at all nodes cost one each where the path is not linear
WORST_RHAT = 1.1  # of the chains of a state, as of chains of the ends
FEWEST_CHAINS, SHORTEST = 4, 50  # chains, and trajectories of each; fewer chains where a budget holds no more


def staged_outcome(
    config: DifferenceConfig, folder: Path, budget: int, where: Path, origin: Mapping[str, Any]
) -> Outcome:
    """MBAR over chains at nodes of a path; they start at samples of the ends, which are not charged."""
    prepared = prepared_ends(config, folder, where, origin)
    ends = (Counted(prepared.target_a), Counted(prepared.target_b))
    generator = generator_for(config.run.seed, "staged")
    clusters = is_cluster(prepared.target_a, prepared.target_b)
    # Interior evaluations of soft cores are those of the cluster; those of a linear path ask both ends.
    nodes, price = (CLUSTER_NODES, config.state_b.relative_cost) if clusters else (NODES, _price(config))
    lengths = _lengths(budget / price / nodes, stored=1 + ((nodes + 2) * KEPT if clusters else 1))
    x_a = _few(prepared.samples_a, prepared.target_a, lengths.chains, generator)
    x_b = _few(prepared.samples_b, prepared.target_b, lengths.chains, generator)
    path: AnnealingPath = LinearPath(*ends)
    if clusters:
        hard, gas = hardening(prepared.target_b, prepared.samples_b.reshape(-1, *prepared.target_b.event_shape))  # pyright: ignore[reportArgumentType]
        path, x_a = CountedInterior(hard, ends[1]), carry(gas, x_a)
    try:
        sampler = HamiltonianStates(
            path,
            x_a,
            x_b,
            equilibration=lengths.equilibration,
            draws=lengths.draws,
            interval=lengths.interval,
            leapfrog_steps=LEAPFROG,
        )
        found = staged(path, sampler, points=nodes, generator=generator)
    finally:
        prepared.close()
    tallies = [end.tally() for end in ends]
    spent = {f"state_{s}": {"sampling": {"all": t.energy + t.gradient}} for s, t in zip("ab", tallies, strict=True)}
    estimate, flags = found.multistate, _flags_of(found)
    return Outcome(
        estimate,
        "staged",
        cost_of(config, spent),
        0,
        {"overlap": estimate.overlap, "rhat": max(found.r_hats), **_others(found)},
        tuple(dict.fromkeys(f.code for f in flags)),
        judge_states(estimate, flags).level,
    )


class _Lengths(NamedTuple):
    chains: int
    equilibration: int
    draws: int
    interval: int


def _lengths(evaluations: float, stored: float) -> _Lengths:
    """Chains of a state for so many evaluations, of which each stored draw asks some besides its trajectory.

    >>> _lengths(100_000, stored=2)
    _Lengths(chains=64, equilibration=27, draws=107, interval=1)
    """
    chains = min(CHAINS, max(FEWEST_CHAINS, int(evaluations / LEAPFROG / SHORTEST)))
    interval = max(1, int(evaluations / LEAPFROG / chains) // DRAWS)
    trajectories = max(10, int(evaluations / chains / (LEAPFROG + stored * (1 - EQUILIBRATION) / interval)))
    equilibration = round(EQUILIBRATION * trajectories)
    return _Lengths(chains, equilibration, (trajectories - equilibration) // interval, interval)


def _others(found: Staged) -> dict[str, float | None]:
    """The same samples by the other estimators."""
    by = {"staged_bar": found.ratio, "staged_fep": found.perturbation, "integration": found.integration}
    values = {name: e.delta_f for name, e in by.items()}
    return values | {f"{name}_error": e.std_error for name, e in by.items()}


def _flags_of(found: Staged) -> tuple[Flag, ...]:
    """Those of MBAR, and of chains that have not seen the same."""
    worst = max(found.r_hats)
    if worst <= WORST_RHAT:
        return found.multistate.flags
    at = found.times[found.r_hats.index(worst)]
    text = f"R-hat of the chains at t = {at:.3f} is {worst:.2f}, above {WORST_RHAT}; take more trajectories"
    return (*found.multistate.flags, Flag("chains_disagree", text))


def _price(config: DifferenceConfig) -> float:
    return config.state_a.relative_cost + config.state_b.relative_cost


def _few(samples: Tensor, target: Target, n: int, generator: torch.Generator) -> Tensor:
    flat = samples.reshape(-1, *target.event_shape)
    return flat[torch.randint(len(flat), (n,), generator=generator, device=generator.device)]
