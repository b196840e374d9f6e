"""The only sampling loop: walkers, kernel and path in; a weighted ensemble out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels.protocol import Kernel, Walkers, lost_by_either
from nessampler.paths import EndpointPath, Path
from nessampler.weights import LogWeights, effective_sample_size, log_mean_exp, systematic

__all__ = ["Ensemble", "History", "simulate"]

FEWEST_ISLANDS = 8
"""Below this the spread over islands is no error bar."""


@dataclass(frozen=True)
class History:
    r"""A run step by step, as sums over walkers, so that it merges over chunks and costs no memory per walker.

    Attributes:
        times: the end of each step.
        walkers: how many.
        log_sums: `(steps, 4)`: logarithms of $\sum_i v_i$, $\sum_i w_i$, $\sum_i w_i^2$ and $\sum_i w_i^2/v_i$, where
            $w = e^{U_{t_0}(x_0) - U_t(x) + \sum\log(B/F)}$ after the step and $v$ before it; None where the kernel
            does not know the energies inside, which cost evaluations that a history is not worth.
        accepted: `(steps,)` sum over walkers of acceptance probabilities; NaN where nothing was proposed.
        work: `(steps,)` sum over walkers of $-\log w$ in kT; None where `log_sums` is, and after selection.

    Example:
        >>> from nessampler.kernels import HMC
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = path.start.sample(100, generator=generator)
        >>> history = simulate(HMC(path, step_size=0.5), path, [0.0, 0.5, 1.0], x, generator=generator).history
        >>> history.times, history.ess.shape, bool((history.acceptance > 0.9).all())
        ((0.5, 1.0), torch.Size([2]), True)
    """

    times: tuple[float, ...]
    walkers: int
    log_sums: Float[Tensor, "steps 4"] | None
    accepted: Float[Tensor, " steps"]
    work: Float[Tensor, " steps"] | None = None

    @property
    def mean_work(self) -> Float[Tensor, " steps"] | None:
        """Mean work so far, in kT; +inf where a walker is outside the support."""
        return None if self.work is None else self.work / self.walkers

    @property
    def ess(self) -> Float[Tensor, " steps"] | None:
        """Effective sample size of the weights so far, as a fraction."""
        return None if self.log_sums is None else _fraction(2 * self.log_sums[:, 1] - self.log_sums[:, 2], self.walkers)

    @property
    def log_z_ratio(self) -> Float[Tensor, " steps"] | None:
        """Estimates of log(Z_t / Z_first)."""
        return None if self.log_sums is None else self.log_sums[:, 1] - math.log(self.walkers)

    @property
    def increment_ess(self) -> Float[Tensor, " steps"] | None:
        r"""Effective sample size of each step's increment under the weights before it, the conditional ESS.

        $$\Big(\sum_i v_i g_i\Big)^2 \Big/ \Big(\sum_i v_i \sum_i v_i g_i^2\Big), \qquad g = w / v$$

        References: Zhou, Johansen & Aston, Toward automatic model comparison: an adaptive sequential Monte Carlo
        approach, 2016, arXiv:1303.3123.
        """
        sums = self.log_sums
        return None if sums is None else _fraction(2 * sums[:, 1] - sums[:, 0] - sums[:, 3], 1)

    @property
    def acceptance(self) -> Float[Tensor, " steps"]:
        """Mean acceptance probability; NaN where nothing was proposed."""
        return self.accepted / self.walkers

    def merge(self, other: History) -> History:
        """The history of the walkers of both."""
        known = self.log_sums is not None and other.log_sums is not None
        sums = torch.logaddexp(self.log_sums, other.log_sums) if known else None  # pyright: ignore[reportArgumentType]
        work = None if self.work is None or other.work is None else self.work + other.work
        return History(self.times, self.walkers + other.walkers, sums, self.accepted + other.accepted, work)


@dataclass(frozen=True)
class Ensemble:
    """Weighted walkers at the last time of a run.

    Attributes:
        x: positions `(n, *event)`.
        log_weight: `(n,)` float64; exp(log_weight) averages to Z at the last time over Z at the first.
        times: the times the walkers went through.
        history: the run step by step.
        resampled: whether the run selected walkers on its way; their weights are then independent between islands only.
        islands: walkers in each island, in order; empty where walkers are independent.
        lost: walkers for which a step found no way, so that their weight is zero; None where the kernel loses nobody.

    Example:
        >>> x, log_weight = torch.tensor([[0.0], [4.0]]), torch.tensor([3.0, 1.0]).double().log()
        >>> ensemble = Ensemble(x, log_weight, times=(0.0, 1.0))
        >>> ensemble.expect(lambda x: x[:, 0])[0].item(), round(ensemble.ess, 6)  # (3·0 + 1·4) / 4 and 4² / (2·10)
        (1.0, 0.8)
        >>> ensemble.log_z_ratio  # log 2
        0.693...
    """

    x: Float[Tensor, " n *event"]
    log_weight: Float[Tensor, " n"]
    times: tuple[float, ...]
    history: History | None = None
    resampled: bool = False
    islands: tuple[int, ...] = ()
    lost: Bool[Tensor, " n"] | None = None

    @property
    def work(self) -> Float[Tensor, " n"]:
        """-log_weight, in kT; +inf where a walker left the support.

        Raises:
            InputError: a resampled ensemble, whose works are not independent.
        """
        if self.resampled:
            raise InputError(
                "works must be independent: those of a resampled ensemble are not; "
                "use its log_z_ratio and log_z_error, or run without resampling"
            )
        return -self.log_weight

    @property
    def log_z_ratio(self) -> float:
        """Estimate of log(Z_last / Z_first): the log of the mean weight, which is the mean over islands too."""
        return float(LogWeights(self.log_weight).log_mean)

    @property
    def log_z_error(self) -> float:
        r"""Standard error of `log_z_ratio`, to first order in the relative error of the mean weight.

        $$\mathrm{se}^2 = \frac{1/\mathrm{ess} - 1}{n} \quad\text{(independent weights)}, \qquad
          \mathrm{se}^2 = \frac{J}{J - 1} \sum_{j=1}^J \Big(\frac{n_j}{n}\Big)^2 \Big(\frac{\hat Z_j}{\hat Z} - 1\Big)^2
          \quad\text{(J islands)}$$

        Infinite where all weights vanish.
        """
        if not self.resampled:
            return math.sqrt((1 / self.ess - 1) / len(self.x)) if self.ess > 0 else math.inf
        if self.log_z_ratio == -math.inf:
            return math.inf
        excess = self._per_island(torch.exp(self.log_weight - self.log_z_ratio) - 1) / len(self.x)
        return float(_spread(excess))

    @property
    def ess(self) -> float:
        """Effective sample size as a fraction of the number of walkers; after resampling, of the last weights only.

        Resampling hides what it mended: then look at `history` and at the spread over islands instead.
        """
        return LogWeights(self.log_weight).ess

    def expect(
        self, function: Callable[[Tensor], Tensor], *, then: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Self-normalised average of `function(x)` under the last target, and its standard error.

        $$\hat f = \sum_i \bar w_i f(x_i), \qquad \mathrm{se}^2 = \sum_i \bar w_i^2 (f(x_i) - \hat f)^2$$

        After resampling the terms are summed within islands before they are squared, times J/(J - 1) for J islands.
        What is a function $g(\hat f)$ of several averages, such as a variance or a Binder cumulant, is given as `then`;
        its error is that of the average of $g'(\hat f) \cdot f(x)$, the delta method, correlations included.

        Args:
            function: walkers `(n, *event)` to numbers `(n, *shape)`.
            then: averages `*shape` to what is wanted of them, differentiable in torch.

        References: Owen, Monte Carlo theory, methods and examples, 2013, eqs. 9.6 and 9.9, and section 2.7.
        """
        values = function(self.x).to(torch.float64)
        weight = LogWeights(self.log_weight).normalized.view(-1, *[1] * (values.ndim - 1))
        mean = (weight * values).sum(0)
        terms = weight * (values - mean)
        if then is not None:
            slope = torch.autograd.functional.jacobian(then, mean)
            assert isinstance(slope, Tensor)
            followed = then(mean)
            terms = terms.reshape(len(terms), -1) @ slope.reshape(followed.numel(), mean.numel()).T
            mean, terms = followed, terms.view(-1, *followed.shape)
        return mean, _spread(self._per_island(terms)) if self.resampled else terms.square().sum(0).sqrt()

    def merge(self, other: Ensemble) -> Ensemble:
        """The walkers of both, which must have gone through the same times, both with resampling or both without."""
        if self.times != other.times:
            raise InputError("ensembles merge only when they went through the same times: these differ")
        if self.resampled != other.resampled:
            raise InputError(
                "ensembles merge only when both were resampled or neither: one was; run both with the same `resample`"
            )
        known = self.history is not None and other.history is not None
        return Ensemble(
            torch.cat([self.x, other.x]),
            torch.cat([self.log_weight, other.log_weight]),
            self.times,
            self.history.merge(other.history) if known else None,  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
            self.resampled,
            self.islands + other.islands,
            _joined_losses([self, other]),
        )

    def _per_island(self, terms: Tensor) -> Tensor:
        return torch.stack([part.sum(0) for part in terms.split(list(self.islands))])


