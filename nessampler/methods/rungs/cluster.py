"""Rungs between a trap of independent atoms and a Lennard-Jones cluster in it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nessampler.closed_form.pair_dictionary import PairDictionary
from nessampler.closed_form.radial_rearrangement import RadialRearrangement
from nessampler.kernels import Map
from nessampler.methods.annealed import annealed
from nessampler.methods.annealed_switching import CountedInterior, annealed_switching, place_times
from nessampler.methods.cluster_feat import ClusterEnds, cluster_feat, cluster_fields
from nessampler.methods.cluster_flow_matching import cluster_flow_matching
from nessampler.methods.ends import Ends, generator_for
from nessampler.methods.escorted_switching import escorted_switching
from nessampler.methods.stage import Candidate, Rungs, Stage
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath
from nessampler.paths.soft_core import SoftCorePath
from nessampler.targets import carry
from nessampler.targets.lennard_jones import LennardJonesCluster
from nessampler.targets.power_gas import fit_power_gas

__all__ = ["CLUSTER_RUNGS", "hardening", "is_cluster"]

POWERS = (2.0, 4.0, 8.0)
"""Hardness of the round traps that A is mapped to."""

SWITCHED_FROM = 4.0
"""Hardness of the one from which the path starts: with 8 the works of 55 atoms were no better."""


MOST_ESCORTED = 20
"""Atoms. The escort halves variance × evaluations for 13 atoms and leaves them for 55, where solving costs more."""


def is_cluster(a: object, b: object) -> bool:
    """Whether A is the trap alone and B a cluster in the same trap."""
    return (
        isinstance(a, LennardJonesCluster)
        and isinstance(b, LennardJonesCluster)
        and (a.strength, a.trap, a.event_shape) == (0.0, b.trap, b.event_shape)
        and b.strength > 0
        and not (a.free_center or b.free_center)
    )


def _maps(stage: Stage) -> Iterator[Candidate]:
    """Every atom by itself, to the distances from the centre that atoms of B have on average."""
    for power in POWERS:
        transform = _rearrangement(stage, power)
        yield (
            Transport(
                "map",
                f"atoms rearranged along their radii, hardness {power:g}",
                Map(transform),
                EndpointPath(stage.ends.a, stage.ends.b),
                (0.0, 1.0),
                state={f"map.{k}": torch.tensor(v) for k, v in vars(transform.gas).items() if isinstance(v, float)},
            ),
            None,
        )


def _switching(stage: Stage) -> Iterator[Candidate]:
    """A rearranged gas whose cores harden, annealed both ways; the same escorted by a drift in closed form."""
    transform = _rearrangement(stage, SWITCHED_FROM)
    path, steps = _path(stage.ends, transform), stage.effort.switching_steps
    pilots = carry(transform, stage.tuning.flat_a)
    with stage.ledger.charge("switching", "training"):
        found = place_times(path, pilots, generator=generator_for(stage.seed, "tune switching"))
    stage.say(f"switching: thermodynamic length {found.lengths[-1]:.1f}, by {len(pilots)} pilots")
    what = "soft cores that harden, {} steps of HMC of {} leapfrogs".format
    annealed = annealed_switching(path, found, steps=steps, encode_a=transform, what=what)
    yield annealed, None
    if stage.ends.a.event_shape[0] > MOST_ESCORTED:
        return
    x = carry(transform, stage.fit.flat_a)
    with stage.ledger.charge("switching", "training"):
        escort = escorted_switching(
            annealed, found, _pair_fields(stage), x, steps=steps, generator=generator_for(stage.seed, "escort")
        )
    stage.say(
        f"switching: drift of {escort.drift.field.dictionary.size} pair fields, held-out R² "
        f"{min(escort.drift.r_squared):.2f} or more; its flow shifts ΔF by {-escort.flow_error.shift:+.1e} ± "
        f"{escort.flow_error.std_error:.0e}"
    )
    yield escort.transport, escort.field


def _annealed(stage: Stage) -> Iterator[Candidate]:
    """Cores that harden, from the rearranged gas: from the trap itself no soft core leads anywhere."""
    transform = _rearrangement(stage, SWITCHED_FROM)
    path, pilots = _path(stage.ends, transform), stage.tuning.flat_a
    with stage.ledger.charge("annealed", "training"):
        found = place_times(path, carry(transform, pilots), generator=generator_for(stage.seed, "annealed"))
    what = "soft cores that harden, {} steps of HMC of {} leapfrogs".format
    yield from annealed(
        stage, lambda steps: annealed_switching(path, found, steps=steps, encode_a=transform, what=what)
    )


def _pair_fields(stage: Stage) -> PairDictionary:
    """Up to the largest distance in any of a few conformations."""
    x = stage.fit.thinned(stage.effort.tuning_samples).flat_b
    return PairDictionary(float(torch.cdist(x, x).max()))


def _rearrangement(stage: Stage, power: float) -> RadialRearrangement:
    cluster = _cluster(stage.ends)
    return RadialRearrangement(cluster.trap, fit_power_gas(stage.fit.flat_b, power))


def _path(ends: Ends, transform: RadialRearrangement) -> CountedInterior:
    return CountedInterior(_hardening(_cluster(ends), transform), ends.counted[1])


def _hardening(b: LennardJonesCluster, transform: RadialRearrangement) -> SoftCorePath:
    return SoftCorePath(transform.gas, b, offset=transform.log_z_ratio)


def hardening(b: LennardJonesCluster, samples_b: Tensor) -> tuple[SoftCorePath, RadialRearrangement]:
    """The path from a gas of the cluster's size, weighed as the trap is, and what takes samples of the trap to it."""
    transform = RadialRearrangement(b.trap, fit_power_gas(samples_b, SWITCHED_FROM))
    return _hardening(b, transform), transform


def _cluster(ends: Ends) -> LennardJonesCluster:
    target = ends.counted[1].target
    assert isinstance(target, LennardJonesCluster)  # `is_cluster`
    return target


def _fields(stage: Stage) -> Iterator[Candidate]:
    yield cluster_fields(ClusterEnds(stage, stage.mapping))


def _feat(stage: Stage) -> Iterator[Candidate]:
    if stage.effort.feat.steps > 0:
        yield cluster_feat(ClusterEnds(stage, stage.mapping))


CLUSTER_RUNGS: Rungs = {
    "map": _maps,
    "fields": _fields,
    "switching": _switching,
    "feat": _feat,
    "tfep": cluster_flow_matching,
    "annealed": _annealed,
}
