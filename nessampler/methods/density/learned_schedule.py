"""Schedules found on pilot walkers: they measure what a change of each term costs, and the shortest way is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import HMC
from nessampler.methods.density.tuning import Hamiltonian, pilot
from nessampler.paths import PathPoint
from nessampler.paths.learned import Metric, MonotonePath, MonotoneRamps, length, reweighted_metric, shortest_ramps
from nessampler.weights import LogWeights, systematic

__all__ = ["LearnedSchedule", "learn_schedule"]

FINE = 65  # knots at which lengths are compared


@dataclass(frozen=True)
class LearnedSchedule:
    """A path with learned ramps, and what the pilots found.

    Attributes:
        path: ready to anneal along.
        length: of the learned ramps under the measured metric.
        guesses: lengths of the ramps that the pilots started with, under the same metric.
        evaluations: gradients spent.
    """

    path: MonotonePath
    length: float
    guesses: tuple[float, ...]
    evaluations: int


def learn_schedule(
    path: MonotonePath,
    *,
    guesses: Sequence[Float[Tensor, "k knots"]] = (),
    mover: Hamiltonian | None = None,
    pilots: int = 512,
    steps: int = 16,
    knots: int = 13,
    rounds: int = 3,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator,
) -> LearnedSchedule:
    r"""Measure on pilot walkers the covariance of $\partial U/\partial f_i$, and take the shortest ramps under it.

    Pilot walkers go along every guess, and in each further round along the shortest ramps found so far; all of them
    serve, reweighted, wherever the metric is asked for. The measure is that of annealing, $\dot f^T C \dot f$ being
    the variance of $\partial_t U$; a drift that explains most of it wants another, not known before it is solved.

    Args:
        path: the terms; its own ramps are a guess too.
        guesses: more of them, of any number of knots.
        mover: Hamiltonian moves.
        pilots, steps: walkers and times of every pilot.
        knots: of the ramps.
        rounds: of pilots along what was found.
        dtype: of walkers.
        generator: source of randomness.

    Raises:
        InputError: a path with a single term that changes, whose times pilots place better.

    Example:
        >>> from nessampler.paths import coupling_path
        >>> from nessampler.targets.phi4 import Phi4
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = learn_schedule(MonotonePath(coupling_path(Phi4(4, quartic=0.8))), pilots=128, steps=8, rounds=1,
        ...                        generator=generator)
        >>> found.length < found.guesses[0]
        True
    """
    if len(path.changes) < 2:
        raise InputError(
            "one ramp alone is a matter of times, which pilots place: got a path with one term that changes; "
            "use `Pilot.spaced`"
        )
    counted, moves = _Gradients(path), mover or Hamiltonian()
    tried = [path.ramps.values, *guesses]
    seen = [_measured(counted.along(ramps), moves, pilots, steps, dtype, generator) for ramps in tried]
    metric = reweighted_metric(path, *_together(seen))
    ramps = _best(metric, tried, knots)
    for _ in range(rounds):
        seen.append(_measured(counted.along(ramps), moves, pilots, steps, dtype, generator))
        metric = reweighted_metric(path, *_together(seen))
        ramps = _best(metric, [*tried, ramps], knots)
    lengths = tuple(length(metric, _resampled(guess, FINE)) for guess in tried)
    return LearnedSchedule(path.with_ramps(ramps), length(metric, _resampled(ramps, FINE)), lengths, counted.count)


def _together(seen: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    terms, places = zip(*seen, strict=True)
    return torch.cat(terms), torch.cat(places)


def _best(metric: Metric, starts: Sequence[Tensor], knots: int) -> Tensor:
    found = [shortest_ramps(metric, _resampled(start, knots)) for start in starts]
    return min(found, key=lambda pair: pair[1])[0]


def _resampled(ramps: Tensor, knots: int) -> Tensor:
    values = MonotoneRamps(ramps)(torch.linspace(0, 1, knots, dtype=torch.float64)).T.clamp(0, 1)
    values[:, 0], values[:, -1] = 0.0, 1.0
    return values.cummax(1).values


def _measured(
    path: MonotonePath,
    mover: Hamiltonian,
    pilots: int,
    steps: int,
    dtype: torch.dtype,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Terms of walkers of equal weight, place by place, and the progress at these places of one pilot."""
    x = path.start.sample(pilots, generator=generator).to(dtype)  # pyright: ignore[reportAttributeAccessIssue]
    tuning = pilot(path, x[: pilots // 2], mover, generator=generator, conditional_ess=0.6, sweeps=2)
    times = tuning.spaced(steps)
    kernel = HMC(path, tuning.step_sizes, mover.leapfrog_steps, mover.mass, mover.repeats)
    walkers, log_weight, found = kernel.start(0.0, x), torch.zeros(pilots, dtype=torch.float64), []
    for t0, t1 in pairwise([*times, None]):
        assert isinstance(walkers.cached, PathPoint)
        assert t0 is not None
        terms = torch.stack([part[0].to(torch.float64) for part in walkers.cached.parts], 1)
        found.append(terms[systematic(LogWeights(log_weight).normalized, generator=generator)])
        if t1 is None:
            break
        moved, log_ratio = kernel.step(t0, t1, walkers, generator=generator)
        assert walkers.energy is not None
        assert moved.energy is not None
        log_weight = log_weight + walkers.energy.double() + log_ratio - moved.energy.double()
        walkers = moved
        if LogWeights(log_weight).ess < 0.7:
            walkers = walkers[systematic(LogWeights(log_weight).normalized, generator=generator)]
            log_weight = torch.zeros_like(log_weight)
    return torch.cat(found), path.ramps(torch.tensor(times, dtype=torch.float64))


class _Gradients:
    """Paths on other ramps that count together."""

    def __init__(self, path: MonotonePath) -> None:
        self.path, self.count = path, 0

    def along(self, ramps: Tensor) -> MonotonePath:
        made, counter = self.path.with_ramps(ramps), self

        class Counted(MonotonePath):
            def evaluate(self, t: Tensor, x: Tensor, known: PathPoint | None = None) -> PathPoint:
                counter.count += 0 if known is not None else len(x)
                return super().evaluate(t, x, known)

            def energy_and_score(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
                counter.count += len(x)
                return super().energy_and_score(t, x)

        return Counted(made, made.ramps.values)
