"""Rungs between densities of vectors, some coordinates of which may be angles."""

from __future__ import annotations

from collections.abc import Iterator

from torch.distributions.transforms import ComposeTransform

from nessampler.closed_form.rosenblatt import slaved
from nessampler.methods.analytic import fields_rung
from nessampler.methods.annealed import annealed
from nessampler.methods.ends import generator_for
from nessampler.methods.feat import feat_rung
from nessampler.methods.flow_matching import flow_matching_rung
from nessampler.methods.maps import candidate_maps, mapped, score_maps
from nessampler.methods.mixture_feat import learned_mixture_fields
from nessampler.methods.soft_maps import soft_map
from nessampler.methods.stage import Candidate, Rungs, Stage
from nessampler.methods.switching import tuned_switching
from nessampler.methods.torsion_fields import learned_torsions, torsion_fields
from nessampler.methods.transport import Transport

__all__ = ["VECTOR_RUNGS"]

FOLLOWING = ("shift and scale", "affine × 0.25, conditional")  # maps of hard coordinates worth trying on moved torsions


def _maps(stage: Stage) -> Iterator[Candidate]:
    hard = candidate_maps(stage.ends, stage.fit)
    with stage.ledger.charge("map", "training"):
        scored = score_maps(stage.ends, stage.fit)
    for name, transform in (hard | scored).items():
        yield mapped(stage.ends, name, transform), None
    soft = soft_map(stage.ends, stage.fit, stage.say)
    if soft is None:
        return
    for name, transform in ({k: v for k, v in hard.items() if k.startswith(FOLLOWING)} | scored).items():
        what = f"Knothe–Rosenblatt on {len(soft.index)} torsions, {name}"
        yield mapped(stage.ends, what, slaved(soft, transform)), None


def _fields(stage: Stage) -> Iterator[Candidate]:
    yield from fields_rung(stage)
    yield from torsion_fields(stage, stage.mapping)


def _switching(stage: Stage) -> Iterator[Candidate]:
    with stage.ledger.charge("switching", "training"):
        transport = tuned_switching(
            stage.ends,
            stage.mapping,
            stage.tuning,
            steps=stage.effort.switching_steps,
            generator=generator_for(stage.seed, "tune switching"),
            say=stage.say,
        )
    yield transport, None


def _annealed(stage: Stage) -> Iterator[Candidate]:
    pilots = stage.tuning

    def switching(steps: int) -> Transport:
        generator = generator_for(stage.seed, f"tune {steps} annealed steps")
        return tuned_switching(
            stage.ends, ComposeTransform([]), pilots, steps=steps, generator=generator, say=stage.say
        )

    yield from annealed(stage, switching)


def _feat(stage: Stage) -> Iterator[Candidate]:
    yield from feat_rung(stage)
    yield from learned_mixture_fields(stage)
    yield from learned_torsions(stage, stage.mapping)


VECTOR_RUNGS: Rungs = {
    "map": _maps,
    "fields": _fields,
    "switching": _switching,
    "feat": _feat,
    "tfep": flow_matching_rung,
    "annealed": _annealed,
}