def _joined_losses(pieces: Sequence[Ensemble]) -> Tensor | None:
    known = [piece.lost for piece in pieces if piece.lost is not None]
    return torch.cat(known) if len(known) == len(pieces) else None


def _fraction(log_size: Tensor, walkers: int) -> Tensor:
    # All weights zero: no walker is worth anything, as in `effective_sample_size`.
    return (log_size.exp() / walkers).nan_to_num(nan=0.0).clamp(max=1.0)


def _spread(totals: Tensor) -> Tensor:
    return (totals.square().sum(0) * len(totals) / (len(totals) - 1)).sqrt()


def simulate(
    kernel: Kernel,
    path: Path,
    times: Sequence[float] | Tensor,
    x: Float[Tensor, " n *event"],
    *,
    generator: torch.Generator,
    chunk_size: int | None = None,
    resample: float | None = None,
    islands: int = FEWEST_ISLANDS,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[float], None] | None = None,
) -> Ensemble:
    r"""Carry walkers from the first of `times` to the last, with exact weights.

    $$\log w = U_{t_0}(x_0) - U_{t_K}(x_K) + \sum_k \log\frac{B_k(x_k|x_{k+1})}{F_k(x_{k+1}|x_k)},
      \qquad E[w] = Z_{t_K} / Z_{t_0}$$

    for walkers that start in equilibrium at $t_0$. Decreasing times run the reversed process.

    With `resample`, walkers live on islands of equal size. Where an island's effective sample size at an interior time
    falls below that fraction, its walkers are selected in proportion to their weights (systematic resampling) and all
    get the island's mean weight, which keeps $E[w]$. Islands never meet, so their spread gives `log_z_error`.

    Args:
        kernel: moves walkers over an interval and reports the log ratio.
        path: energies at both ends of `times`; its interior is asked for only by resampling, and only where the
            kernel does not know the energy.
        times: strictly monotone, within [0, 1].
        x: one row per walker, distributed as the density at `times[0]`.
        generator: source of randomness; chunks draw theirs from it, so a result depends on `chunk_size`, not on
            how many chunks are in flight.
        chunk_size: walkers carried at once; bounds the memory.
        resample: fraction of effective walkers below which an island is resampled; None never does.
        islands: how many there are at least; more where an island would exceed `chunk_size`.
        progress: called with walker steps done and in all.
        watch: called with the effective fraction of the walkers in hand after every step at which weights are known.

    Raises:
        InputError: times that are not strictly monotone; no walkers; a walker outside the support of its own state;
            a NaN or -inf work, naming the step, the walker and the term; resampling without interior energies, with a
            threshold outside (0, 1], with fewer than eight islands or than two walkers on each.

    References:
        Nilmeier et al., Nonequilibrium candidate Monte Carlo, 2011, PNAS 108, E1009; Vaikuntanathan & Jarzynski,
        Escorted free energy simulations, 2008, Phys. Rev. Lett. 100, 190601; Del Moral, Doucet & Jasra, Sequential
        Monte Carlo samplers, 2006, J. R. Stat. Soc. B 68, 411 (resampling).

    Example:
        >>> from nessampler.kernels import Identity
        >>> from nessampler.paths import EndpointPath
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> generator = torch.Generator().manual_seed(0)
        >>> ensemble = simulate(
        ...     Identity(), EndpointPath(a, b), [0.0, 1.0], a.sample(4000, generator=generator), generator=generator
        ... )
        >>> abs(ensemble.log_z_ratio) < 0.1
        True
    """
    grid, size = _checked_times(times), _checked_size(chunk_size, len(x))
    cuts = list(x.split(size)) if resample is None else _islands(path, resample, islands, size, x)
    seeds = torch.randint(2**62, (len(cuts),), generator=generator, device=generator.device)
    pieces, done, total = [], 0, len(x) * (len(grid) - 1)
    for seed, rows in zip(seeds.tolist(), cuts, strict=True):
        own = torch.Generator(device=x.device).manual_seed(seed)
        first = sum(len(p.x) for p in pieces)

        def report(step: int, log_sums: Tensor | None, walkers: int = len(rows), before: int = done) -> None:
            if progress:
                progress(before + step * walkers, total)
            if watch and log_sums is not None:
                watch(float(_fraction(2 * log_sums[1] - log_sums[2], walkers)))

        pieces.append(_carry(kernel, path, grid, rows, own, first, resample, report))
        done += len(rows) * (len(grid) - 1)
    history = pieces[0].history
    for piece in pieces[1:]:
        history = history.merge(piece.history)
    return Ensemble(
        torch.cat([p.x for p in pieces]),
        torch.cat([p.log_weight for p in pieces]),
        grid,
        history,
        resample is not None,
        () if resample is None else tuple(len(p.x) for p in pieces),
        _joined_losses(pieces),
    )


