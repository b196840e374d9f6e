"""A free-energy difference from two targets and samples of both: the recipe behind `nessampler run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.diagnostics import disagreement, disjoint_supports
from nessampler.errors import InputError
from nessampler.estimators import Bounds, Flag, FreeEnergy, bounds, jarzynski, pareto_k
from nessampler.methods.arguments import check_coordinates, check_kind, check_seed, file_of, tally_of
from nessampler.methods.arviz_export import works_data
from nessampler.methods.effort import Effort
from nessampler.methods.end_checks import check_end_states, check_energies_of_ends
from nessampler.methods.ends import Ends, generator_for, joined, split_by_time
from nessampler.methods.flow_doubts import flow_checked
from nessampler.methods.front_door import two_states
from nessampler.methods.ladder import MARGIN, RUNGS, Ladder, Method
from nessampler.methods.ledger import Ledger
from nessampler.methods.rungs import Structure, structure_of
from nessampler.methods.stage import Pilot, Stage
from nessampler.methods.tables import flag_lines, html, rungs_frame
from nessampler.methods.transport import Works
from nessampler.methods.trip import MOST_ARRIVED, Trip, shared_ends
from nessampler.methods.verdict import Verdict, judge
from nessampler.targets import Tally, Target, carry
from nessampler.targets.differences import billed, energies_per_gradient, told_differences

if TYPE_CHECKING:
    from arviz import InferenceData
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Difference", "RungResult", "free_energy"]


@dataclass(frozen=True)
class RungResult:
    """One rung: its BAR estimate and what goes with it, from the evaluate block or, if not climbed, the pilot's.

    `trips` are what walkers saw on their way forward and back, None of a rung that was not climbed.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.full((2,), 0.5))
        >>> g = torch.Generator().manual_seed(0)
        >>> result = free_energy(a, b, a.sample(500, generator=g), b.sample(500, generator=g), method="map")
        >>> plain, mapped = result.rungs  # from one Gaussian to another an affine map is nearly perfect
        >>> mapped.name, mapped.block, mapped.estimate.overlap > 0.9 > plain.estimate.overlap
        ('map', 'evaluate', True)
    """

    name: str
    description: str
    block: str
    estimate: FreeEnergy
    works: Works
    bounds: Bounds
    pareto_k: tuple[float | None, float | None]
    evaluations: Mapping[str, Any]
    seconds: float
    pilot: Pilot
    note: str
    trips: tuple[Trip, Trip] | None = None


@dataclass(frozen=True, repr=False)
class Difference:
    """ΔF = F_B - F_A in kT with everything that supports it.

    Attributes:
        delta_f: BAR on the chosen rung.
        rungs: every rung that was tried, in order.
        chosen: the name of the rung reported.
        estimators: jarzynski_forward, jarzynski_reverse and bar of the chosen rung, and plain_bar.
        verdict: whether the number can be trusted, in words.
        flags: of the reported estimator and of the end states.
        evaluations: of both states and of networks, by stage.
        metrics: rows of the training curve.
        state: tensors of the fitted maps and networks.
        remark: how gradients were come by, where nobody gave them.
        pilot_share: of all evaluations at their prices, end states included, what went into rungs that were tried and
            that the reported one does not stand on.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.full((2,), 0.5))
        >>> g = torch.Generator().manual_seed(0)
        >>> result = free_energy(a, b, a.sample(500, generator=g), b.sample(500, generator=g), method="plain")
        >>> low, high = result.bounds.tightest_limits
        >>> result.chosen, low < result.delta_f.delta_f < high, sorted(result.estimators)
        ('plain', True, ['bar', 'jarzynski_forward', 'jarzynski_reverse', 'plain_bar'])
    """

    method: Method
    delta_f: FreeEnergy
    rungs: tuple[RungResult, ...]
    chosen: str
    estimators: Mapping[str, FreeEnergy]
    verdict: Verdict
    flags: tuple[Flag, ...]
    evaluations: Mapping[str, Any]
    seconds: Mapping[str, float]
    metrics: Sequence[Mapping[str, Any]]
    state: Mapping[str, Tensor]
    pilot_share: float = 0.0
    remark: str = ""

    @property
    def rung(self) -> RungResult:
        """The rung reported."""
        return next(r for r in self.rungs if r.name == self.chosen)

    @property
    def bounds(self) -> Bounds:
        """Second-law bounds from the chosen rung's works."""
        return self.rung.bounds

    def to(self, unit: str, temperature: float | None = None) -> FreeEnergy:
        """ΔF in "kcal/mol" or "kJ/mol", at a temperature in kelvin: see `FreeEnergy.to`."""
        return self.delta_f.to(unit, temperature)

    def to_dataframe(self) -> DataFrame:
        """One row per rung: value, error, interval, overlap, ESS, Pareto k, evaluations, seconds, flags."""
        return rungs_frame(self)

    def to_arviz(self) -> InferenceData:
        """Works of every rung, as in `works.nc`: see `methods.arviz_export.works_data`."""
        return works_data(self)

    def _repr_html_(self) -> str:
        return html(str(self), rungs_frame(self))

    def __repr__(self) -> str:
        return f"<Difference {str(self.delta_f).splitlines()[0]}; {self.chosen}, {self.verdict.level}>"

    def __str__(self) -> str:
        told = f"{self.delta_f}\n{self.verdict.text}" + (f"\n{self.remark}" if self.remark else "")
        return told + flag_lines(self.flags, self.delta_f.flags)

    def plot(self) -> Figure:
        """Works of the chosen rung, which cross at ΔF, beside ΔF from growing parts of them; `savefig` writes it."""
        from nessampler.plots import difference_overview

        found = {"value": self.delta_f.delta_f, "std_error": self.delta_f.std_error, "ci95": self.delta_f.ci95}
        return difference_overview(self.chosen, *self.rung.works, found, self.rung.description)


