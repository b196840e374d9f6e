"""What every attempt at a density needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nessampler.methods.density.budget import Budget
from nessampler.methods.density.effort import DensityEffort
from nessampler.methods.density.problem import DensityProblem
from nessampler.methods.density.tuning import Hamiltonian, Mover, Precondition, Walk, dense, diagonal, spectral
from nessampler.methods.density.walks import spread
from nessampler.methods.ends import generator_for

__all__ = ["Context", "told"]

MASSES: dict[str, Precondition] = {"diagonal": diagonal, "dense": dense, "spectral": spectral}


@dataclass(frozen=True)
class Context:
    """What every attempt needs; see `sample_density`."""

    problem: DensityProblem
    effort: DensityEffort
    seed: int
    device: str
    say: Callable[[str], None]
    progress: Callable[[int, int, str], None]
    report: Callable[..., None]
    checkpoint: Path | None

    @property
    def mover(self) -> Hamiltonian:
        """The Hamiltonian moves that every method shares."""
        return Hamiltonian(self.effort.leapfrog_steps, mass=self.problem.mass, step_size=self.problem.step_size)

    @property
    def walks(self) -> bool:
        """Whether the target is asked for energies alone."""
        return self.effort.kernel == "walk"

    @property
    def moves(self) -> Mover:
        """Of plain annealing and SMC: the Hamiltonian ones, or random walks."""
        return Walk(self.effort.leapfrog_steps) if self.walks else self.mover

    @property
    def rolls(self) -> bool:
        """Whether plain annealing moves by steps of one gradient each, which nothing refuses."""
        return self.effort.kernel in ("inertial", "langevin")

    @property
    def precondition(self) -> Precondition | None:
        """What random walks are shaped by; Hamiltonian moves keep the problem's mass unless something else is asked."""
        return spread if self.walks else MASSES.get(self.effort.precondition)

    @property
    def budget(self) -> Budget | None:
        """What may be spent, where that is given."""
        effort = self.effort
        return None if effort.budget is None else Budget(effort.budget, self.moves.evaluations)

    def generator(self, purpose: str) -> torch.Generator:
        """A stream of its own for every purpose."""
        return generator_for(self.seed, purpose, self.device)


def told(progress: Callable[[int, int, str], None], what: str) -> Callable[[int, int], None]:
    """Progress under a name."""
    return lambda done, total: progress(done, total, what)
