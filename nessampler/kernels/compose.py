"""Two kernels in turn as one, in an order that time reversal undoes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.kernels.protocol import Kernel, Walkers, lost_by_either

__all__ = ["Compose"]


@dataclass(frozen=True)
class Compose:
    """`first`, then `second`; backwards in time `second`, then `first`. Log ratios add.

    A flow step followed by HMC at the new time is `Compose(Flow(drift), HMC(path, ...))`: the flow carries walkers
    along, HMC mends what the flow did not bring into equilibrium.

    Example:
        >>> from nessampler.kernels import Flow, Identity
        >>> flow = Flow(lambda t, x: (-x, torch.full((len(x),), -1.0).double()))
        >>> kernel, generator = Compose(flow, Identity()), torch.Generator()
        >>> walkers = kernel.start(0.0, torch.ones(1, 1).double())
        >>> there, log_ratio = kernel.step(0.0, 0.5, walkers, generator=generator)
        >>> back, returned = kernel.step(0.5, 0.0, there, generator=generator)
        >>> round(back.x.item(), 5), round(log_ratio.item(), 5), round(returned.item(), 5)
        (1.0, -0.5, 0.5)
    """

    first: Kernel
    second: Kernel

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """Walkers ready for the second kernel, which is the one that knows energies."""
        return self.second.start(t, x)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """One step of each."""
        backward = t1 < t0
        one, other = (self.first, self.second) if t1 > t0 else (self.second, self.first)
        # What one kernel evaluated means nothing to the other; backwards, walkers come prepared for the second.
        between, ratio = one.step(t0, t1, walkers if backward else replace(walkers, cached=None), generator=generator)
        # A kernel without inertia leaves momenta as they are.
        momentum = walkers.momentum if between.momentum is None else between.momentum
        after, more = other.step(t0, t1, replace(between, cached=None, momentum=momentum), generator=generator)
        acceptance = after.acceptance if after.acceptance is not None else between.acceptance
        momentum = momentum if after.momentum is None else after.momentum
        # Backwards the first moved them last: the second evaluates where they are now rather than a step later.
        ready = self.second.start(t1, after.x) if backward else after
        lost = lost_by_either(between, after)
        return Walkers(after.x, t1, ready.cached, ready.energy, acceptance, momentum=momentum, lost=lost), ratio + more
