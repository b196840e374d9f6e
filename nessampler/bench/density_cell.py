"""A method on a density, for a budget of evaluations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nessampler.bench.chains_cell import chains_row
from nessampler.bench.metrics import density_metrics
from nessampler.bench.peers import PEERS
from nessampler.bench.row import Row
from nessampler.bench.trial import TRIAL_SEED, trial
from nessampler.methods.density.result import Attempt, Sampled
from nessampler.methods.density.sample import DensityEffort, DensityMethod, sample_density
from nessampler.runs.config import DensityConfig
from nessampler.runs.density_problem import PreparedDensity, prepare_density

__all__ = ["density_row"]

TRIAL, TRIAL_STEPS = 256, 100  # walkers, and steps at most, of the run that measures what they cost
LARGER_TRIAL = 1024  # of SMC, eight islands, and of tempering, whose warm-up must not count for much
FEWEST = 256
PILOT_SHARE = 0.5  # of a budget that pilots may take; presets of larger budgets are cut down to it
FORMAL = 1024  # walkers that steps leave a budget at least: fewer say little of their own error
CALM = 0.25  # variance of plain annealing's log-weights at which its steps are many enough


def density_row(config: DensityConfig, folder: Path, method: str, budget: int | None, trials: Path) -> Row:
    """Base, pilots, training and walkers for about `budget` evaluations of the target.

    A first run with few walkers and another seed finds what pilots and walkers cost, and is not counted; walkers, or
    particles, are then as many as the budget holds. Without a budget the sizes are those of the preset.

    Args:
        trials: where such runs leave what they found.
    """
    if method == "hmc":
        return chains_row(config, folder, budget)
    if method in PEERS:
        return PEERS[method](config, folder, budget)
    effort = DensityEffort(**config.sampling.model_dump())
    if budget is not None:
        # Chains that make samples of the target would cost more than the cell.
        effort = replace(effort, steps=None if method == "smc" else effort.steps, reverse_steps=0)
        file = trials / f"{config.name}--{method}.json"
        found = trial(file, lambda: _measured(config, folder, method, effort))
        effort = _within(found, method, effort, budget)
    started, busy = time.perf_counter(), time.process_time()
    prepared, found = _run(config, folder, method, effort, config.run.seed)
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    attempt = found.attempt
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
        metrics=density_metrics(attempt, prepared.problem.target, attempt.bounds, config.run.seed),
        flags=tuple(dict.fromkeys(f.code for f in found.flags)),
        verdict=found.verdict.level,
        note=f"knows {found.knowledge}" if found.knowledge else "",
    )


def _run(
    config: DensityConfig, folder: Path, method: str, effort: DensityEffort, seed: int
) -> tuple[PreparedDensity, Sampled]:
    prepared = prepare_density(config.model_copy(update={"run": config.run.model_copy(update={"seed": seed})}), folder)
    asked: DensityMethod = method  # pyright: ignore[reportAssignmentType]
    return prepared, sample_density(prepared.problem, method=asked, seed=seed, effort=effort, device=config.run.device)


def _measured(config: DensityConfig, folder: Path, method: str, effort: DensityEffort) -> Mapping[str, float]:
    """What base and pilots cost, and a walker; and how much log-weights scatter, which falls as steps grow."""
    n = LARGER_TRIAL if method in ("smc", "pt") else TRIAL
    steps = None if effort.steps is None else min(effort.steps, TRIAL_STEPS)
    few = replace(effort, walkers=n, steps=steps, reverse_walkers=0)
    prepared, found = _run(config, folder, method, few, TRIAL_SEED)
    fixed = sum(_spent(a, ("pilot", "training")) for a in found.attempts)
    sampling = sum(_spent(a, ("sampling",)) for a in found.attempts)
    log_weight = found.attempt.ensemble.log_weight
    finite = log_weight[log_weight.isfinite()]
    each, variance = sampling / n, float(finite.var())
    if steps and effort.steps:
        each, variance = each * effort.steps / steps, variance * steps / effort.steps
    return {"base": _base(prepared), "fixed": fixed, "each": each, "variance": variance}


def _within(found: Mapping[str, float], method: str, effort: DensityEffort, budget: int) -> DensityEffort:
    """As many walkers, no more pilots, and of plain annealing such steps, as the budget holds."""
    fixed, each, left = found["fixed"], max(found["each"], 1.0), budget - found["base"]
    scale = PILOT_SHARE * budget / max(fixed, 1)
    if scale < 1 and method in ("lsq", "nets", "auto"):  # pilots of the others are of one size
        pilots = max(FEWEST, int(effort.pilot_walkers * scale))
        effort = replace(effort, pilot_walkers=pilots, nets_steps=int(effort.nets_steps * scale))
        fixed *= scale
    if effort.steps is not None:
        most = effort.steps * (left - fixed) / (FORMAL * each)
        # Errors at equal cost fall with the variance v of log-weights, as (e^v - 1)/v, and by little once v is small.
        wanted = effort.steps * found["variance"] / CALM if method == "ais" else effort.steps
        steps = max(2, round(min(wanted, most)))
        each, effort = each * steps / effort.steps, replace(effort, steps=steps)
    return replace(effort, walkers=max(FEWEST, 8 * int((left - fixed) / each / 8)))  # eight islands


def _base(prepared: PreparedDensity) -> int:
    return prepared.evaluations.energy + prepared.evaluations.gradient


def _spent(attempt: Attempt, stages: tuple[str, ...] | None = None) -> int:
    """Evaluations of the target, all but those of walkers carried back to measure."""
    table = attempt.evaluations["target"]
    wanted = [s for s in table if s != "reverse"] if stages is None else [s for s in stages if s in table]
    return sum(table[s]["energy"] + table[s]["gradient"] for s in wanted)
