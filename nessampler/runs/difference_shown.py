"""What a run of a difference shows beside its works."""

from __future__ import annotations

from nessampler.methods.difference import Difference
from nessampler.plots import WorksAlong
from nessampler.runs.difference_evidence import DifferenceEvidence
from nessampler.runs.end_observations import carried_of, observed_of
from nessampler.runs.lattice_ends import lattice_ends_of
from nessampler.runs.prepared import Prepared

__all__ = ["evidence_of"]


def evidence_of(result: Difference, prepared: Prepared) -> DifferenceEvidence:
    """The arrays behind the figures of a result."""
    return DifferenceEvidence(
        _along(result), observed_of(prepared), carried_of(result, prepared), lattice_ends_of(prepared)
    )


def _along(result: Difference) -> dict[str, WorksAlong]:
    """What is known of the chosen rung's works on the way."""
    there, back = result.rung.trips or (None, None)
    found = {"forward": there and there.along, "reverse": back and back.along}
    return {way: along for way, along in found.items() if along is not None}
