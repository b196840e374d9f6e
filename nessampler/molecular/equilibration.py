"""Which frames of an end state's replicas are equilibrated, and whether the replicas agree."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nessampler.estimators import Flag, r_hat, statistical_inefficiency

__all__ = ["Equilibrated", "equilibrated"]

LARGEST_R_HAT = 1.1
FEWEST_INDEPENDENT = 50


@dataclass(frozen=True)
class Equilibrated:
    """Frames kept of one state, and what was found out about them.

    Attributes:
        positions: `(replicas, frames, atoms, 3)` in nm.
        discarded: frames dropped from the start of every replica, prescribed equilibration included.
        inefficiency: statistical inefficiency, in frames, of the slowest observable; and its name.
        r_hat: largest rank-normalised split R-hat over the observables; None for a single replica.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> series = rng.normal(size=(1, 200))  # of a single replica
        >>> found = equilibrated(np.zeros((1, 200, 22, 3)), 0, {"energy": series}, "A")
        >>> found.r_hat, [flag.code for flag in found.flags]
        (None, ['single_replica'])
    """

    positions: Float[np.ndarray, "replicas frames atoms 3"]
    discarded: int
    inefficiency: float
    slowest: str
    r_hat: float | None
    flags: tuple[Flag, ...]


def equilibrated(
    positions: Float[np.ndarray, "replicas frames atoms 3"],
    burn_in: int,
    observables: Mapping[str, Float[np.ndarray, "replicas frames"]],
    state: str,
) -> Equilibrated:
    """Drop what pymbar's `detect_equilibration` finds not yet stationary, and compare the replicas.

    Args:
        positions: all stored frames.
        burn_in: the prescribed equilibration, dropped in any case.
        observables: series whose stationarity and agreement matter: the energy, and every slow coordinate.
        state: for messages.

    References: Chodera, A simple method for automated equilibration detection in molecular simulations, 2016,
        J. Chem. Theory Comput. 12, 1799; Vehtari et al., Rank-normalization, folding, and localization: an
        improved R-hat, 2021, Bayesian Anal. 16, 667.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> energy, phi = rng.normal(size=(2, 4, 200))
        >>> phi[0] += 3  # one replica is in another basin
        >>> found = equilibrated(np.zeros((4, 200, 22, 3)), 20, {"energy": energy, "phi": phi}, "A")
        >>> found.slowest, found.discarded >= 20, [flag.code for flag in found.flags]
        ('phi', True, ['slow_coordinate', 'replicas_disagree'])
    """
    kept = {name: series[:, burn_in:] for name, series in observables.items()}
    # Replicas start alike, so what has not settled shows best in their mean; of many short chains, some look unsettled
    # by chance. One that differs from the others is found by R-hat.
    start = _equilibration(kept["energy"].mean(0))
    frames = kept["energy"].shape[1]
    flags = []
    if start > frames // 2:
        flags.append(
            Flag(
                "equilibration",
                f"state {state}: the energy drifts for more than half of the production ({start} of {frames} frames); "
                "sample longer",
            )
        )
        start = frames // 2
    kept = {name: series[:, start:] for name, series in kept.items()}
    inefficiency = {name: statistical_inefficiency(series) for name, series in kept.items()}
    slowest = max(inefficiency, key=lambda name: inefficiency[name])
    independent = kept["energy"].size / inefficiency[slowest]
    if independent < FEWEST_INDEPENDENT:
        flags.append(
            Flag(
                "slow_coordinate",
                f"state {state}: {slowest} gave about {independent:.0f} independent samples "
                f"(statistical inefficiency {inefficiency[slowest]:.0f} frames); sample longer",
            )
        )
    if len(positions) == 1:
        flags.append(
            Flag("single_replica", f"state {state}: one replica has nothing to agree with; sample with two or more")
        )
    r_hats = {name: r_hat(series) for name, series in kept.items()} if len(positions) > 1 else {}
    worst = max(r_hats, key=lambda name: r_hats[name], default=None)
    if worst is not None and r_hats[worst] > LARGEST_R_HAT:
        flags.append(
            Flag(
                "replicas_disagree",
                f"state {state}: R-hat of {worst} is {r_hats[worst]:.2f}, above {LARGEST_R_HAT}: the replicas have not "
                "seen the same states; sample longer or with more replicas",
            )
        )
    return Equilibrated(
        positions[:, burn_in + start :],
        burn_in + start,
        inefficiency[slowest],
        slowest,
        r_hats[worst] if worst is not None else None,
        tuple(flags),
    )


def _equilibration(chain: Float[np.ndarray, " frames"]) -> int:
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # its banner about an optional dependency
    from pymbar.timeseries import detect_equilibration

    return int(detect_equilibration(chain, nskip=max(1, len(chain) // 50))[0])
