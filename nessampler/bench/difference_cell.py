"""A method on a difference, for a budget of evaluations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nessampler.bench.peers import DIFFERENCE_PEERS
from nessampler.bench.row import Row
from nessampler.bench.torsions import torsion_metrics
from nessampler.bench.trial import TRIAL_SEED, trial
from nessampler.errors import InputError
from nessampler.estimators import FreeEnergy
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.ends import generator_for
from nessampler.methods.staged import staged
from nessampler.methods.staged_chains import HamiltonianStates
from nessampler.paths import LinearPath
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.difference import effort_of
from nessampler.runs.end_observations import carried_of
from nessampler.runs.prepared import Prepared
from nessampler.runs.target_problem import prepare_targets
from nessampler.runs.units import parse
from nessampler.targets import Counted, Target

__all__ = ["difference_row"]

TRIAL = 0.25  # of the preset's samples, in the first run that measures what they cost
SMALLEST_TRIAL, LARGEST_TRIAL = 0.1, 1.0  # of the second
SMALLEST = 0.05  # of a cell
NODES, CHAINS, LEAPFROG, EQUILIBRATION = 9, 64, 10, 0.2  # of staged MBAR
FEWEST_CHAINS, SHORTEST = 4, 50  # chains, and trajectories of each; fewer chains where a budget holds no more


@dataclass(frozen=True)
class _Outcome:
    """What a cell found, and spent."""

    estimate: FreeEnergy
    chosen: str
    cost: float
    fields: int
    metrics: dict[str, float | None]
    flags: tuple[str, ...]
    verdict: str = ""


def difference_row(config: DifferenceConfig, folder: Path, method: str, budget: int | None, out: Path) -> Row:
    """End states and a rung for about `budget` evaluations, each state at its relative cost.

    Two first runs, on a quarter of the preset's samples and on as many as that one lets expect, from another seed, find
    what costs once and what each sample costs, and are not counted. Staged MBAR spends the budget on its own states.
    Without a budget the sizes are those of the preset.

    Args:
        out: where end states of molecules are kept, and what first runs found.

    Raises:
        InputError: staged MBAR without a budget.
    """
    if method in DIFFERENCE_PEERS:
        return DIFFERENCE_PEERS[method](config, folder, budget)
    if method != "staged" and budget is not None:
        file = out / "trials" / f"{config.name}--{method}.json"
        costs = trial(file, lambda: _costs(config, folder, method, budget, out))
        config = _scaled(config, _scale(costs, budget))
    started, busy = time.perf_counter(), time.process_time()
    where = out / "ends" / f"{config.name}-{method}-{config.run.seed}"
    found = _staged(config, folder, budget, where) if method == "staged" else _climbed(config, folder, method, where)
    return Row.of_cell(
        config,
        method,
        budget,
        chosen=found.chosen,
        value=found.estimate.delta_f,
        std_error=found.estimate.std_error,
        evaluations=found.cost,
        fields=found.fields,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - busy,
        metrics=found.metrics,
        flags=found.flags,
        verdict=found.verdict,
    )


def _costs(config: DifferenceConfig, folder: Path, method: str, budget: int, out: Path) -> dict[str, float]:
    """Of two sizes, as multiples of the preset's."""

    def cost(scale: float) -> float:
        where = out / "ends" / f"{config.name}-{method}-trial-{scale:.3g}"
        return _climbed(_scaled(_reseeded(config, TRIAL_SEED), scale), folder, method, where).cost

    few = cost(TRIAL)
    larger = min(LARGEST_TRIAL, max(SMALLEST_TRIAL, TRIAL * budget / few))
    return {"few": TRIAL, "cost_of_few": few, "many": larger, "cost_of_many": cost(larger)}


def _scale(costs: Mapping[str, float], budget: int) -> float:
    """At which a line through both costs meets the budget.

    >>> _scale({"few": 0.25, "cost_of_few": 30.0, "many": 1.0, "cost_of_many": 60.0}, 100)  # 20 once, 40 by size
    2.0
    """
    few, many = costs["few"], costs["many"]
    each = (costs["cost_of_many"] - costs["cost_of_few"]) / (many - few) if many != few else 0.0
    if not each > 0:  # another rung was taken, or both are of one size
        return many * budget / costs["cost_of_many"]
    return max(SMALLEST, few + (budget - costs["cost_of_few"]) / each)


def _climbed(config: DifferenceConfig, folder: Path, method: str, where: Path) -> _Outcome:
    prepared = _prepared(config, folder, where)
    try:
        found = free_energy(
            prepared.target_a,
            prepared.target_b,
            prepared.samples_a,
            prepared.samples_b,
            method=method,  # pyright: ignore[reportArgumentType]
            coordinates=prepared.coordinates,
            seed=config.run.seed,
            effort=effort_of(config),
            endstate_evaluations=prepared.evaluations,
            endstate_flags=prepared.flags,
        )
        torsions = torsion_metrics(prepared.observed(), carried_of(found, prepared)) if config.molecular else {}
    finally:
        prepared.close()
    # All of it: a rung stands on the map below it, whose fitting and choice are part of its price.
    spent = found.evaluations
    return _Outcome(
        found.delta_f,
        found.chosen,
        _cost(config, _with_ends(spent, prepared)),
        sum(spent["networks"].values()),
        _metrics(found) | torsions,
        tuple(dict.fromkeys(f.code for f in found.flags)),
        found.verdict.level,
    )


