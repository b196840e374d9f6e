"""The rung `tfep` for clusters: a flow that knows the symmetry of like atoms, learned on aligned pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions.transforms import ReshapeTransform

from nessampler.alignment import Aligned
from nessampler.kernels import Map
from nessampler.kernels.ode_map import OdeMap
from nessampler.methods.cluster_feat import MOST_EDGES, POOL
from nessampler.methods.ends import generator_for
from nessampler.methods.flow_matching import Batches, accurate, train_flow
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.transport import Transport
from nessampler.networks.embedded_pairs import EmbeddedPairs
from nessampler.networks.field import NetworkField
from nessampler.objectives.flow_matching import FlowMatching
from nessampler.objectives.interpolant import PairBatch
from nessampler.paths import EndpointPath
from nessampler.targets import TransformedTarget

__all__ = ["cluster_flow_matching"]

HELD_OUT = 1024  # pairs, as FEAT of clusters has


def cluster_flow_matching(stage: Stage) -> Iterator[Candidate]:
    r"""The rung `flow_matching_rung` for clusters, from the trap itself; partners are turned, mirrored and relabelled.

    In one trap the centre of mass is distributed alike at both ends and independent of everything else; the flow leaves
    it where it is. After a map that moves atoms one by one it would be neither, so the chosen map is not used. The
    divergence is exact (`EmbeddedPairs`), training is that of FEAT's network (its batches, averaged weights, least
    held-out loss), and the integration's tolerance is chosen and its error measured as between vectors.

    References:
        He et al., FEAT, 2025, arXiv:2504.11516 (the baseline that this is); Klein, Krämer & Noé, Equivariant flow
        matching, 2023, arXiv:2306.15030 (aligned pairs); see `flow_matching_rung`.
    """
    training, shape = stage.effort.feat, stage.ends.a.event_shape
    atoms, few = shape[0], stage.fit.thinned(stage.effort.tuning_samples)
    network = EmbeddedPairs(
        atoms,
        reach=max(float(torch.cdist(x, x).max()) for x in (few.flat_a, few.flat_b)),
        width=training.width,
        generator=generator_for(stage.seed, "initial weights of the flow"),
    ).to(few.flat_a.device)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        return network(t, x.unflatten(1, shape)).flatten(1)

    with stage.ledger.charge("tfep", "training", network):
        train_flow(
            stage,
            network,
            FlowMatching(velocity, few.flat_a.new_ones(shape.numel())),
            _batches(stage),
            batch_size=max(1, min(training.batch_size, MOST_EDGES // atoms**2)),
            held_out=HELD_OUT,
        )
        network.double()  # the integration is more accurate than float32 can hold
        transport = accurate(stage, network, lambda tolerance: _transport(stage, network, tolerance))
    yield transport, network


def _batches(stage: Stage) -> Batches:
    def batches(held_out: bool, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
        block, own = stage.select if held_out else stage.fit, generator_for(stage.seed, f"aligned pairs {held_out}")
        pools = [_pairs(block.flat_a, block.flat_b, own) for _ in range(POOL)]
        a, b = (torch.cat(part).flatten(1).float() for part in zip(*pools, strict=True))  # gradients need no more
        return _drawn(a, b, size, generator)

    return batches


def _drawn(a: Tensor, b: Tensor, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
    """Pairs of a pool, at stratified times."""
    device = generator.device
    while True:
        rows = torch.randint(len(a), (size,), generator=generator, device=device).to(a.device)
        t = (torch.arange(size, device=device) + torch.rand(size, generator=generator, device=device)) / size
        yield PairBatch(a[rows], b[rows], None, None, t.to(a), a[rows])


def _pairs(x_a: Tensor, x_b: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Partners at random without their centres of mass, B's laid onto A's."""
    n = min(len(x_a), len(x_b))
    a, b = (x[torch.randperm(len(x), generator=generator, device=generator.device)[:n]] for x in (x_a, x_b))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return a, Aligned()(a, b)


def _transport(stage: Stage, network: EmbeddedPairs, tolerance: float) -> Transport:
    shape, field = stage.ends.a.event_shape, NetworkField(network)
    flat = ReshapeTransform(shape, torch.Size([shape.numel()]))

    def rate(t: float, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity, divergence = field(t, x.unflatten(1, shape))
        return velocity.flatten(1), divergence

    path = EndpointPath(TransformedTarget(stage.ends.a, flat), TransformedTarget(stage.ends.b, flat))
    what = f"equivariant flow matching, integrated at tolerance {tolerance:g}"
    return Transport("tfep", what, Map(OdeMap(rate, tolerance)), path, (0.0, 1.0), flat, flat)
