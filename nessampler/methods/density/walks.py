"""Random walks: moves that ask for energies alone, in proportion to what the walkers spread over."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.kernels import DenseMass, DiagonalMass, Mass, RandomWalk
from nessampler.methods.density.tuning import Masses, StepSizes, dense, diagonal
from nessampler.paths import Path

__all__ = ["LARGEST_DENSE", "spread", "walk_from", "walk_state"]

LARGEST_DENSE = 128  # coordinates of proposals with correlations


def spread(x: Float[Tensor, " n *event"], weight: Float[Tensor, " n"]) -> Mass:
    """The precision of walkers: of vectors of at most 128 coordinates with correlations, otherwise without.

    >>> x, weight = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.full((8,), 1 / 8)
    >>> type(spread(x, weight)).__name__, type(spread(x.view(8, 2, 2), weight)).__name__
    ('DenseMass', 'DiagonalMass')
    """
    return dense(x, weight) if x.ndim == 2 and x.shape[1] <= LARGEST_DENSE else diagonal(x, weight)


def walk_state(times: tuple[float, ...], step_sizes: StepSizes, masses: Masses, proposals: int) -> dict[str, Tensor]:
    """A frozen random walk as tensors; without those of masses that are neither dense nor diagonal, empty."""
    kinds = {type(mass) for mass in masses.values}
    if kinds not in ({DenseMass}, {DiagonalMass}):
        return {}
    kept = [mass.cholesky if isinstance(mass, DenseMass) else mass.variance for mass in masses.values]  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "times": torch.tensor(times, dtype=torch.float64),
        "step_times": torch.tensor(step_sizes.times, dtype=torch.float64),
        "step_sizes": torch.tensor(step_sizes.values, dtype=torch.float64),
        "mass_times": torch.tensor(masses.times, dtype=torch.float64),
        "masses": torch.stack(kept),
        "dense": torch.tensor(kinds == {DenseMass}),
        "proposals": torch.tensor(proposals),
    }


def walk_from(state: Mapping[str, Tensor], path: Path) -> RandomWalk:
    """The random walk that a state was made of."""
    sizes = StepSizes(tuple(state["step_times"].tolist()), tuple(state["step_sizes"].tolist()))
    kind = DenseMass if bool(state["dense"]) else DiagonalMass
    masses = Masses(tuple(state["mass_times"].tolist()), tuple(kind(kept) for kept in state["masses"]))
    return RandomWalk(path, sizes, int(state["proposals"]), masses)
