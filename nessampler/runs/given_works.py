"""Works from elsewhere in a file of their own, as a run keeps its works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["GIVEN", "as_kept", "given_groups", "given_works"]

GIVEN = "given"
"""What stands for the name of a rung."""


def given_groups(
    forward: Float[np.ndarray, "*samples"], reverse: Float[np.ndarray, "*samples"] | None
) -> dict[str, dict[str, Any]]:
    """Groups `forward` and, where there are such works, `reverse`, with `work_given` in kT, `(chain, draw)`.

    >>> sorted(given_groups(np.zeros(3), None))
    ['forward']
    """
    return {
        way: {
            f"work_{GIVEN}": (
                ("chain", "draw"),
                np.atleast_2d(work),
                {"units": "kT", "correlated": int(np.ndim(work) == 2)},
            )
        }
        for way, work in (("forward", forward), ("reverse", reverse))
        if work is not None
    }


def given_works(groups: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None] | None:
    """What `given_groups` wrote, from the datasets of a file by group; None where forward works are missing.

    >>> given_works({}) is None
    True
    """
    found = [groups[way].get(f"work_{GIVEN}") if way in groups else None for way in ("forward", "reverse")]
    forward, reverse = (None if stored is None else as_kept(stored) for stored in found)
    return None if forward is None else (forward, reverse)


def as_kept(stored: Any) -> np.ndarray:
    """A variable of works as they were: independent ones were written as one chain."""
    work = stored.values
    # Earlier versions did not say whether a single chain is one.
    return work if work.shape[0] > 1 or stored.attrs.get("correlated", 0) else work[0]