def free_energy(
    target_a: object,
    target_b: object,
    samples_a: Any,
    samples_b: Any,
    *,
    dim: int | tuple[int, ...] | None = None,
    temperature: Any = None,
    topology: Any = None,
    method: Method = "auto",
    coordinates: Transform | None = None,
    structure: Structure | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    endstate_evaluations: tuple[Tally | int, Tally | int] = (0, 0),
    endstate_flags: Sequence[Flag] = (),
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    report: Callable[..., None] = lambda **_: None,
    checkpoint: Path | str | None = None,
) -> Difference:
    r"""$\Delta F = F_B - F_A = -\log(Z_B / Z_A)$ between two densities, from equilibrium samples of both.

    The samples are split once by time into blocks that fit transports, select one of them, and evaluate it. What is
    learned changes the variance, never the answer: works are exact for every map and every network.

    Args:
        target_a, target_b: densities with one event shape: whatever `sample` takes (a callable is a **log density**,
            a target has its energy in kT), or an OpenMM `System`, `Simulation` or openmmtools `ThermodynamicState`.
        samples_a, samples_b: `(n, *event)` of independent samples, or `(chains, draws, *event)` of time-ordered,
            correlated ones, float64 best. The counts may differ. Of a molecule, positions in nm, a quantity of length,
            an mdtraj trajectory, which is one chain, or several of one length.
        dim: shape of one sample of two callables; by default its last dimension.
        temperature: in kelvin, of an OpenMM `System`; a simulation takes it from its integrator.
        topology: of a molecule, by which it is seen in internal coordinates; simulations and trajectories have one.
        method: plain, map, fields, switching, feat, or auto, which climbs while pilots on the select block say it pays;
            or tfep, flow matching for comparison.
        coordinates: a bijection from samples to a vector in which maps work well; its attribute `circular`, if any,
            marks the circular coordinates. By default those of the structure.
        structure: how rungs are built for this kind of walker; by default recognised from the targets, else vectors.
        seed: the same seed gives the same result.
        effort: what to spend on it.
        endstate_evaluations: what the samples of A and B cost, for the ledger: a `Tally`, or the number of gradients.
        endstate_flags: doubts about the samples that the caller knows of.
        say: told what is going on, one line at a time.
        progress: told what is done, of how much, and of what.
        report: told numbers as they stand by keyword: `loss`; `delta_f`, `std_error` and `overlap` of a rung's pilot.
        checkpoint: a file where training leaves its state, to go on from.

    Raises:
        InputError: arguments of the wrong kind, shapes that differ, NaN samples, too few of them, an unknown method, an
            energy that is of the wrong shape or NaN at the first samples of its state, samples outside the support of
            their state, exchanged, or of another state altogether; molecules of known bonds that are mirror images.

    References:
        Bennett, Efficient estimation of free energy differences from Monte Carlo data, 1976; Jarzynski, Targeted
        free energy perturbation, 2002; He et al., FEAT, 2025, arXiv:2504.11516.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.full((2,), 0.5))
        >>> g = torch.Generator().manual_seed(0)
        >>> result = free_energy(a, b, a.sample(500, generator=g), b.sample(500, generator=g), method="map")
        >>> abs(result.delta_f.delta_f - (a.log_z - b.log_z)) < 4 * result.delta_f.std_error + 1e-3
        True
    """
    check_seed(seed)
    check_kind("effort", effort, Effort, "pass Effort()")
    check_kind("structure", structure, Structure, "pass Structure(rungs), or leave it out")
    given, file, effort = _tallies(endstate_evaluations), file_of(checkpoint), effort or Effort()
    target_a, target_b, samples_a, samples_b, coordinates, flags = two_states(
        target_a,
        target_b,
        samples_a,
        samples_b,
        dim=dim,
        temperature=temperature,
        topology=topology,
        coordinates=coordinates,
        fit=effort.blocks[0],
        seed=seed,
    )
    chains_a, chains_b, correlated = _checked_samples(target_a, samples_a, samples_b)
    check_coordinates(coordinates, target_a.event_shape)
    structure = structure_of(target_a, target_b) if structure is None else structure
    coordinates = structure.coordinates if coordinates is None else coordinates
    ends = Ends.of(target_a, target_b, coordinates, device=chains_a.device)
    if coordinates is not None:
        chains_a, chains_b = carry(coordinates, chains_a), carry(coordinates, chains_b)
    fit, select, evaluate = split_by_time(chains_a, chains_b, effort.blocks, correlated)
    with ends.counted[0].stage("checks"), ends.counted[1].stage("checks"):
        check_energies_of_ends(ends, fit)
        endstate_flags = (*endstate_flags, *flags, *check_end_states(ends, fit, seed=seed))
    remark = told_differences(*map(energies_per_gradient, ends.counted))
    if remark:
        say(remark)
    spent_a, spent_b = (n + billed(c, c.tally("checks")) for n, c in zip(given, ends.counted, strict=True))
    ledger = Ledger(ends.counted, (spent_a, spent_b))
    stage = Stage(ends, fit, select, effort, ledger, seed, say, progress, report, file)
    everything = evaluate if structure.fitted else joined((fit, select, evaluate))
    ladder = Ladder(stage, structure.rungs, len(evaluate), len(everything))
    pilots, chosen = ladder.climb(method)
    rungs = []
    for name in (n for n in RUNGS if n in pilots):
        pilot, climbed = pilots[name], name in ("plain", "map", chosen)
        trips = None
        block = everything if name == chosen == "plain" else evaluate  # nothing was fitted that others must not see
        if climbed:
            say(f"{name}: works on {'the evaluate block' if block is evaluate else 'all samples'}")
            with ledger.charge(name, "sampling", pilot.network):
                generator = generator_for(seed, f"evaluate {name}")
                told = stage.watched(f"{name}: evaluate block")
                keep = MOST_ARRIVED if name == chosen else 0
                trips = pilot.transport.trips(block, generator=generator, progress=told, keep=keep)
            if coordinates is not None:
                trips = _seen(trips[0], coordinates), _seen(trips[1], coordinates)
        shown = "select" if trips is None else "evaluate" if block is evaluate else "all"
        rungs.append(_rung(pilot, trips, shown, ledger, pilots, chosen, seed))
    return replace(_result(method, rungs, chosen, stage, endstate_flags), remark=remark)


