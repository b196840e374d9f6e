"""The only sampling loop: walkers, kernel and path in; a weighted ensemble out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels.protocol import Kernel, Walkers
from nessampler.paths import Path
from nessampler.weights import LogWeights

__all__ = ["Ensemble", "simulate"]


@dataclass(frozen=True)
class Ensemble:
    """Weighted walkers at the last time of a run.

    Attributes:
        x: positions `(n, *event)`.
        log_weight: `(n,)` float64; exp(log_weight) averages to Z at the last time over Z at the first.
        times: the times the walkers went through.
    """

    x: Float[Tensor, " n *event"]
    log_weight: Float[Tensor, " n"]
    times: tuple[float, ...]

    @property
    def work(self) -> Float[Tensor, " n"]:
        """-log_weight, in kT; +inf where a walker left the support."""
        return -self.log_weight

    @property
    def log_z_ratio(self) -> float:
        """Estimate of log(Z_last / Z_first)."""
        return float(LogWeights(self.log_weight).log_mean)

    @property
    def ess(self) -> float:
        """Effective sample size as a fraction of the number of walkers."""
        return LogWeights(self.log_weight).ess

    def expect(self, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        r"""Self-normalised average of `function(x)` under the last target, and its standard error.

        $$\hat f = \sum_i \bar w_i f(x_i), \qquad \mathrm{se}^2 = \sum_i \bar w_i^2 (f(x_i) - \hat f)^2$$

        References: Owen, Monte Carlo theory, methods and examples, 2013, eqs. 9.6 and 9.9.
        """
        values = function(self.x).to(torch.float64)
        weight = LogWeights(self.log_weight).normalized.view(-1, *[1] * (values.ndim - 1))
        mean = (weight * values).sum(0)
        return mean, (weight.square() * (values - mean).square()).sum(0).sqrt()

    def merge(self, other: Ensemble) -> Ensemble:
        """The walkers of both, which must have gone through the same times."""
        if self.times != other.times:
            raise InputError("ensembles merge only when they went through the same times: these differ")
        return Ensemble(torch.cat([self.x, other.x]), torch.cat([self.log_weight, other.log_weight]), self.times)


def simulate(
    kernel: Kernel,
    path: Path,
    times: Sequence[float] | Tensor,
    x: Float[Tensor, " n *event"],
    *,
    generator: torch.Generator,
    chunk_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ensemble:
    r"""Carry walkers from the first of `times` to the last, with exact weights.

    $$\log w = U_{t_0}(x_0) - U_{t_K}(x_K) + \sum_k \log\frac{B_k(x_k|x_{k+1})}{F_k(x_{k+1}|x_k)},
      \qquad E[w] = Z_{t_K} / Z_{t_0}$$

    for walkers that start in equilibrium at $t_0$. Decreasing times run the reversed process.

    Args:
        kernel: moves walkers over an interval and reports the log ratio.
        path: energies at both ends of `times`; its interior is never asked for.
        times: strictly monotone, within [0, 1].
        x: one row per walker, distributed as the density at `times[0]`.
        generator: source of randomness; chunks draw theirs from it, so a result depends on `chunk_size`, not on
            how many chunks are in flight.
        chunk_size: walkers carried at once; bounds the memory.
        progress: called with walker steps done and in all.

    Raises:
        InputError: times that are not strictly monotone; no walkers; a walker outside the support of its own state;
            a NaN or -inf work, naming the step, the walker and the term.

    References:
        Nilmeier et al., Nonequilibrium candidate Monte Carlo, 2011, PNAS 108, E1009; Vaikuntanathan & Jarzynski,
        Escorted free energy simulations, 2008, Phys. Rev. Lett. 100, 190601.

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
    seeds = torch.randint(2**62, (math.ceil(len(x) / size),), generator=generator, device=generator.device)
    pieces, done, total = [], 0, len(x) * (len(grid) - 1)
    for seed, rows in zip(seeds.tolist(), x.split(size), strict=True):
        own = torch.Generator(device=x.device).manual_seed(seed)
        first = sum(len(p.x) for p in pieces)

        def report(step: int, walkers: int = len(rows), before: int = done) -> None:
            if progress:
                progress(before + step * walkers, total)

        pieces.append(_carry(kernel, path, grid, rows, own, first, report))
        done += len(rows) * (len(grid) - 1)
    return Ensemble(torch.cat([p.x for p in pieces]), torch.cat([p.log_weight for p in pieces]), grid)


@torch.no_grad()  # a network's graph would otherwise grow with every step
def _carry(
    kernel: Kernel,
    path: Path,
    times: tuple[float, ...],
    x: Tensor,
    generator: torch.Generator,
    first: int,
    report: Callable[[int], None],
) -> Ensemble:
    walkers = kernel.start(times[0], x)
    log_weight = _energy(path, walkers)
    _refuse(
        ~torch.isfinite(log_weight),
        log_weight,
        first,
        "the energy of its own state at the start",
        "a walker must start inside the support",
    )
    for step, (t0, t1) in enumerate(pairwise(times)):
        walkers, log_ratio = kernel.step(t0, t1, walkers, generator=generator)
        _per_walker(log_ratio, walkers, "log ratio")
        _refuse(log_ratio.isnan() | (log_ratio == torch.inf), log_ratio, first, f"the log ratio of step {step + 1}")
        log_weight = log_weight + log_ratio
        report(step + 1)
    energy = _energy(path, walkers)
    _refuse(energy.isnan() | (energy == -torch.inf), energy, first, "the energy of the other state at the end")
    return Ensemble(walkers.x, log_weight - energy, times)


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
