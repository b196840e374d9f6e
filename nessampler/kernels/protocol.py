"""What moves walkers: a kernel steps over an interval, in either direction, and reports its log ratio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.kernels.nested import mapped

__all__ = ["Kernel", "Walkers", "lost_by_either"]


@dataclass(frozen=True)
class Walkers:
    """Positions and what the last step evaluated there, tagged with its time.

    `energy` is $U_t(x)$ at that time where the kernel learned it for free. `acceptance` is the probability with which
    each walker's last proposal was accepted, where there was one. `ancestors` are the indices that the walkers had
    before the last selection. `momentum` belongs to kernels with inertia, which draw it anew where it is missing.
    `lost` marks walkers for which a step found no way, as a flow's without inverse: their weight is zero for want of a
    better integration, not for lack of density. None from kernels that lose nobody.

    Example:
        >>> walkers = Walkers(torch.tensor([[0.0], [1.0]]), time=0.5, energy=torch.tensor([0.0, 0.5]))
        >>> chosen = walkers[torch.tensor([1, 1, 0])]
        >>> len(chosen), chosen.energy, chosen.ancestors
        (3, tensor([0.5000, 0.5000, 0.0000]), tensor([1, 1, 0]))
    """

    x: Float[Tensor, " n *event"]
    time: float
    cached: Any = None
    energy: Float[Tensor, " n"] | None = None
    acceptance: Float[Tensor, " n"] | None = None
    ancestors: Tensor | None = None
    momentum: Any = None
    lost: Bool[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Walkers:
        """The selected walkers, repeats allowed."""

        def select(value: Any) -> Any:
            return mapped(lambda v: v[index], value)

        return replace(
            self,
            x=self.x[index],
            cached=select(self.cached),
            energy=select(self.energy),
            acceptance=select(self.acceptance),
            ancestors=index,
            momentum=select(self.momentum),
            lost=select(self.lost),
        )


def lost_by_either(one: Walkers, other: Walkers) -> Bool[Tensor, " n"] | None:
    """Which walkers one step or the other lost; None where neither loses any."""
    if one.lost is None or other.lost is None:
        return other.lost if one.lost is None else one.lost
    return one.lost | other.lost


@runtime_checkable
class Kernel(Protocol):
    """A forward transition density F and its backward partner B; `t1 < t0` is the time reversal.

    Example:
        >>> class Doubling:  # x' = 2x forwards, x' = x/2 backwards
        ...     def start(self, t, x):
        ...         return Walkers(x, t)
        ...
        ...     def step(self, t0, t1, walkers, *, generator):
        ...         power = 1.0 if t1 > t0 else -1.0
        ...         log_det = power * torch.full((len(walkers),), 2.0).double().log()
        ...         return Walkers(2**power * walkers.x, t1), log_det
        >>> kernel, generator = Doubling(), torch.Generator()
        >>> there, log_ratio = kernel.step(0.0, 1.0, kernel.start(0.0, torch.ones(1, 1)), generator=generator)
        >>> back, returned = kernel.step(1.0, 0.0, there, generator=generator)
        >>> isinstance(kernel, Kernel), back.x.item(), (log_ratio + returned).item()
        (True, 1.0, 0.0)
    """

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """Walkers at `x`, with whatever the first step will need."""
        ...

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        r"""Move from t0 to t1; also $\log B(x|x') - \log F(x'|x)$, float64."""
        ...
