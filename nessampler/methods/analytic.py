"""The rung of analytic fields: velocity and score of an interpolant in closed form, nothing trained."""

from __future__ import annotations

from collections.abc import Iterator

from nessampler.methods.ledger import CountedFields
from nessampler.methods.mixtures import mixture_candidates
from nessampler.methods.stage import Candidate, Stage
from nessampler.methods.standardised import StandardisedEnds, equidistant

__all__ = ["fields_rung"]


def fields_rung(stage: Stage) -> Iterator[Candidate]:
    r"""Fields between the Gaussians of the mapped end $T_\# A$ and of B, then between Gaussian mixtures of A and B.

    Two energies per walker at any step count.
    """
    ends = StandardisedEnds(stage, stage.mapping)
    base = ends.gaussian_fields()
    fields, times = CountedFields(base), equidistant(stage.effort.fields_steps)
    with stage.ledger.charge("fields", "training", fields):
        transport = ends.tuned("fields", fields, base, times, "analytic Gaussian fields", base)
    yield transport, fields
    yield from mixture_candidates(stage)
