"""A learned drift: what it starts from, what it learns from and what carries walkers along it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nessampler.estimators import Flag
from nessampler.kernels import DiagonalMass, UnitMass
from nessampler.methods.density.again import network_for
from nessampler.methods.density.ais import pilot_walkers
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.attempts import (
    TUNING,
    affordable,
    carried,
    drift_effort,
    given_steps,
    quality_of,
    solve_within,
    tuned,
)
from nessampler.methods.density.budget import COARSE, TRAINING_SHARE
from nessampler.methods.density.context import Context
from nessampler.methods.density.counted import CountedDrift, CountedField, CountedPath
from nessampler.methods.density.lsq import Solved
from nessampler.methods.density.nets_flow import flow_from_zero, refined
from nessampler.methods.density.nets_langevin import langevin_nets, variance_for
from nessampler.methods.density.nets_training import LEARNING_RATE, divergence_passes
from nessampler.methods.density.result import Attempt, PathQuality
from nessampler.methods.density.tuning import Pilot, mala, pilot
from nessampler.methods.density.zero_drifts import Untrained, zero_drift

__all__ = ["attempt_nets"]

Trained = tuple[Annealing, CountedField | CountedDrift]


def attempt_nets(context: Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    """A network, trained on walkers of its own, and then fresh ones."""
    path, started, effort = CountedPath(context.problem.path), time.perf_counter(), context.effort
    zero, flow = effort.nets_start == "zero", effort.nets_kernel == "flow"
    solved = found = None
    with path.stage("pilot"):
        hamiltonian = tuned(context, path) if context.budget is not None or (zero and flow) else None
        if not zero:
            solved = solve_within(context, path, drift_effort(context, 0.5 - TRAINING_SHARE), hamiltonian)
        found = hamiltonian if flow else _tuned_langevin(context, path)
    pilots, started = time.perf_counter() - started, time.perf_counter()
    with path.stage("training"):
        annealing, field = _trained(context, path, solved, found, metrics)
        walkers = affordable(context, path, annealing, None)
    seconds = {"pilot": pilots, "training": time.perf_counter() - started}
    quality = _quality(solved, hamiltonian)
    attempt = carried(context, annealing, path, field, quality, walkers, seconds)
    return _one_way(attempt) if zero and attempt.reverse is None else attempt


def _one_way(attempt: Attempt) -> Attempt:
    """A drift learned from nothing can lead every walker past a part of the target, with weights that look even."""
    message = (
        "the drift was learned from nothing and its walkers went one way only: they may all pass a part of the target, "
        "which no weight would show; give samples of the target, or set reverse_steps, or start from the closed form"
    )
    estimate = attempt.log_z
    return replace(attempt, log_z=replace(estimate, flags=(*estimate.flags, Flag("one_way", message))))


def _quality(solved: Solved | None, found: Pilot | None) -> PathQuality:
    """Of the closed form, or of the Hamiltonian moves; unadjusted steps have neither residual nor acceptance."""
    if solved is not None:
        return quality_of(solved)
    return PathQuality() if found is None else PathQuality(found.times, (), found.acceptance, found.step_sizes.values)


def _trained(
    context: Context, path: CountedPath, solved: Solved | None, found: Pilot | None, metrics: list[Mapping[str, Any]]
) -> Trained:
    effort, generator = context.effort, context.generator("training")
    x = pilot_walkers(path, effort.training_walkers, context.problem.dtype, generator)
    options = {"metrics": metrics, "generator": generator}
    if effort.nets_kernel == "flow" and solved is not None:
        return refined(solved, path, x, context, **options)
    assert found is not None
    if solved is None:
        start = _from_zero(context, path, x, found, generator)
    else:
        start = Untrained(network_for(solved.drift.field, x, generator), LEARNING_RATE)
    options |= {"steps": _production_steps(context)}
    if effort.nets_kernel == "flow":
        return flow_from_zero(start, found, path, x, context, **options)
    known = {} if solved is None else solved.annealing.state
    return langevin_nets(start, found, path, x, context, state=known, **options)


def _from_zero(context: Context, path: CountedPath, x: Tensor, found: Pilot, generator: torch.Generator) -> Untrained:
    """A network made for walkers of both ends of the path."""
    half = len(x) // 2
    ends = torch.cat([x[: len(x) - half], found.x[torch.arange(half, device=x.device) % len(found.x)]])
    return zero_drift(
        context.problem,
        path,
        ends,
        potential=context.effort.nets_objective == "action-matching",
        passes=divergence_passes(context.effort, x[0].numel()),
        generator=generator,
    )


def _tuned_langevin(context: Context, path: CountedPath) -> Pilot:
    """Times and steps of MALA, in which the noise of unadjusted steps is measured."""
    generator = context.generator("langevin pilot")
    x = pilot_walkers(path, TUNING, context.problem.dtype, generator)
    mass = DiagonalMass(variance_for(context.problem.mass, x))
    unit = isinstance(context.problem.mass, DiagonalMass)
    mover = mala(mass=mass if unit else UnitMass(), step_size=context.problem.step_size)
    return pilot(path, x, mover, generator=generator, conditional_ess=COARSE)


def _production_steps(context: Context) -> int:
    """Langevin steps take one gradient each: as many more of them as a Hamiltonian move has leapfrogs."""
    effort = context.effort
    steps = given_steps(effort.steps)
    return steps if effort.nets_kernel == "flow" else steps * effort.leapfrog_steps
