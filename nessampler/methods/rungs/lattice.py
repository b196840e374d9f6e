"""Rungs between densities of fields on a periodic lattice whose laws know neither an origin nor an orientation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.closed_form.lattice_map import fit_lattice_map
from nessampler.closed_form.lattice_velocity import by_magnetisation, interpolant_velocity
from nessampler.kernels import Langevin, Map
from nessampler.methods.annealed import annealed
from nessampler.methods.ends import generator_for
from nessampler.methods.lattice_ends import AlignedEnds, ModeEnds, opposed, reflection
from nessampler.methods.lattice_feat import train_on_works
from nessampler.methods.lattice_flow_matching import lattice_flow_matching
from nessampler.methods.lattice_switching import (
    BilledField,
    carried,
    drifted,
    sines_for,
    solved_drift,
    trajectories,
    tuned_moves,
)
from nessampler.methods.ledger import CountedFields
from nessampler.methods.stage import Candidate, Rungs, Stage
from nessampler.methods.transport import Transport
from nessampler.networks.field import NetworkField
from nessampler.networks.lattice import LatticeNetwork
from nessampler.paths import EndpointPath, LinearPath
from nessampler.targets import Target
from nessampler.targets.phi4 import FreeField, Phi4
from nessampler.targets.umbrella import Umbrella

__all__ = ["LATTICE_RUNGS", "on_a_lattice"]

FLOW_STEPS = 4  # of order 4, for a flow without trajectories
VELOCITY_FEATURES, VELOCITY_KNOTS = 16, 6
DIFFUSIONS = (0.05, 0.3)  # eps in units of the path's variance, mode by mode


def on_a_lattice(target: Target) -> bool:
    """Whether a density is known to be of fields on a periodic lattice."""
    return isinstance(target.target if isinstance(target, Umbrella) else target, Phi4 | FreeField)


def _maps(stage: Stage) -> Iterator[Candidate]:
    """Shift of the mean and scale of the waves; where the ends are magnetised in opposite directions, reflected."""
    a, b = stage.fit.flat_a, stage.fit.flat_b
    reflect = opposed(stage.fit)
    what = "reflection, " if reflect else ""
    found: dict[str, Transform] = {"reflection": reflection(stage.ends.a.event_shape)} if reflect else {}
    found[f"{what}shift of the mean"] = fit_lattice_map(a, b, reflect=reflect, scale=False)
    found[f"{what}scale of every wave"] = fit_lattice_map(a, b, reflect=reflect)
    for name, transform in found.items():
        path = EndpointPath(stage.ends.a, stage.ends.b)
        yield Transport("map", name, Map(transform), path, (0.0, 1.0), state=_tensors(transform)), None


def _tensors(transform: Transform) -> dict[str, Tensor]:
    if not isinstance(transform, ComposeTransform):
        return {"map.sign": torch.tensor(-1.0)}
    affine = transform.parts[1]
    return {f"map.{name}": getattr(affine, name) for name in ("matrix", "mean_in", "mean_out")}


def _fields(stage: Stage) -> Iterator[Candidate]:
    """Interpolants in closed form, two energies at any number of steps.

    That of the free fields with the ends' means and spectra, mode by mode; and the flow of a velocity that was solved
    on pairs of samples.
    """
    yield _free_fields(stage)
    yield _velocity(stage)


def _free_fields(stage: Stage) -> Candidate:
    ends = ModeEnds(stage, stage.mapping)
    base = ends.gaussian_fields()
    fields = CountedFields(base)
    with stage.ledger.charge("fields", "training", fields):
        transport = _tuned(stage, ends, "fields", fields, base, stage.effort.fields_steps, "fields of both spectra")
    return transport, fields


def _velocity(stage: Stage) -> Candidate:
    generator, effort = generator_for(stage.seed, "interpolant velocity"), stage.effort
    ends = AlignedEnds.of(stage.ends, stage.fit)
    with stage.ledger.charge("fields", "training"):
        dictionary = sines_for(ends, VELOCITY_FEATURES, generator=generator)
        knots = tuple(k / VELOCITY_KNOTS for k in range(VELOCITY_KNOTS + 1))
        coupling = by_magnetisation(ends.even)
        drift = interpolant_velocity(ends.a, ends.b, dictionary, knots, coupling=coupling, generator=generator)
    field = BilledField(drift)
    with stage.ledger.charge("fields", "training", field):
        transport = carried(
            "fields",
            f"flow of an interpolant's velocity in {dictionary.size} fields",
            ends,
            field,
            FLOW_STEPS,
            effort.tuning_samples,
            generator=generator,
            say=stage.say,
        )
    return transport, field


def _tuned(
    stage: Stage, ends: ModeEnds, name: str, fields: CountedFields, base: GaussianFields, steps: int, what: str
) -> Transport:
    """Of a few diffusions the one with the smallest BAR error of pilot walkers, frozen from there on."""

    def transport(factor: float) -> Transport:
        return Transport(
            name,
            f"{what}, {steps} steps, ε = {factor:g} × path variance",
            Langevin(fields, lambda t: factor * base.variance(t)),
            ends.path,
            tuple(k / steps for k in range(steps + 1)),
            ends.encode_a,
            ends.encode_b,
            {f"{name}.{k}": v for k, v in base.state_dict().items()},
        )

    return stage.tuned(map(transport, DIFFUSIONS), what)


def _switching(stage: Stage) -> Iterator[Candidate]:
    """Trajectories along the couplings; the same carried by a drift in closed form; the drift's flow by itself."""
    generator, effort = generator_for(stage.seed, "switching"), stage.effort
    steps, pilots = effort.switching_steps, effort.tuning_samples
    ends = AlignedEnds.of(stage.ends, stage.fit)
    with stage.ledger.charge("switching", "training"):
        moves = tuned_moves(ends, pilots, generator=generator)
        annealed = trajectories(ends, moves, steps)
    yield annealed, None
    with stage.ledger.charge("switching", "training"):
        drift = solved_drift(ends, moves, steps, generator=generator)
    stage.say(
        f"switching: drift of {drift.field.dictionary.size} fields, held-out R² {min(drift.r_squared):.4f} or more"
    )
    field = BilledField(drift.field)
    options = {"generator": generator, "say": stage.say}
    with stage.ledger.charge("switching", "training", field):
        along = drifted(ends, field, moves, steps, pilots, **options)
    yield along, field
    with stage.ledger.charge("switching", "training", field):
        alone = carried("switching", "flow of a drift in closed form", ends, field, FLOW_STEPS, pilots, **options)
    yield alone, field


