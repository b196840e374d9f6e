"""Rung 3b: FEAT. Velocity and score of an interpolant, first in closed form, then with a learned remainder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.affine import fit_standardizer
from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.kernels import Langevin
from nessampler.methods.ends import Block, Ends, generator_for
from nessampler.methods.ledger import CountedFields, CountsEvaluations, Ledger
from nessampler.methods.transport import Transport
from nessampler.networks.mlp import ResidualFields
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch
from nessampler.paths import EndpointPath
from nessampler.targets import TransformedTarget, carry, energy_and_score
from nessampler.training import fit, pairs

__all__ = ["Training", "feat_transports"]

DIFFUSIONS = (0.25, 0.5, 1.0, 2.0)  # eps in units of the path's variance


@dataclass(frozen=True)
class Training:
    """The learned rung: how large, how long, how finely sampled. Zero `steps` leave the analytic fields alone."""

    steps: int = 1000
    batch_size: int = 512
    learning_rate: float = 5e-3
    width: int = 128
    depth: int = 3
    sampling_steps: int = 64
    patience: int = 6


def feat_transports(
    ends: Ends,
    transform: Transform,
    fit_block: Block,
    select: Block,
    *,
    training: Training,
    tuning_samples: int,
    ledger: Ledger,
    seed: int,
    say: Callable[[str], None],
    checkpoint: Path | None,
    metrics: list[dict],
) -> Iterator[tuple[Transport, CountsEvaluations]]:
    r"""Transports between the mapped end $T_\# A$ and B: analytic Gaussian fields, then those plus a network.

    Both ends are seen in coordinates that standardise B, given the circular coordinates, which do not move: what
    is transported is everything else. The fields have no need of interior energies, so a path of many steps
    costs two energies per walker.

    References:
        He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025, arXiv:2504.11516.
    """
    stage = _Stage(ends, transform, fit_block, select, training, tuning_samples, ledger, seed, say)
    base = stage.analytic()
    fields = CountedFields(base)
    with ledger.charge("feat", "training", fields):
        transport = stage.tuned(fields, base, "analytic Gaussian fields")
    yield transport, fields
    if training.steps == 0:
        return
    network = stage.network(base)
    with ledger.charge("feat", "training", network):
        metrics.extend(stage.train(network, base, checkpoint))
        transport = stage.tuned(network, base, "Gaussian fields with a learned remainder")
    yield transport, network


class _Stage:
    """Both ends in standardised coordinates, and their samples in them."""

    def __init__(
        self,
        ends: Ends,
        transform: Transform,
        fit_block: Block,
        select: Block,
        training: Training,
        tuning_samples: int,
        ledger: Ledger,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.training, self.ledger, self.seed, self.say = training, ledger, seed, say
        self.pilot, self.moving = fit_block.thinned(tuning_samples), ~ends.circular
        standard = fit_standardizer(fit_block.flat_b, ends.circular, conditional=bool(ends.circular.any()))
        self.encode_a, self.encode_b = ComposeTransform([transform, standard]), standard
        self.path = EndpointPath(
            TransformedTarget(TransformedTarget(ends.a, transform), standard), TransformedTarget(ends.b, standard)
        )
        self.u_a, self.u_b = carry(self.encode_a, fit_block.flat_a), carry(self.encode_b, fit_block.flat_b)
        self.held_a, self.held_b = carry(self.encode_a, select.flat_a), carry(self.encode_b, select.flat_b)

    def analytic(self) -> GaussianFields:
        return fit_gaussian_fields(self.u_a, self.u_b, shrink=0.75, moving=self.moving)

    def network(self, base: GaussianFields) -> ResidualFields:
        spread = torch.cat([self.u_a, self.u_b])
        return ResidualFields(
            base,
            center=spread.mean(0),
            scale=spread.std(0),
            circular=~self.moving,
            width=self.training.width,
            depth=self.training.depth,
            generator=generator_for(self.seed, "initial weights"),
        ).to(spread.device)

    def train(self, network: ResidualFields, base: GaussianFields, checkpoint: Path | None) -> list[dict]:
        """Regress on the fit block; stop where the select block's loss no longer falls."""
        objective = InterpolantObjective(network, base.interpolant, base.variance, control=base, reference=base)
        generator = generator_for(self.seed, "training batches")
        batches = self._pairs(self.u_a, self.u_b, self.training.batch_size, generator)
        held_out = next(self._pairs(self.held_a, self.held_b, 4096, generator_for(self.seed, "validation batch")))
        return fit(
            network,
            objective,
            batches,
            steps=self.training.steps,
            learning_rate=self.training.learning_rate,
            generator=generator,
            checkpoint=checkpoint,
            validate=lambda: objective(held_out),
            patience=self.training.patience,
            every=max(1, self.training.steps // 20),
            progress=self._progress,
        )

    def _pairs(self, u_a: Tensor, u_b: Tensor, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
        score_a = energy_and_score(self.path.start, u_a)[1]
        score_b = energy_and_score(self.path.end, u_b)[1]
        return pairs(u_a, u_b, score_a, score_b, size, generator, moving=self.moving)

    def _progress(self, done: int, total: int) -> None:
        if done % max(1, total // 5) == 0:
            self.say(f"feat: trained {done} of {total} steps")

    def tuned(self, fields: CountedFields | ResidualFields, base: GaussianFields, what: str) -> Transport:
        """The diffusion with the smallest BAR error of pilot walkers, frozen from there on."""
        generator = generator_for(self.seed, f"tune feat {what}")
        candidates = (self._transport(fields, base, factor, what) for factor in DIFFUSIONS)
        return min(candidates, key=lambda candidate: candidate.pilot_error(self.pilot, generator=generator))

    def _transport(
        self, fields: CountedFields | ResidualFields, base: GaussianFields, factor: float, what: str
    ) -> Transport:
        def diffusion(t: float) -> Tensor:
            return factor * base.variance(t)

        module = fields if isinstance(fields, ResidualFields) else base
        steps = self.training.sampling_steps
        state = {f"feat.{k}": v for k, v in module.state_dict().items()}
        return Transport(
            "feat",
            f"{what}, {steps} steps, ε = {factor:g} × path variance",
            Langevin(fields, diffusion),
            self.path,
            tuple(k / steps for k in range(steps + 1)),
            self.encode_a,
            self.encode_b,
            state,
        )
