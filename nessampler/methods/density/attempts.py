"""One method at a time: its pilots, its walkers, its estimate, and what they cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import t as student_t
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.ridge_dictionary import RidgeDictionary
from nessampler.errors import InputError
from nessampler.estimators.log_z import LogZ, log_z, log_z_bounds
from nessampler.kernels import DiagonalMass
from nessampler.methods.density.ais import Unadjusted, Underdamped, ais, factors_for, moves_in_words, pilot_walkers
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.budget import (
    COARSE,
    DEAREST,
    FINE,
    PILOT_SHARE,
    SCOUTS,
    TOGETHER,
    Scatter,
    variance,
    walkers_for,
)
from nessampler.methods.density.context import Context, told
from nessampler.methods.density.counted import CountedDrift, CountedField, CountedPath
from nessampler.methods.density.dictionaries import end_gradients
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.end_checks import check_target_samples, check_walkers
from nessampler.methods.density.flow_error import unmet
from nessampler.methods.density.lsq import FewPilotsError, Solved, least_squares
from nessampler.methods.density.result import Attempt, PathQuality
from nessampler.methods.density.smc import FEWEST_PARTICLES, Particles, smc
from nessampler.methods.density.tempering import tempering
from nessampler.methods.density.tuning import Pilot, pilot
from nessampler.methods.density.two_sided import cross_checked
from nessampler.simulate import FEWEST_ISLANDS
from nessampler.targets.laplacian import trace_passes

__all__ = [
    "ATTEMPTS",
    "TUNING",
    "Scouted",
    "affordable",
    "attempt_ais",
    "attempt_lsq",
    "attempt_smc",
    "carried",
    "drift_effort",
    "given_steps",
    "particles",
    "plain_annealing",
    "quality_of",
    "scouted",
    "solve",
    "solve_within",
    "tuned",
]

CURVED = 3  # gradients that fields along the path's own gradient ask for in addition, by a pilot walker at one time
TRIAL = 128  # walkers that measure a flow's error, paid from a budget
CURVED_TRIAL = (
    64  # where the fields they follow ask the target as well: four evaluations and more for every one of a move
)
PRICED = 8  # walkers that tell what one costs, which is nearly the same for all
TUNING = 128  # walkers that find times and step sizes: they make seven moves at each time


@dataclass(frozen=True)
class Scouted:
    """Plain annealing as its first walkers want it.

    Attributes:
        annealing: with as many steps as suit the budget.
        walkers: that are left for it.
        predicted: relative variance of Z.
    """

    annealing: Annealing
    walkers: int
    predicted: float


def attempt_ais(context: Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    """Plain annealing."""
    path, started, effort = CountedPath(context.problem.path), time.perf_counter(), context.effort
    with path.stage("pilot"):
        if context.budget is None:
            annealing, walkers = plain_annealing(context, path, effort.steps), effort.walkers
        else:
            found = tuned(context, path)
            found = scouted(context, path, found, context.budget.evaluations - path.tally.total)
            annealing, walkers = found.annealing, found.walkers
    seconds = {"pilot": time.perf_counter() - started}
    return carried(context, annealing, path, None, PathQuality(), walkers, seconds)


def scouted(context: Context, path: CountedPath, found: Pilot, left: float) -> Scouted:
    """Steps and walkers of plain annealing for `left` evaluations, of which the first walkers take a few per cent."""
    budget = context.budget
    assert budget is not None
    before, seen = path.tally.copy(), []
    for steps in budget.scout_steps:
        first = plain_annealing(context, path, steps, found)
        scouts = first.draw(SCOUTS, generator=context.generator(f"{steps} steps"), device=context.device)
        seen.append((steps, variance(scouts.log_weight)))
    scatter = Scatter.through(*seen)
    left -= (path.tally - before).total
    most = budget.most_steps(left, budget.move)
    steps = scatter.best_steps(most) if not context.rolls else min(most, given_steps(context.effort.steps))
    annealing, walkers = plain_annealing(context, path, steps, found), walkers_for(left, 1 + steps * budget.move)
    return Scouted(annealing, walkers, scatter.at(steps) / walkers)


def attempt_lsq(
    context: Context, metrics: list[Mapping[str, Any]], *, left: float | None = None, found: Pilot | None = None
) -> Attempt:
    """A drift in closed form, with what is left of a budget, and what an earlier pilot found."""
    path, started = CountedPath(context.problem.path), time.perf_counter()
    with path.stage("pilot"):
        if found is None and context.budget is not None:
            found = tuned(context, path)
        solved = solve_within(context, path, drift_effort(context, _pilot_share(context, path, left)), found)
        walkers = affordable(context, path, solved.annealing, left)
    seconds = {"pilot": time.perf_counter() - started}
    return carried(context, solved.annealing, path, solved.field, quality_of(solved), walkers, seconds)


def _pilot_share(context: Context, path: CountedPath, left: float | None) -> float:
    """Of a budget for the pilots of a drift: less where tuning and comparing took much."""
    budget = context.budget
    if budget is None:
        return PILOT_SHARE
    spent = path.tally.total if left is None else budget.evaluations - left
    return min(PILOT_SHARE, TOGETHER - spent / budget.evaluations)


def drift_effort(context: Context, share: float = PILOT_SHARE) -> DensityEffort:
    """Pilots and steps of a drift, cut to a budget where there is one; at most `share` of it for the pilots."""
    effort, budget = context.effort, context.budget
    if budget is None:
        return effort
    further = _further_gradients(context)
    if further:
        budget = replace(budget, move=budget.move + further)
    walkers, times = budget.drift_pilots(effort.pilot_walkers, effort.pilot_steps, share)
    return replace(
        effort, pilot_walkers=walkers, pilot_steps=times, steps=budget.drift_steps(given_steps(effort.steps))
    )


def solve_within(
    context: Context,
    path: CountedPath,
    effort: DensityEffort,
    found: Pilot | None = None,
    *,
    most: float = DEAREST,
    trial_walkers: int | None = None,
) -> Solved:
    """`solve`; where a budget cut pilots below what the fields need, with as many as they need, up to `most` of it."""
    try:
        return solve(context, path, effort, found, trial_walkers)
    except FewPilotsError as few:
        budget = context.budget
        if budget is None:
            raise
        move = budget.move + _further_gradients(context)
        if few.needed * effort.pilot_steps * move > most * budget.evaluations:
            raise
        return solve(context, path, replace(effort, pilot_walkers=few.needed), found, trial_walkers)


def affordable(context: Context, path: CountedPath, annealing: Annealing, left: float | None) -> int:
    """Walkers that a budget holds after all that was spent; a few of them, then forgotten, tell what one costs."""
    if context.budget is None:
        return context.effort.walkers
    before = path.tally.copy()
    annealing.draw(PRICED, generator=context.generator("cost"), device=context.device)
    each = (path.tally - before).total / PRICED
    left = context.budget.evaluations if left is None else left
    return walkers_for(left - sum(t.total for t in path.tallies.values()), each)


def particles(
    context: Context,
    budget: int | None,
    found: Pilot | None = None,
    purpose: str = "smc",
    conditional_ess: float = FINE,
    fewest: int = FEWEST_PARTICLES,
) -> Particles:
    """Sequential Monte Carlo, of the sizes asked for or of a budget."""
    return smc(
        context.problem.path,
        particles=context.effort.walkers // 8,
        budget=budget,
        tuned=found,
        **_few_pilots(budget),
        mover=context.moves,
        precondition=context.precondition,
        steps=context.effort.steps if budget is None else None,
        waste_free=context.effort.waste_free,
        conditional_ess=conditional_ess,
        fewest=fewest,
        dtype=context.problem.dtype,
        generator=context.generator(purpose),
    )


def attempt_smc(
    context: Context, metrics: list[Mapping[str, Any]], *, left: int | None = None, pilot: Pilot | None = None
) -> Attempt:
    """Sequential Monte Carlo, with what is left of a budget, and what an earlier pilot found."""
    started, effort = time.perf_counter(), context.effort
    found = particles(context, effort.budget if left is None else left, pilot)
    ensemble = found.ensemble
    independent = log_z(ensemble.log_weight.cpu().numpy(), base=found.base_log_z, seed=context.seed)
    estimate = independent
    if independent.value is not None:
        error, value = found.std_error, found.log_z
        # The spread over eight islands is itself uncertain: Student's limits, not the normal's.
        reach = float(student_t.ppf(0.975, len(ensemble.islands) - 1)) * error
        estimate = replace(
            independent,
            value=value,
            std_error=error,
            ci95=(value - reach, value + reach),
            flags=(*independent.flags, *found.flags),
        )
    evaluations = {
        "target": {s: {"energy": t.energy, "gradient": t.gradient} for s, t in found.evaluations.items()},
        "field": {},
    }
    return Attempt(
        name="smc",
        description=f"sequential Monte Carlo, {len(found.times) - 1} temperatures, {_moves_of_particles(context)}",
        log_z=estimate,
        ensemble=ensemble,
        reverse=None,
        bounds=None,
        annealing=None,
        quality=PathQuality(found.times[1:], (), found.acceptance, found.step_size),
        evaluations=evaluations,
        seconds={"sampling": time.perf_counter() - started},
    )


def _moves_of_particles(context: Context) -> str:
    mass, length = context.effort.precondition, context.effort.waste_free
    words = moves_in_words(context.moves) + (f" in the particles' {mass} mass" if mass != "problem" else "")
    return words + (f", waste-free chains of {length}" if length else "")


def _attempt_pt(context: Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    started, effort = time.perf_counter(), context.effort
    found = tempering(
        context.problem.path,
        draws=effort.walkers // FEWEST_ISLANDS,
        budget=effort.budget,
        **_few_pilots(effort.budget),
        mover=context.mover,
        dtype=context.problem.dtype,
        generator=context.generator("pt"),
        progress=told(context.progress, "pt: sweeps"),
    )
    known = math.isfinite(found.log_z) and math.isfinite(found.std_error)
    value, error, interval = (found.log_z, found.std_error, found.ci95) if known else (None, None, None)
    trips = sum(found.round_trips)
    return Attempt(
        name="pt",
        description=f"parallel tempering, {len(found.copies)} copies of {len(found.times)} replicas, HMC of "
        f"{effort.leapfrog_steps} leapfrogs; {trips} round trips",
        log_z=LogZ(value, error, interval, len(found.x), found.ess, found.ess_error, None, 0.0, found.flags),
        ensemble=found.ensemble,
        reverse=None,
        bounds=None,
        annealing=None,
        quality=PathQuality(found.times[1:], (), found.acceptance, found.step_size),
        evaluations={
            "target": {s: {"energy": t.energy, "gradient": t.gradient} for s, t in found.evaluations.items()},
            "field": {},
        },
        seconds={"sampling": time.perf_counter() - started},
        diagnostics={"swap_acceptance": min(found.swaps), "round_trips": float(trips), "rhat": found.rhat},
    )


ATTEMPTS = {"ais": attempt_ais, "smc": attempt_smc, "pt": _attempt_pt, "lsq": attempt_lsq}


def _counted_fields(context: Context, path: CountedPath) -> Callable[[Tensor, torch.Generator], Dictionary]:
    """The problem's dictionary; fields along the path's own gradient ask the target, and that counts as a gradient."""

    def make(x: Tensor, generator: torch.Generator) -> Dictionary:
        fields = context.problem.dictionary(x, generator)
        curvature = fields.curvature if isinstance(fields, RidgeDictionary) else None
        if not isinstance(fields, RidgeDictionary) or curvature is None:
            return fields

        def counted(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            path.tally.gradient += len(x)
            return curvature(t, x)

        return replace(fields, curvature=counted)

    if not context.effort.end_gradients:
        return make
    passes = trace_passes(path.end)

    def asked(x: Tensor) -> None:
        path.tally.gradient += passes * len(x)

    return end_gradients(context.problem.path, make, asked=asked)


def _further_gradients(context: Context) -> int:
    """Of the target, that the fields of a drift ask for at one pilot walker and time."""
    generator = context.generator("fields")
    x = pilot_walkers(context.problem.path, TRIAL, context.problem.dtype, generator)
    fields = context.problem.dictionary(x, generator)
    curved = isinstance(fields, RidgeDictionary) and fields.curvature is not None
    ends = trace_passes(context.problem.path.end) if context.effort.end_gradients else 0
    return CURVED * (int(curved) + ends)


def solve(
    context: Context,
    path: CountedPath,
    effort: DensityEffort | None = None,
    found: Pilot | None = None,
    trial_walkers: int | None = None,
) -> Solved:
    """The drift in closed form, its pilots counted under the path's stage."""
    effort = effort or context.effort
    return least_squares(
        path,
        _counted_fields(context, path),
        mover=context.mover,
        pilots=effort.pilot_walkers,
        pilot_steps=effort.pilot_steps,
        steps=given_steps(effort.steps),
        tolerance=effort.flow_tolerance,
        tuned=found,
        **({} if context.budget is None else _few_walkers(context, effort, trial_walkers)),
        dtype=context.problem.dtype,
        generator=context.generator("pilot"),
        device=context.device,
        say=context.say,
        progress=context.progress,
        report=context.report,
    )


