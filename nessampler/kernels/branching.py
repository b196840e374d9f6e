"""A bijection chosen at random among several, with its exact log ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels.protocol import Walkers

__all__ = ["Branches", "BranchingMap"]


@runtime_checkable
class Branches(Protocol):
    """Bijections between the ends, and how likely each is taken from where a walker is, at either end.

    Example:
        >>> class Shift:  # by -1 or by 1, with equal probability wherever a walker is
        ...     def log_probability(self, t, x):
        ...         return torch.full((len(x), 2), 0.5).double().log()
        ...
        ...     def move(self, branch, x, *, forward):
        ...         shift = (2.0 * branch - 1.0)[:, None] * (1.0 if forward else -1.0)
        ...         return x + shift, torch.zeros(len(x)).double()
        >>> branch = torch.tensor([0, 1])
        >>> there, log_det = Shift().move(branch, torch.zeros(2, 1), forward=True)
        >>> there.tolist(), Shift().move(branch, there, forward=False)[0].tolist()
        ([[-1.0], [1.0]], [[0.0], [0.0]])
        >>> isinstance(Shift(), Branches)
        True
    """

    def log_probability(self, t: float, x: Float[Tensor, " n *event"]) -> Float[Tensor, "n branches"]:
        r"""$\log p_t(k|x)$ for t = 0 (forward) and t = 1 (backward), normalised over the branches, float64."""
        ...

    def move(
        self, branch: Int[Tensor, " n"], x: Float[Tensor, " n *event"], *, forward: bool
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        r"""$f_k(x)$ or $f_k^{-1}(x)$, and the logarithm of its Jacobian determinant, float64."""
        ...


@dataclass(frozen=True)
class BranchingMap:
    r"""One step over [0, 1] along a bijection that is drawn from $p_0(k|x)$; backwards from $p_1(k|x')$.

    $$x' = f_k(x), \qquad
      \log\frac{B}{F} = \log p_1(k|x') - \log p_0(k|x) + \log\left|\det \frac{\partial f_k}{\partial x}\right|$$

    A walker and its branch are the state of the path, so weights are exact whatever the probabilities: branches may
    overlap, and may disagree about which of them a walker came by.

    References:
        Crooks, Nonequilibrium measurements of free energy differences for microscopically reversible Markovian
        systems, 1998, J. Stat. Phys. 90, 1481 (ratios of joint densities); Cornish et al., Relaxing bijectivity
        constraints with continuously indexed normalising flows, 2020, arXiv:1909.13833.

    Example:
        >>> class LeftOrRight:
        ...     def log_probability(self, t, x):
        ...         return torch.full((len(x), 2), 0.5).double().log()
        ...
        ...     def move(self, branch, x, *, forward):
        ...         shift = (2.0 * branch - 1.0)[:, None] * (1.0 if forward else -1.0)
        ...         return x + shift, torch.zeros(len(x)).double()
        >>> kernel = BranchingMap(LeftOrRight())
        >>> start = kernel.start(0.0, torch.zeros(5, 1))
        >>> moved, log_ratio = kernel.step(0.0, 1.0, start, generator=torch.Generator().manual_seed(0))
        >>> moved.x.abs().flatten().tolist(), log_ratio.abs().max().item()
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0.0)
    """

    branches: Branches

    def start(self, t: float, x: Float[Tensor, " n *event"]) -> Walkers:
        """The walkers as they are."""
        return Walkers(x, t)

    def step(
        self, t0: float, t1: float, walkers: Walkers, *, generator: torch.Generator
    ) -> tuple[Walkers, Float[Tensor, " n"]]:
        """Draw a branch for every walker, and follow it."""
        if (t0, t1) not in ((0.0, 1.0), (1.0, 0.0)):
            raise InputError(f"a map is one step between t = 0 and t = 1: got {t0} to {t1}; use times [0, 1]")
        here = self.branches.log_probability(t0, walkers.x)
        branch = torch.multinomial(here.exp(), 1, generator=generator)
        x, log_det = self.branches.move(branch[:, 0], walkers.x, forward=t1 > t0)
        there = self.branches.log_probability(t1, x)
        return Walkers(x, t1), (there.gather(1, branch) - here.gather(1, branch))[:, 0] + log_det
