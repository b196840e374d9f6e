"""Switching along a path with an interior: Hamiltonian moves that leave U_t invariant, at times that pilots place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.kernels import HMC
from nessampler.methods.density.tuning import Pilot, StepSizes, mala, pilot
from nessampler.methods.transport import Transport
from nessampler.paths import AnnealingPath, PathPoint
from nessampler.targets import Counted

__all__ = ["CountedInterior", "annealed_switching", "place_times"]

LEAPFROGS = 8
SHORTER = 0.8
"""Of the step that a single leapfrog step is tuned to: trajectories of several want a higher acceptance."""

CONDITIONAL_ESS = 0.5  # of the pilot's own, long steps


class CountedInterior:
    """A path whose evaluations are charged to one of its ends, since one of U_t costs what one of that end does."""

    def __init__(self, path: AnnealingPath, counted: Counted) -> None:
        self.path, self._counted, self.start, self.end = path, counted, path.start, path.end

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """$U_t$."""
        self._counted.tally().energy += len(x)
        return self.path.energy(t, x)

    def energy_and_score(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U_t$ and $-\nabla U_t$."""
        self._counted.tally().gradient += len(x)
        return self.path.energy_and_score(t, x)

    def evaluate(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], known: PathPoint | None = None
    ) -> PathPoint:
        """Everything at (t, x)."""
        if known is None or not known.parts:
            self._counted.tally().gradient += len(x)
        return self.path.evaluate(t, x, known)


@dataclass(frozen=True)
class _Shortened:
    sizes: StepSizes

    def __call__(self, t: float) -> float:
        return SHORTER * self.sizes(t)


def place_times(path: AnnealingPath, x: Float[Tensor, " n *event"], *, generator: torch.Generator) -> Pilot:
    """Times of equal thermodynamic length, and the longest leapfrog steps, from pilot walkers of the path's start."""
    return pilot(path, x, mala(), conditional_ess=CONDITIONAL_ESS, generator=generator)


def annealed_switching(
    path: AnnealingPath,
    found: Pilot,
    *,
    steps: int,
    encode_a: Transform | None = None,
    leapfrogs: int = LEAPFROGS,
    what: Callable[[int, int], str] = "{} steps of HMC of {} leapfrogs".format,
) -> Transport:
    r"""Forward works by annealed importance sampling from A, reverse works by its time reversal from B.

    $$W = \sum_k \big[U_{t_{k+1}}(x_k) - U_{t_k}(x_k)\big]$$

    Moves at constant t are exact, so works have no error of a step size, and their dissipation falls like 1/`steps`.

    Args:
        path: with an interior.
        found: times and step sizes, by pilots.
        steps: intervals of equal thermodynamic length.
        encode_a: brings samples of A to the path's start.
        leapfrogs: of each move; a gradient each.
        what: describes steps and leapfrogs for a table.

    References:
        Neal, Annealed importance sampling, 2001, Stat. Comput. 11, 125; Crooks, Path-ensemble averages in systems
        driven far from equilibrium, 2000, Phys. Rev. E 61, 2361 (both directions).
    """
    times = found.spaced(steps)
    kernel = HMC(path, _Shortened(found.step_sizes), leapfrogs)
    state = {
        "switching.times": torch.tensor(times, dtype=torch.float64),
        "switching.step_sizes": torch.tensor([kernel.step_size(t) for t in times], dtype=torch.float64),  # pyright: ignore
    }
    return Transport("switching", what(steps, leapfrogs), kernel, path, times, encode_a, None, state)
