"""Rungs from a standard normal to a state: those of vectors, and one-sided interpolants beside the two-sided ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from nessampler.closed_form.gaussian_interpolant import GaussianFields, fit_gaussian_fields
from nessampler.fields import Fields
from nessampler.interpolants import Linear, NoNoise, OneSidedInterpolant, Trigonometric
from nessampler.kernels import Langevin
from nessampler.methods.ends import generator_for
from nessampler.methods.feat import train_fields
from nessampler.methods.ledger import CountedFields
from nessampler.methods.rungs.structure import Structure
from nessampler.methods.rungs.vector import VECTOR_RUNGS
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.standardised import DIFFUSIONS
from nessampler.methods.transport import Transport
from nessampler.networks.one_sided import OneSidedFields
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch
from nessampler.paths import EndpointPath
from nessampler.targets import energy_and_score
from nessampler.training import pairs

__all__ = ["ONE_SIDED"]


def _fields(stage: Stage) -> Iterator[Candidate]:
    r"""What vectors have, and fields of $\alpha z + \beta x$ between the normals of both ends."""
    yield from VECTOR_RUNGS["fields"](stage)
    if bool(stage.ends.circular.any()):
        return  # angles would have to come out of the noise the shorter way round
    for name, schedule in (("linear", Linear(NoNoise())), ("trigonometric", Trigonometric(NoNoise()))):
        base = _gaussian(stage, schedule)
        fields = CountedFields(base)
        with stage.ledger.charge("fields", "training", fields):
            what = f"one-sided Gaussian fields, {name}"
            transport = _tuned(stage, "fields", fields, base, stage.effort.fields_steps, what)
        yield transport, fields


def _feat(stage: Stage) -> Iterator[Candidate]:
    """What vectors have, and one learned denoiser on the linear one-sided fields."""
    yield from VECTOR_RUNGS["feat"](stage)
    training = stage.effort.feat
    if training.steps == 0 or bool(stage.ends.circular.any()):
        return
    stage.without_effect("the one-sided network", "trunks", "interpolation")
    base = _gaussian(stage, Linear(NoNoise()))
    zero = torch.zeros_like(base.mean_a)
    network = OneSidedFields(
        base,
        base.schedule,
        zero,
        torch.ones_like(zero),
        width=training.width,
        depth=training.depth,
        generator=generator_for(stage.seed, "initial weights, one-sided"),
    )
    with stage.ledger.charge("feat", "training", network):
        interpolant = OneSidedInterpolant(zero, torch.ones_like(zero))
        objective = InterpolantObjective(network, interpolant, base.variance, control=base, reference=base)
        carrying = _transport("feat", network, base, stage, training.sampling_steps, "in training")
        rows = train_fields(stage, network, objective, _Batches(stage), carrying, suffix="-one-sided")
        stage.log("one-sided", rows)
        what = "one-sided Gaussian fields with a learned denoiser"
        transport = _tuned(stage, "feat", network, base, training.sampling_steps, what)
    yield transport, network


ONE_SIDED = Structure({**VECTOR_RUNGS, "fields": _fields, "feat": _feat})


def _gaussian(stage: Stage, schedule: Linear | Trigonometric) -> GaussianFields:
    fitted = fit_gaussian_fields(stage.fit.flat_a, stage.fit.flat_b, shrink=0.75)
    zero, one = torch.zeros_like(fitted.mean_a), torch.eye(len(fitted.mean_a)).to(fitted.mean_a)
    covariance = (fitted.basis * fitted.spectra[1]) @ fitted.basis.T
    return GaussianFields(zero, fitted.mean_b, one, covariance, schedule=schedule)


class _Batches:
    """Pairs of a noise, which the interpolant draws, with samples of the state and their scores."""

    def __init__(self, stage: Stage) -> None:
        self._blocks, self._end = (stage.fit, stage.select), stage.ends.b

    def __call__(self, held_out: bool, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
        block = self._blocks[held_out]
        score = energy_and_score(self._end, block.flat_b)[1]
        return pairs(block.flat_a, block.flat_b, torch.zeros_like(block.flat_a), score, size, generator)


def _tuned(stage: Stage, name: str, fields: Fields, base: GaussianFields, steps: int, what: str) -> Transport:
    """Of a few diffusions the one with the smallest BAR error of pilot walkers, frozen from there on."""
    candidates = (_transport(name, fields, base, stage, steps, what, factor) for factor in DIFFUSIONS)
    return stage.tuned(candidates, what)


def _transport(
    name: str, fields: Fields, base: GaussianFields, stage: Stage, steps: int, what: str, factor: float = 1.0
) -> Transport:
    def diffusion(t: float) -> Tensor:
        return factor * base.variance(t)

    module = fields if isinstance(fields, nn.Module) else base
    return Transport(
        name,
        f"{what}, {steps} steps, ε = {factor:g} × path variance",
        Langevin(fields, diffusion),
        EndpointPath(stage.ends.a, stage.ends.b),
        tuple(k / steps for k in range(steps + 1)),
        state={f"{name}.{k}": v for k, v in module.state_dict().items()},
    )