def _tallies(spent: Any) -> tuple[Tally, Tally]:
    if not isinstance(spent, tuple | list) or len(spent) != 2:
        raise InputError(
            f"endstate_evaluations are those of A and those of B: got {spent!r}; pass two numbers, or two tallies"
        )
    return tally_of(spent[0]), tally_of(spent[1])


def _seen(trip: Trip, coordinates: Transform) -> Trip:
    """Walkers where they arrived, in the coordinates of the samples."""
    if trip.arrived is None or not len(trip.arrived.x):
        return trip
    with torch.no_grad():
        return trip._replace(arrived=trip.arrived.seen_through(coordinates.inv))


def _rung(
    pilot: Pilot,
    trips: tuple[Trip, Trip] | None,
    block: str,
    ledger: Ledger,
    pilots: Mapping[str, Pilot],
    chosen: str,
    seed: int,
) -> RungResult:
    name, systematic = pilot.transport.name, pilot.transport.systematic
    works = pilot.works if trips is None else Works(trips[0].work, trips[1].work)
    return RungResult(
        name=name,
        description=pilot.transport.description,
        block=block,
        estimate=flow_checked(pilot.transport.estimate(works, seed=seed), systematic, trips),
        works=works,
        bounds=bounds(*works).widened(systematic),
        pareto_k=(pareto_k(works.forward), pareto_k(works.reverse)),
        evaluations=ledger.evaluations(name),
        seconds=ledger.seconds(name),
        pilot=pilot,
        note=_note(name, pilots, chosen),
        trips=trips,
    )


