"""FEAT for clusters: isotropic Gaussian fields without a centre of mass, and a network that knows the symmetry."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.alignment import Aligned, aligned_distances
from nessampler.closed_form.centre_apart import CentreApart
from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.couplings import OptimalTransport
from nessampler.fields import Fields
from nessampler.kernels import Langevin
from nessampler.methods.ends import generator_for
from nessampler.methods.held_out_works import watch
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.ledger import CountedFields, CountsEvaluations
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.transport import Transport
from nessampler.networks.cluster_fields import ClusterFields
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights
from nessampler.paths import EndpointPath
from nessampler.targets import TransformedTarget, carry
from nessampler.training import fit

__all__ = ["ClusterEnds", "cluster_feat", "cluster_fields"]

DIFFUSIONS = (0.25, 1.0, 3.0)  # eps in units of the path's variance, at t = 0
LAST = 0.02
"""What is left of it at t = 1, where cores are hard: noise that suits the whole cluster pushes atoms into another."""

MOST_EDGES = 20_000
"""Pairs of atoms in a batch: what a step of training takes seconds beyond."""

COUPLED = 16  # conformations of either end among which partners are looked for: their square is to be aligned
POOL = 4  # aligned pairs for every conformation of the fit block


class ClusterEnds:
    """The mapped end of A and the end of B in internal coordinates; the centre of mass is carried along.

    Attributes:
        path: endpoints only.
        encode_a, encode_b: from positions to these coordinates.
        base: fields between the isotropic Gaussians of both ends.
    """

    def __init__(self, stage: Stage, transform: Transform) -> None:
        apart = CentreApart(stage.ends.a.event_shape[0])
        self.stage, self.atoms, self._apart = stage, apart.atoms, apart
        self.encode_a, self.encode_b = ComposeTransform([transform, apart]), apart
        mapped = TransformedTarget(stage.ends.a, transform)
        self.path = EndpointPath(TransformedTarget(mapped, apart), TransformedTarget(stage.ends.b, apart))
        self.u_a, self.u_b = carry(self.encode_a, stage.fit.flat_a), carry(self.encode_b, stage.fit.flat_b)
        self.base = _isotropic(self.u_a, self.u_b, apart)

    def pairs(self, u_a: Tensor, u_b: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Partners at random, B's laid onto A's: turned, mirrored and relabelled."""
        n = min(len(u_a), len(u_b))
        a, b = (u[torch.randperm(len(u), generator=generator, device=generator.device)[:n]] for u in (u_a, u_b))
        x_a, x_b = self._coupled(self._apart.inv(a), self._apart.inv(b))  # pyright: ignore[reportArgumentType]
        return self._apart(x_a), self._apart(Aligned()(x_a, x_b))  # pyright: ignore[reportReturnType]

    def _coupled(self, x_a: Tensor, x_b: Tensor) -> tuple[Tensor, Tensor]:
        """A few at a time, for the distance between two conformations is known once they are aligned."""
        coupling = self.stage.effort.feat.interpolation.coupling
        if coupling is None:
            return x_a, x_b
        if coupling == OptimalTransport():
            coupling = OptimalTransport(aligned_distances)
        found = [coupling(*some) for some in zip(x_a.split(COUPLED), x_b.split(COUPLED), strict=True)]
        return torch.cat([a for a, _ in found]), torch.cat([b for _, b in found])

    def tuned(self, name: str, fields: Fields, steps: int, what: str) -> Transport:
        """Of a few diffusions the one with the smallest BAR error, or else the smallest dissipation, of pilots."""
        stage = self.stage
        pilot, generator = stage.tuning, generator_for(stage.seed, f"tune {what}")

        def quality(transport: Transport) -> tuple[float, float]:
            works = transport.works(pilot, generator=generator)
            error = transport.estimate(works).std_error
            # Forward works of atoms that overlap are beyond any average.
            return inf if error is None else error, float(np.median(works.forward) + np.median(works.reverse))

        return min((self.transport(name, fields, steps, what, factor) for factor in DIFFUSIONS), key=quality)

    def transport(self, name: str, fields: Fields, steps: int, what: str, factor: float = 1.0) -> Transport:
        """At a diffusion of `factor` times what suits the beginning."""
        module = fields if isinstance(fields, nn.Module) else self.base
        return Transport(
            name,
            f"{what}, {steps} steps, ε = {factor:g} (1 - t) × path variance",
            Langevin(fields, lambda t: factor * (1 - t + LAST * t) * self.base.variance(t)),
            self.path,
            tuple(1 - (1 - k / steps) ** 2 for k in range(steps + 1)),
            self.encode_a,
            self.encode_b,
            {f"{name}.{k}": v for k, v in module.state_dict().items()},
        )


