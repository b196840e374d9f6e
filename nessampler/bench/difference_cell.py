"""A method on a difference, for a budget of evaluations."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nessampler.bench.clock import cpu_seconds
from nessampler.bench.origin import origin_of
from nessampler.bench.peers import DIFFERENCE_PEERS
from nessampler.bench.row import Row
from nessampler.bench.sizes import FIRST, scale_of, smallest_accepted, trials
from nessampler.bench.torsions import torsion_metrics
from nessampler.bench.trial import TRIAL_SEED, trial
from nessampler.errors import InputError
from nessampler.estimators import Flag, FreeEnergy
from nessampler.methods.annealed_switching import CountedInterior
from nessampler.methods.difference import Difference, free_energy
from nessampler.methods.ends import generator_for
from nessampler.methods.rungs.cluster import hardening, is_cluster
from nessampler.methods.staged import Staged, staged
from nessampler.methods.staged_chains import HamiltonianStates
from nessampler.methods.verdict import judge_states
from nessampler.paths import AnnealingPath, LinearPath
from nessampler.runs.config import DifferenceConfig
from nessampler.runs.difference import effort_of
from nessampler.runs.end_observations import carried_of
from nessampler.runs.prepared import Prepared
from nessampler.runs.target_problem import check_targets, prepare_targets
from nessampler.runs.units import parse
from nessampler.targets import Counted, Target, carry

__all__ = ["difference_row"]

ENDS_BY = "map"  # whose trials size the ends of a molecule, which are most of its cost, for all methods
FEWEST_SAMPLES = 50  # of an exact end, as in a system's file
NODES, CLUSTER_NODES, CHAINS, LEAPFROG, EQUILIBRATION = 9, 13, 64, 10, 0.2  # of staged MBAR
DRAWS = 200  # stored of a chain
KEPT = 0.25  # about, of these, for MBAR: their energies at all nodes cost one each where the path is not linear
WORST_RHAT = 1.1  # of the chains of a state, as of chains of the ends
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


def difference_row(
    config: DifferenceConfig,
    folder: Path,
    method: str,
    budget: int | None,
    out: Path,
    origin: Mapping[str, Any] | None = None,
) -> Row:
    """End states and a rung for about `budget` evaluations, each state at its relative cost.

    A few first runs from another seed find what costs once and what each sample costs, see `sizes.trials`, and are not
    counted. Staged MBAR spends the budget on its own states.
    Without a budget the sizes are those of the preset. Ends of a molecule are of one size, and the same samples, for
    all methods of a seed; each is charged for them.

    Args:
        out: where end states of molecules are kept, and what first runs found.
        origin: of both, see `origin_of`; by default of the configuration's preset.

    Raises:
        InputError: staged MBAR without a budget.
    """
    if method in DIFFERENCE_PEERS:
        return DIFFERENCE_PEERS[method](config, folder, budget)
    if method == "staged" and budget is None:
        raise InputError("staged MBAR has no size of its own: give --budget")
    origin = origin_of(config.run.preset) if origin is None else origin
    scale = _size(config, folder, method, budget, out, origin)
    sized, where = _scaled(config, scale), _ends(config, scale, out)
    ends = _sampled(sized, folder, where, origin)
    started, busy = time.perf_counter(), cpu_seconds()
    if method == "staged" and budget is not None:
        found = _staged(sized, folder, budget, where)
    else:
        found = _climbed(sized, folder, method, where)
    return Row.of_cell(
        config,
        method,
        budget,
        chosen=found.chosen,
        value=found.estimate.delta_f,
        std_error=found.estimate.std_error,
        evaluations=found.cost,
        fields=found.fields,
        seconds=ends["seconds"] + time.perf_counter() - started,
        cpu_seconds=ends["cpu_seconds"] + cpu_seconds() - busy,
        metrics=found.metrics,
        flags=found.flags,
        verdict=found.verdict,
    )


def _size(
    config: DifferenceConfig, folder: Path, method: str, budget: int | None, out: Path, origin: Mapping[str, Any]
) -> float:
    """Of the ends, as a multiple of the preset's."""
    if budget is None:
        return 1.0
    if config.molecular:
        method, file = ENDS_BY, f"{config.name}.json"
    elif method == "staged":
        return max(FIRST, _smallest(config, folder))  # where its chains start
    else:
        file = f"{config.name}--{method}.json"
    found = trial(out / "trials" / file, origin, lambda: _trials(config, folder, method, budget, out))
    return scale_of(found, budget)


def _ends(config: DifferenceConfig, scale: float, out: Path) -> Path:
    """Where end states of a molecule lie."""
    return out / "ends" / f"{config.name}-{config.run.seed}-{scale:.4g}"


def _sampled(config: DifferenceConfig, folder: Path, where: Path, origin: Mapping[str, Any]) -> Mapping[str, float]:
    """What the ends of a molecule took when they were sampled, by this cell or another; frames are in `where`."""

    def measured() -> Mapping[str, float]:
        started, busy = time.perf_counter(), cpu_seconds()
        _prepared(config, folder, where).close()
        return {"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - busy}

    return trial(where / "took.json", origin, measured) if config.molecular else {"seconds": 0.0, "cpu_seconds": 0.0}


def _trials(config: DifferenceConfig, folder: Path, method: str, budget: int, out: Path) -> Mapping[str, Any]:
    reseeded = _reseeded(config, TRIAL_SEED)

    def cost(scale: float) -> float:
        return _climbed(_scaled(reseeded, scale), folder, method, _ends(reseeded, scale, out)).cost

    return trials(cost, budget, _smallest(config, folder))


def _smallest(config: DifferenceConfig, folder: Path) -> float:
    """Of what the catalogue's checks accept; of a molecule the double, as half of its frames may be dropped later."""
    if config.molecular:
        from nessampler.runs.molecular_problem import check_frames as check
    else:

        def check(config: DifferenceConfig) -> object:
            return check_targets(config, folder)

    def accepted(scale: float) -> bool:
        try:
            check(_scaled(config, scale / 2 if config.molecular else scale))
        except InputError:
            return False
        return True

    return smallest_accepted(accepted)


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


def _staged(config: DifferenceConfig, folder: Path, budget: int, where: Path) -> _Outcome:
    """MBAR over chains at nodes of a path; they start at samples of the ends, which are not charged."""
    prepared = _prepared(config, folder, where)
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
    return _Outcome(
        estimate,
        "staged",
        _cost(config, spent),
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

    samples = config.samples.model_copy(
        update={state: max(FEWEST_SAMPLES, times(getattr(config.samples, state))) for state in "ab"}
    )
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
        "effective_draws": forward * rung.estimate.n[0],
        "lower_limit": low,
        "upper_limit": high,
        "pilot_share": found.pilot_share,
    }


def _few(samples: Tensor, target: Target, n: int, generator: torch.Generator) -> Tensor:
    flat = samples.reshape(-1, *target.event_shape)
    return flat[torch.randint(len(flat), (n,), generator=generator, device=generator.device)]