@torch.no_grad()  # a network's graph would otherwise grow with every step
def _carry(
    kernel: Kernel,
    path: Path,
    times: tuple[float, ...],
    x: Tensor,
    generator: torch.Generator,
    first: int,
    resample: float | None,
    report: Callable[[int, Tensor | None], None],
) -> Ensemble:
    walkers = kernel.start(times[0], x)
    total = _energy(path, walkers)  # U at the first time and all log ratios since: log w once the energy is subtracted
    _refuse(
        ~torch.isfinite(total),
        total,
        first,
        "the energy of its own state at the start",
        "a walker must start inside the support",
    )
    log_weight, sums, accepted, work = torch.zeros_like(total), [], [], []
    for step, (t0, t1) in enumerate(pairwise(times)):
        moved, log_ratio = kernel.step(t0, t1, walkers, generator=generator)
        walkers = replace(moved, lost=lost_by_either(walkers, moved))
        _per_walker(log_ratio, walkers, "log ratio")
        _refuse(log_ratio.isnan() | (log_ratio == torch.inf), log_ratio, first, f"the log ratio of step {step + 1}")
        accepted.append(math.nan if walkers.acceptance is None else float(walkers.acceptance.double().sum()))
        total, last = total + log_ratio, step + 2 == len(times)
        recorded = len(sums)
        if last or resample is not None or walkers.energy is not None:
            energy, before = _energy(path, walkers), log_weight
            if last or resample is not None:
                where = "the other state at the end" if last else f"step {step + 1}"
                _refuse(energy.isnan() | (energy == -torch.inf), energy, first, f"the energy of {where}")
            log_weight = total - energy
            sums.append(_log_sums(before, log_weight))
            work.append(-log_weight.sum())
            if resample is not None and not last:
                walkers, total, log_weight = _select(walkers, total, energy, resample, generator)
        report(step + 1, sums[-1] if len(sums) > recorded else None)
    known = torch.stack(sums).cpu() if len(sums) == len(times) - 1 else None
    spent = torch.stack(work).cpu() if known is not None and resample is None else None
    history = History(times[1:], len(x), known, torch.tensor(accepted, dtype=torch.float64), spent)
    return Ensemble(walkers.x, log_weight, times, history, lost=walkers.lost)


