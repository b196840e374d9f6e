"""The rung `tfep` on a lattice: a network with the action's symmetries, regressed on straight lines between fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nessampler.closed_form.lattice_velocity import Coupling, by_magnetisation, interpolant_velocity
from nessampler.methods.ends import generator_for
from nessampler.methods.flow_matching import Batches, train_flow
from nessampler.methods.lattice_ends import AlignedEnds
from nessampler.methods.lattice_switching import carried, sines_for
from nessampler.methods.stage import Candidate, Stage
from nessampler.networks.field import NetworkField
from nessampler.networks.lattice import LatticeNetwork
from nessampler.objectives.flow_matching import FlowMatching
from nessampler.objectives.interpolant import PairBatch

__all__ = ["lattice_flow_matching"]

FLOW_STEPS = 4  # of order 4, at least
FEATURES, KNOTS = 16, 6  # sines, and pieces of time, of the velocity from which training starts


def lattice_flow_matching(stage: Stage) -> Iterator[Candidate]:
    r"""The rung `flow_matching_rung` for fields: pairs in the order of the magnetisation, a lattice network.

    Training starts from the same regression solved in closed form, `interpolant_velocity`; then smearings and sines
    learn as well. The divergence is exact, and Runge–Kutta steps are as many as `fine_enough` asks for; what they shift
    ΔF by is measured and in the error.

    References: He et al., FEAT, 2025, arXiv:2504.11516 (the baseline); see `flow_matching_rung`.
    """
    aligned = AlignedEnds.of(stage.ends, stage.fit)
    generator, coupling = generator_for(stage.seed, "interpolant velocity of the flow"), by_magnetisation(aligned.even)
    with stage.ledger.charge("tfep", "training"):
        dictionary = sines_for(aligned, FEATURES, generator=generator)
        knots = tuple(k / KNOTS for k in range(KNOTS + 1))
        start = interpolant_velocity(aligned.a, aligned.b, dictionary, knots, coupling=coupling, generator=generator)
    network = LatticeNetwork.from_drift(start)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        return network(t, x.unflatten(1, network.shape)).flatten(1)

    scale = torch.ones(aligned.b[0].numel(), dtype=aligned.b.dtype, device=aligned.b.device)
    with stage.ledger.charge("tfep", "training", network):
        train_flow(stage, network, FlowMatching(velocity, scale), _batches(stage, aligned, coupling))
        what, pilots = "flow matching", stage.effort.tuning_samples
        field, options = NetworkField(network), {"generator": generator, "say": stage.say}
        transport = carried("tfep", what, aligned, field, FLOW_STEPS, pilots, **options)
    state = {f"tfep.{k}": v for k, v in network.state_dict().items()}
    yield replace(transport, state=state), network


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
