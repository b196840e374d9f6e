"""The rung `tfep` on a lattice: a network with the action's symmetries, regressed on straight lines between fields."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, ReshapeTransform

from nessampler.closed_form.lattice_velocity import Coupling, by_magnetisation, interpolant_velocity
from nessampler.methods.ends import generator_for
from nessampler.methods.flow_matching import Batches, FlowEnds, accurate, train_flow
from nessampler.methods.lattice_ends import AlignedEnds
from nessampler.methods.lattice_switching import sines_for
from nessampler.methods.stage import Candidate, Stage
from nessampler.networks.lattice import LatticeNetwork
from nessampler.objectives.flow_matching import FlowMatching
from nessampler.objectives.interpolant import PairBatch
from nessampler.paths import EndpointPath
from nessampler.targets import TransformedTarget

__all__ = ["lattice_flow_matching"]

FEATURES, KNOTS = 16, 6  # sines, and pieces of time, of the velocity from which training starts


def _flat(aligned: AlignedEnds) -> FlowEnds:
    """Fields as vectors, A reflected where the ends are magnetised in opposite directions."""
    start, end = aligned.path.start, aligned.path.end
    flat = ReshapeTransform(end.event_shape, torch.Size([end.event_shape.numel()]))
    path = EndpointPath(TransformedTarget(start, flat), TransformedTarget(end, flat))
    return FlowEnds(path, flat if aligned.encode_a is None else ComposeTransform([aligned.encode_a, flat]), flat)


class _Flat(nn.Module):
    """A lattice network of vectors."""

    def __init__(self, network: LatticeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.network(t, x.unflatten(1, self.network.shape)).flatten(1)

    def velocity_and_divergence(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        velocity, divergence = self.network.velocity_and_divergence(t, x.unflatten(1, self.network.shape))
        return velocity.flatten(1), divergence


def lattice_flow_matching(stage: Stage) -> Iterator[Candidate]:
    r"""The rung `flow_matching_rung` for fields: pairs in the order of the magnetisation, a lattice network.

    Training starts from the same regression solved in closed form, `interpolant_velocity`; then smearings and sines
    learn as well. The integration is as accurate as there, with the network's exact divergence.

    References: He et al., FEAT, 2025, arXiv:2504.11516 (the baseline); see `flow_matching_rung`.
    """
    aligned = AlignedEnds.of(stage.ends, stage.fit)
    generator, coupling = generator_for(stage.seed, "interpolant velocity of the flow"), by_magnetisation(aligned.even)
    with stage.ledger.charge("tfep", "training"):
        dictionary = sines_for(aligned, FEATURES, generator=generator)
        knots = tuple(k / KNOTS for k in range(KNOTS + 1))
        start = interpolant_velocity(aligned.a, aligned.b, dictionary, knots, coupling=coupling, generator=generator)
    counted = LatticeNetwork.from_drift(start)
    network = _Flat(counted)
    scale = torch.ones(aligned.b[0].numel(), dtype=aligned.b.dtype, device=aligned.b.device)
    with stage.ledger.charge("tfep", "training", counted):
        train_flow(stage, network, FlowMatching(network, scale), _batches(stage, aligned, coupling))
        transport = accurate(stage, _flat(aligned), network)
    yield transport, counted


def _batches(stage: Stage, aligned: AlignedEnds, coupling: Coupling) -> Batches:
    def batches(held_out: bool, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
        a, b = aligned.of_block(stage.select) if held_out else (aligned.a, aligned.b)
        a, b = a.float(), b.float()  # gradients need no more
        while True:
            x_a, x_b = (x.flatten(1) for x in coupling(a, b, generator))
            for rows in torch.randperm(len(x_a), generator=generator, device=generator.device).split(size):
                strata = torch.arange(len(rows), dtype=x_a.dtype, device=generator.device)
                noise = torch.rand(len(rows), generator=generator, dtype=x_a.dtype, device=generator.device)
                t = ((strata + noise) / len(rows)).to(x_a.device)
                yield PairBatch(x_a[rows], x_b[rows], None, None, t, x_a[rows])

    return batches
