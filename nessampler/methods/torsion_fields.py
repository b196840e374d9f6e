"""Fields on the torus: angles move along interpolants between fitted mixtures, and hard coordinates follow them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.affine import ConditionalAffine
from nessampler.closed_form.rosenblatt import halves
from nessampler.closed_form.torus_interpolant import TorusFields
from nessampler.closed_form.wrapped_mixture import fit_wrapped_mixture
from nessampler.errors import InputError
from nessampler.fields import Fields
from nessampler.kernels import Langevin
from nessampler.methods.ends import Block, generator_for
from nessampler.methods.held_out_works import watch
from nessampler.methods.ledger import CountedFields
from nessampler.methods.soft_maps import moving_angles
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.transport import Transport
from nessampler.networks.torus import TorusResidual
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights
from nessampler.paths import EndpointPath
from nessampler.targets import TransformedTarget
from nessampler.training import fit

__all__ = ["learned_torsions", "torsion_fields"]

DIFFUSIONS = (0.25, 1.0, 4.0)  # eps in units of the path's variance
MOST_ANGLES = 4

Parts = tuple[ConditionalAffine, ConditionalAffine]


def torsion_fields(stage: Stage, transform: Transform) -> Iterator[Candidate]:
    r"""Langevin walkers of up to four angles along the interpolant between wrapped mixtures; two energies each.

    The hard coordinates are seen as deviations from their means given the angles, of each end by its own,

    $$u = M\,(h - \mu_A(\theta)) \quad\text{from A}, \qquad u = h - \mu_B(\theta) \quad\text{from B},$$

    and u stands still. Works are exact: nothing is asked of the density of u but that it be much the same at both ends.

    Args:
        stage: what may be looked at.
        transform: a map whose hard coordinates follow angles; nothing is tried with any other.
    """
    parts = halves(transform)
    fields = None if parts is None else _analytic(stage, "fields")
    if fields is None or parts is None:
        return
    counted = CountedFields(fields)
    with stage.ledger.charge("fields", "training", counted):
        what = f"mixtures of {len(fields.index)} torsions"
        transport = _tuned(stage, "fields", parts, fields, counted, stage.effort.fields_steps, what)
    yield transport, counted


def learned_torsions(stage: Stage, transform: Transform) -> Iterator[Candidate]:
    """The same with a network that learns what the mixtures leave over, on pairs that they pair."""
    parts = halves(transform)
    fields = None if parts is None or stage.effort.feat.steps == 0 else _analytic(stage, "feat")
    if fields is None or parts is None:
        return
    training = stage.effort.feat
    stage.without_effect("fields of torsions", "trunks", "interpolation")
    scale = fields.variance(0.5)[fields.index].sqrt().to(torch.float32)
    network = TorusResidual(
        fields,
        fields.index,
        scale=scale,
        width=training.width,
        depth=training.depth,
        generator=generator_for(stage.seed, "initial weights of torsions"),
    )
    with stage.ledger.charge("feat", "training", network):
        steps = training.sampling_steps
        carrying = _transport(stage, "feat", parts, fields, network, steps, "in training", 1.0)
        stage.log("torus fields", _train(stage, fields, network, carrying))
        what = f"mixtures of {len(fields.index)} torsions with a learned remainder"
        transport = _tuned(stage, "feat", parts, fields, network, steps, what)
    yield transport, network


def _analytic(stage: Stage, rung: str) -> TorusFields | None:
    """Between mixtures of the angles that differ, if there are any and samples enough to tell them."""
    if not bool(stage.ends.circular.any()):
        return None
    generator = generator_for(stage.seed, "torsion mixtures")
    try:
        index = moving_angles(stage.ends, stage.fit)[:MOST_ANGLES]
        if len(index) == 0:
            return None
        blocks = (stage.fit.flat_a, stage.fit.flat_b)
        start, end = (fit_wrapped_mixture(x[:, index], generator=generator) for x in blocks)
    except InputError as error:
        stage.say(f"{rung}: no fields of torsions; {error}")
        return None
    return TorusFields(start, end, index, stage.fit.flat_a.shape[1])


def _train(stage: Stage, fields: TorusFields, network: TorusResidual, carrying: Transport) -> list[dict]:
    """Regress on the fit block; the select block tells when to stop and which weights to keep."""
    training = stage.effort.feat
    weights = Weights(velocity=1.0, denoising=1.0, controlled_velocity=0.0, controlled_score=0.0)
    objective = InterpolantObjective(network, fields.interpolant, fields.variance, weights=weights, reference=fields)
    generator = generator_for(stage.seed, "training batches of torsions")
    held_out = next(_batches(fields, stage.select, 4096, generator_for(stage.seed, "validation of torsions")))
    return fit(
        network,
        objective,
        _batches(fields, stage.fit, training.batch_size, generator),
        steps=training.steps,
        learning_rate=training.learning_rate,
        generator=generator,
        validate=lambda: objective(held_out),
        **watch(stage, carrying)._asdict(),
    )


def _batches(fields: TorusFields, block: Block, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
    like = {"generator": generator, "dtype": block.a.dtype}
    strata = torch.arange(size, dtype=block.a.dtype)
    while True:
        a, b = fields.lifted_pairs(block.flat_a, block.flat_b, size, generator=generator)
        # The ends themselves, where the interpolant's velocity is infinite, are kept out.
        t = ((strata + torch.rand(size, **like)) / size).clamp(1e-3, 1 - 1e-3)
        yield PairBatch(a, b, None, None, t.to(a), torch.randn(a.shape, **like).to(a))


def _tuned(
    stage: Stage, name: str, parts: Parts, base: TorusFields, fields: Fields, steps: int, what: str
) -> Transport:
    """Of a few diffusions the one with the smallest BAR error of pilot walkers, frozen from there on."""
    candidates = [_transport(stage, name, parts, base, fields, steps, what, factor) for factor in DIFFUSIONS]
    return stage.tuned(candidates, f"{name} {what}")


def _transport(
    stage: Stage, name: str, parts: Parts, base: TorusFields, fields: Fields, steps: int, what: str, factor: float
) -> Transport:
    before, after = parts
    outward: Transform = after.inv

    def diffusion(t: float) -> Tensor:
        return factor * base.variance(t)

    module = fields if isinstance(fields, nn.Module) else base
    return Transport(
        name,
        f"{what}, {steps} steps, ε = {factor:g} × path variance",
        Langevin(fields, diffusion),
        EndpointPath(TransformedTarget(stage.ends.a, before), TransformedTarget(stage.ends.b, outward)),
        tuple(k / steps for k in range(steps + 1)),
        ComposeTransform([before]),
        outward,
        {f"{name}.{k}": v for k, v in module.state_dict().items()},
    )
