"""A step of dynamics on a GPU as one graph of kernels, launched at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CapturedStep"]

WARM_UP = 3  # steps before one is recorded, in which programs compile and libraries fetch their workspaces


class CapturedStep:
    """A function that changes positions and velocities in place, recorded once and replayed for every step.

    A step of a small molecule is some tens of kernels of microseconds each, and calling them from Python takes longer
    than running them. Random numbers go on where the generator is, as if every step had been called.

    Args:
        step: of x and v; nothing in it may wait for the GPU.
        x, v: what it is to work on: copies are taken.
        generator: the one that `step` draws from, on the GPU.

    References:
        PyTorch, CUDA semantics, "CUDA Graphs".
    """

    def __init__(
        self, step: Callable[[Tensor, Tensor], None], x: Tensor, v: Tensor, generator: torch.Generator
    ) -> None:
        with torch.cuda.device(x.device):
            self._record(step, x, v, generator)

    def _record(self, step: Callable[[Tensor, Tensor], None], x: Tensor, v: Tensor, generator: torch.Generator) -> None:
        self._x, self._v = x.clone(), v.clone()
        before = generator.get_state()
        aside = torch.cuda.Stream(x.device)
        aside.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                step(self._x, self._v)
        torch.cuda.current_stream(x.device).wait_stream(aside)
        generator.set_state(before)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph):
            step(self._x, self._v)

    def run(self, x: Tensor, v: Tensor, steps: int, progress: Callable[[int], None] | None) -> tuple[Tensor, Tensor]:
        """So many steps from x and v, which stay as they are; `progress` is told of steps as they are launched."""
        self._x.copy_(x)
        self._v.copy_(v)
        for step in range(steps):
            self._graph.replay()
            if progress:
                progress(step + 1)
        return self._x.clone(), self._v.clone()
