"""What is run together: systems of the catalogue, and the methods that a user would think of for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from nessampler.simulate import FEWEST_ISLANDS

__all__ = ["DEGREES", "KINDS", "SUITES", "Kind", "Suite"]

Kind = Literal["not learned", "closed form", "learned"]
KINDS: dict[str, Kind] = {  # of methods; `auto` is of the kind that it took
    **dict.fromkeys(("ais", "smc", "pt", "hmc", "blackjax", "nuts", "dynesty"), "not learned"),
    **dict.fromkeys(("plain", "annealed", "staged", "openmmtools"), "not learned"),
    **dict.fromkeys(("lsq", "map", "fields", "switching"), "closed form"),
    **dict.fromkeys(("nets", "feat", "tfep", "pocomc"), "learned"),
}

DEGREES: dict[str, int] = dict.fromkeys(
    ("smc", "pt", "blackjax"), FEWEST_ISLANDS - 1
)  # of freedom, of errors by spread


@dataclass(frozen=True)
class Suite:
    """Systems of one kind, with methods and budget.

    Attributes:
        kind: of the systems.
        systems: names of the catalogue.
        methods: by default; `peers` only on request, since they need packages of their own.
        peers: methods of other packages that apply.
        budget: evaluations of energies and gradients for a cell, of two states the sum at their relative costs.
        budgets: of systems that need more, or for which less is enough.
    """

    kind: Literal["density", "difference"]
    systems: tuple[str, ...]
    methods: tuple[str, ...]
    peers: tuple[str, ...]
    budget: int
    budgets: Mapping[str, int] = field(default_factory=dict)


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
            "lj-38",
            "lj-55",
            "lj-79",
            "toluene-solvation",
            "alanine-solvation",
            "alanine-basins",
            "amber-to-amoeba",
        ),
        ("plain", "annealed", "map", "fields", "switching", "feat", "tfep", "auto", "staged"),
        ("openmmtools",),
        2_000_000,
        {  # molecules and large clusters: about the quick preset, below which blocks are too small or end states poor
            "anharmonic-wells": 500_000,
            "gmm-pair-40": 200_000,
            "gmm-pair-100": 200_000,
            "lj-55": 8_000_000,
            "lj-79": 8_000_000,
            "alanine-solvation": 20_000_000,
            "alanine-basins": 10_000_000,
            "amber-to-amoeba": 24_000_000,
        },
    ),
}
