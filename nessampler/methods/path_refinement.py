"""Refine fields on the works themselves: record paths both ways, lower the variance of their weights, record anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.kernels import Langevin
from nessampler.objectives.path_variance import Paths, PathVarianceObjective, log_cosh
from nessampler.paths import Path
from nessampler.training import Row, fit

__all__ = ["record_paths", "refine"]


def record_paths(
    kernel: Langevin,
    path: Path,
    times: Sequence[float],
    x_a: Float[Tensor, "n d"],
    x_b: Float[Tensor, "m d"],
    *,
    generator: torch.Generator,
) -> Paths:
    """Forward paths from samples of A and reversed ones from samples of B, written from A to B.

    Example:
        >>> from nessampler.closed_form import GaussianFields
        >>> from nessampler.paths import EndpointPath
        >>> from nessampler.targets import Gaussian
        >>> fields = GaussianFields(torch.zeros(1), torch.ones(1), torch.eye(1), torch.eye(1))
        >>> ends = EndpointPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> x = torch.zeros(4, 1)
        >>> record_paths(Langevin(fields, 1.0), ends, [0.0, 0.5, 1.0], x, x, generator=torch.Generator()).x.shape
        torch.Size([3, 8, 1])
    """
    there, back = _run(kernel, times, x_a, generator), _run(kernel, times[::-1], x_b, generator).flip(0)
    x = torch.cat([there, back], 1)
    knots = torch.tensor(times, dtype=torch.float64)
    return Paths(knots, x, path.start.energy(x[0]), path.end.energy(x[-1]))


def refine(
    fields: nn.Module,
    kernel: Langevin,
    path: Path,
    times: Sequence[float],
    x_a: Float[Tensor, "n d"],
    x_b: Float[Tensor, "m d"],
    held_out: tuple[Float[Tensor, "k d"], Float[Tensor, "l d"]],
    *,
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    walkers: int = 128,
    reuse: int = 10,
) -> list[Row]:
    """Fit `fields`, which `kernel` moves with, to the spread of its path weights; held-out paths pick the best.

    Every `reuse` gradient steps, `walkers` new paths of either direction are recorded with the fields as they are. A
    gradient step costs the fields at every time of every path, and a path two energies. The held-out paths are
    recorded once, with the fields at the start: any law of the paths will do to judge, and the same paths judge all.

    Returns:
        Rows of the training curve, as of `fit`.
    """
    objective = PathVarianceObjective(fields, kernel.diffusion, penalty=log_cosh)

    def batches() -> Iterator[Paths]:
        while True:
            chosen = (
                x[torch.randint(len(x), (walkers,), generator=generator, device=generator.device)] for x in (x_a, x_b)
            )
            paths = record_paths(kernel, path, times, *chosen, generator=generator)
            for _ in range(reuse):
                yield paths

    judges = record_paths(kernel, path, times, *held_out, generator=generator)
    return fit(
        fields,
        objective,
        batches(),
        steps=steps,
        learning_rate=learning_rate,
        generator=generator,
        validate=lambda: objective(judges),
        every=max(1, steps // 10),
    )


def _run(kernel: Langevin, times: Sequence[float], x: Tensor, generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        walkers = kernel.start(times[0], x)
        seen = [walkers.x]
        for k in range(len(times) - 1):
            walkers, _ = kernel.step(times[k], times[k + 1], walkers, generator=generator)
            seen.append(walkers.x)
    return torch.stack(seen)