def _few_walkers(context: Context, effort: DensityEffort, trial_walkers: int | None) -> dict[str, Any]:
    """Those that measure the flow's error, and as many as a budget could carry if nothing else were paid from it."""
    budget = context.budget
    assert budget is not None
    most = budget.evaluations / (given_steps(effort.steps) * budget.move)
    few = CURVED_TRIAL if _further_gradients(context) else TRIAL
    return {"trial_walkers": trial_walkers or few, "walkers": most}


def given_steps(steps: int | None) -> int:
    """The number of steps of a method that does not find its own.

    Raises:
        InputError: none given.
    """
    if steps is None:
        raise InputError(
            "only SMC, and annealing by HMC or random walks, find their own number of steps: got steps = None; give one"
        )
    return steps


def _few_pilots(budget: int | None) -> dict[str, Any]:
    return {} if budget is None else {"pilots": TUNING}


def tuned(context: Context, path: CountedPath) -> Pilot:
    """Times and step sizes by walkers of plain annealing."""
    generator = context.generator("ais pilot")
    x = pilot_walkers(path, TUNING, context.problem.dtype, generator)
    options = {"conditional_ess": COARSE, "precondition": context.precondition}
    return pilot(path, x, context.moves, generator=generator, **options)


def plain_annealing(context: Context, path: CountedPath, steps: int | None, found: Pilot | None = None) -> Annealing:
    """Without a drift, by the kernel that is asked for; tuned here unless it was before."""
    options = {"dtype": context.problem.dtype, "generator": context.generator("ais pilot")}
    if context.rolls:
        gradients, mass = given_steps(steps) * context.effort.leapfrog_steps, context.problem.mass
        variance = mass.variance.to(context.problem.dtype) if isinstance(mass, DiagonalMass) else None
        langevin = context.effort.kernel == "langevin"
        mover = Unadjusted(variance, factors_for(gradients)) if langevin else Underdamped(mass)
        return ais(path, steps=gradients, mover=mover, **options)
    return ais(path, steps=steps, mover=context.moves, precondition=context.precondition, tuned=found, **options)


