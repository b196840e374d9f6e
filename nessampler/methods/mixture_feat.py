"""A learned remainder on the fields between two Gaussian mixtures."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nessampler.closed_form.component_pairs import Mixture, pair_components
from nessampler.closed_form.fit_mixture import fit_gaussian_mixture
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.closed_form.score_polish import polished
from nessampler.closed_form.work_times import equal_work_times
from nessampler.errors import InputError
from nessampler.kernels import Langevin
from nessampler.methods.ends import generator_for
from nessampler.methods.feat import train_fields
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.mixtures import enough_for_mixtures
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.transport import Transport
from nessampler.networks.mlp import ResidualFields
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch
from nessampler.paths import EndpointPath
from nessampler.targets import energy_and_score
from nessampler.training import pairs

__all__ = ["learned_mixture_fields"]

DIFFUSIONS = (0.5, 1.0, 3.0)  # eps in units of the variance within components
LARGEST_PRODUCT = 20_000  # pairs of components x coordinates: beyond, a training step is a matter of seconds
OVERSAMPLED = 4  # random pairs of samples for each that the plan keeps
LARGEST_RATIO = 50.0  # by which the plan may prefer one pair of samples over another


def learned_mixture_fields(stage: Stage) -> Iterator[Candidate]:
    r"""Fields between mixtures of both ends, components of independent coordinates, plus a learned remainder.

    The scores that polish the mixtures are also those that make the regression quiet (`MixtureFields.targets`), so that
    training asks the states for one gradient per sample of the fit block and no more. None where samples are few,
    coordinates circular, or pairs of components too many for a network to be trained on them.
    """
    if stage.effort.feat.steps == 0 or bool(stage.ends.circular.any()) or not enough_for_mixtures(stage, "feat"):
        return
    along = stage.effort.feat.interpolation
    if along != Interpolation(pace=along.pace):
        stage.say(f"feat: no fields between mixtures, whose interpolant and pairs are their own: got {along.said}")
        return
    with stage.ledger.charge("feat", "training"):
        ends = _Ends(stage)
        base = ends.fields()
    if base.travel.numel() > LARGEST_PRODUCT:
        return
    stage.without_effect("fields between mixtures, whose times spread work evenly", "interpolation")
    network = _network(stage, base)
    with stage.ledger.charge("feat", "training", network):
        carrying = _along(stage, network, base, _times(stage, network, base, "in training"))
        stage.log("mixture fields", ends.train(network, base, carrying))
        transport = _tuned(stage, network, base)
    yield transport, network


class _Ends:
    """Samples of both blocks with their scores, each asked for once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._x = (stage.fit.flat_a, stage.fit.flat_b), (stage.select.flat_a, stage.select.flat_b)
        known = [
            [energy_and_score(target, x) for target, x in zip((stage.ends.a, stage.ends.b), block, strict=True)]
            for block in self._x
        ]
        self._energies = [energy for energy, _ in known[0]]
        self._scores = [[score for _, score in block] for block in known]

    def fields(self) -> MixtureFields:
        """Between the mixtures, polished where every component has the samples for it."""
        found: list[Mixture] = []
        ends = zip("ab", self._x[0], self._scores[0], self._energies, self._stage.fit.late, strict=True)
        for name, x, score, energy, late in ends:
            generator = generator_for(self._stage.seed, f"independent components of {name}")
            rough = fit_gaussian_mixture(x, kinds=("diagonal",), held_out=late, generator=generator)
            try:
                found.append(polished(rough, x, score, energy, kind="diagonal"))
            except InputError:
                found.append(rough)
        a, b = found
        return MixtureFields(pair_components(a, b, circular=self._stage.ends.circular))

    def train(self, network: ResidualFields, base: MixtureFields, carrying: Transport) -> list[dict]:
        objective = InterpolantObjective(network, base.interpolant, base.variance, control=base, reference=base)

        def batches(held_out: bool, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
            (x_a, x_b), (score_a, score_b) = self._x[held_out], self._scores[held_out]
            for batch in pairs(x_a, x_b, score_a, score_b, OVERSAMPLED * size, generator):
                yield _planned(batch, base, size, generator)

        return train_fields(self._stage, network, objective, batches, carrying, suffix="-mixture")


def _planned(batch: PairBatch, base: MixtureFields, size: int, generator: torch.Generator) -> PairBatch:
    """Of random pairs as many as asked for, each as likely as the plan wants it; times and noise stay stratified."""
    weight = base.pairing(batch.x_a, batch.x_b).clamp(max=LARGEST_RATIO)
    kept = torch.multinomial(weight.to(generator.device), size, replacement=True, generator=generator)
    assert batch.score_a is not None
    assert batch.score_b is not None
    return batch._replace(
        x_a=batch.x_a[kept],
        x_b=batch.x_b[kept],
        score_a=batch.score_a[kept],
        score_b=batch.score_b[kept],
        t=batch.t[:: len(batch.t) // size][:size],
        z=batch.z[:size],
    )


def _network(stage: Stage, base: MixtureFields) -> ResidualFields:
    spread = torch.cat([stage.fit.flat_a, stage.fit.flat_b])
    return ResidualFields(
        base,
        center=spread.mean(0),
        scale=spread.std(0),
        width=stage.effort.feat.width,
        depth=stage.effort.feat.depth,
        trunks=stage.effort.feat.trunks,
        generator=generator_for(stage.seed, "initial weights, mixtures"),
    ).to(spread.device)


def _times(stage: Stage, network: ResidualFields, base: MixtureFields, what: str) -> tuple[float, ...]:
    """Where work is spread evenly."""
    generator = generator_for(stage.seed, f"times of {what}")
    with torch.no_grad():
        return equal_work_times(network, base, stage.effort.feat.sampling_steps, generator=generator)


def _tuned(stage: Stage, network: ResidualFields, base: MixtureFields) -> Transport:
    """The diffusion with the smallest BAR error of pilot walkers."""
    times = _times(stage, network, base, "learned mixture fields")
    candidates = (_along(stage, network, base, times, factor) for factor in DIFFUSIONS)
    return stage.tuned(candidates, "mixture feat")


def _along(
    stage: Stage, network: ResidualFields, base: MixtureFields, times: tuple[float, ...], factor: float = 1.0
) -> Transport:
    def diffusion(t: float) -> Tensor:
        return factor * base.variance(t)

    return Transport(
        "feat",
        f"fields of {len(base.weight)} pairs of components with a learned remainder, {len(times) - 1} steps, "
        f"ε = {factor:g} × variance within",
        Langevin(network, diffusion),
        EndpointPath(stage.ends.a, stage.ends.b),
        times,
        state={f"feat.{k}": v for k, v in network.state_dict().items()},
    )