def _note(name: str, pilots: Mapping[str, Pilot], chosen: str) -> str:
    if name == chosen:
        return "chosen"
    seen = "pilot" if pilots[name].share == 1 else f"pilot of {sum(map(len, pilots[name].works))} samples"
    if pilots[name].estimate.std_error is None:
        return f"does not pay: no overlap in the {seen}"
    if pilots[chosen].estimate.std_error is None:
        return f"{chosen} was asked for, though it has no overlap in the pilot"
    if pilots[chosen].merit == 0:
        return f"does not pay: {chosen} has no variance at all in the pilot"
    ratio = pilots[name].merit / pilots[chosen].merit
    if ratio < 1:
        return f"variance × cost {ratio:.2g} × that of {chosen} in the pilot, not below the margin of {MARGIN:g}"
    return f"does not pay: variance × cost {ratio:.2g} × that of {chosen} in the {seen}"


def _result(
    method: Method, rungs: Sequence[RungResult], chosen: str, stage: Stage, endstate_flags: Sequence[Flag]
) -> Difference:
    ledger, seed = stage.ledger, stage.seed
    by_name = {r.name: r for r in rungs}
    (forward, reverse), trips = by_name[chosen].works, by_name[chosen].trips
    off = by_name[chosen].pilot.transport.systematic
    averages = (
        jarzynski(forward, opposite=reverse, seed=seed),
        jarzynski(reverse, reverse=True, opposite=forward, seed=seed),
    )
    ahead, behind = (flow_checked(average.widened(off), off, trips) for average in averages)
    estimators = {
        "jarzynski_forward": ahead,
        "jarzynski_reverse": behind,
        "bar": by_name[chosen].estimate,
        "plain_bar": by_name["plain"].estimate,
    }
    apart = disjoint_supports(*by_name["plain"].works) if by_name[chosen].estimate.delta_f is None else ()
    own = (*by_name[chosen].estimate.flags, *apart)
    unlike = () if trips is None else shared_ends(*trips, stage.ends.circular)
    contrary = disagreement(forward, reverse, seed=seed, exact=off == 0, systematic=off)
    flags = (*own, *contrary, *unlike, *endstate_flags)
    state = {k: v for p in stage.below.values() for k, v in p.transport.state.items()}
    return Difference(
        method=method,
        delta_f=by_name[chosen].estimate,
        rungs=tuple(rungs),
        chosen=chosen,
        estimators=estimators,
        verdict=judge(by_name[chosen].estimate, by_name["plain"].estimate, chosen, flags),
        flags=flags,
        evaluations=ledger.evaluations(),
        seconds={stage: ledger.seconds(stage=stage) for stage in ("training", "sampling")},
        metrics=stage.metrics,
        state=state,
        pilot_share=_pilot_share(ledger, [name for name in RUNGS if name not in ("plain", "map", chosen)], stage),
    )


def _pilot_share(ledger: Ledger, lost: Sequence[str], stage: Stage) -> float:
    prices = stage.effort.prices
    shared, total = ledger.endstates(prices), ledger.cost(None, prices)
    return sum(ledger.cost(name, prices) - shared for name in lost) / total if total else 0.0


def _checked_samples(target: Target, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, bool]:
    event = tuple(target.event_shape)
    for name, x in (("A", a), ("B", b)):
        batch = x.ndim - len(event)
        if batch not in (1, 2) or tuple(x.shape[batch:]) != event:
            raise InputError(
                f"samples of {name} must be (n, *event) or (chains, draws, *event) with event shape {event}: "
                f"got {tuple(x.shape)}"
            )
        bad = ~torch.isfinite(x)
        if bool(bad.any()):
            raise InputError(f"samples must be finite: samples of {name} are not at index {bad.nonzero()[0].tolist()}")
    correlated = a.ndim - len(event) == 2
    if (b.ndim - len(event) == 2) != correlated:
        raise InputError(
            "samples of A and B must both be (n, *event), or both (chains, draws, *event): got one of each"
        )
    return (a, b, True) if correlated else (a[None], b[None], False)
