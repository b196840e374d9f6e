"""Staged MBAR of any two densities for so many evaluations: Hamiltonian chains at the states of a path."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.methods.annealed_switching import CountedInterior
from nessampler.methods.rungs.cluster import hardening, is_cluster
from nessampler.methods.staged import Staged, staged
from nessampler.methods.staged_chains import HamiltonianStates
from nessampler.paths import AnnealingPath, LinearPath
from nessampler.targets import Counted, Tally, Target, carry, energy_and_score
from nessampler.targets.differences import billed

__all__ = ["StagedWithin", "staged_within"]

NODES, CLUSTER_NODES, CHAINS, LEAPFROG, EQUILIBRATION = 9, 13, 64, 10, 0.2
DRAWS = 200  # stored of a chain
KEPT = 0.25  # about, of these, for MBAR: their energies at all nodes cost one each where the path is not linear
WORST_RHAT = 1.1  # of the chains of a state, as of chains of the ends
FEWEST_CHAINS, SHORTEST = 4, 50  # chains, and trajectories of each; fewer chains where a budget holds no more
FEWEST_TRAJECTORIES = 10
STEP = 0.1  # where tuning starts, or below it where an end is stiff


@dataclass(frozen=True)
class StagedWithin:
    """What was found, and what the states took.

    Attributes:
        found: by every estimator.
        flags: of MBAR, and `chains_disagree` where R-hat over the chains of a state is above 1.1.
        spent: evaluations of A and of B, those of the given samples not among them.
        chains: of each state.
    """

    found: Staged
    flags: tuple[Flag, ...]
    spent: tuple[Tally, Tally]
    chains: int


def staged_within(
    target_a: Target,
    target_b: Target,
    samples_a: Float[Tensor, "*draws_a *event"],
    samples_b: Float[Tensor, "*draws_b *event"],
    *,
    evaluations: float,
    prices: tuple[float, float] = (1.0, 1.0),
    generator: torch.Generator,
) -> StagedWithin:
    r"""$\Delta F$ by `staged` over nine states of the linear path.

    Between a trap and a cluster it is thirteen states of cores that harden. Up to 64 chains a state start at samples of
    the nearer end, chosen at random; their number and length follow from the evaluations. What the samples took is not
    known here: whoever compares costs takes it off beforehand.

    Args:
        target_a, target_b: states with one event shape.
        samples_a, samples_b: of these, in any number of leading dimensions.
        evaluations: energies and gradients of both states at their prices, about.
        prices: of one evaluation of A and of B.
        generator: source of randomness.

    Raises:
        InputError: too few evaluations for ten trajectories of four chains a state.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> a, b = (Gaussian(torch.full((2,), m).double(), torch.ones(2).double()) for m in (0.0, 1.0))
        >>> g = torch.Generator().manual_seed(0)
        >>> x_a, x_b = (end.sample(64, generator=g) for end in (a, b))
        >>> made = staged_within(a, b, x_a, x_b, evaluations=5e4, generator=g)
        >>> abs(made.found.multistate.delta_f) < 0.2, made.chains  # exact: 0
        (True, 5)
        >>> 4e4 < sum(tally.energy + tally.gradient for tally in made.spent) <= 5.1e4
        True
    """
    ends, clusters = (Counted(target_a), Counted(target_b)), is_cluster(target_a, target_b)
    # Interior evaluations of soft cores are those of the cluster; those of a linear path ask both ends.
    nodes, price = (CLUSTER_NODES, prices[1]) if clusters else (NODES, sum(prices))
    lengths = _lengths(evaluations / price / nodes, 1 + ((nodes + 2) * KEPT if clusters else 1))
    x_a, x_b = (_few(x, end, lengths.chains, generator) for x, end in zip((samples_a, samples_b), ends, strict=True))
    step_size = min(STEP, *(_stable(end, x) for end, x in zip(ends, (x_a, x_b), strict=True)))
    path: AnnealingPath = LinearPath(*ends)
    if clusters:
        hard, gas = hardening(target_b, samples_b.reshape(-1, *target_b.event_shape))  # pyright: ignore[reportArgumentType]
        path, x_a = CountedInterior(hard, ends[1]), carry(gas, x_a)
    sampler = HamiltonianStates(
        path,
        x_a,
        x_b,
        equilibration=lengths.equilibration,
        draws=lengths.draws,
        interval=lengths.interval,
        leapfrog_steps=LEAPFROG,
        step_size=step_size,
    )
    found = staged(path, sampler, points=nodes, generator=generator)
    spent_a, spent_b = (billed(end.target, end.tally()) for end in ends)
    return StagedWithin(found, _flags_of(found), (spent_a, spent_b), lengths.chains)


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
    fewest = FEWEST_CHAINS * FEWEST_TRAJECTORIES * (LEAPFROG + stored * (1 - EQUILIBRATION))
    if evaluations < fewest:
        raise InputError(
            f"{FEWEST_CHAINS} chains of {FEWEST_TRAJECTORIES} trajectories take {fewest:.0f} evaluations for each "
            f"state of staged MBAR: got {max(0.0, evaluations):.0f}, beyond what samples of the ends cost; give more"
        )
    chains = min(CHAINS, max(FEWEST_CHAINS, int(evaluations / LEAPFROG / SHORTEST)))
    interval = max(1, int(evaluations / LEAPFROG / chains) // DRAWS)
    trajectories = int(evaluations / chains / (LEAPFROG + stored * (1 - EQUILIBRATION) / interval))
    equilibration = round(EQUILIBRATION * trajectories)
    return _Lengths(chains, equilibration, (trajectories - equilibration) // interval, interval)


def _stable(target: Target, x: Tensor) -> float:
    r"""A leapfrog step that does not diverge: $1/\sqrt{\lambda}$, half of the limit, in the stiffest direction.

    In equilibrium $E[s s^T] = E[\nabla^2 U]$; λ is its largest eigenvalue. Trajectories of a step for other targets
    tear a molecule apart.

    >>> from nessampler.targets import Gaussian
    >>> stiff = Gaussian(torch.zeros(2), torch.tensor([1.0, 0.01]))
    >>> round(_stable(stiff, stiff.sample(1000, generator=torch.Generator().manual_seed(0))), 3)
    0.01
    """
    scores = energy_and_score(target, x)[1].flatten(1).double()
    largest = float(torch.linalg.matrix_norm(scores, 2))
    return math.sqrt(len(x)) / largest if largest > 0 else math.inf


def _flags_of(found: Staged) -> tuple[Flag, ...]:
    """Those of MBAR, and of chains that have not seen the same."""
    worst = max(found.r_hats)
    if worst <= WORST_RHAT:
        return found.multistate.flags
    at = found.times[found.r_hats.index(worst)]
    text = f"R-hat of the chains at t = {at:.3f} is {worst:.2f}, above {WORST_RHAT}; take more trajectories"
    return (*found.multistate.flags, Flag("chains_disagree", text))


def _few(samples: Tensor, target: Target, n: int, generator: torch.Generator) -> Tensor:
    flat = samples.reshape(-1, *target.event_shape)
    return flat[torch.randint(len(flat), (n,), generator=generator, device=generator.device)]