def _staged(config: DifferenceConfig, folder: Path, budget: int | None, where: Path) -> _Outcome:
    """MBAR over chains at nodes of the linear path; they start at samples of the ends, whose cost is not charged."""
    if budget is None:
        raise InputError("staged MBAR has no size of its own: give --budget")
    prepared = _prepared(_scaled(config, TRIAL), folder, where)
    ends = (Counted(prepared.target_a), Counted(prepared.target_b))
    path, generator = LinearPath(*ends), generator_for(config.run.seed, "staged")
    trajectories_in_all = budget / _price(config) / (NODES * (LEAPFROG + 1))
    chains = min(CHAINS, max(FEWEST_CHAINS, int(trajectories_in_all / SHORTEST)))
    trajectories = max(10, round(trajectories_in_all / chains))
    equilibration, interval = round(EQUILIBRATION * trajectories), max(1, trajectories // 200)
    try:
        sampler = HamiltonianStates(
            path,
            _few(prepared.samples_a, prepared.target_a, chains, generator),
            _few(prepared.samples_b, prepared.target_b, chains, generator),
            equilibration=equilibration,
            draws=(trajectories - equilibration) // interval,
            interval=interval,
            leapfrog_steps=LEAPFROG,
        )
        found = staged(path, sampler, points=NODES, generator=generator).multistate
    finally:
        prepared.close()
    tallies = [end.tally() for end in ends]
    spent = {f"state_{s}": {"sampling": {"all": t.energy + t.gradient}} for s, t in zip("ab", tallies, strict=True)}
    return _Outcome(found, "staged", _cost(config, spent), 0, {}, tuple(f.code for f in found.flags))


def _prepared(config: DifferenceConfig, folder: Path, where: Path) -> Prepared:
    """End states of a molecule are kept, and read again by a bench that goes on."""
    if not config.molecular:
        return prepare_targets(config, folder)
    from nessampler.runs.molecular_problem import prepare_molecular

    where.mkdir(parents=True, exist_ok=True)
    return prepare_molecular(config, folder, where, lambda *_: None)


def _reseeded(config: DifferenceConfig, seed: int) -> DifferenceConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})})


def _scaled(config: DifferenceConfig, factor: float) -> DifferenceConfig:
    """As many samples of each end times `factor`: independent ones, draws of chains, or lengths of MD."""

    def times(n: float) -> int:
        return max(1, round(factor * n))

    samples = config.samples.model_copy(update={"a": times(config.samples.a), "b": times(config.samples.b)})
    changed: dict[str, Any] = {"samples": samples}
    if config.chains is not None:
        changed["chains"] = config.chains.model_copy(update={"draws": max(8, times(config.chains.draws))})
    lengths = {
        name: f"{factor * parse(getattr(config.md, name), 'ps')} ps" for name in ("production_a", "production_b")
    }
    changed["md"] = config.md.model_copy(update=lengths)
    return config.model_copy(update=changed)


def _with_ends(spent: Mapping[str, Any], prepared: Prepared) -> dict[str, Mapping[str, Mapping[str, int]]]:
    """What was spent, where exact samples, which cost nothing, count one each."""
    table = {}
    for state, samples, target in zip(
        ("state_a", "state_b"),
        (prepared.samples_a, prepared.samples_b),
        (prepared.target_a, prepared.target_b),
        strict=True,
    ):
        exact = hasattr(target, "sample")
        table[state] = dict(spent[state])
        if exact:
            table[state]["exact"] = {"draws": samples.numel() // target.event_shape.numel()}
    return table


def _cost(config: DifferenceConfig, spent: Mapping[str, Mapping[str, Mapping[str, int]]]) -> float:
    prices = {"state_a": config.state_a.relative_cost, "state_b": config.state_b.relative_cost}
    return sum(price * sum(sum(kinds.values()) for kinds in spent[s].values()) for s, price in prices.items())


def _price(config: DifferenceConfig) -> float:
    return config.state_a.relative_cost + config.state_b.relative_cost


def _metrics(found: Difference) -> dict[str, float | None]:
    rung, (low, high) = found.rung, found.bounds.tightest_limits
    forward, reverse = rung.estimate.ess
    return {
        "overlap": rung.estimate.overlap,
        "ess_forward": forward,
        "ess_reverse": reverse,
        "lower_limit": low,
        "upper_limit": high,
    }


def _few(samples: Tensor, target: Target, n: int, generator: torch.Generator) -> Tensor:
    flat = samples.reshape(-1, *target.event_shape)
    return flat[torch.randint(len(flat), (n,), generator=generator, device=generator.device)]
