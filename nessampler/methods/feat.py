"""The learned rung, FEAT: velocity and score of an interpolant, a network on top of fields in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.methods.ends import generator_for
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.standardised import StandardisedEnds
from nessampler.networks.mlp import ResidualFields
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch
from nessampler.targets import energy_and_score
from nessampler.training import fit, pairs

__all__ = ["feat_rung"]


def feat_rung(stage: Stage) -> Iterator[Candidate]:
    r"""Gaussian fields between the mapped end $T_\# A$ and B, plus a learned remainder.

    Both ends are seen in coordinates that standardise B, given the circular coordinates, which do not move: what
    is transported is everything else. The fields have no need of interior energies, so a path of many steps
    costs two energies per walker.

    References:
        He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025, arXiv:2504.11516.
    """
    training = stage.effort.feat
    if training.steps == 0:
        return
    ends = StandardisedEnds(stage, stage.mapping)
    base = ends.gaussian_fields()
    network = _network(stage, ends, base)
    with stage.ledger.charge("feat", "training", network):
        stage.metrics.extend(_train(stage, ends, network, base))
        what = "Gaussian fields with a learned remainder"
        transport = ends.tuned("feat", network, base, training.sampling_steps, what)
    yield transport, network


def _network(stage: Stage, ends: StandardisedEnds, base: GaussianFields) -> ResidualFields:
    spread = torch.cat([ends.u_a, ends.u_b])
    return ResidualFields(
        base,
        center=spread.mean(0),
        scale=spread.std(0),
        circular=~ends.moving,
        width=stage.effort.feat.width,
        depth=stage.effort.feat.depth,
        generator=generator_for(stage.seed, "initial weights"),
    ).to(spread.device)


def _train(stage: Stage, ends: StandardisedEnds, network: ResidualFields, base: GaussianFields) -> list[dict]:
    """Regress on the fit block; stop where the select block's loss no longer falls."""
    training, seed = stage.effort.feat, stage.seed
    objective = InterpolantObjective(network, base.interpolant, base.variance, control=base, reference=base)
    generator = generator_for(seed, "training batches")
    batches = _pairs(ends, ends.u_a, ends.u_b, training.batch_size, generator)
    held_out = next(_pairs(ends, ends.held_a, ends.held_b, 4096, generator_for(seed, "validation batch")))

    def progress(done: int, total: int) -> None:
        if done % max(1, total // 5) == 0:
            stage.say(f"feat: trained {done} of {total} steps")

    return fit(
        network,
        objective,
        batches,
        steps=training.steps,
        learning_rate=training.learning_rate,
        generator=generator,
        checkpoint=stage.checkpoint,
        validate=lambda: objective(held_out),
        patience=training.patience,
        every=max(1, training.steps // 20),
        progress=progress,
    )


def _pairs(
    ends: StandardisedEnds, u_a: Tensor, u_b: Tensor, size: int, generator: torch.Generator
) -> Iterator[PairBatch]:
    score_a = energy_and_score(ends.path.start, u_a)[1]
    score_b = energy_and_score(ends.path.end, u_b)[1]
    return pairs(u_a, u_b, score_a, score_b, size, generator, moving=ends.moving)