def _annealed(stage: Stage) -> Iterator[Candidate]:
    """Trajectories along the couplings from A as it is."""
    path = LinearPath(stage.ends.a, stage.ends.b)
    ends = AlignedEnds(None, path, stage.fit.flat_a, stage.fit.flat_b, even=False)
    with stage.ledger.charge("annealed", "training"):
        moves = tuned_moves(ends, stage.effort.tuning_samples, generator=generator_for(stage.seed, "annealed"))
    yield from annealed(stage, lambda steps: trajectories(ends, moves, steps))


def _feat(stage: Stage) -> Iterator[Candidate]:
    """A network that starts as the drift along the couplings; trained on the works of its flow."""
    if stage.effort.feat.steps == 0:
        return
    generator, effort = generator_for(stage.seed, "feat"), stage.effort
    ends = AlignedEnds.of(stage.ends, stage.fit)
    with stage.ledger.charge("feat", "training"):
        moves = tuned_moves(ends, effort.tuning_samples, generator=generator)
        drift = solved_drift(ends, moves, effort.switching_steps, generator=generator)
    network = LatticeNetwork.from_drift(drift.field)
    with stage.ledger.charge("feat", "training", network):
        train_on_works(stage, ends, network)
        what = f"flow of a trained network, {effort.feat.steps} training steps"
        pilots = effort.tuning_samples
        field, options = NetworkField(network), {"generator": generator, "say": stage.say}
        transport = carried("feat", what, ends, field, FLOW_STEPS, pilots, **options)
    state = {f"feat.{k}": v for k, v in network.state_dict().items()}
    yield replace(transport, state=state), network


LATTICE_RUNGS: Rungs = {
    "map": _maps,
    "fields": _fields,
    "switching": _switching,
    "feat": _feat,
    "tfep": lattice_flow_matching,
    "annealed": _annealed,
}
