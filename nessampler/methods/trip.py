"""What walkers saw on their way from one end of a difference to the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.estimators import Flag
from nessampler.overlap_check import overlap_check
from nessampler.plots import WorksAlong
from nessampler.simulate import Ensemble
from nessampler.targets import carry

__all__ = ["MOST_ARRIVED", "Arrived", "Trip", "arrived", "shared_ends", "works_along"]

MOST_TIMES = 40
MOST_ARRIVED = 2000


class Arrived(NamedTuple):
    """Some of the walkers where they arrived; weighted, they are distributed as the samples of that end.

    Attributes:
        x: `(n, *event)`; those that left the support are not among them.
        log_weight: minus the work, in kT.
    """

    x: Float[Tensor, " n *event"]
    log_weight: Float[Tensor, " n"]

    def seen_through(self, transform: Transform) -> Arrived:
        """The same in other coordinates."""
        return Arrived(carry(transform, self.x), self.log_weight)


class Trip(NamedTuple):
    """Walkers of one direction, arrived.

    Attributes:
        work: in kT, in the shape of the samples.
        along: the works on the way; None where nothing lies between the ends, or energies there were not asked for.
        start, end: where walkers were then, `(n, *event)` in the coordinates of the path.
        arrived: walkers at the other end; None where they were not asked for.
        lost: share of the walkers for which a step of a flow found no way; their work is +inf.
    """

    work: Float[np.ndarray, "*samples"]
    along: WorksAlong | None
    start: Float[Tensor, " n *event"]
    end: Float[Tensor, " n *event"]
    arrived: Arrived | None = None
    lost: float = 0.0


def arrived(ensemble: Ensemble, most: int, decode: Transform | None) -> Arrived | None:
    """At most so many walkers, evenly from all, in the coordinates that `decode` leads to; None for none.

    >>> ensemble = Ensemble(torch.arange(4.0)[:, None], torch.tensor([0.0, 1.0, -torch.inf, 3.0]), (0.0, 1.0))
    >>> arrived(ensemble, 4, None).x.flatten().tolist()
    [0.0, 1.0, 3.0]
    """
    if most == 0:
        return None
    n = len(ensemble.x)
    index = torch.linspace(0, n - 1, min(most, n), dtype=torch.float64).round().long().to(ensemble.x.device)
    index = index[torch.isfinite(ensemble.log_weight[index])]
    found = Arrived(ensemble.x[index], ensemble.log_weight[index])
    return found if decode is None or not len(index) else found.seen_through(decode)


def shared_ends(there: Trip, back: Trip, circular: Bool[Tensor, " d"]) -> tuple[Flag, ...]:
    """A flag for each end that forward and reverse walkers do not see alike where they overlap, see `overlap_check`.

    Walkers that were carried hold angles beyond a full turn: `circular` marks the angles, where there are any.
    """
    flags: tuple[Flag, ...] = ()
    wraps = circular.cpu().numpy() if bool(circular.any()) else None
    for name, ahead, behind in (("A", there.start, back.end), ("B", there.end, back.start)):
        x = [v.flatten(1).double().cpu().numpy() for v in (ahead, behind)]
        found = overlap_check(there.work, back.work, *x, circular=wraps)
        flags += () if found is None else found.flags(f"conformations of {name}")
    return flags


def works_along(ensemble: Ensemble) -> WorksAlong | None:
    """The works so far, at some of the times, where the kernel knew the energies on the way: at no evaluation more.

    >>> import torch
    >>> from nessampler.kernels import HMC
    >>> from nessampler.paths import LinearPath
    >>> from nessampler.simulate import simulate
    >>> from nessampler.targets import Gaussian
    >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
    >>> g = torch.Generator().manual_seed(0)
    >>> run = simulate(HMC(path, 0.5), path, [0.0, 0.5, 1.0], path.start.sample(50, generator=g), generator=g)
    >>> works_along(run).times.tolist()
    [0.0, 0.5, 1.0]
    """
    history = ensemble.history
    if history is None or history.mean_work is None or len(history.times) < 2:
        return None
    assert history.ess is not None
    assert history.log_z_ratio is not None
    last = len(history.times) - 1
    shown = np.unique(np.linspace(0, last, min(MOST_TIMES, last + 1)).round().astype(int))

    def column(start: float, values: object) -> Float[np.ndarray, " k"]:
        return np.concatenate([[start], np.asarray(values, dtype=float)[shown]])

    return WorksAlong(
        column(ensemble.times[0], history.times),
        column(1.0, history.ess),
        column(0.0, history.mean_work),
        column(0.0, -history.log_z_ratio),
    )
