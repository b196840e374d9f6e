"""The choice between a drift and none, by pilots."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nessampler.kernels import HMC, Compose, Flow
from nessampler.methods.density.attempts import (
    attempt_ais,
    attempt_lsq,
    attempt_smc,
    carried,
    drift_effort,
    particles,
    plain_annealing,
    quality_of,
    scouted,
    solve,
    solve_within,
    tuned,
)
from nessampler.methods.density.budget import COARSE, FINE, SCOUTS, Scatter, variance, walkers_for
from nessampler.methods.density.context import Context
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.dictionaries import NoFieldsError
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.flow_error import NoDriftError
from nessampler.methods.density.lsq import FewPilotsError, Solved
from nessampler.methods.density.result import Attempt, PathQuality
from nessampler.methods.density.tuning import Pilot
from nessampler.simulate import Ensemble
from nessampler.targets import Tally

__all__ = ["auto"]

SCOUT_ISLANDS = 0.022  # share of a budget for islands that only compare
SCOUT_PARTICLES = 16  # of such an island at least: half of what an estimate asks for
ONE_WAY = 1.5  # what weights that go both ways, and walkers that do not depend on one another, are worth
MANY = 1e4  # times as bad, beyond which nobody wants digits
PILOTS = 256  # walkers that compare methods, and are then forgotten
SCOUT_SOLUTION = 0.026, 12  # share of a budget for a drift that only compares, and its times
FLOW_WALKERS = 8  # that measure its flow's error, which a comparison does not need
DRIFT_SCOUTS = SCOUTS // 2  # a step of theirs costs twice as much
DEAREST_SOLUTION = 0.08  # share beyond which no drift is tried
FEWEST_TIMES = 5  # of such a drift, where its fields ask for many pilots


def auto(context: Context, metrics: list[Mapping[str, Any]]) -> tuple[list[Attempt], str]:
    """Attempts in order, and the name of the one that gives the estimate.

    Random walks leave annealing and SMC to choose from, see `_walking`.
    Without a budget the drift is solved as it would be used, and the method that is not chosen runs as well, with
    `baseline_walkers`. Within a budget a drift of few pilots is compared, and only what is chosen goes on.
    """
    if context.budget is not None:
        return _within(context, metrics)
    if context.walks:
        return _walking(context, metrics)
    path, started = CountedPath(context.problem.path), time.perf_counter()
    with path.stage("pilot"):
        try:
            solved = solve(context, path)
        except (NoDriftError, NoFieldsError) as error:
            return [_without_drift(context, metrics, path, str(error))], "ais"
        before = path.tally.copy()
        trial = solved.annealing.draw(PILOTS, generator=context.generator("compare lsq"), device=context.device)
        per_walker = (path.tally - before).total / PILOTS
    seconds = time.perf_counter() - started
    plain_path, started = CountedPath(context.problem.path), time.perf_counter()
    with plain_path.stage("pilot"):
        plain = plain_annealing(context, plain_path, _equal_steps(context, path, per_walker))
        baseline = plain.draw(PILOTS, generator=context.generator("compare ais"), device=context.device)
    plain_seconds = time.perf_counter() - started
    # Both take the same gradients; what the drift costs on top is the evaluations of its fields, as dear at most.
    merits = {"ais": _variance(baseline), "lsq": _variance(trial) * (1 + min(1.0, _fields_per_gradient(solved)))}
    chosen = min(merits, key=lambda name: merits[name])
    context.say(f"pilot ESS {trial.ess:.3f} with the drift, {baseline.ess:.3f} without: {chosen} gives the estimate")
    fewer = _fewer(context.effort)
    attempts = []
    for name, annealing, counted, took in (
        ("ais", plain, plain_path, plain_seconds),
        ("lsq", solved.annealing, path, seconds),
    ):
        walkers = context.effort.walkers if name == chosen else fewer
        quality = quality_of(solved) if name == "lsq" else PathQuality()
        field = solved.field if name == "lsq" else None
        note = (
            "chosen"
            if name == chosen
            else f"variance × cost {_ratio(merits[name], merits[chosen])} × that of {chosen} in the pilot"
        )
        attempts.append(carried(context, annealing, counted, field, quality, walkers, {"pilot": took}, note))
    return attempts, chosen


def _within(context: Context, metrics: list[Mapping[str, Any]]) -> tuple[list[Attempt], str]:
    """One attempt, which pays for what was compared."""
    budget = context.budget
    assert budget is not None
    started, path = time.perf_counter(), CountedPath(context.problem.path)
    with path.stage("pilot"):
        found = tuned(context, path)
    own = path.tallies["pilot"].total  # which any method would spend
    # Few temperatures: what they add to the variance they save in evaluations, and eight small islands are paid for.
    islands = particles(context, int(SCOUT_ISLANDS * budget.evaluations), found, "compare smc", COARSE, SCOUT_PARTICLES)
    lost = Tally() + islands.evaluations["pilot"] + islands.evaluations["sampling"]
    scale = lost.total / budget.evaluations
    drift_path = CountedPath(context.problem.path)
    with drift_path.stage("pilot"):
        drift = None if context.walks else _tried(context, drift_path, found)
    lost = lost + drift_path.tallies.get("pilot", Tally())
    with path.stage("pilot"):
        plain = scouted(context, path, found, budget.evaluations - lost.total - path.tally.total)
    lost = lost + path.tallies["pilot"]
    left, compared = budget.evaluations - lost.total, lost.total - own
    merits = {"ais": plain.predicted, "smc": ONE_WAY * islands.std_error**2 * scale}
    if drift is not None:
        merits["lsq"] = drift(left)
    chosen = min(merits, key=lambda name: merits[name] if math.isfinite(merits[name]) else math.inf)
    others = [f"{name} {_ratio(merit, merits[chosen])} times" for name, merit in merits.items() if name != chosen]
    note = f"chosen; variance × cost in the pilot: {', '.join(others)}"
    context.say(f"{chosen} gives the estimate; variance × cost in the pilot: {', '.join(others)}")
    if chosen == "ais":
        seconds = {"pilot": time.perf_counter() - started}
        path.tallies["pilot"] = Tally()  # which are among those lost
        attempt = carried(context, plain.annealing, path, None, PathQuality(), plain.walkers, seconds)
    elif chosen == "smc":
        attempt = attempt_smc(context, metrics, left=left, pilot=found)
    else:
        attempt = attempt_lsq(context, metrics, left=left, found=found)
    paying = _paying(attempt, lost, note)
    share = {"pilot_share": compared / budget.evaluations}
    return [replace(paying, diagnostics={**paying.diagnostics, **share})], chosen


def _fewer(effort: DensityEffort) -> int:
    """Walkers of the method that is not chosen."""
    return effort.baseline_walkers or max(PILOTS, effort.walkers // 4)


def _walking(context: Context, metrics: list[Mapping[str, Any]]) -> tuple[list[Attempt], str]:
    """Annealing or SMC, whichever has the smaller variance × energies; the other runs too, with fewer walkers."""
    effort, path, started = context.effort, CountedPath(context.problem.path), time.perf_counter()
    with path.stage("pilot"):
        found = tuned(context, path)
        steps = effort.steps or math.ceil(found.lengths[-1] / math.sqrt(1 / FINE - 1))
        plain, before = plain_annealing(context, path, steps, found), path.tally.copy()
        scouts = plain.draw(PILOTS, generator=context.generator("compare ais"), device=context.device)
        spent = (path.tally - before).total
    seconds, few = time.perf_counter() - started, replace(effort, walkers=PILOTS, steps=steps)
    islands = particles(replace(context, effort=few), None, found, "compare smc")
    lost = islands.evaluations["sampling"]
    merits = {"ais": _variance(scouts) / PILOTS * spent, "smc": ONE_WAY * islands.std_error**2 * lost.total}
    chosen = min(merits, key=lambda name: merits[name] if math.isfinite(merits[name]) else math.inf)
    fewer = _fewer(effort)
    walkers = {name: effort.walkers if name == chosen else fewer for name in merits}
    notes = {
        name: "chosen" if name == chosen else f"variance × cost {_ratio(merit, merits[chosen])} × that of {chosen}"
        for name, merit in merits.items()
    }
    context.say(f"{chosen} gives the estimate; random walks have no drift")
    some = replace(context, effort=replace(effort, walkers=walkers["smc"], steps=steps))
    annealed = carried(context, plain, path, None, PathQuality(), walkers["ais"], {"pilot": seconds}, notes["ais"])
    return [annealed, _paying(attempt_smc(some, metrics, pilot=found), lost, notes["smc"])], chosen


def _tried(context: Context, path: CountedPath, found: Pilot) -> Callable[[float], float] | None:
    """What a drift of few pilots lets expect of one with all; None where a drift is out of the question."""
    budget, (share, times) = context.budget, SCOUT_SOLUTION
    assert budget is not None
    try:
        full = drift_effort(context)
        walkers, times = budget.drift_pilots(full.pilot_walkers, min(times, full.pilot_steps), share)
        assert full.steps is not None
        steps = min(full.steps, budget.scout_steps[1])
        few = replace(full, pilot_walkers=max(walkers, 64), pilot_steps=times, steps=steps, flow_tolerance=math.inf)
        solved = _few_times(context, path, few, found)
    except (NoDriftError, NoFieldsError, FewPilotsError) as error:
        context.say(f"no drift: {error}")
        return None
    scouts = solved.annealing.draw(DRIFT_SCOUTS, generator=context.generator("compare lsq"), device=context.device)
    scatter = Scatter(0.0, variance(scouts.log_weight) * steps).at(full.steps)
    pilots, price = full.pilot_walkers * full.pilot_steps * budget.move, 1 + min(1.0, _fields_per_gradient(solved))

    def merit(left: float) -> float:
        assert full.steps is not None
        return price * scatter / walkers_for(left - pilots, 1 + full.steps * budget.move)

    return merit


def _few_times(context: Context, path: CountedPath, few: DensityEffort, found: Pilot) -> Solved:
    """A drift that only compares; fields that ask for many pilots are solved at fewer times."""
    options = {"most": DEAREST_SOLUTION, "trial_walkers": FLOW_WALKERS}
    try:
        return solve_within(context, path, few, found, **options)
    except FewPilotsError:
        return solve_within(context, path, replace(few, pilot_steps=FEWEST_TIMES), found, **options)


def _without_drift(context: Context, metrics: list[Mapping[str, Any]], path: CountedPath, why: str) -> Attempt:
    """Plain annealing, which pays for the drift that could not be used as well."""
    context.say(f"no drift: {why}")
    attempt, lost = attempt_ais(context, metrics), path.tallies["pilot"]
    return _paying(attempt, lost, f"chosen, for want of a drift: {why}")


def _paying(attempt: Attempt, lost: Tally, note: str) -> Attempt:
    """Whose pilots cost what the others' did as well."""
    target = {stage: dict(tally) for stage, tally in attempt.evaluations["target"].items()}
    pilot = target.get("pilot", {"energy": 0, "gradient": 0})
    target["pilot"] = {"energy": pilot["energy"] + lost.energy, "gradient": pilot["gradient"] + lost.gradient}
    return replace(attempt, evaluations={**attempt.evaluations, "target": target}, note=note)


def _equal_steps(context: Context, path: CountedPath, per_walker: float) -> int:
    """Steps of plain annealing that spend what the drift spends, its pilots included."""
    effort = context.effort
    cost = effort.walkers * per_walker + path.tallies["pilot"].total
    return max(2, round(cost / (effort.walkers * effort.leapfrog_steps)))


def _fields_per_gradient(solved: Solved) -> float:
    kernel = solved.annealing.kernel
    assert isinstance(kernel, Compose)
    assert isinstance(kernel.first, Flow)
    assert isinstance(kernel.second, HMC)
    return kernel.first.order * kernel.first.substeps / (kernel.second.leapfrog_steps + 1)


def _variance(ensemble: Ensemble) -> float:
    return 1 / ensemble.ess - 1 if ensemble.ess > 0 else float("inf")


def _ratio(value: float, best: float) -> str:
    return f"{value / best:.3g}" if value < MANY * best else "many"
