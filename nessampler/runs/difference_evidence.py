"""What the figures of a difference rest on beside its works, as arrays: in memory, and in `works.nc`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nessampler import plots
from nessampler.plots import Carried, Lattice, WorksAlong
from nessampler.runs.along import along_from_groups, along_groups
from nessampler.runs.carried import carried_from_groups, carried_groups, carried_panels
from nessampler.runs.lattice_observables import lattice_from_group, lattice_group
from nessampler.runs.observed import Observed, end_state_panels
from nessampler.runs.page import Panel, captioned

__all__ = ["DifferenceEvidence"]


@dataclass(frozen=True)
class DifferenceEvidence:
    """Arrays of one result.

    Attributes:
        along: by direction, the works of the chosen rung on the way.
        observed: what is looked at in samples of both states.
        carried: the same of those that the chosen rung carried to A, and to B.
        lattice: observables of the fields of A and of B.
    """

    along: Mapping[str, WorksAlong] = field(default_factory=dict)
    observed: Observed | None = None
    carried: tuple[Carried, Carried] | None = None
    lattice: tuple[Lattice, Lattice] | None = None

    def groups(self) -> dict[str, dict[str, Any]]:
        """As groups of a netCDF file, beside the works.

        >>> DifferenceEvidence().groups()
        {}
        """
        found = along_groups(self.along)
        found |= {} if self.observed is None else self.observed.groups()
        found |= {} if self.carried is None else carried_groups(*self.carried)
        for letter, lattice in zip("ab", self.lattice or (), strict=False):
            found[f"lattice_{letter}"] = lattice_group(lattice)
        return found

    @classmethod
    def from_groups(cls, groups: Mapping[str, Any]) -> DifferenceEvidence:
        """What `groups` wrote, from the datasets of a file by group."""
        stored = [groups[name] for name in ("lattice_a", "lattice_b") if name in groups]
        return cls(
            along_from_groups(groups),
            Observed.from_groups(groups),
            carried_from_groups(groups),
            (lattice_from_group(stored[0]), lattice_from_group(stored[1])) if len(stored) == 2 else None,
        )

    def panels(self, labels: tuple[str, str]) -> list[Panel]:
        """Samples of both states, and those that were carried.

        Args:
            labels: of the states.
        """
        ends = (
            end_state_panels(self.observed, labels) if self.lattice is None else _lattice_panels(self.lattice, labels)
        )
        return [*ends, *carried_panels(self.observed, self.carried)]


def _lattice_panels(lattice: tuple[Lattice, Lattice], labels: tuple[str, str]) -> list[Panel]:
    """In place of the histogram of a magnetisation."""
    caption = (
        "Sampled magnetisation of both states, with its mean. Where the two do not overlap, plain BAR cannot help."
    )
    table = plots.magnetisations_table(*lattice)
    magnetisation = captioned("Magnetisation of the end states", plots.magnetisations(*lattice, labels), caption, table)
    caption = (
        "Along the axes of the lattice, with 95 % intervals that allow for the memory of the chains. It falls to "
        "⟨M⟩² where a state is ordered."
    )
    table = plots.two_points_table(*lattice)
    return [magnetisation, captioned("Two-point functions", plots.two_points(*lattice, labels), caption, table)]
