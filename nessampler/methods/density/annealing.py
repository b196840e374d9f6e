"""A way from the base to the target, ready to run and frozen: it gives walkers, and more of them later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.kernels import Kernel
from nessampler.paths import AnnealingPath
from nessampler.simulate import Ensemble, simulate

__all__ = ["Annealing"]

DRAWN_AT_ONCE = 2**25  # numbers


@dataclass(frozen=True)
class Annealing:
    """Kernel, path and times, all decided on pilot walkers.

    Attributes:
        name: ais, lsq or nets.
        description: what it does, for a table.
        kernel: moves walkers in both directions of time.
        times: increasing, from 0 to 1.
        dtype: of walkers.
        path: its start has `sample` and `log_z`.
        systematic: measured error of log Z by integrated log-determinants; 0 for exact kernels.
        state: tensors that, with the code, make it again; saved with a run.
    """

    name: str
    description: str
    kernel: Kernel
    path: AnnealingPath
    times: tuple[float, ...]
    systematic: float = 0.0
    dtype: torch.dtype = torch.float64
    state: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def base_log_z(self) -> float:
        """log Z of the density that walkers start from."""
        return float(self.path.start.log_z)  # pyright: ignore[reportAttributeAccessIssue]

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator,
        chunk_size: int = 4096,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], None] | None = None,
        watch: Callable[[float], None] | None = None,
    ) -> Ensemble:
        """n fresh walkers, from the base to the target."""
        return self._run(self._drawn(n, generator, device), self.times, generator, chunk_size, progress, watch)

    def _drawn(self, n: int, generator: torch.Generator, device: torch.device | str) -> Tensor:
        """Of the base, which works in float64: piece by piece, so that it holds little beside what is returned."""
        start, size = self.path.start, max(1, DRAWN_AT_ONCE // self.path.start.event_shape.numel())
        if n <= size:
            return start.sample(n, generator=generator).to(device, self.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        x = torch.empty(n, *start.event_shape, dtype=self.dtype, device=device)
        for done in range(0, n, size):
            x[done : done + size] = start.sample(min(size, n - done), generator=generator)  # pyright: ignore[reportAttributeAccessIssue]
        return x

    def reverse(
        self,
        x: Float[Tensor, " n *event"],
        *,
        generator: torch.Generator,
        chunk_size: int = 4096,
        progress: Callable[[int, int], None] | None = None,
        watch: Callable[[float], None] | None = None,
    ) -> Ensemble:
        """Walkers from samples of the target back to the base; `log_z_ratio` estimates minus that of `draw`.

        Raises:
            InputError: samples of the wrong shape, and what `simulate` refuses.
        """
        if x.shape[1:] != self.path.end.event_shape:
            raise InputError(
                f"samples of the target must have event shape {tuple(self.path.end.event_shape)}: "
                f"got {tuple(x.shape[1:])}; pass one row per sample"
            )
        return self._run(x.to(self.dtype), self.times[::-1], generator, chunk_size, progress, watch)

    def _run(
        self,
        x: Tensor,
        times: tuple[float, ...],
        generator: torch.Generator,
        chunk_size: int,
        progress: Callable[[int, int], None] | None,
        watch: Callable[[float], None] | None,
    ) -> Ensemble:
        options = {"chunk_size": chunk_size, "progress": progress, "watch": watch}
        return simulate(self.kernel, self.path, times, x, generator=generator, **options)
