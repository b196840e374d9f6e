"""The established route: equilibrium samples at states along a path, then integration and MBAR over them."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag, FreeEnergy, r_hat, statistical_inefficiency
from nessampler.estimators.integration import GaussRule, thermodynamic_integration
from nessampler.estimators.multistate import mbar
from nessampler.estimators.neighbours import neighbours
from nessampler.paths import AnnealingPath
from nessampler.targets import Tally

__all__ = ["Staged", "StateSampler", "staged"]

Array = np.ndarray
CHUNK = 4096  # walkers evaluated at once


class StateSampler(Protocol):
    """Equilibrium samples of a path at some times; the chains of a state are time-ordered draws."""

    def __call__(
        self, times: Float[Tensor, " states"], *, generator: torch.Generator
    ) -> Float[Tensor, "states chains draws *event"]: ...


@dataclass(frozen=True)
class Staged:
    """A difference by four estimators.

    Attributes:
        integration: by thermodynamic integration.
        multistate: by MBAR.
        ratio, perturbation: sums over neighbouring states, by BAR and by free-energy perturbation: see `neighbours`.
        times: of the states.
        slopes, slope_errors: averages of the slope of the energy at these, in kT, and their standard errors.
        inefficiency: how many draws count as one, by state.
        discarded: draws dropped from the start of every chain, by state.
        r_hats: split R-hat over the chains of what was kept, the larger of energy and slope, by state.
        spent: evaluations of the path by the analysis; those of the sampler come on top.
        energies: in kT, of the samples that MBAR used in every state, the ends among them: at `(0, *times, 1)`.
        counts: samples of each of these states.
    """

    integration: FreeEnergy
    multistate: FreeEnergy
    ratio: FreeEnergy
    perturbation: FreeEnergy
    times: tuple[float, ...]
    slopes: tuple[float, ...]
    slope_errors: tuple[float, ...]
    inefficiency: tuple[float, ...]
    discarded: tuple[int, ...]
    r_hats: tuple[float, ...]
    spent: Tally
    energies: Array = field(repr=False, compare=False)
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, (self.multistate, self.ratio, self.perturbation, self.integration)))


def staged(
    path: AnnealingPath,
    sampler: StateSampler,
    *,
    points: int = 7,
    breaks: tuple[float, ...] | None = None,
    generator: torch.Generator,
) -> Staged:
    r"""$\Delta F = F_1 - F_0$ in kT from samples at Gauss nodes of a path.

    All estimators see the same samples and use them differently: integration the slopes $\partial_t U$ where they were
    drawn, MBAR the energies of each in every state, the ends among them, which were not sampled, BAR and
    perturbation those in neighbouring states. Draws are dropped
    until pymbar finds the rest of a state stationary, half of them at most; for MBAR, whose error is that of
    independent samples, every g-th is taken, with the statistical inefficiency g of the slopes.

    Args:
        path: with slopes, and the faster if it has `energies(x, times)`.
        sampler: `LangevinStates` for molecules, or any function of times.
        points: states between two breaks.
        breaks: times at which the slope may jump; by default the path's own, else the ends.
        generator: source of randomness.

    Raises:
        InputError: samples of another shape, or not finite energies.

    References: Chodera, A simple method for automated equilibration detection in molecular simulations, 2016,
        J. Chem. Theory Comput. 12, 1799; see also `thermodynamic_integration` and `mbar`.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> def sampler(times, *, generator):
        ...     noise = torch.randn(len(times), 1, 500, 1, generator=generator, dtype=torch.float64)
        ...     return times[:, None, None, None] + noise
        >>> found = staged(path, sampler, points=4, generator=torch.Generator().manual_seed(0))  # exact: 0
        >>> abs(found.multistate.delta_f) < 0.1 and abs(found.integration.delta_f) < 0.1
        True
    """
    rule = GaussRule(points, breaks or getattr(path, "breaks", (0.0, 1.0)))
    times = torch.tensor(rule.nodes, dtype=torch.float64)
    samples = sampler(times, generator=generator)
    _check(samples, times, path)
    spent = Tally()
    series = [_slopes(path, float(t), x, spent) for t, x in zip(times, samples, strict=True)]
    discarded = [_equilibration(pair) for pair in series]
    slopes = [slope[:, k:] for k, (_, slope) in zip(discarded, series, strict=True)]
    g = [statistical_inefficiency(s) for s in slopes]
    integration = thermodynamic_integration(slopes, rule)
    strides = [min(s.shape[1], math.ceil(g_k)) for g_k, s in zip(g, slopes, strict=True)]
    kept = [x[:, k::stride].flatten(0, 1) for x, k, stride in zip(samples, discarded, strides, strict=True)]
    everywhere = torch.cat([torch.zeros(1), times, torch.ones(1)]).to(torch.float64)
    energies = _energies(path, everywhere, torch.cat(kept), spent)
    counts = (0, *(len(x) for x in kept), 0)
    multistate = mbar(energies, counts)
    ratio, perturbation = neighbours(energies, counts), neighbours(energies, counts, ratio=False)
    flags = _drifting(discarded, samples.shape[2])
    return Staged(
        replace(integration, flags=(*flags, *integration.flags)),
        replace(multistate, flags=(*flags, *multistate.flags)),
        replace(ratio, flags=(*flags, *ratio.flags)),
        replace(perturbation, flags=(*flags, *perturbation.flags)),
        rule.nodes,
        tuple(float(s.mean()) for s in slopes),
        tuple(math.sqrt(g_k * float(s.var(ddof=1)) / s.size) for g_k, s in zip(g, slopes, strict=True)),
        tuple(g),
        tuple(discarded),
        tuple(max(r_hat(values[:, k:]) for values in pair) for k, pair in zip(discarded, series, strict=True)),
        spent,
        energies,
        counts,
    )


def _check(samples: Tensor, times: Tensor, path: AnnealingPath) -> None:
    event = tuple(path.start.event_shape)
    if samples.ndim < 3 or len(samples) != len(times) or tuple(samples.shape[3:]) != event or samples.shape[2] < 4:
        raise InputError(
            f"a sampler gives (states, chains, draws, *event), at least four draws each: got {tuple(samples.shape)} "
            f"for {len(times)} states and event shape {event}"
        )


def _slopes(path: AnnealingPath, time: float, x: Tensor, spent: Tally) -> tuple[Array, Array]:
    """Energies and slopes of the samples of one state, `(chains, draws)`."""
    found = []
    for part in x.flatten(0, 1).split(CHUNK):
        t = torch.full((len(part),), time, dtype=part.dtype, device=part.device)
        point = path.evaluate(t, part)
        found.append(torch.stack([point.energy.to(torch.float64), point.time_derivative.to(torch.float64)]))
    spent.gradient += x.shape[0] * x.shape[1]
    energy, slope = torch.cat(found, 1).detach().cpu().numpy().reshape(2, *x.shape[:2])
    return energy, slope


def _energies(path: AnnealingPath, times: Tensor, x: Tensor, spent: Tally) -> Array:
    """`(states, n)`."""
    spent.energy += len(times) * len(x)
    columns = []
    for part in x.split(CHUNK):
        place = times.to(part.device)
        if hasattr(path, "energies"):
            columns.append(path.energies(part, place))  # pyright: ignore[reportAttributeAccessIssue]
        else:
            rows = [path.energy(t.to(part).expand(len(part)), part).to(torch.float64) for t in place]
            columns.append(torch.stack(rows))
    return torch.cat(columns, 1).detach().cpu().numpy()


def _equilibration(pair: tuple[Array, Array]) -> int:
    """Draws to drop from every chain of a state, at most half; means over chains show a drift best."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # its banner about an optional dependency
    from pymbar.timeseries import detect_equilibration

    draws = pair[0].shape[1]
    means = [values.mean(0) for values in pair]
    found = [int(detect_equilibration(m, nskip=max(1, draws // 50))[0]) if np.ptp(m) > 0 else 0 for m in means]
    return min(max(found), draws // 2)


def _drifting(discarded: list[int], draws: int) -> tuple[Flag, ...]:
    # Of many stationary states, a few look as if they were not.
    drifting = sum(k == draws // 2 for k in discarded)
    if drifting <= len(discarded) // 2:
        return ()
    text = f"{drifting} of {len(discarded)} states drift for half of their {draws} draws or more; sample longer"
    return (Flag("equilibration", text),)
