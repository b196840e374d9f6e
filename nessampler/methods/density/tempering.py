"""Parallel tempering, the baseline of chains that meet: replicas along the path swap places."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import t as student_t
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag, FreeEnergy, r_hat, statistical_inefficiency
from nessampler.estimators.multistate import mbar
from nessampler.kernels.hmc import trajectory
from nessampler.kernels.nested import chosen, joined, mapped
from nessampler.methods.density.ais import pilot_walkers
from nessampler.methods.density.budget import COARSE
from nessampler.methods.density.chains import effective_part, slow_observables
from nessampler.methods.density.counted import CountedPath
from nessampler.methods.density.tuning import Hamiltonian, StepSizes, pilot
from nessampler.paths import AnnealingPath, PathPoint
from nessampler.simulate import FEWEST_ISLANDS, Ensemble
from nessampler.targets import Tally

__all__ = ["Tempered", "tempering"]

APART = 0.95  # standard deviation of the work from one replica to the next; then one swap in two is accepted
BURN_IN = 0.25  # as many sweeps, in parts of the draws, are forgotten
MOST_ENERGIES = 2_000_000  # of draws in all states, that pymbar is given
FEWEST_DRAWS = 8  # of a copy
FEWEST_ROUND_TRIPS = 10
WORST_RHAT = 1.1  # of few chains of correlated draws, which 1.01 would accuse by chance


@dataclass(frozen=True)
class Tempered:
    r"""Draws of a target and its log Z, from independent copies of a ladder of replicas.

    Attributes:
        ensemble: draws of the last replica, copy by copy, all of one weight; `expect` has errors from their spread over
            copies. Its own ESS knows nothing of how correlated they are: see `ess`.
        base_log_z: of the density at t = 0.
        multistate: MBAR from the draws of all copies; its error is that of independent draws, which these are not.
        copies: log Z from the draws of each copy alone.
        times: of the replicas.
        step_size, acceptance: of moves, at each time after the first.
        swaps: acceptance between neighbours.
        round_trips: from the base to the target and back, in each copy.
        inefficiency: how many draws count as one for the slope $\partial_t U$, at each time after the first.
        ess, ess_error: effective fraction of the draws of the target, by the slowest of their energy, mean coordinate
            and its square; its error by leaving out a copy at a time.
        rhat: over copies, of the same.
        evaluations: of the path, at `pilot` and `sampling`; a gradient comes with its energy.
    """

    ensemble: Ensemble
    base_log_z: float
    multistate: FreeEnergy
    copies: tuple[float, ...]
    times: tuple[float, ...]
    step_size: tuple[float, ...]
    acceptance: tuple[float, ...]
    swaps: tuple[float, ...]
    round_trips: tuple[int, ...]
    inefficiency: tuple[float, ...]
    ess: float
    ess_error: float
    rhat: float
    evaluations: Mapping[str, Tally]

    @property
    def x(self) -> Float[Tensor, " n *event"]:
        """Draws of the target, copy by copy."""
        return self.ensemble.x

    @property
    def log_z(self) -> float:
        """From the draws of all copies together; NaN where nothing connects base and target."""
        return self.base_log_z + (math.nan if self.multistate.delta_f is None else -self.multistate.delta_f)

    @property
    def std_error(self) -> float:
        r"""Of `log_z`: $s / \sqrt C$ for a standard deviation s of the C copies, whatever correlates their draws."""
        return float(np.std(self.copies, ddof=1)) / math.sqrt(len(self.copies))

    @property
    def ci95(self) -> tuple[float, float]:
        """By Student's law, whose degrees of freedom are one fewer than there are copies."""
        reach = float(student_t.ppf(0.975, len(self.copies) - 1)) * self.std_error
        return self.log_z - reach, self.log_z + reach

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Copies that disagree, replicas that hardly meet, states that hardly overlap."""
        found = [flag for flag in self.multistate.flags if flag.code in ("poor_overlap", "no_overlap")]
        trips = sum(self.round_trips) / len(self.round_trips)
        if trips < FEWEST_ROUND_TRIPS:
            message = (
                f"a copy's replicas went {trips:.1f} times from the base to the target and back (at least "
                f"{FEWEST_ROUND_TRIPS} wanted): its draws of the target go back to about as many draws of the base, "
                "and modes may be missing or weigh wrongly; take more draws"
            )
            found.append(Flag("few_round_trips", message))
        if self.rhat > WORST_RHAT:
            message = (
                f"R-hat over copies is {self.rhat:.3f} (above {WORST_RHAT}): each has seen another part of the target; "
                "take more draws"
            )
            found.append(Flag("copies_disagree", message))
        return tuple(found)


def tempering(
    path: AnnealingPath,
    *,
    generator: torch.Generator,
    draws: int = 500,
    copies: int = FEWEST_ISLANDS,
    mover: Hamiltonian | None = None,
    steps: int | None = None,
    pilots: int = 500,
    conditional_ess: float = 0.8,
    budget: int | None = None,
    dtype: torch.dtype = torch.float64,
    progress: Callable[[int, int], None] | None = None,
) -> Tempered:
    r"""Replicas at times of a path, each moved by HMC at its own time; neighbours swap places.

    $$P(\text{swap}) = \min\big(1, e^{U_s(x) + U_t(y) - U_s(y) - U_t(x)}\big), \qquad
      \log \frac{Z}{Z_0} = -\Delta F \text{ of MBAR over all replicas}$$

    A sweep draws the replica at t = 0 anew, which is exact and brings in what no move would find; moves all others by
    one trajectory; keeps them; and offers swaps to even and to odd pairs in turn, which carries walkers from end to end
    faster than pairs at random. Times and step sizes are taken from pilot walkers and frozen.

    Draws are correlated in time and, by swaps, between states, and MBAR's own error knows of neither. Copies know
    nothing of one another: the spread of their estimates is the error, whatever the correlations.

    | argument | |
    |---|---|
    | `draws` | of each replica of a copy, after a quarter as many sweeps that are forgotten |
    | `copies` | independent, at least eight |
    | `mover` | trajectories; `Hamiltonian()` by default |
    | `steps` | one fewer than there are replicas; None for so many that about half of all swaps are accepted |
    | `pilots`, `conditional_ess` | walkers of the pilot, and of its steps |
    | `budget` | evaluations in all, the pilot's included: as many draws as it holds, instead of `draws` |
    | `generator` | the source of randomness; walkers live on its device |
    | `progress` | told sweeps done, and all |

    Raises:
        InputError: fewer than eight copies or four draws; a start that cannot be sampled; replicas that never entered
            the support.

    References:
        Geyer, Markov chain Monte Carlo maximum likelihood, 1991; Syed et al., Non-reversible parallel tempering, 2019,
        arXiv:1905.02939; Shirts & Chodera, Statistically optimal analysis of samples from multiple equilibrium states,
        2008, J. Chem. Phys. 129, 124105.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(2), torch.ones(2)), Gaussian(torch.ones(2), torch.ones(2)))
        >>> result = tempering(path, draws=100, generator=torch.Generator().manual_seed(0))
        >>> abs(result.log_z - path.end.log_z) < 4 * result.std_error < 0.2
        True
    """
    if copies < FEWEST_ISLANDS or draws < FEWEST_DRAWS:
        raise InputError(
            f"an error bar needs at least {FEWEST_ISLANDS} copies of {FEWEST_DRAWS} draws: got {copies} of {draws}"
        )
    counted, family = CountedPath(path), mover or Hamiltonian()
    with torch.no_grad(), counted.stage("pilot"):
        x = pilot_walkers(path, pilots, dtype, generator)
        coarse = conditional_ess if budget is None else min(conditional_ess, COARSE)
        found = pilot(counted, x, family, generator=generator, conditional_ess=coarse)
    times = found.spaced(max(1, math.ceil(found.lengths[-1] / APART)) if steps is None else steps)
    if budget is not None:
        spent = counted.tallies["pilot"].energy + counted.tallies["pilot"].gradient
        sweep = copies * (1 + (len(times) - 1) * family.evaluations)
        draws = max(FEWEST_DRAWS, int((budget - spent) / sweep / (1 + BURN_IN)))
    ladder = _Ladder(counted, family, times, found.step_sizes, copies, dtype, generator)
    record, traffic, forgotten = _Record(draws), _Traffic(len(times), copies), math.ceil(BURN_IN * draws)
    with torch.no_grad(), counted.stage("sampling"):
        ladder.climb()
        for n in range(forgotten + draws):
            acceptance = ladder.move()
            if n >= forgotten:
                record.add(ladder, acceptance)
            swaps, partner = ladder.swap(n % 2)
            if n >= forgotten:
                traffic.add(swaps, partner)
            if progress:
                progress(n + 1, forgotten + draws)
    return _result(ladder, record, traffic, counted.tallies)


class _Ladder:
    """All replicas of all copies, time by time: rows `k * copies` to `(k + 1) * copies` are those of the k-th time."""

    def __init__(
        self,
        path: CountedPath,
        mover: Hamiltonian,
        times: tuple[float, ...],
        step_sizes: StepSizes,
        copies: int,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        self.path, self.times, self.copies = path, times, copies
        self.step_size = tuple(step_sizes(t) for t in times[1:])
        self._mover, self._generator = mover, generator
        self._t, self._h = (
            torch.tensor(values, dtype=dtype, device=generator.device).repeat_interleave(copies)
            for values in (times, (1.0, *self.step_size))
        )

    def climb(self) -> None:
        """Start: walkers of the base go up, moved once at each time, and leave a replica there."""
        states = [self._drawn()]
        for k in range(1, len(self.times)):
            rows = slice(k * self.copies, (k + 1) * self.copies)
            x, point = states[-1]
            states.append(self._moved(rows, x, self.path.evaluate(self._t[rows], x, point))[:2])
        self.x, self.point = joined(*states)

    def move(self) -> Float[Tensor, " replicas"]:
        """The base is drawn anew, the others make a trajectory; mean acceptances of these, time by time."""
        rest = slice(self.copies, None)
        x, point, rate = self._moved(rest, self.x[rest], mapped(lambda v: v[rest], self.point))
        self.x, self.point = joined(self._drawn(), (x, point))
        return rate.to(torch.float64).view(-1, self.copies).mean(1).cpu()

    def swap(self, parity: int) -> tuple[Float[Tensor, " pairs"], Tensor]:
        """Acceptance of all pairs of neighbours, NaN of those not offered; also the row that each row took over."""
        n, c = len(self.times), self.copies
        rows = torch.arange(n * c, device=self.x.device).view(n, c)
        low, partner = torch.arange(parity, n - 1, 2), rows.clone()
        partner[low], partner[low + 1] = rows[low + 1], rows[low]
        partner = partner.flatten()
        there = self.path.evaluate(self._t[partner], self.x, self.point)
        gain = (self.point.energy - there.energy).to(torch.float64)
        gain = (gain + gain[partner]).view(n, c)[low].nan_to_num(nan=-torch.inf)  # of two without density anywhere
        uniform = torch.rand(gain.shape, generator=self._generator, dtype=torch.float64, device=gain.device)
        taken = torch.zeros_like(rows, dtype=torch.bool)
        taken[low] = taken[low + 1] = uniform.log() < gain
        partner = torch.where(taken.flatten(), partner, rows.flatten())
        moved = partner != rows.flatten()
        # What a walker's path is at its partner's time is known already.
        self.point = chosen(moved, mapped(lambda v: v[partner], there), self.point)
        self.x = self.x[partner]
        rates = torch.full((n - 1,), torch.nan, dtype=torch.float64)
        rates[low] = gain.clamp(max=0).exp().mean(1).cpu()
        return rates, partner.cpu()

    def energies(self) -> Float[Tensor, "states n"]:
        """Of every replica at every time."""
        return torch.stack([self._energy(torch.full_like(self._t, t)) for t in self.times])

    def _energy(self, t: Tensor) -> Tensor:
        known = self.point.parts
        energy = self.path.evaluate(t, self.x, self.point).energy if known else self.path.energy(t, self.x)
        return energy.to(torch.float64)

    def _drawn(self) -> tuple[Tensor, PathPoint]:
        t = self._t[: self.copies]
        x = pilot_walkers(self.path, self.copies, t.dtype, self._generator)
        return x, self.path.evaluate(t, x)

    def _moved(self, rows: slice, x: Tensor, point: PathPoint) -> tuple[Tensor, PathPoint, Tensor]:
        t, h, mover, rate = self._t[rows], self._h[rows], self._mover, torch.zeros_like(self._t[rows])
        for _ in range(mover.repeats):
            x, point, accepted = trajectory(
                self.path, t, x, point, h, mover.leapfrog_steps, mover.mass, generator=self._generator
            )
            rate = rate + accepted / mover.repeats
        return x, point, rate


class _Traffic:
    """Who went where."""

    def __init__(self, times: int, copies: int) -> None:
        self._swaps: list[Tensor] = []
        # Since when it was last at an end, a walker is: 0 of unknown origin, 1 from the base, 2 from the target, where
        # it came from the base.
        self._since = torch.zeros(times, copies, dtype=torch.int64)
        self.round_trips = torch.zeros(copies, dtype=torch.int64)

    def add(self, swaps: Tensor, partner: Tensor) -> None:
        self._swaps.append(swaps)
        since = self._since.flatten()[partner].view(self._since.shape)
        since[-1] = torch.where(since[-1] == 1, 2, since[-1])
        self.round_trips += since[0] == 2
        since[0] = 1
        self._since = since

    @property
    def swaps(self) -> tuple[float, ...]:
        """Acceptance between neighbours."""
        return tuple(torch.stack(self._swaps).nanmean(0).tolist())


class _Record:
    """What is kept of replicas: positions of the last, slow observables of it, slopes of all, energies of some."""

    def __init__(self, draws: int) -> None:
        self._draws, self._rates = draws, []
        self._x: list[Tensor] = []
        self._slow: list[Tensor] = []
        self._slopes: list[Tensor] = []
        self._energies: list[Tensor] = []

    def add(self, ladder: _Ladder, acceptance: Tensor) -> None:
        c = ladder.copies
        if not bool(torch.isfinite(ladder.point.energy).all()):
            raise InputError(
                "replicas must be inside the support of their own densities: one started outside, and no move led in; "
                "choose a base that covers the target more closely"
            )
        x = ladder.x[-c:]
        stride = math.ceil(self._draws * c * len(ladder.times) ** 2 / MOST_ENERGIES)
        if len(self._x) % stride == 0:
            self._energies.append(ladder.energies())
        self._x.append(x)
        self._slow.append(slow_observables(ladder.point.energy[-c:], x))
        self._slopes.append(ladder.point.time_derivative[c:].to(torch.float64).view(-1, c))
        self._rates.append(acceptance)

    @property
    def x(self) -> Tensor:
        """Draws of the last replica, copy by copy."""
        return torch.stack(self._x, 1).flatten(0, 1)

    @property
    def acceptance(self) -> tuple[float, ...]:
        """Of moves, at each time after the first."""
        return tuple(torch.stack(self._rates).mean(0).tolist())

    @property
    def slow(self) -> Float[np.ndarray, "observables copies draws"]:
        """Of the last replica."""
        return torch.stack(self._slow, -1).cpu().numpy()

    @property
    def slopes(self) -> Float[np.ndarray, "replicas copies draws"]:
        """Of all but the first."""
        return torch.stack(self._slopes, -1).cpu().numpy()

    def energies(self, copies: int) -> Float[np.ndarray, "states replicas copies draws"]:
        """Of every replica at every time."""
        u = torch.stack(self._energies, -1)
        return u.view(len(u), -1, copies, u.shape[-1]).cpu().numpy()


def _result(ladder: _Ladder, record: _Record, traffic: _Traffic, evaluations: Mapping[str, Tally]) -> Tempered:
    u = record.energies(ladder.copies)
    base = float(ladder.path.start.log_z)  # pyright: ignore[reportAttributeAccessIssue]
    together = _multistate(u)
    each = [_multistate(u[:, :, [k]]) for k in range(ladder.copies)]
    x, slow = record.x, record.slow
    log_weight = torch.full((len(x),), -(together.delta_f or 0.0), dtype=torch.float64, device=x.device)
    size = len(x) // ladder.copies
    ensemble = Ensemble(x, log_weight, ladder.times, None, True, (size,) * ladder.copies)
    fewer = [effective_part(np.delete(slow, k, axis=1)) for k in range(ladder.copies)]
    return Tempered(
        ensemble,
        base,
        together,
        tuple(math.nan if found.delta_f is None else base - found.delta_f for found in each),
        ladder.times,
        ladder.step_size,
        record.acceptance,
        traffic.swaps,
        tuple(traffic.round_trips.tolist()),
        tuple(statistical_inefficiency(series) for series in record.slopes),
        effective_part(slow),
        math.sqrt((ladder.copies - 1) * float(np.var(fewer))),
        max(r_hat(series) for series in slow),
        evaluations,
    )


def _multistate(u: Float[np.ndarray, "states replicas copies draws"]) -> FreeEnergy:
    return mbar(u.reshape(len(u), -1), [u.shape[2] * u.shape[3]] * len(u))
