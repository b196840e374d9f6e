"""Weighted samples of a density and its log Z: the recipe behind `nessampler.sample` and `nessampler run`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from scipy.stats import t as student_t
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.ridge_dictionary import RidgeDictionary
from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.estimators.log_z import LogZ, log_z, log_z_bounds
from nessampler.kernels import HMC, Compose, Flow
from nessampler.methods.density.ais import Underdamped, ais
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.chains import long_chains
from nessampler.methods.density.counted import CountedField, CountedPath
from nessampler.methods.density.end_checks import check_target_samples, check_walkers
from nessampler.methods.density.flow_error import NoDriftError
from nessampler.methods.density.lsq import Solved, least_squares
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.refined import refined
from nessampler.methods.density.result import Attempt, PathQuality, Sampled
from nessampler.methods.density.smc import smc
from nessampler.methods.density.tempering import tempering
from nessampler.methods.density.tuning import Hamiltonian
from nessampler.methods.density.two_sided import cross_checked
from nessampler.methods.density.verdict import cross_check, judge
from nessampler.methods.ends import generator_for
from nessampler.simulate import FEWEST_ISLANDS, Ensemble
from nessampler.targets import Tally

__all__ = ["DensityEffort", "DensityMethod", "check_kernel", "sample_density"]

DensityMethod = Literal["ais", "smc", "pt", "lsq", "nets", "auto"]
PILOTS = 256  # walkers that compare methods, and are then forgotten
TUNING = 128  # walkers that find times and step sizes without a drift: they make seven moves at each time


@dataclass(frozen=True)
class DensityEffort:
    """What to spend.

    Attributes:
        walkers: that give the estimate; of parallel tempering, draws of the target.
        pilot_walkers, pilot_steps: of the walkers on which a drift is solved.
        steps: of the production run; parallel tempering takes as many replicas as swaps need. None, of plain annealing
            and SMC only: as many as their conditional ESS asks for.
        leapfrog_steps: of the Hamiltonian moves at each of them.
        kernel: of plain annealing, "hmc" or "inertial": underdamped Langevin steps, one gradient each and as many
            times more of them.
        reverse_walkers: carried back from samples of the target, where there are any.
        reverse_steps: of long Hamiltonian chains that make such samples where nobody has them; 0 for none.
        nets_steps: gradient steps of a network.
        training_walkers: draws of the base for its training and pilots.
        flow_tolerance: in log Z, beyond which a flow is integrated by a finer rule.

    Example:
        >>> effort = DensityEffort(walkers=1024, steps=20)
        >>> effort.walkers * effort.steps * effort.leapfrog_steps  # gradients of the run that gives the estimate, about
        102400
    """

    walkers: int = 4096
    pilot_walkers: int = 2048
    pilot_steps: int = 30
    steps: int | None = 40
    leapfrog_steps: int = 5
    kernel: Literal["hmc", "inertial"] = "hmc"
    reverse_walkers: int = 1024
    reverse_steps: int = 0
    nets_steps: int = 1000
    training_walkers: int = 2048
    flow_tolerance: float = 5e-4


def check_kernel(kernel: str, method: str) -> None:
    """Refuse moves that a method does not make.

    Raises:
        InputError: naming both.
    """
    if kernel != "hmc" and method not in ("ais", "auto"):
        raise InputError(
            f"kernel = {kernel!r} is for plain annealing: {method} moves by Hamiltonian trajectories; "
            "choose method ais or auto, or kernel hmc"
        )


@dataclass(frozen=True)
class _Context:
    """What every attempt needs."""

    problem: DensityProblem
    effort: DensityEffort
    seed: int
    device: str
    say: Callable[[str], None]
    progress: Callable[[int, int, str], None]
    report: Callable[..., None]
    checkpoint: Path | None

    @property
    def mover(self) -> Hamiltonian:
        """The Hamiltonian moves that every method shares."""
        return Hamiltonian(self.effort.leapfrog_steps, mass=self.problem.mass, step_size=self.problem.step_size)

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of its own for every purpose."""
        return generator_for(self.seed, purpose, self.device)


