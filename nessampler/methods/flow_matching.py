"""The rung `tfep`: targeted free-energy perturbation along a flow that is learned by flow matching."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from nessampler.errors import InputError
from nessampler.kernels import Map
from nessampler.kernels.ode_map import OdeMap
from nessampler.methods.ends import Block, generator_for
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.standardised import StandardisedEnds
from nessampler.methods.transport import Transport
from nessampler.networks.field import NetworkField
from nessampler.networks.velocity import VelocityNetwork
from nessampler.objectives.flow_matching import FlowMatching
from nessampler.objectives.interpolant import PairBatch
from nessampler.training import fit, pairs

__all__ = ["Batches", "accurate", "flow_matching_rung", "map_error", "train_flow"]

TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
STRICTER = 0.01
WORK_ERROR = 1e-3  # kT: a thirtieth of the best errors that differences are asked for
PROBES = 32  # samples of each end on which the integration is measured
BEYOND = 50.0  # kT above the least work of a direction: what weighs e^-50 of it may be off by anything
HELD_OUT = 4096  # pairs

Array = np.ndarray
Batches = Callable[[bool, int, torch.Generator], Iterator[PairBatch]]


def flow_matching_rung(stage: Stage) -> Iterator[Candidate]:
    r"""A velocity regressed on straight lines between pairs of end samples, integrated all the way from 0 to 1.

    The ends are the same as the learned residual's: A mapped in closed form, both standardised. Training is that of
    FEAT's network: Adam, averaged weights, least held-out loss. The divergence is exact, and the integration's
    tolerance the largest at which works move by less than a thousandth of kT when it is made a hundred times stricter;
    what they do move by is added to the error.

    References:
        Jarzynski, Targeted free energy perturbation, 2002, doi:10.1103/PhysRevE.65.046122; Zhao & Wang, Bounding free
        energy difference with flow matching, 2023, doi:10.1088/0256-307X/40/12/120201; He et al., FEAT, 2025,
        arXiv:2504.11516 (the baseline that this is).
    """
    ends = StandardisedEnds(stage, stage.mapping)
    network = _network(stage, ends)
    with stage.ledger.charge("tfep", "training", network):
        train_flow(stage, network, FlowMatching(network, network.scale, ends.moving), _batches(ends))
        network.double()  # the integration is more accurate than float32 can hold
        transport = accurate(stage, network, lambda tolerance: _transport(ends, network, tolerance))
    yield transport, network


def map_error(transport: Transport, stricter: Transport, probes: Block) -> float:
    """Root mean square change of a few samples' works under a stricter integration, in kT.

    Works that are 50 kT above the least of their direction either way weigh nothing, and are left out; so are those
    that are +inf either way. One that is so only one way makes the error +inf, and so does one that is not a
    number; where none is left, nothing is known, and the error is +inf too.
    """
    generator = torch.Generator()  # maps draw nothing
    ours, theirs = (t.works(probes, generator=generator) for t in (transport, stricter))
    changes = np.concatenate([_changes(*pair) for pair in zip(ours, theirs, strict=True)])
    return math.sqrt(float((changes**2).mean())) if len(changes) else math.inf


def _changes(one: Array, other: Array) -> Array:
    one, other = one.ravel(), other.ravel()
    if np.isnan(one).any() or np.isnan(other).any():
        return np.array([math.inf])
    lower = np.minimum(one, other)
    counts = (lower < math.inf) & (lower <= lower.min(initial=math.inf) + BEYOND)
    return one[counts] - other[counts]


def _network(stage: Stage, ends: StandardisedEnds) -> VelocityNetwork:
    spread = torch.cat([ends.u_a, ends.u_b])
    return VelocityNetwork(
        spread.mean(0),
        torch.where(ends.moving, spread.std(0), 1.0),
        circular=~ends.moving,
        width=2 * stage.effort.feat.width,
        generator=generator_for(stage.seed, "initial weights of the flow"),
    ).to(spread.device)


def train_flow(
    stage: Stage,
    network: nn.Module,
    objective: FlowMatching,
    batches: Batches,
    *,
    batch_size: int | None = None,
    held_out: int = HELD_OUT,
) -> None:
    """As FEAT's network is: Adam, averaged weights, the least loss on pairs of the select block.

    Args:
        batches: `(held_out, size, generator)` to endless batches, of the fit block or of samples that are held out.
        batch_size: by default that of FEAT.
        held_out: pairs of the select block.

    Raises:
        InputError: no steps.
    """
    training, seed = stage.effort.feat, stage.seed
    stage.without_effect("a flow that is learned by flow matching", "trunks", "interpolation", "stopping")
    if training.steps == 0:
        raise InputError(
            "the flow of tfep is nothing but what it learns: got no training steps; set the steps of feat to 1 at "
            "least, or choose another method"
        )
    generator = generator_for(seed, "batches of flow matching")
    unseen = next(batches(True, held_out, generator_for(seed, "validation of flow matching")))
    rows = fit(
        network,
        objective,
        batches(False, batch_size or training.batch_size, generator),
        steps=training.steps,
        learning_rate=training.learning_rate,
        generator=generator,
        checkpoint=stage.checkpoint,
        tallies=stage.tallies,
        validate=lambda: objective(unseen),
        patience=training.patience,
        every=max(1, training.steps // 20),
        progress=stage.watched("tfep: training"),
        report=stage.report,
    )
    stage.log("flow matching", rows)


def _batches(ends: StandardisedEnds) -> Batches:
    def batches(held_out: bool, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
        u_a, u_b = (ends.held_a, ends.held_b) if held_out else (ends.u_a, ends.u_b)
        return pairs(u_a, u_b, None, None, size, generator, moving=ends.moving)

    return batches


def accurate(stage: Stage, network: nn.Module, at: Callable[[float], Transport]) -> Transport:
    """The transport with the largest tolerance that leaves works alone; the strictest one if none does.

    Args:
        stage: its select block gives the samples that tell.
        network: what was learned, the state of the transport.
        at: the transport integrated at a tolerance.
    """
    probes, error, transport = stage.select.thinned(PROBES), math.inf, None
    for tolerance in TOLERANCES:
        transport = at(tolerance)
        error = map_error(transport, at(STRICTER * tolerance), probes)
        stage.say(f"tfep: works move by {error:.1e} kT at tolerance {tolerance:g}")
        if error < WORK_ERROR:
            break
    assert transport is not None
    state = {f"tfep.{k}": v for k, v in network.state_dict().items()}
    what = f"{transport.description}, works exact to {error:.0e} kT"
    return replace(transport, description=what, state=state, systematic=error)


def _transport(ends: StandardisedEnds, network: VelocityNetwork, tolerance: float) -> Transport:
    flow = OdeMap(NetworkField(network), tolerance)
    what = f"flow matching, integrated at tolerance {tolerance:g}"
    return Transport("tfep", what, Map(flow), ends.path, (0.0, 1.0), ends.encode_a, ends.encode_b)
