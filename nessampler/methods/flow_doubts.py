"""What a flow that is integrated too coarsely does to a difference: its part of the error, and the flags."""

from __future__ import annotations

import math
from dataclasses import replace

from nessampler.estimators import Flag, FreeEnergy
from nessampler.methods.density.flow_error import unmet
from nessampler.methods.density.two_sided import LARGEST_LOSS
from nessampler.methods.trip import Trip

__all__ = ["FLOW_TOLERANCE", "flow_checked"]

FLOW_TOLERANCE = 2e-3  # of ΔF, in kT, for integrated log-determinants; what is measured enters the error


def flow_checked(estimate: FreeEnergy, systematic: float, trips: tuple[Trip, Trip] | None) -> FreeEnergy:
    r"""The estimate of a rung with what its flow's steps cost it; of a rung without a flow, as it is.

    - `coarse_flow`: integrated log-determinants may shift ΔF by more than the tolerance and a tenth of its error, which
      has it.
    - `no_way_back`: walkers for which a step found no inverse, or that it threw out of all proportion. A path of theirs
      may well exist, and be counted in the other direction: a share q of them shifts ΔF by about $-\log(1 - q)$, which
      is added to the error up to a hundredth, and flagged beyond. Works that are +inf because a walker left the support
      are none of these.

    Args:
        estimate: of the rung's works, its systematic error included.
        systematic: `Transport.systematic`.
        trips: of both directions; None of a rung that was not climbed.

    Example:
        >>> from nessampler.estimators import bar
        >>> found = bar([1.0, 1.2, 0.8] * 40, [-1.0, -1.2, -0.8] * 40)
        >>> [flag.code for flag in flow_checked(found.widened(0.1), 0.1, None).flags if flag not in found.flags]
        ['coarse_flow']
    """
    flags = unmet(systematic, FLOW_TOLERANCE, estimate.std_error, of="ΔF")
    lost = (0.0, 0.0) if trips is None else (trips[0].lost, trips[1].lost)
    shift = -math.log1p(-max(lost)) if max(lost) < 1 else math.inf
    if shift > LARGEST_LOSS:
        flags += (_no_way_back(*lost),)
    else:
        estimate = estimate.widened(shift)
    return replace(estimate, flags=(*estimate.flags, *flags))


def _no_way_back(forward: float, reverse: float) -> Flag:
    told = [f"{share:.2%} of the walkers from {end}" for share, end in ((forward, "A"), (reverse, "B")) if share > 0]
    return Flag(
        "no_way_back",
        f"steps of the flow found no way for {' and '.join(told)}, though the other direction may count paths of "
        "theirs: ΔF may be off by as much; take more steps, or use a rung without a flow",
    )
