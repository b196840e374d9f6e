"""What the engine adds to the cost of the fields."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

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
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.parametrize("threads", sorted({1, os.cpu_count() or 1}))
def test_a_langevin_step_costs_at_most_1_3_evaluations_of_its_fields(threads, record_property):
    fields = perceptron()
    kernel, generator = Langevin(fields, 0.1), torch.Generator().manual_seed(0)
    x, t = torch.randn(WALKERS, DIMENSIONS, generator=generator), torch.full((WALKERS,), 0.5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            walkers = kernel.start(0.5, x)
            pairs = [
                (
                    seconds(lambda: fields(t, x)),
                    seconds(lambda: kernel.step(0.5, 0.51, walkers, generator=generator)),
                )
                for _ in range(220)
            ][20:]
    finally:
        torch.set_num_threads(before)
    evaluation, step = (statistics.median(column) for column in zip(*pairs, strict=True))
    record_property("ratio", step / evaluation)
    print(f"\n{threads} thread(s): fields {1e3 * evaluation:.2f} ms, step {1e3 * step:.2f} ms, {step / evaluation:.3f}")
    assert step <= 1.3 * evaluation