def sample_density(
    problem: DensityProblem,
    *,
    method: DensityMethod = "auto",
    seed: int = 0,
    effort: DensityEffort | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    report: Callable[..., None] = lambda **_: None,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> Sampled:
    r"""Carry walkers from the base to the target, and weigh them exactly.

    `ais` anneals by Hamiltonian moves, `smc` resamples too, `pt` lets chains along the path swap places, `lsq` adds a
    drift solved in closed form, `nets` refines that drift by a network. `auto` solves the drift, compares it with plain
    annealing at equal gradient evaluations on pilot walkers, and runs what has the smaller variance × cost; the other
    is reported from fewer walkers.

    Args:
        problem: path, dictionary, mass.
        method: see above.
        seed: the same seed gives the same result on the same machine.
        effort: what to spend.
        say, progress, report: told what happens, how far it is, and numbers as they stand (`loss`, `ess`, `r_squared`).
        checkpoint: where training leaves its state, to go on from.
        device: for walkers and networks.

    Raises:
        InputError: an unknown method, a base without `sample` or `log_z`, and whatever walkers run into.

    References:
        Neal, Annealed importance sampling, 2001; Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler,
        2024, arXiv:2410.02711.

    Example:
        >>> from nessampler.methods.density.dictionaries import default_dictionary
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import AnharmonicWell, Gaussian
        >>> well = AnharmonicWell([1.0, 0.0], stiffness=[1.0, 2.0], quartic=[0.5, 0.1], skew=[0.5, 0.0], coupling=1.0)
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), well)
        >>> found = sample_density(DensityProblem(path, default_dictionary(path)),
        ...                        effort=DensityEffort(500, 1700, 6, 6, reverse_walkers=0))
        >>> abs(found.log_z.value - well.log_z) < 4 * found.log_z.std_error, found.ess > 0.8
        (True, True)
    """
    if method not in get_args(DensityMethod):
        raise InputError(f"method must be one of {', '.join(get_args(DensityMethod))}: got {method!r}")
    for name in ("sample", "log_z"):
        if not hasattr(problem.path.start, name):
            raise InputError(
                f"walkers start from a density with `sample` and `log_z`: {type(problem.path.start).__name__} has no "
                f"{name}; choose a base such as Gaussian"
            )
    context = _Context(problem, effort or DensityEffort(), seed, device, say, progress, report, checkpoint)
    check_kernel(context.effort.kernel, method)
    context = replace(context, problem=_with_chains(context))
    metrics: list[Mapping[str, Any]] = []
    with torch.no_grad():
        if method == "auto":
            attempts, chosen = _auto(context, metrics)
        else:
            attempts, chosen = [_ATTEMPTS[method](context, metrics)], method
    return _result(context, method, attempts, chosen, metrics)


def _with_chains(context: _Context) -> DensityProblem:
    """The problem, with samples of its target by long chains where it has none and they are asked for."""
    problem, effort = context.problem, context.effort
    if problem.target_samples is not None or not (effort.reverse_steps and effort.reverse_walkers):
        return problem
    generator = context.generator("chains")
    x = problem.path.start.sample(effort.reverse_walkers, generator=generator)  # pyright: ignore[reportAttributeAccessIssue]
    chains = long_chains(
        problem.path,
        x.to(context.device, problem.dtype),
        context.mover,
        steps=effort.reverse_steps,
        symmetry=problem.symmetry,
        generator=generator,
        progress=_told(context.progress, "long chains of the target"),
    )
    context.say(f"samples of the target: {chains.origin}")
    return replace(
        problem, target_samples=lambda n, _: chains.x[:n], origin=chains.origin, doubts=(*problem.doubts, *chains.flags)
    )


def _auto(context: _Context, metrics: list[Mapping[str, Any]]) -> tuple[list[Attempt], str]:
    path, started = CountedPath(context.problem.path), time.perf_counter()
    with path.stage("pilot"):
        try:
            solved = _solve(context, path)
        except NoDriftError as error:
            return [_without_drift(context, metrics, path, str(error))], "ais"
        before = path.tally.copy()
        trial = solved.annealing.draw(PILOTS, generator=context.generator("compare lsq"), device=context.device)
        per_walker = _evaluations(path.tally - before) / PILOTS
    seconds = time.perf_counter() - started
    plain_path, started = CountedPath(context.problem.path), time.perf_counter()
    with plain_path.stage("pilot"):
        plain = _plain(context, plain_path, _equal_steps(context, path, per_walker))
        baseline = plain.draw(PILOTS, generator=context.generator("compare ais"), device=context.device)
    plain_seconds = time.perf_counter() - started
    # Both take the same gradients; what the drift costs on top is the evaluations of its fields, as dear at most.
    merits = {"ais": _variance(baseline), "lsq": _variance(trial) * (1 + min(1.0, _fields_per_gradient(solved)))}
    chosen = min(merits, key=lambda name: merits[name])
    context.say(f"pilot ESS {trial.ess:.3f} with the drift, {baseline.ess:.3f} without: {chosen} gives the estimate")
    fewer = max(PILOTS, context.effort.walkers // 4)
    attempts = []
    for name, annealing, counted, spent in (
        ("ais", plain, plain_path, plain_seconds),
        ("lsq", solved.annealing, path, seconds),
    ):
        walkers = context.effort.walkers if name == chosen else fewer
        quality = _quality(solved) if name == "lsq" else PathQuality()
        field = solved.field if name == "lsq" else None
        note = (
            "chosen"
            if name == chosen
            else f"variance × cost {_ratio(merits[name], merits[chosen])} × that of {chosen} in the pilot"
        )
        attempts.append(_carried(context, annealing, counted, field, quality, walkers, {"pilot": spent}, note))
    return attempts, chosen


def _without_drift(context: _Context, metrics: list[Mapping[str, Any]], path: CountedPath, why: str) -> Attempt:
    """Plain annealing, which pays for the drift that could not be used as well."""
    context.say(f"no drift: {why}")
    attempt, lost = _attempt_ais(context, metrics), path.tallies["pilot"]
    spent = {stage: dict(tally) for stage, tally in attempt.evaluations["target"].items()}
    spent["pilot"] = {
        "energy": spent["pilot"]["energy"] + lost.energy,
        "gradient": spent["pilot"]["gradient"] + lost.gradient,
    }
    return replace(
        attempt, evaluations={**attempt.evaluations, "target": spent}, note=f"chosen, for want of a drift: {why}"
    )


def _attempt_ais(context: _Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    path, started = CountedPath(context.problem.path), time.perf_counter()
    with path.stage("pilot"):
        annealing = _plain(context, path, context.effort.steps)
    seconds = {"pilot": time.perf_counter() - started}
    return _carried(context, annealing, path, None, PathQuality(), context.effort.walkers, seconds)


def _attempt_lsq(context: _Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    path, started = CountedPath(context.problem.path), time.perf_counter()
    with path.stage("pilot"):
        solved = _solve(context, path)
    seconds = {"pilot": time.perf_counter() - started}
    return _carried(context, solved.annealing, path, solved.field, _quality(solved), context.effort.walkers, seconds)


def _attempt_nets(context: _Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    path, started = CountedPath(context.problem.path), time.perf_counter()
    with path.stage("pilot"):
        solved = _solve(context, path)
    pilot, started = time.perf_counter() - started, time.perf_counter()
    with path.stage("training"):
        annealing, field = refined(
            solved,
            path,
            walkers=context.effort.training_walkers,
            steps=context.effort.nets_steps,
            metrics=metrics,
            checkpoint=context.checkpoint,
            generator=context.generator("training"),
            device=context.device,
            progress=context.progress,
            report=context.report,
        )
    seconds = {"pilot": pilot, "training": time.perf_counter() - started}
    return _carried(context, annealing, path, field, _quality(solved), context.effort.walkers, seconds)


def _attempt_smc(context: _Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    started, effort = time.perf_counter(), context.effort
    found = smc(
        context.problem.path,
        particles=effort.walkers // 8,
        pilots=TUNING,
        mover=context.mover,
        steps=effort.steps,
        dtype=context.problem.dtype,
        generator=context.generator("smc"),
    )
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
        description=f"sequential Monte Carlo, {len(found.times) - 1} temperatures, HMC of {effort.leapfrog_steps} "
        "leapfrogs",
        log_z=estimate,
        ensemble=ensemble,
        reverse=None,
        bounds=None,
        annealing=None,
        quality=PathQuality(found.times[1:], (), found.acceptance, found.step_size),
        evaluations=evaluations,
        seconds={"sampling": time.perf_counter() - started},
    )


def _attempt_pt(context: _Context, metrics: list[Mapping[str, Any]]) -> Attempt:
    started, effort = time.perf_counter(), context.effort
    found = tempering(
        context.problem.path,
        draws=effort.walkers // FEWEST_ISLANDS,
        pilots=TUNING,
        mover=context.mover,
        dtype=context.problem.dtype,
        generator=context.generator("pt"),
        progress=_told(context.progress, "pt: sweeps"),
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


_ATTEMPTS = {"ais": _attempt_ais, "smc": _attempt_smc, "pt": _attempt_pt, "lsq": _attempt_lsq, "nets": _attempt_nets}


def _evaluations(tally: Tally) -> int:
    return tally.energy + tally.gradient


def _counted_fields(context: _Context, path: CountedPath) -> Callable[[Tensor, torch.Generator], Dictionary]:
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

    return make


def _solve(context: _Context, path: CountedPath) -> Solved:
    effort = context.effort
    return least_squares(
        path,
        _counted_fields(context, path),
        mover=context.mover,
        pilots=effort.pilot_walkers,
        pilot_steps=effort.pilot_steps,
        steps=_given(effort.steps),
        tolerance=effort.flow_tolerance,
        dtype=context.problem.dtype,
        generator=context.generator("pilot"),
        device=context.device,
        say=context.say,
        progress=context.progress,
        report=context.report,
    )


def _given(steps: int | None) -> int:
    if steps is None:
        raise InputError(
            "only Hamiltonian annealing and SMC find their own number of steps: got steps = None; give one"
        )
    return steps


def _plain(context: _Context, path: CountedPath, steps: int | None) -> Annealing:
    options = {"dtype": context.problem.dtype, "generator": context.generator("ais pilot"), "pilots": TUNING}
    if context.effort.kernel == "inertial":
        gradients = _given(steps) * context.effort.leapfrog_steps
        return ais(path, steps=gradients, mover=Underdamped(context.problem.mass), **options)
    return ais(path, steps=steps, mover=context.mover, **options)


def _equal_steps(context: _Context, path: CountedPath, per_walker: float) -> int:
    """Steps of plain annealing that spend what the drift spends, its pilots included."""
    effort = context.effort
    spent = effort.walkers * per_walker + _evaluations(path.tallies["pilot"])
    return max(2, round(spent / (effort.walkers * effort.leapfrog_steps)))


def _carried(
    context: _Context,
    annealing: Annealing,
    path: CountedPath,
    field: CountedField | None,
    quality: PathQuality,
    walkers: int,
    seconds: dict[str, float],
    note: str = "",
) -> Attempt:
    problem, name = context.problem, annealing.name
    options = {
        "chunk_size": problem.chunk_size,
        "progress": _told(context.progress, f"{name}: walkers"),
        "watch": lambda ess: context.report(ess=ess),
    }
    started = time.perf_counter()
    with path.stage("sampling"):
        ensemble = annealing.draw(
            walkers, generator=context.generator(f"draw {name}"), device=context.device, **options
        )
    seconds = {**seconds, "sampling": time.perf_counter() - started}
    forward = ensemble.log_weight.cpu().numpy()
    estimate = log_z(forward, base=annealing.base_log_z, systematic=annealing.systematic, seed=context.seed)
    with path.stage("checks"):
        doubts = check_walkers(path, ensemble, seed=context.seed)
    reverse, bounds = None, None
    back = min(context.effort.reverse_walkers, walkers)
    if problem.target_samples is not None and back:
        started = time.perf_counter()
        options["progress"] = _told(context.progress, f"{name}: walkers back")
        x = problem.target_samples(back, context.generator("target samples")).to(context.device)
        with path.stage("checks"):
            doubts += check_target_samples(path, x, seed=context.seed)
        with path.stage("reverse"):
            reverse = annealing.reverse(x, generator=context.generator(f"reverse {name}"), **options)
        seconds["reverse"] = time.perf_counter() - started
        bounds = log_z_bounds(forward, reverse.log_weight.cpu().numpy(), base=annealing.base_log_z)
        estimate = cross_checked(estimate, ensemble, reverse, x, seed=context.seed)
    estimate = replace(estimate, flags=(*estimate.flags, *doubts))
    evaluations = {
        "target": {s: {"energy": t.energy, "gradient": t.gradient} for s, t in path.tallies.items()},
        "field": {} if field is None else dict(field.evaluations),
    }
    return Attempt(
        name, annealing.description, estimate, ensemble, reverse, bounds, annealing, quality, evaluations, seconds, note
    )


def _result(
    context: _Context, method: str, attempts: list[Attempt], chosen: str, metrics: list[Mapping[str, Any]]
) -> Sampled:
    reported = next(a for a in attempts if a.name == chosen)
    flags: tuple[Flag, ...] = (*reported.log_z.flags, *cross_check(reported, attempts), *context.problem.doubts)
    origin = context.problem.origin if any(a.reverse is not None for a in attempts) else None
    verdict, knowledge = judge(reported, attempts, flags), context.problem.knowledge
    return Sampled(method, chosen, tuple(attempts), origin, verdict, flags, metrics, knowledge)


def _quality(solved: Solved) -> PathQuality:
    drift = solved.drift
    return PathQuality(
        drift.times, drift.r_squared, drift.acceptance, tuple(solved.tuning.step_sizes(t) for t in drift.times)
    )


def _fields_per_gradient(solved: Solved) -> float:
    kernel = solved.annealing.kernel
    assert isinstance(kernel, Compose)
    assert isinstance(kernel.first, Flow)
    assert isinstance(kernel.second, HMC)
    return kernel.first.order * kernel.first.substeps / (kernel.second.leapfrog_steps + 1)


def _variance(ensemble: Ensemble) -> float:
    return 1 / ensemble.ess - 1 if ensemble.ess > 0 else float("inf")


def _ratio(value: float, best: float) -> str:
    return f"{value / best:.3g}" if best > 0 else "many"


def _told(progress: Callable[[int, int, str], None], what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(done, total, what)
