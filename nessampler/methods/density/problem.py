"""A density to sample and where to start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.estimators import Flag
from nessampler.kernels import Mass, UnitMass
from nessampler.paths import AnnealingPath
from nessampler.targets import Target

__all__ = ["DensityProblem"]


@dataclass(frozen=True)
class DensityProblem:
    """Everything about a density that does not depend on the method.

    Attributes:
        path: from a base with `sample` and `log_z` to the target.
        dictionary: makes the fields that a closed-form drift is solved in, from a generator and as many walkers as
            there are pilots, half of them from either end of the path.
        mass: of Hamiltonian moves.
        step_size: of the leapfrog to start tuning from, in units of the mass.
        knowledge: what the base or the path knows about the target that no walker found out, such as "the modes";
            empty for an honest headline.
        target_samples: `(n, generator)` to samples of the target, for walkers carried back; None where there are none.
        origin: of these samples: "exact", or a description of the MCMC.
        doubts: about these samples; flags of every result.
        symmetry: an exact symmetry of the target, `(x, generator)` to x, for chains that cannot cross between phases.
        dtype: of the walkers.
        chunk_size: walkers carried at once.
    """

    path: AnnealingPath
    dictionary: Callable[[Tensor, torch.Generator], Dictionary]
    mass: Mass = field(default_factory=UnitMass)
    step_size: float = 0.3
    knowledge: str = ""
    target_samples: Callable[[int, torch.Generator], Tensor] | None = None
    origin: str | None = None
    doubts: tuple[Flag, ...] = ()
    symmetry: Callable[[Tensor, torch.Generator], Tensor] | None = None
    dtype: torch.dtype = torch.float64
    chunk_size: int = 1024

    @property
    def target(self) -> Target:
        """The density asked for."""
        return self.path.end
