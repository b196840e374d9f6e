"""The learned rung, FEAT: velocity and score of an interpolant, a network on top of fields in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.kernels import Langevin
from nessampler.methods.along import in_effect, in_use, paced
from nessampler.methods.ends import generator_for
from nessampler.methods.held_out_works import watch
from nessampler.methods.interpolation import Interpolation
from nessampler.methods.path_refinement import refine
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.standardised import StandardisedEnds, equidistant
from nessampler.methods.transport import Transport
from nessampler.networks.informed import InformedFields
from nessampler.networks.mlp import ResidualFields
from nessampler.objectives.interpolant import InterpolantObjective, PairBatch, Weights
from nessampler.targets import carry, energy_and_score
from nessampler.training import fit, pairs

__all__ = ["feat_rung", "train_fields"]

NOISY = Weights(velocity=1.0, denoising=1.0, controlled_velocity=0.0, controlled_score=0.0)
"""Of coupled pairs, about which the ends' scores say nothing."""
FEW, LARGEST = 16, 1024  # batches, and rows, of training whose inputs cost gradients

_Fields = ResidualFields | InformedFields


def feat_rung(stage: Stage) -> Iterator[Candidate]:
    r"""Gaussian fields between the mapped end $T_\# A$ and B, plus a learned remainder.

    Both ends are seen in coordinates that standardise B, given the circular coordinates, which do not move: what
    is transported is everything else. The fields have no need of interior energies, so a path of many steps
    costs two energies per walker. If asked for, a second network reads the scores of both ends, and each is refined on
    its own works.

    References:
        He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025, arXiv:2504.11516.
    """
    training = stage.effort.feat
    if training.steps == 0:
        return
    ends = StandardisedEnds(stage, stage.mapping)
    along = in_effect(stage, ends)
    base, said = ends.gaussian_fields(along.schedule), along.said
    builders: dict[str, Callable[[], _Fields]] = {"a learned remainder": lambda: _network(stage, ends, base)}
    if training.informed and bool(ends.moving.all()):
        builders["a learned remainder that reads the ends' scores"] = lambda: _informed(stage, ends, base)
    elif training.informed:
        stage.say(
            f"feat: informed=True is without effect; a network that reads the ends' scores moves all coordinates, and "
            f"{int((~ends.moving).sum())} of {len(ends.moving)} are circular and stay"
        )
    if training.informed:
        stage.without_effect("a network that reads the ends' scores", "trunks")
    for i, (what, build) in enumerate(builders.items()):
        network = build()
        with stage.ledger.charge("feat", "training", network):
            with _remembering(network):
                what = f"Gaussian fields{said and f' ({said})'} with {what}"
                stage.log(what, _train(stage, ends, network, base, along, f"-{i}" if i else ""))
            fields, scale = in_use(ends, network, base, along)
            times = paced(stage, ends, fields, scale, along)
            transport = ends.tuned("feat", fields, scale, times, what, network)
        yield transport, network
        if training.refine_steps:
            yield _refined(stage, ends, transport, network, build())


def _network(stage: Stage, ends: StandardisedEnds, base: GaussianFields) -> ResidualFields:
    spread = torch.cat([ends.u_a, ends.u_b])
    return ResidualFields(
        base,
        center=spread.mean(0),
        scale=spread.std(0),
        circular=~ends.moving,
        width=stage.effort.feat.width,
        depth=stage.effort.feat.depth,
        trunks=stage.effort.feat.trunks,
        generator=generator_for(stage.seed, "initial weights"),
    ).to(spread.device)


def _informed(stage: Stage, ends: StandardisedEnds, base: GaussianFields) -> InformedFields:
    spread = torch.cat([ends.u_a, ends.u_b])
    return InformedFields(
        base,
        ends.path.start,
        ends.path.end,
        center=spread.mean(0),
        scale=spread.std(0),
        width=stage.effort.feat.width,
        depth=stage.effort.feat.depth,
        generator=generator_for(stage.seed, "initial weights, informed"),
    ).to(spread.device)


