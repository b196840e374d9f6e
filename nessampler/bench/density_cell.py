"""A method on a density, for a budget of evaluations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nessampler.bench.chains_cell import chains_row
from nessampler.bench.clock import cpu_seconds
from nessampler.bench.metrics import density_metrics
from nessampler.bench.origin import origin_of
from nessampler.bench.peers import PEERS
from nessampler.bench.preparations import Preparation
from nessampler.bench.problem import digest_of
from nessampler.bench.row import Row
from nessampler.bench.trial import TRIAL_SEED, stored, trial
from nessampler.errors import InputError
from nessampler.estimators.log_z import log_z_bounds
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.result import Attempt
from nessampler.methods.density.sample import DensityMethod, sample_density
from nessampler.methods.ends import generator_for
from nessampler.runs.config import DensityConfig
from nessampler.runs.config.density import LearnedBase
from nessampler.runs.density_problem import PreparedDensity, prepare_density

__all__ = ["density_preparation", "density_row"]

BASE_SHARE = 0.3  # of a budget that a learned base may take
FEWEST_PILOTS = 512  # of it


def density_row(
    config: DensityConfig,
    folder: Path,
    method: str,
    budget: int | None,
    trials: Path,
    origin: Mapping[str, Any] | None = None,
) -> Row:
    """Base, pilots, training and walkers for about `budget` evaluations of the target, see `DensityEffort`.

    A learned base is cut to its share of the budget, by the cost of one from the fewest pilots, which is not counted.
    Without a budget the sizes are those of the preset.

    Args:
        trials: where costs of such bases are kept.
        origin: of these, see `origin_of`; by default of the configuration.

    Raises:
        InputError: a base that costs more than the budget.
    """
    if budget is not None:
        origin = origin or origin_of(config.run.preset, problem=digest_of(config, folder))
        config = _with_affordable_base(config, folder, budget, trials, origin)
    if method == "hmc":
        return chains_row(config, folder, budget)
    if method in PEERS:
        return PEERS[method](config, folder, budget)
    started, busy = time.perf_counter(), cpu_seconds()
    config = config.model_copy(update={"run": config.run.model_copy(update={"method": method})})
    prepared = prepare_density(config, folder)
    # Long chains that make samples of the target would cost more than the cell, and have no say in it.
    effort = replace(DensityEffort(**config.sampling.model_dump()), reverse_steps=0)
    if budget is not None:
        effort = replace(effort, budget=_left(prepared, budget))
    asked: DensityMethod = method  # pyright: ignore[reportAssignmentType]
    seed, device = config.run.seed, config.run.device
    # No method may judge itself by samples of the target, which only some could use and no user has.
    blind = replace(prepared.problem, target_samples=None)
    found = sample_density(blind, method=asked, seed=seed, effort=effort, device=device)
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - busy
    attempt = _measured_back(found.attempt, prepared, effort.reverse_walkers, seed)
    return Row.of_cell(
        config,
        method,
        budget,
        chosen=found.chosen,
        value=found.log_z.value,
        std_error=found.log_z.std_error,
        evaluations=_base(prepared) + sum(_spent(a) for a in found.attempts),
        fields=sum(n for a in found.attempts for stage, n in a.evaluations["field"].items() if stage != "reverse"),
        seconds=seconds,
        cpu_seconds=cpu,
        metrics=density_metrics(attempt, prepared.problem.target, seed),
        flags=tuple(dict.fromkeys(f.code for f in found.flags)),
        verdict=found.verdict.level,
        note=f"knows {found.knowledge}" if found.knowledge else "",
    )


def _measured_back(attempt: Attempt, prepared: PreparedDensity, most: int, seed: int) -> Attempt:
    """With walkers carried back from samples of the target, where there are any: metrics, without a say in anything."""
    samples, annealing = prepared.problem.target_samples, attempt.annealing
    if samples is None or annealing is None:
        return attempt
    device = attempt.ensemble.x.device
    x = samples(min(most, len(attempt.ensemble.x)), generator_for(seed, "target samples", device)).to(device)
    generator, chunk_size = generator_for(seed, f"reverse {attempt.name}", device), prepared.problem.chunk_size
    reverse = annealing.reverse(x, generator=generator, chunk_size=chunk_size)
    forward, back = (e.log_weight.cpu().numpy() for e in (attempt.ensemble, reverse))
    about = {"base": annealing.base_log_z, "systematic": annealing.systematic}
    return replace(attempt, reverse=reverse, bounds=log_z_bounds(forward, back, **about))


def density_preparation(
    config: DensityConfig, folder: Path, budget: int | None, trials: Path, origin: Mapping[str, Any]
) -> Preparation | None:
    """What the smallest learned base costs, where a budget cuts one and nobody knows yet."""
    file, base = _trial_file(config, trials), config.base
    if budget is None or not isinstance(base, LearnedBase) or stored(file, origin) is not None:
        return None
    what = f"sizing the base of {config.name}"
    return Preparation(what, file, lambda _: _cost_of_base(config, base, folder, trials, origin))


def _with_affordable_base(
    config: DensityConfig, folder: Path, budget: int, trials: Path, origin: Mapping[str, Any]
) -> DensityConfig:
    base = config.base
    if not isinstance(base, LearnedBase):
        return config
    cost = _cost_of_base(config, base, folder, trials, origin)
    return _with_pilots(
        config, base, min(base.pilots, max(FEWEST_PILOTS, int(FEWEST_PILOTS * BASE_SHARE * budget / cost)))
    )


def _cost_of_base(
    config: DensityConfig, base: LearnedBase, folder: Path, trials: Path, origin: Mapping[str, Any]
) -> float:
    """Of the fewest pilots, in evaluations."""

    def measured() -> Mapping[str, float]:
        small = _with_pilots(config, base, FEWEST_PILOTS)
        small = small.model_copy(update={"run": small.run.model_copy(update={"seed": TRIAL_SEED})})
        return {"evaluations": _base(prepare_density(small, folder))}

    return trial(_trial_file(config, trials), origin, measured)["evaluations"]


def _trial_file(config: DensityConfig, trials: Path) -> Path:
    return trials / f"{config.name}--base.json"


def _with_pilots(config: DensityConfig, base: LearnedBase, pilots: int) -> DensityConfig:
    return config.model_copy(update={"base": base.model_copy(update={"pilots": pilots})})


def _left(prepared: PreparedDensity, budget: int) -> int:
    left = budget - _base(prepared)
    if left <= 0:
        raise InputError(
            f"a budget pays for the base first: this one costs {_base(prepared)} of {budget} evaluations; give more, "
            "or another base"
        )
    return left


def _base(prepared: PreparedDensity) -> int:
    return prepared.evaluations.energy + prepared.evaluations.gradient


def _spent(attempt: Attempt) -> int:
    """Evaluations of the target, all but those of walkers carried back to measure."""
    table = attempt.evaluations["target"]
    return sum(n["energy"] + n["gradient"] for stage, n in table.items() if stage != "reverse")
