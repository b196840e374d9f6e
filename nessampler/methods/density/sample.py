"""Weighted samples of a density and its log Z: the recipe behind `nessampler.sample` and `nessampler run`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.methods.density.attempt_nets import attempt_nets
from nessampler.methods.density.attempts import ATTEMPTS
from nessampler.methods.density.auto import auto
from nessampler.methods.density.chains import long_chains
from nessampler.methods.density.context import Context, told
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.effort import DensityEffort, check_effort
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.result import Attempt, Sampled
from nessampler.methods.density.verdict import cross_check, judge
from nessampler.targets.differences import billed, energies_per_gradient, told_differences

__all__ = ["DensityMethod", "sample_density"]

METHODS = ATTEMPTS | {"nets": attempt_nets}
DensityMethod = Literal["ais", "smc", "pt", "lsq", "nets", "auto"]


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

    `ais` anneals by Hamiltonian moves or random walks, `smc` resamples too, `pt` lets chains along the path swap
    places, `lsq` adds a drift solved in closed form, `nets` trains a network, by default one
    that starts as that drift. `auto` compares a drift with plain annealing at equal gradient evaluations on pilot
    walkers, and runs what has the smaller variance × cost; by random walks, which have no drift, annealing with SMC.

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
    context = Context(problem, effort or DensityEffort(), seed, device, say, progress, report, checkpoint)
    context = _by_differences(context)
    check_effort(context.effort, method, problem.target.event_shape)
    path, started = CountedPath(problem.path), time.perf_counter()
    with path.stage("chains"):
        context = replace(context, problem=_with_chains(context, path))
    seconds = {stage: time.perf_counter() - started for stage in path.tallies}
    metrics: list[Mapping[str, Any]] = []
    with torch.no_grad():
        if method == "auto":
            attempts, chosen = auto(context, metrics)
        else:
            attempts, chosen = [METHODS[method](context, metrics)], method
    found = _result(context, method, attempts, chosen, metrics)
    shared = {stage: billed(problem.target, spent) for stage, spent in path.tallies.items()}
    return replace(found, shared=shared, shared_seconds=seconds)


def _by_differences(context: Context) -> Context:
    """Where a gradient is made of energies, with a budget of as many fewer gradients, and the user told."""
    each, effort = energies_per_gradient(context.problem.target), context.effort
    if not each or context.walks:
        return context
    context.say(told_differences(each))
    return (
        context
        if effort.budget is None
        else replace(context, effort=replace(effort, budget=effort.budget // (1 + each)))
    )


def _billed(attempt: Attempt, each: int) -> Attempt:
    """With the energies that its gradients were made of."""
    target = {
        stage: {**tally, "energy": tally["energy"] + each * tally["gradient"]}
        for stage, tally in attempt.evaluations["target"].items()
    }
    return replace(attempt, evaluations={**attempt.evaluations, "target": target})


def _with_chains(context: Context, path: CountedPath) -> DensityProblem:
    """The problem, with samples of its target by long chains where it has none and they are asked for."""
    problem, effort = context.problem, context.effort
    if problem.target_samples is not None or not (effort.reverse_steps and effort.reverse_walkers):
        return problem
    generator = context.generator("chains")
    x = problem.path.start.sample(effort.reverse_walkers, generator=generator)  # pyright: ignore[reportAttributeAccessIssue]
    chains = long_chains(
        path,
        x.to(context.device, problem.dtype),
        context.mover,
        steps=effort.reverse_steps,
        symmetry=problem.symmetry,
        generator=generator,
        progress=told(context.progress, "long chains of the target"),
    )
    context.say(f"samples of the target: {chains.origin}")
    return replace(
        problem, target_samples=lambda n, _: chains.x[:n], origin=chains.origin, doubts=(*problem.doubts, *chains.flags)
    )


def _result(
    context: Context, method: str, attempts: list[Attempt], chosen: str, metrics: list[Mapping[str, Any]]
) -> Sampled:
    each = 0 if context.walks else energies_per_gradient(context.problem.target)
    attempts = [_billed(a, each) for a in attempts] if each else attempts
    reported = next(a for a in attempts if a.name == chosen)
    flags: tuple[Flag, ...] = (*reported.log_z.flags, *cross_check(reported, attempts), *context.problem.doubts)
    origin = context.problem.origin if any(a.reverse is not None for a in attempts) else None
    verdict, knowledge = judge(reported, attempts, flags), context.problem.knowledge
    remark = told_differences(each)
    return Sampled(method, chosen, tuple(attempts), origin, verdict, flags, metrics, knowledge, remark)