def cluster_fields(ends: ClusterEnds) -> tuple[Transport, CountsEvaluations]:
    """The isotropic Gaussian fields by themselves."""
    fields = CountedFields(ends.base)
    with ends.stage.ledger.charge("fields", "training", fields):
        steps = ends.stage.effort.fields_steps
        return ends.tuned("fields", fields, steps, "isotropic Gaussian fields"), fields


def cluster_feat(ends: ClusterEnds) -> Candidate:
    r"""Those fields with a learned remainder, regressed on pairs of which one is laid onto the other.

    References:
        He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025, arXiv:2504.11516; Klein, Krämer & Noé,
        Equivariant flow matching, 2023, arXiv:2306.15030 (aligned pairs).
    """
    stage, training = ends.stage, ends.stage.effort.feat
    stage.without_effect("a network of clusters", "trunks")
    if training.interpolation != Interpolation(coupling=training.interpolation.coupling):
        stage.say("feat: of the interpolation a network of clusters knows the coupling alone")
    few = stage.fit.thinned(stage.effort.tuning_samples).flat_b
    network = ClusterFields(
        ends.base,
        ends.atoms,
        scale=float(ends.base.variance(0.5)[0].sqrt()),
        reach=float(torch.cdist(few, few).max()),
        width=training.width,
        depth=training.depth,
        generator=generator_for(stage.seed, "initial weights"),
    )
    with stage.ledger.charge("feat", "training", network):
        stage.log("cluster fields", _train(ends, network))
        transport = ends.tuned("feat", network, training.sampling_steps, "Gaussian fields with a learned remainder")
    return transport, network


def _train(ends: ClusterEnds, network: ClusterFields) -> list[dict]:
    stage, training = ends.stage, ends.stage.effort.feat
    generator = generator_for(stage.seed, "training batches")
    objective = InterpolantObjective(
        network,
        ends.base.interpolant,
        ends.base.variance,
        # Scores of the ends say nothing about a partner that was chosen: velocity and denoising alone.
        weights=Weights(velocity=1.0, denoising=1.0, controlled_velocity=0.0, controlled_score=0.0),
        reference=ends.base,
    )
    pool_a, pool_b = zip(*(ends.pairs(ends.u_a, ends.u_b, generator) for _ in range(POOL)), strict=True)
    size = max(1, min(training.batch_size, MOST_EDGES // ends.atoms**2))
    held = carry(ends.encode_a, stage.select.flat_a), carry(ends.encode_b, stage.select.flat_b)
    validation = generator_for(stage.seed, "validation batch")
    held_a, held_b = ends.pairs(*held, validation)
    held_out = next(_batches(held_a, held_b, 1024, validation))

    def progress(done: int, total: int) -> None:
        if done % max(1, total // 5) == 0:
            stage.say(f"feat: trained {done} of {total} steps")

    return fit(
        network,
        objective,
        _batches(torch.cat(pool_a), torch.cat(pool_b), size, generator),
        steps=training.steps,
        learning_rate=training.learning_rate,
        generator=generator,
        checkpoint=stage.checkpoint,
        tallies=stage.tallies,
        validate=lambda: objective(held_out).detach(),
        **watch(stage, ends.transport("feat", network, training.sampling_steps, "in training"))._asdict(),
        progress=progress,
    )


def _batches(u_a: Tensor, u_b: Tensor, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
    """Pairs of a pool, at stratified times."""
    like = {"dtype": u_a.dtype, "device": generator.device}
    while True:
        rows = torch.randint(len(u_a), (size,), generator=generator, device=generator.device)
        t = (torch.arange(size, **like) + torch.rand(size, generator=generator, **like)) / size
        z = torch.randn(size, u_a.shape[1], generator=generator, **like)
        yield PairBatch(u_a[rows], u_b[rows], None, None, t.to(u_a), z.to(u_a))


def _isotropic(u_a: Tensor, u_b: Tensor, apart: CentreApart) -> GaussianFields:
    moving, zero = apart.internal, torch.zeros(u_a.shape[1]).to(u_a)
    a, b = (u[:, moving].square().mean() * torch.eye(u.shape[1]).to(u) for u in (u_a, u_b))
    return GaussianFields(zero, zero, a, b, moving=moving)
