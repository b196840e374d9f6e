"""A rung of the ladder, ready to run: how samples of both ends become forward and reverse works."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.estimators import FreeEnergy, bar
from nessampler.kernels import Kernel
from nessampler.methods.ends import Block
from nessampler.methods.trip import Trip, arrived, works_along
from nessampler.paths import Path
from nessampler.simulate import simulate
from nessampler.targets import carry

__all__ = ["Transport", "Works"]

Progress = Callable[[int, int], None]


class Works(NamedTuple):
    """Works in kT: `(chains, draws)` of correlated samples, `(n,)` of independent ones."""

    forward: Float[np.ndarray, "*samples"]
    reverse: Float[np.ndarray, "*samples"]


@dataclass(frozen=True)
class Transport:
    """Kernel, path and times, and the bijections that bring samples of either end to the path's coordinates.

    Attributes:
        name: the rung.
        description: what it does, for a table.
        encode_a, encode_b: applied to samples of A and B first; None leaves them alone.
        state: tensors that, with the code, make the transport again; saved with a run.
        systematic: measured error in kT of log-determinants that are integrated; 0 where works are exact.
    """

    name: str
    description: str
    kernel: Kernel
    path: Path
    times: tuple[float, ...]
    encode_a: Transform | None = None
    encode_b: Transform | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    systematic: float = 0.0

    def works(
        self, block: Block, *, generator: torch.Generator, progress: Progress | None = None, chunk_size: int = 4096
    ) -> Works:
        """Forward works from A's samples, and works of the reversed process from B's."""
        there, back = self.trips(block, generator=generator, progress=progress, chunk_size=chunk_size)
        return Works(there.work, back.work)

    def trips(
        self,
        block: Block,
        *,
        generator: torch.Generator,
        progress: Progress | None = None,
        chunk_size: int = 4096,
        keep: int = 0,
    ) -> tuple[Trip, Trip]:
        """The works, and what was seen on the way, at no further evaluation.

        Args:
            block: samples of both ends.
            generator, progress, chunk_size: as of `simulate`.
            keep: at most so many walkers of each direction are kept where they arrive.
        """

        def run(samples: Tensor, times: tuple[float, ...], encode: Transform | None, far: Transform | None) -> Trip:
            x = samples.flatten(0, 1)
            with torch.no_grad():
                start = x if encode is None else carry(encode, x)
                found = simulate(
                    self.kernel, self.path, times, start, generator=generator, chunk_size=chunk_size, progress=progress
                )
                kept = arrived(found, keep, None if far is None else far.inv)
            work = found.work.cpu().numpy()
            shaped = work.reshape(samples.shape[:2]) if block.correlated else work
            lost = 0.0 if found.lost is None else float(found.lost.double().mean())
            return Trip(shaped, works_along(found), start, found.x, kept, lost)

        return (
            run(block.a, self.times, self.encode_a, self.encode_b),
            run(block.b, self.times[::-1], self.encode_b, self.encode_a),
        )

    def estimate(self, works: Works, *, seed: int = 0) -> FreeEnergy:
        """BAR of works; what integrated log-determinants may err by is added to its error in quadrature."""
        return bar(*works, seed=seed).widened(self.systematic)

    def pilot_error(self, pilot: Block, *, generator: torch.Generator) -> float:
        """Standard error of BAR over pilot walkers, by which step sizes are chosen; +inf where they do not overlap."""
        error = self.estimate(self.works(pilot, generator=generator)).std_error
        return math.inf if error is None else error
