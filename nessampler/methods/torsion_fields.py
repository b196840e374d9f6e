"""Fields on the torus: angles move along interpolants between fitted mixtures, and hard coordinates follow them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.affine import ConditionalAffine
from nessampler.closed_form.rosenblatt import halves
from nessampler.closed_form.torus_interpolant import TorusFields
from nessampler.closed_form.wrapped_mixture import fit_wrapped_mixture
from nessampler.errors import InputError
from nessampler.kernels import Langevin
from nessampler.methods.ends import generator_for
from nessampler.methods.ledger import CountedFields
from nessampler.methods.soft_maps import moving_angles
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.transport import Transport
from nessampler.paths import EndpointPath
from nessampler.targets import TransformedTarget

__all__ = ["torsion_fields"]

DIFFUSIONS = (0.25, 1.0, 4.0)  # eps in units of the path's variance
MOST_ANGLES = 4


def torsion_fields(stage: Stage, transform: Transform) -> Iterator[Candidate]:
    r"""Langevin walkers of up to four angles along the interpolant between wrapped mixtures; two energies each.

    The hard coordinates are seen as deviations from their means given the angles, of each end by its own,

    $$u = M\,(h - \mu_A(\theta)) \quad\text{from A}, \qquad u = h - \mu_B(\theta) \quad\text{from B},$$

    and u stands still. Works are exact: nothing is asked of the density of u but that it be much the same at both ends.
    """
    parts = halves(transform)
    if parts is None or not bool(stage.ends.circular.any()):
        return
    try:
        index = moving_angles(stage.ends, stage.fit)[:MOST_ANGLES]
        if len(index) == 0:
            return
        fields = _fields(stage, index)
    except InputError:
        return
    counted = CountedFields(fields)
    with stage.ledger.charge("fields", "training", counted):
        pilot, generator = stage.fit.thinned(stage.effort.tuning_samples), generator_for(stage.seed, "tune torsions")
        candidates = [_transport(stage, parts, fields, counted, factor) for factor in DIFFUSIONS]
        best = min(candidates, key=lambda candidate: candidate.pilot_error(pilot, generator=generator))
    yield best, counted


def _fields(stage: Stage, index: Tensor) -> TorusFields:
    generator = generator_for(stage.seed, "torsion mixtures")
    start, end = (fit_wrapped_mixture(x[:, index], generator=generator) for x in (stage.fit.flat_a, stage.fit.flat_b))
    return TorusFields(start, end, index, stage.fit.flat_a.shape[1])


def _transport(
    stage: Stage,
    parts: tuple[ConditionalAffine, ConditionalAffine],
    fields: TorusFields,
    counted: CountedFields,
    factor: float,
) -> Transport:
    steps, (before, after) = stage.effort.fields_steps, parts
    outward: Transform = after.inv

    def diffusion(t: float) -> Tensor:
        return factor * fields.variance(t)

    path = EndpointPath(TransformedTarget(stage.ends.a, before), TransformedTarget(stage.ends.b, outward))
    return Transport(
        "fields",
        f"mixtures of {len(fields.index)} torsions, {steps} steps, ε = {factor:g} × path variance",
        Langevin(counted, diffusion),
        path,
        tuple(k / steps for k in range(steps + 1)),
        ComposeTransform([before]),
        outward,
        {f"fields.{k}": v for k, v in fields.state_dict().items()},
    )
