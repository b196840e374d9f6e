"""Rungs between densities of vectors, some coordinates of which may be angles."""

from __future__ import annotations

from collections.abc import Iterator

from nessampler.methods.analytic import fields_rung
from nessampler.methods.ends import generator_for
from nessampler.methods.feat import feat_rung
from nessampler.methods.maps import candidate_maps, mapped
from nessampler.methods.stage import Candidate, Rungs, Stage
from nessampler.methods.switching import tuned_switching

__all__ = ["VECTOR_RUNGS"]


def _maps(stage: Stage) -> Iterator[Candidate]:
    for name, transform in candidate_maps(stage.ends, stage.fit).items():
        yield mapped(stage.ends, name, transform), None


def _switching(stage: Stage) -> Iterator[Candidate]:
    with stage.ledger.charge("switching", "training"):
        transport = tuned_switching(
            stage.ends,
            stage.mapping,
            stage.fit.thinned(stage.effort.tuning_samples),
            steps=stage.effort.switching_steps,
            generator=generator_for(stage.seed, "tune switching"),
            say=stage.say,
        )
    yield transport, None


VECTOR_RUNGS: Rungs = {"map": _maps, "fields": fields_rung, "switching": _switching, "feat": feat_rung}