def _log_sums(before: Tensor, after: Tensor) -> Tensor:
    squares_over = torch.where(after == -torch.inf, -torch.inf, 2 * after - before)
    return torch.stack([v.logsumexp(0) for v in (before, after, 2 * after, squares_over)])


def _select(
    walkers: Walkers, total: Tensor, energy: Tensor, threshold: float, generator: torch.Generator
) -> tuple[Walkers, Tensor, Tensor]:
    """Resample where it is due; walkers, their totals and their log-weights."""
    inside = torch.isfinite(energy)
    # A walker outside an interior support may come back inside where kernels have densities. Selected as if it had a
    # typical energy it keeps its chance; the mean weight is right for selection by any positive weight.
    shown = torch.where(inside, energy, energy[inside].median()) if bool(inside.any()) else energy
    log_weight = total - shown
    if not 0 < effective_sample_size(log_weight) < threshold:
        return walkers, total, total - energy
    index = systematic(LogWeights(log_weight).normalized, generator=generator)
    total = log_mean_exp(log_weight) + shown[index]
    return walkers[index], total, total - energy[index]


def _islands(path: Path, threshold: float, islands: int, size: int, x: Tensor) -> list[Tensor]:
    if isinstance(path, EndpointPath):
        raise InputError(
            "resampling needs the energy at interior times, which an EndpointPath has not: "
            "pass the path that the kernel moves along, or resample=None"
        )
    if not 0 < threshold <= 1:
        raise InputError(f"`resample` is a fraction of effective walkers in (0, 1]: got {threshold}; 0.5 is customary")
    count = max(islands, math.ceil(len(x) / size))
    if islands < FEWEST_ISLANDS or len(x) < 2 * count:
        raise InputError(
            f"resampling needs at least {FEWEST_ISLANDS} islands, for an error bar, of at least two walkers: "
            f"got {min(islands, count)} islands for {len(x)} walkers; ask for more islands, walkers or larger chunks"
        )
    return list(x.tensor_split(count))