def _train(
    stage: Stage,
    ends: StandardisedEnds,
    network: nn.Module,
    base: GaussianFields,
    along: Interpolation,
    suffix: str,
) -> list[dict]:
    coupling = along.coupling
    objective = InterpolantObjective(
        network,
        base.interpolant,
        base.variance,
        weights=Weights() if coupling is None else NOISY,
        control=base if coupling is None else None,
        reference=base,
    )

    def batches(held_out: bool, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
        u_a, u_b = (ends.held_a, ends.held_b) if held_out else (ends.u_a, ends.u_b)
        if coupling is not None:
            drawn = pairs(u_a, u_b, None, None, stage.effort.feat.batch_size, generator, coupling=coupling)
            return _of_size(drawn, size)
        return _pairs(ends, u_a, u_b, size, generator)

    def few(held_out: bool, size: int, generator: torch.Generator) -> Iterator[PairBatch]:
        drawn = batches(held_out, min(size, LARGEST), generator_for(stage.seed, f"batches in turn {held_out}"))
        kept = list(islice(drawn, 1 if held_out else FEW))
        with torch.no_grad():
            for batch in kept:  # the ends' scores, all of them now: a training that is resumed then costs no more
                objective(batch)
        return _in_turn(kept, generator)

    if isinstance(network, InformedFields):  # whose walkers cost gradients at every time: by its loss alone
        return train_fields(stage, network, objective, few, None, suffix=suffix)
    fields, scale = in_use(ends, network, base, along)
    times = equidistant(stage.effort.feat.sampling_steps)
    carrying = ends.transport("feat", fields, scale, times, "in training", network)
    return train_fields(stage, network, objective, batches, carrying, suffix=suffix)


def _in_turn(kept: Sequence[PairBatch], generator: torch.Generator) -> Iterator[PairBatch]:
    while True:
        yield kept[int(torch.randint(len(kept), (1,), generator=generator, device=generator.device))]


@contextmanager
def _remembering(network: nn.Module) -> Iterator[None]:
    """While it trains, the ends' scores at the few batches are asked for once."""
    if isinstance(network, InformedFields):
        network.remember = FEW + 1
    yield
    if isinstance(network, InformedFields):
        network.remember = 0


def _refined(stage: Stage, ends: StandardisedEnds, transport: Transport, network: _Fields, copy: _Fields) -> Candidate:
    """A copy of the network, fitted to the spread of its own path weights at the diffusion that was tuned."""
    training, before = stage.effort.feat, transport.kernel
    assert isinstance(before, Langevin)
    copy.load_state_dict(network.state_dict())
    kernel = replace(before, fields=copy)
    thin = stage.tuning
    held_out = carry(ends.encode_a, thin.flat_a), carry(ends.encode_b, thin.flat_b)
    what = f"{transport.description}, refined on works"
    with stage.ledger.charge("feat", "training", copy), _remembering(copy):
        generator = generator_for(stage.seed, f"refine {what}")
        refine(
            copy,
            kernel,
            ends.path,
            transport.times,
            ends.u_a,
            ends.u_b,
            held_out,
            steps=training.refine_steps,
            learning_rate=0.4 * training.learning_rate,
            generator=generator,
        )
    state = {f"feat.{k}": v for k, v in copy.state_dict().items()}
    return replace(transport, kernel=kernel, description=what, state=state), copy


def train_fields(
    stage: Stage,
    network: nn.Module,
    objective: InterpolantObjective,
    batches: Callable[[bool, int, torch.Generator], Iterator[PairBatch]],
    carrying: Transport | None,
    *,
    suffix: str = "",
) -> list[dict]:
    """Regress on the fit block; the select block tells when to stop and which weights to keep.

    Args:
        batches: of the select block where the first argument is true, of a size, from a generator.
        carrying: carries samples along the network, for the works that judge it; None for its held-out loss.
        suffix: of the checkpoint's name, different for each network of a run.
    """
    training, generator = stage.effort.feat, generator_for(stage.seed, "training batches")
    file, held_out = stage.checkpoint, next(batches(True, 4096, generator_for(stage.seed, "validation batch")))
    watched = watch(stage, carrying)
    return fit(
        network,
        objective,
        batches(False, training.batch_size, generator),
        steps=training.steps,
        learning_rate=training.learning_rate,
        generator=generator,
        checkpoint=None if file is None else file.with_stem(file.stem + suffix),
        tallies=stage.tallies,
        validate=lambda: objective(held_out),
        **watched._asdict(),
        progress=stage.watched("feat: training"),
        report=stage.report,
    )


def _of_size(drawn: Iterator[PairBatch], size: int) -> Iterator[PairBatch]:
    """Batches put together: which pairs a coupling makes depends on how many it chooses from."""
    for first in drawn:
        batches = [first, *islice(drawn, -(-size // len(first.t)) - 1)]
        x_a, x_b, t, z = (torch.cat([getattr(b, name) for b in batches]) for name in ("x_a", "x_b", "t", "z"))
        yield PairBatch(x_a, x_b, None, None, t, z)


def _pairs(
    ends: StandardisedEnds, u_a: Tensor, u_b: Tensor, size: int, generator: torch.Generator
) -> Iterator[PairBatch]:
    score_a = energy_and_score(ends.path.start, u_a)[1]
    score_b = energy_and_score(ends.path.end, u_b)[1]
    return pairs(u_a, u_b, score_a, score_b, size, generator, moving=ends.moving)
