"""A method on a density, for a budget of evaluations."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from nessampler.bench.chains_cell import chains_row
from nessampler.bench.metrics import density_metrics
from nessampler.bench.peers import PEERS
from nessampler.bench.row import Row
from nessampler.methods.density.result import Attempt, Sampled
from nessampler.methods.density.sample import DensityEffort, DensityMethod, sample_density
from nessampler.runs.config import DensityConfig
from nessampler.runs.density_problem import PreparedDensity, prepare_density

__all__ = ["density_row"]

TRIAL = 512  # walkers of the run that measures what walkers cost
FEWEST = 256
PILOT_SHARE = 0.5  # of a budget that pilots may take; presets of larger budgets are cut down to it


def density_row(config: DensityConfig, folder: Path, method: str, budget: int | None) -> Row:
    """Base, pilots, training and walkers for about `budget` evaluations of the target.

    A first run with few walkers and another seed finds what pilots and walkers cost, and is not counted; walkers, or
    particles, are then as many as the budget holds. Without a budget the sizes are those of the preset.
    """
    if method == "hmc":
        return chains_row(config, folder, budget)
    if method in PEERS:
        return PEERS[method](config, folder, budget)
    effort = DensityEffort(**config.sampling.model_dump())
    if budget is not None:
        effort = _within(config, folder, method, effort, budget)
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


def _within(config: DensityConfig, folder: Path, method: str, effort: DensityEffort, budget: int) -> DensityEffort:
    """The same schedule with as many walkers, and no more pilots, than the budget holds."""
    trial = replace(effort, walkers=TRIAL, reverse_walkers=0, reverse_steps=0)
    prepared, found = _run(config, folder, method, trial, config.run.seed + 10_000)
    fixed = sum(_spent(a, ("pilot", "training")) for a in found.attempts)
    if method == "smc":  # its pilot is an island of its own, as large as the others
        return replace(effort, walkers=_even(budget - _base(prepared), _spent(found.attempt) / TRIAL))
    scale = PILOT_SHARE * budget / max(fixed, 1)
    if scale < 1 and method not in ("ais", "pt"):  # whose pilot is of one size
        pilots = max(FEWEST, int(effort.pilot_walkers * scale))
        effort = replace(effort, pilot_walkers=pilots, nets_steps=int(effort.nets_steps * scale))
        fixed = int(fixed * scale)
    each = sum(_spent(a, ("sampling",)) for a in found.attempts) / TRIAL
    return replace(effort, walkers=_even(budget - _base(prepared) - fixed, each))


def _even(left: float, each: float) -> int:
    """A multiple of eight, the number of islands."""
    return max(FEWEST, 8 * int(left / max(each, 1) / 8))


def _base(prepared: PreparedDensity) -> int:
    return prepared.evaluations.energy + prepared.evaluations.gradient


def _spent(attempt: Attempt, stages: tuple[str, ...] | None = None) -> int:
    """Evaluations of the target, all but those of walkers carried back to measure."""
    table = attempt.evaluations["target"]
    wanted = [s for s in table if s != "reverse"] if stages is None else [s for s in stages if s in table]
    return sum(table[s]["energy"] + table[s]["gradient"] for s in wanted)
