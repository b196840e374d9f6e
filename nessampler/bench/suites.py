"""What is run together: systems of the catalogue, and the methods that a user would think of for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """Systems of one kind, with methods and budget.

    Attributes:
        kind: of the systems.
        systems: names of the catalogue.
        methods: by default; `peers` only on request, since they need packages of their own.
        peers: methods of other packages that apply.
        budget: evaluations of energies and gradients for a cell, per state of a difference.
    """

    kind: Literal["density", "difference"]
    systems: tuple[str, ...]
    methods: tuple[str, ...]
    peers: tuple[str, ...]
    budget: int


SUITES = {
    "density": Suite(
        "density",
        (
            "gmm-40",
            "gmm-40-linear",
            "gmm-50d",
            "gmm-200d",
            "funnel-10",
            "many-well-32",
            "student-50d",
            "logistic",
            "lgcp-1600",
            "phi4-8",
            "phi4-16",
            "phi4-20",
            "phi4-32",
            "phi4-8-ordered",
            "phi4-16-ordered",
            "phi4-20-ordered",
            "phi4-32-ordered",
            "phi4-3d-8",
        ),
        ("ais", "smc", "pt", "hmc", "lsq", "nets", "auto"),
        ("blackjax", "nuts", "pocomc", "dynesty"),
        1_000_000,
    ),
    "difference": Suite(
        "difference",
        (
            "anharmonic-wells",
            "gmm-pair-40",
            "gmm-pair-100",
            "phi4-umbrellas",
            "phi4-couplings",
            "lj-13",
            "lj-55",
            "lj-79",
            "alanine-solvation",
            "alanine-basins",
            "amber-to-amoeba",
        ),
        ("plain", "map", "fields", "switching", "feat", "tfep", "auto", "staged"),
        ("openmmtools",),
        2_000_000,
    ),
}
