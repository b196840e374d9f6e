"""How an `Interpolation` is carried out between standardised ends: pairs, fields as they are sampled, times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.closed_form.time_change import equal_length_times, mean_stretching
from nessampler.closed_form.transfer import Transferred, TransferredFields
from nessampler.fields import Fields
from nessampler.methods.ends import generator_for
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.stage import Stage
from nessampler.methods.standardised import StandardisedEnds, equidistant
from nessampler.training import pairs

__all__ = ["in_effect", "in_use", "paced"]

PLACES, SEEN = 33, 128  # times at which a velocity's stretching is measured, and draws of the interpolant there


def in_effect(stage: Stage, ends: StandardisedEnds) -> Interpolation:
    """What was asked for, less a coupling where coordinates are circular: a pair shares those, and is independent."""
    along = stage.effort.feat.interpolation
    if along.coupling is None or bool(ends.moving.all()):
        return along
    stage.say("feat: the coupling is without effect; pairs share circular coordinates, and are independent in others")
    return replace(along, coupling=None)


def in_use(
    ends: StandardisedEnds, network: nn.Module, base: GaussianFields, along: Interpolation
) -> tuple[Fields, GaussianFields]:
    """Fields under the schedule they are sampled under, and Gaussian fields whose variance is the scale there."""
    if along.transfer is None:
        return network, base
    transfer = Transferred(along.schedule, along.transfer)
    return TransferredFields(network, transfer), ends.gaussian_fields(transfer)


def paced(
    stage: Stage, ends: StandardisedEnds, fields: Fields, base: GaussianFields, along: Interpolation
) -> tuple[float, ...]:
    """Times of the steps, equidistant or by how much the velocity stretches what it moves, as the fit block has it."""
    steps = stage.effort.feat.sampling_steps
    if along.pace == "uniform":
        return equidistant(steps)
    generator, places = generator_for(stage.seed, "pace"), torch.linspace(0, 1, PLACES, dtype=torch.float64)
    draws = pairs(ends.u_a, ends.u_b, None, None, SEEN, generator, moving=ends.moving, coupling=along.coupling)
    interpolant, found = base.interpolant, []
    for place, batch in zip(places.tolist(), draws, strict=False):
        x = interpolant.position(torch.full_like(batch.t, place), batch.x_a, batch.x_b, batch.z)
        found.append(float(mean_stretching(fields, place, x, generator=generator).detach()))

    def roughness(t: Tensor) -> Tensor:
        return torch.from_numpy(np.interp(t.numpy(), places.numpy(), found))

    return equal_length_times(roughness, steps)
