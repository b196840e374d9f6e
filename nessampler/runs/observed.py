"""What was seen in the samples of both end states: torsions of a molecule, observables or coordinates of a density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nessampler import plots
from nessampler.plots import Series
from nessampler.runs.page import Panel, captioned

__all__ = ["Observed", "end_state_panels"]


@dataclass(frozen=True)
class Observed:
    """Quantities of every sample of A and B by name, `(chains, draws)` each.

    Attributes:
        a, b: the samples' values; torsions in degrees.
        unit: "degrees" where the quantities are torsions, else empty.
    """

    a: Series
    b: Series
    unit: str = ""

    @property
    def torsions(self) -> bool:
        """Whether these are torsions."""
        return self.unit == "degrees"

    def groups(self) -> dict[str, dict[str, Any]]:
        """As groups of a netCDF file: names are values there, since some hold characters that names may not."""
        return {
            f"endstate_{letter}": {
                "observed": (
                    ("chain", "draw", "quantity"),
                    np.stack([np.atleast_2d(v) for v in series.values()], -1),
                    {"units": self.unit or "1"},
                ),
                "quantity": (("quantity",), np.array(list(series), dtype=object)),
            }
            for letter, series in (("a", self.a), ("b", self.b))
            if series
        }

    @classmethod
    def from_groups(cls, groups: Mapping[str, Any]) -> Observed | None:
        """What `groups` wrote, from the datasets of a file by group; None where it wrote nothing."""
        if not {"endstate_a", "endstate_b"} <= set(groups):
            return None
        both = [groups[f"endstate_{letter}"] for letter in "ab"]
        a, b = (
            {str(name): found["observed"].values[..., k] for k, name in enumerate(found["quantity"].values)}
            for found in both
        )
        return cls(a, b, "degrees" if both[0]["observed"].attrs.get("units") == "degrees" else "")


def end_state_panels(observed: Observed | None, labels: tuple[str, str]) -> list[Panel]:
    """The backbone in the plane, where there is one, and a histogram per quantity."""
    if observed is None:
        return []
    panels = []
    if observed.torsions and (backbone := plots.ramachandran(observed.a, observed.b, labels)) is not None:
        names = [name for name in observed.a if name.startswith(("phi", "psi"))]
        caption = "Sampled φ and ψ of both states. A basin that only one of them visited is a warning."
        table = plots.end_states_table(observed.a, observed.b, names)
        panels.append(captioned("Backbone torsions of the end states", backbone, caption, table))
    each = plots.end_states(observed.a, observed.b, labels, observed.unit)
    if each is not None:
        caption = (
            "Torsions that turn between minima, in degrees. They stay on the circle; everything else is mapped."
            if observed.torsions
            else "What was sampled of both states. Where the two do not overlap, plain BAR cannot help."
        )
        title = "Soft torsions" if observed.torsions else "Samples of the end states"
        panels.append(captioned(title, each, caption, plots.end_states_table(observed.a, observed.b)))
    return panels