def _energy(path: Path, walkers: Walkers) -> Tensor:
    if walkers.energy is not None:
        return _per_walker(walkers.energy, walkers, "energy").to(torch.float64)
    t = torch.full((len(walkers),), walkers.time, dtype=walkers.x.dtype, device=walkers.x.device)
    return _per_walker(path.energy(t, walkers.x), walkers, "energy").to(torch.float64)


def _per_walker(value: Tensor, walkers: Walkers, name: str) -> Tensor:
    if value.shape != (len(walkers),):
        raise InputError(
            f"there must be one {name} per walker, shape ({len(walkers)},): got {tuple(value.shape)}; "
            "sum over the event's dimensions (a torch transform does so with event_dim=1)"
        )
    return value


def _refuse(bad: Tensor, value: Tensor, first: int, term: str, rule: str = "works must be finite or +inf") -> None:
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise InputError(
            f"{rule}: walker {first + i} has {float(value[i])} for {term}; "
            "check the samples (do they belong to this state?) and, for a learned or fine-stepped kernel, its fields"
        )


def _checked_size(chunk_size: int | None, walkers: int) -> int:
    if walkers == 0 or (chunk_size is not None and chunk_size < 1):
        raise InputError(f"a run needs at least one walker, in chunks of at least one: got {walkers} and {chunk_size}")
    return chunk_size or walkers


def _checked_times(times: Sequence[float] | Tensor) -> tuple[float, ...]:
    grid = tuple(float(t) for t in times)
    if len(grid) < 2:
        raise InputError(f"`times` must hold a start and an end: got {len(grid)} of them; give [0.0, 1.0] at least")
    sign = 1.0 if grid[-1] > grid[0] else -1.0
    for k, (t0, t1) in enumerate(pairwise(grid)):
        if not (t1 - t0) * sign > 0 or not 0.0 <= min(t0, t1) <= max(t0, t1) <= 1.0:
            raise InputError(
                f"`times` must be strictly monotone within [0, 1]: got times[{k + 1}] = {t1} after times[{k}] = {t0}; "
                "remove the repeated or misplaced time"
            )
    return grid