def carried(
    context: Context,
    annealing: Annealing,
    path: CountedPath,
    field: CountedField | CountedDrift | None,
    quality: PathQuality,
    walkers: int,
    seconds: dict[str, float],
    note: str = "",
) -> Attempt:
    """Walkers there, and back where samples of the target are known, with estimate, checks and bounds."""
    problem, name = context.problem, annealing.name
    options = {
        "chunk_size": problem.chunk_size,
        "progress": told(context.progress, f"{name}: walkers"),
        "watch": lambda ess: context.report(ess=ess),
    }
    started = time.perf_counter()
    with path.stage("sampling"):
        ensemble = annealing.draw(
            walkers, generator=context.generator(f"draw {name}"), device=context.device, **options
        )
    seconds = {**seconds, "sampling": time.perf_counter() - started}
    forward = ensemble.log_weight.cpu().numpy()
    about = {"base": annealing.base_log_z, "systematic": annealing.systematic}
    estimate = log_z(forward, **about, seed=context.seed)
    with path.stage("checks"):
        doubts = () if context.walks else check_walkers(path, ensemble, seed=context.seed)
    doubts += unmet(annealing.systematic, context.effort.flow_tolerance, estimate.std_error)
    reverse, bounds = None, None
    back = min(context.effort.reverse_walkers, walkers)
    if problem.target_samples is not None and back:
        started = time.perf_counter()
        options["progress"] = told(context.progress, f"{name}: walkers back")
        x = problem.target_samples(back, context.generator("target samples")).to(context.device)
        with path.stage("checks"):
            doubts += () if context.walks else check_target_samples(path, x, seed=context.seed)
        with path.stage("reverse"):
            reverse = annealing.reverse(x, generator=context.generator(f"reverse {name}"), **options)
        seconds["reverse"] = time.perf_counter() - started
        bounds = log_z_bounds(forward, reverse.log_weight.cpu().numpy(), **about)
        estimate = cross_checked(estimate, ensemble, reverse, x, seed=context.seed)
    estimate = replace(estimate, flags=(*estimate.flags, *doubts))
    evaluations = {
        "target": {s: {"energy": t.energy, "gradient": t.gradient} for s, t in path.tallies.items()},
        "field": {} if field is None else dict(field.evaluations),
    }
    return Attempt(
        name, annealing.description, estimate, ensemble, reverse, bounds, annealing, quality, evaluations, seconds, note
    )


def quality_of(solved: Solved) -> PathQuality:
    """What the pilots of a drift saw."""
    drift = solved.drift
    return PathQuality(
        drift.times, drift.r_squared, drift.acceptance, tuple(solved.tuning.step_sizes(t) for t in drift.times)
    )
