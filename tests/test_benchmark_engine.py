"""What the engine adds to the cost of the fields."""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from nessampler.fields import Evaluated
from nessampler.kernels import Langevin

WALKERS, DIMENSIONS, WIDTH, DEPTH = 1_000, 60, 256, 4


def perceptron() -> Callable[[Tensor, Tensor], Evaluated]:
    """Velocity and score from one network of four hidden layers, float32."""
    widths = [DIMENSIONS + 1, *[WIDTH] * DEPTH]
    layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), nn.SiLU())]
    network = nn.Sequential(*layers, nn.Linear(WIDTH, 2 * DIMENSIONS))

    def fields(t: Tensor, x: Tensor) -> Evaluated:
        velocity, score = network(torch.cat([t[:, None], x], 1)).chunk(2, 1)
        return Evaluated(velocity, score)

    return fields


def seconds(call: Callable[[], object]) -> float:
    """Of processor time, on all threads: what other processes do to the clock is no cost of ours."""
    start = time.process_time()
    call()
    return time.process_time() - start


def least_seconds(*calls: Callable[[], object], repeats: int = 12) -> list[float]:
    """The least time of each, taken in turn."""
    return [min(column) for column in zip(*([seconds(c) for c in calls] for _ in range(repeats)), strict=True)]


@pytest.fixture(scope="module")
def steady_heap() -> None:
    """Let glibc keep freed memory: whether it hands pages back between two calls depends on the heap's history."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the run-time checks of shapes, which only tests pay for."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=sorted({1, os.cpu_count() or 1}))
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """One thread, and as many as there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked", "steady_heap")
def test_a_langevin_step_costs_at_most_1_3_evaluations_of_its_fields(threads):
    fields = perceptron()
    kernel, generator = Langevin(fields, 0.1), torch.Generator().manual_seed(0)
    x, t = torch.randn(WALKERS, DIMENSIONS, generator=generator), torch.full((WALKERS,), 0.5)
    with torch.no_grad():
        walkers = kernel.start(0.5, x)

        def evaluate() -> object:
            return fields(t, x)

        def step() -> object:
            return kernel.step(0.5, 0.51, walkers, generator=generator)

        least_seconds(evaluate, step)  # warm
        rounds = [least_seconds(evaluate, step) for _ in range(20)]
    ratio = statistics.median(moved / evaluated for evaluated, moved in rounds)
    evaluated, moved = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"\n{threads} thread(s): fields {evaluated:.2f} ms, step {moved:.2f} ms, ratio {ratio:.3f}")
    assert ratio <= 1.3
