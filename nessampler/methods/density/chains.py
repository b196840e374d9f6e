"""Samples of the target by long Hamiltonian chains, for walkers that are carried back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag, r_hat, statistical_inefficiency
from nessampler.kernels import HMC, SpectralMass, Walkers
from nessampler.methods.density.tuning import Hamiltonian, spectral
from nessampler.paths import AnnealingPath

__all__ = ["Chains", "effective_part", "folded", "long_chains", "slow_observables"]

TUNING_STEPS = 40
MASS_ROUNDS = 3
QUARTER = math.pi / 2
WORST_RHAT = 1.01
FEWEST_DRAWS = 4
TWO_WELLS = 0.58  # Binder's cumulant, 2/3 deep in an ordered phase and 0.61 where it begins


@dataclass(frozen=True)
class Chains:
    """One draw of each of many chains, and whether the chains agree.

    Attributes:
        x: the last state of every chain, independent of one another: `(chains, *event)`.
        rhat: rank-normalised split R-hat of the energy and of the coordinates' mean, the larger.
        steps: trajectories of each chain after tuning.
    """

    x: Float[Tensor, " chains *event"]
    rhat: float
    steps: int

    @property
    def origin(self) -> str:
        """In words."""
        return f"long HMC ({len(self.x)} chains of {self.steps} trajectories, R-hat {self.rhat:.3f})"

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Chains that disagree are no samples of the target."""
        if self.rhat <= WORST_RHAT:
            return ()
        message = (
            f"R-hat of the long chains is {self.rhat:.3f} (above {WORST_RHAT}): walkers carried back do not start from "
            "the target yet, and the bound they give is doubtful; set reverse_steps higher"
        )
        return (Flag("chains_disagree", message),)


def slow_observables(energy: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, "3 n"]:
    """Energy, mean coordinate and its square, float64: what chains of a density are judged by."""
    mean = x.flatten(1).mean(1, dtype=torch.float64)
    return torch.stack([energy.to(torch.float64), mean, mean.square()])


def folded(x: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
    r"""Fields about the magnetisation of their own sign, $\mathrm{sign}(M)\,\varphi - \langle|M|\rangle$, if ordered.

    Between the two magnetisations of an ordered lattice no trajectory moves; a mass made from the variance of M, which
    is their distance, leaves steps that are far too long for either. Fields whose cumulant of Binder,
    $1 - \langle M^4\rangle / 3\langle M^2\rangle^2$, is that of a single well are returned as they are.

    >>> two_wells = torch.tensor([1.0, 1.2, -1.0, -1.2]).view(4, 1, 1).expand(4, 2, 2)
    >>> folded(two_wells)[:, 0, 0]
    tensor([-0.1000,  0.1000, -0.1000,  0.1000])
    """
    mean = x.flatten(1).mean(1, dtype=torch.float64)
    second, fourth = mean.square().mean(), mean.pow(4).mean()
    if 3 * second.square() * (1 - TWO_WELLS) < fourth:
        return x
    sign = mean.sign().to(x).view(-1, *[1] * (x.ndim - 1))
    return sign * x - mean.abs().mean().to(x)


def effective_part(slow: Float[np.ndarray, "observables chains draws"]) -> float:
    """Fraction of draws that count as independent, by the observable that is slowest to forget."""
    return 1 / max(statistical_inefficiency(series) for series in slow)


@torch.no_grad()
def long_chains(
    path: AnnealingPath,
    x: Float[Tensor, " chains *event"],
    mover: Hamiltonian,
    *,
    steps: int,
    symmetry: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> Chains:
    r"""Run a chain from each of x at t = 1; the first half of the trajectories is forgotten.

    The step size is tuned first, to the mover's acceptance, and then frozen; so is the mass on a lattice, to the
    walkers' own spectrum. R-hat over the second half is of the
    energy, of the mean coordinate's square and, where no symmetry moves it, of the mean coordinate.

    Args:
        path: whose end is sampled.
        x: starts, best wider than the target.
        mover: trajectories.
        steps: of each chain.
        symmetry: an exact symmetry of the target, applied now and then: chains that no trajectory carries from one
            phase to another are still correct.
        generator: source of randomness.
        progress: told trajectories done, and all.

    Raises:
        InputError: chains too few or too short for an R-hat.

    References: Vehtari et al., Rank-normalization, folding, and localization: an improved R-hat, 2021,
        arXiv:1903.08008.
    """
    if len(x) < 2 or steps < 2 * FEWEST_DRAWS:
        raise InputError(
            f"an R-hat compares at least 2 chains of {2 * FEWEST_DRAWS} steps: got {len(x)} of {steps}; ask for more"
        )
    walkers = HMC(path, mover.step_size, mover.leapfrog_steps, mover.mass).start(1.0, x)
    walkers, size = _tuned(path, walkers, mover, generator)
    if isinstance(mover.mass, SpectralMass):
        # Near criticality the longest waves are many times softer than any mass that was given before they were seen.
        # Each round lets them spread, and sees them softer.
        equal = torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device)
        for _ in range(MASS_ROUNDS):
            mover = replace(mover, mass=spectral(walkers.x if symmetry is None else folded(walkers.x), equal))
            walkers, size = _tuned(path, walkers, mover, generator)
        # All waves now have about one frequency, 1: a quarter of a period forgets most.
        size = min(size, QUARTER / mover.leapfrog_steps)
    kernel = HMC(path, size, mover.leapfrog_steps, mover.mass)
    traces: list[Tensor] = []
    for step in range(steps):
        if symmetry is not None and step % 10 == 0:
            walkers = kernel.start(1.0, symmetry(walkers.x, generator))
        walkers, _ = kernel.step(1.0, 1.0, walkers, generator=generator)
        if 2 * step >= steps:
            mean = walkers.x.flatten(1).mean(1, dtype=torch.float64)
            assert walkers.energy is not None
            slow = [walkers.energy.double(), mean.square()] + ([] if symmetry else [mean])
            traces.append(torch.stack(slow))
        if progress:
            progress(step + 1, steps)
    worst = max(r_hat(trace.T) for trace in torch.stack(traces, 1).cpu().numpy())
    return Chains(walkers.x, worst, steps)


def _tuned(
    path: AnnealingPath, walkers: Walkers, mover: Hamiltonian, generator: torch.Generator
) -> tuple[Walkers, float]:
    """Walkers after a while, and the step size that they settled on."""
    size = mover.step_size
    for _ in range(TUNING_STEPS):
        walkers, _ = HMC(path, size, mover.leapfrog_steps, mover.mass).step(1.0, 1.0, walkers, generator=generator)
        assert walkers.acceptance is not None  # Metropolis
        size *= float(torch.exp((1.5 * (walkers.acceptance.mean() - mover.acceptance)).clamp(-0.7, 0.4)))
    return walkers, size
