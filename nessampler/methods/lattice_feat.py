"""The learned rung on a lattice: a network that starts as a closed-form drift and lowers the variance of its works."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nessampler.methods.ends import generator_for
from nessampler.methods.lattice_ends import AlignedEnds
from nessampler.methods.stage import Stage
from nessampler.networks.lattice import LatticeNetwork
from nessampler.objectives.work_variance import EndBatch, WorkVariance
from nessampler.paths import LinearPath
from nessampler.training import fit

__all__ = ["train_on_works"]

BATCH = 64  # of either end
FLOW_STEPS = 2  # of order 4, in training: its variance is what counts, and the error of a step is nearly a constant
HELD_OUT = 128


def train_on_works(stage: Stage, ends: AlignedEnds, network: LatticeNetwork) -> None:
    """Smearings, mixtures and coefficients by Adam on the fit block; the best by the select block stay."""
    training, seed = stage.effort.feat, stage.seed
    stage.without_effect("a lattice network, which is trained on works", "trunks", "interpolation", "stopping")
    times = tuple(k / FLOW_STEPS for k in range(FLOW_STEPS + 1))
    objective = WorkVariance(network, ends.path.start, ends.path.end, times)
    generator = generator_for(seed, "lattice batches")
    held_out = _batch(ends.path, *ends.of_block(stage.select.thinned(HELD_OUT)))
    stage.log(
        "lattice network",
        fit(
            network,
            objective,
            _batches(_batch(ends.path, ends.a, ends.b), generator),
            steps=training.steps,
            learning_rate=training.learning_rate,
            generator=generator,
            checkpoint=stage.checkpoint,
            tallies=stage.tallies,
            validate=lambda: objective(held_out),
            patience=training.patience,
            every=max(1, training.steps // 8),
            progress=stage.watched("feat: training"),
            report=stage.report,
        ),
    )


def _batches(whole: EndBatch, generator: torch.Generator) -> Iterator[EndBatch]:
    while True:
        i, j = (
            torch.randint(len(x), (min(BATCH, len(x)),), generator=generator, device=generator.device)
            for x in (whole.x_a, whole.x_b)
        )
        yield EndBatch(whole.x_a[i], whole.x_b[j], whole.energy_a[i], whole.energy_b[j])


def _batch(path: LinearPath, a: torch.Tensor, b: torch.Tensor) -> EndBatch:
    # Gradients need no more than float32, works do: energies are summed in float64 either way.
    return EndBatch(a.float(), b.float(), path.start.energy(a), path.end.energy(b))
