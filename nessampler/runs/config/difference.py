"""Two states and the ladder between them."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field, PositiveFloat, PositiveInt

from nessampler.runs.config.common import Problem, Run, Table
from nessampler.runs.config.density import TargetTable
from nessampler.runs.units import parse

__all__ = ["AnalyticState", "DifferenceConfig", "MolecularState", "TargetState"]


def _positive(unit: str) -> pydantic.BeforeValidator:
    """For strings such as "300 K" or "2 fs"; the field keeps the string, `parse` gives the number."""

    def check(value: str) -> str:
        if not parse(value, unit) > 0:
            raise ValueError(f"must be positive: got {value!r}")
        return value

    return pydantic.BeforeValidator(check)  # before: a bare number shall hear that it needs a unit


Temperature = Annotated[str, _positive("K")]
Time = Annotated[str, _positive("ps")]
Rate = Annotated[str, _positive("1/ps")]
Mass = Annotated[str, _positive("Da")]
Platform = Literal["Reference", "CPU", "CUDA", "OpenCL", "torch"]


class Region(Table):
    """A torsion, phi, psi or four atoms, and the arc that it keeps to: counterclockwise between two angles in rad."""

    torsion: str | list[str]
    between: tuple[float, float]


class MolecularState(Table):
    """A force field for the molecule, or for a region of it. `relative_cost` prices one evaluation in comparisons.

    Example:
        >>> state = MolecularState(label="in vacuum", force_field=["amber96.xml"], structure="alanine-dipeptide.pdb")
        >>> state.relative_cost, state.region
        (1.0, None)
    """

    label: str
    force_field: Annotated[list[str], Field(min_length=1)]
    structure: str
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    region: Region | None = None
    relative_cost: PositiveFloat = 1.0


class AnalyticState(Table):
    """An `AnharmonicWell`, sampled exactly.

    Example:
        >>> one = {"center": [0.0], "stiffness": [1.0], "quartic": [0.1], "skew": [0.0]}  # in one dimension
        >>> AnalyticState(label="well A", coupling=0.0, **one).model_dump()["center"]
        [0.0]
    """

    label: str
    center: list[float]
    stiffness: list[float]
    quartic: list[float]
    skew: list[float]
    coupling: float
    relative_cost: PositiveFloat = 1.0


class TargetState(Table):
    """A density by name, sampled exactly where that is known, else by the chains of `[chains]`.

    Example:
        >>> state = TargetState(label="funnel", target={"name": "funnel", "dimension": 10})
        >>> state.target.name, state.target.parameters
        ('funnel', {'dimension': 10})
    """

    label: str
    target: TargetTable
    relative_cost: PositiveFloat = 1.0


class Dynamics(Table):
    """End-state MD, per replica; `_a` and `_b` lengths differ because the states' prices do, and how fast they move.

    `replicas`, `interval` and `platform` hold for both states, unless one has its own, as `interval_b`. Every replica
    has `exchange` companions in weakened states (`molecular.weakened`), on the platform "torch" only.
    """

    timestep: Time = "2 fs"
    friction: Rate = "1 / ps"
    hydrogen_mass: Mass = "4 Da"
    replicas: PositiveInt = 4
    equilibration: Time = "20 ps"
    production_a: Time = "500 ps"
    production_b: Time = "500 ps"
    interval: Time = "0.5 ps"
    platform: Platform = "Reference"
    exchange: Annotated[int, Field(ge=0)] = 0
    weakest: Annotated[float, Field(gt=0, lt=1)] = 0.5
    replicas_a: PositiveInt | None = None
    replicas_b: PositiveInt | None = None
    interval_a: Time | None = None
    interval_b: Time | None = None
    platform_a: Platform | None = None
    platform_b: Platform | None = None

    def of(self, state: str) -> Dynamics:
        """What holds for the state, "a" or "b"."""
        names = ("replicas", "interval", "platform")
        own = {name: getattr(self, f"{name}_{state}") or getattr(self, name) for name in names}
        return self.model_copy(update=own)


class Samples(Table):
    """How many independent samples an end state gives that can be sampled exactly."""

    a: Annotated[int, Field(ge=50)] = 2500
    b: Annotated[int, Field(ge=50)] = 2500


class Chains(Table):
    """Hamiltonian Monte Carlo for densities without exact samples; lengths are trajectories of each chain.

    The leapfrog step is tuned from `step_size` in the first half of the equilibration and frozen there. Chains start
    where the density itself says, or else in a normal of width `start_scale`.
    """

    chains: Annotated[int, Field(ge=2)] = 64
    equilibration: Annotated[int, Field(ge=10)] = 500
    draws: Annotated[int, Field(ge=8)] = 50
    interval: PositiveInt = 10
    leapfrog_steps: PositiveInt = 10
    step_size: PositiveFloat = 0.1
    acceptance: Annotated[float, Field(gt=0.2, lt=1)] = 0.8
    start_scale: PositiveFloat = 1.0


class Feat(Table):
    """The learned rung.

    `gamma` and `strength` are of the noise of the interpolant, $c$ in $\\gamma^2 = c\\,t(1-t)$ and its like; left out,
    the noise is that of a Brownian bridge, or the interpolant's own. `transfer` is a schedule to sample under.
    """

    interpolant: Literal["linear", "trigonometric", "encoding-decoding"] = "linear"
    gamma: Literal["square-root", "quadratic", "sine-squared", "none"] | None = None
    strength: PositiveFloat = 1.0
    coupling: Literal["independent", "optimal-transport"] = "independent"
    pace: Literal["uniform", "lipschitz"] = "uniform"
    transfer: Literal["linear", "trigonometric"] | None = None
    trunks: Literal[1, 2] = 1
    training_steps: Annotated[int, Field(ge=0)] = 1000
    learning_rate: PositiveFloat = 5e-3
    sampling_steps: PositiveInt = 64
    width: PositiveInt = 128
    depth: PositiveInt = 3
    stopping: Literal["works", "loss"] = "works"
    informed: bool = False
    refine_steps: Annotated[int, Field(ge=0)] = 0

    @pydantic.model_validator(mode="after")
    def _possible(self) -> Feat:
        if self.interpolant == "encoding-decoding" and self.gamma not in (None, "sine-squared"):
            raise ValueError(f"encoding-decoding has a noise of its own, leave out gamma: got {self.gamma!r}")
        if self.interpolant == "encoding-decoding" and self.transfer is not None:
            raise ValueError("fields of encoding-decoding are no other schedule's: leave out transfer")
        if self.transfer is not None and self.refine_steps:
            raise ValueError("fields are refined as they are trained: leave out transfer or refine_steps")
        if self.gamma == "none" and self.strength != 1.0:
            raise ValueError(
                f"gamma = 'none' leaves no noise to give a strength: got {self.strength:g}; leave `strength` out, or "
                "choose another gamma"
            )
        if self.gamma == "none" and self.coupling != "independent":
            raise ValueError("coupled pairs are regressed on their noise: leave out coupling, or choose another gamma")
        return self


class Ladder(Table):
    """Blocks and transports."""

    blocks: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.4, 0.2, 0.4)
    fields_steps: PositiveInt = 64
    switching_steps: PositiveInt = 12
    tuning_samples: PositiveInt = 150
    network_cost: PositiveFloat = 1.0
    feat: Feat = Feat()

    @pydantic.field_validator("blocks")
    @classmethod
    def _whole(cls, blocks: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(blocks) - 1) > 1e-9:
            raise ValueError(f"the fractions of fit, select and evaluate must add up to 1: they make {sum(blocks):g}")
        return blocks


class DifferenceRun(Run):
    """The rungs that a difference can be asked for."""

    method: Literal["plain", "map", "fields", "switching", "feat", "tfep", "annealed", "auto"] = "auto"


class DifferenceConfig(Problem):
    """A resolved difference: a system, with the preset and the command line merged into it.

    Example:
        >>> from nessampler.runs import catalogue
        >>> from nessampler.runs.config import load, resolve
        >>> config = resolve(load(catalogue.find("alanine-solvation")), preset="smoke")
        >>> config.molecular, config.temperature, config.files
        (True, '300 K', ('alanine-dipeptide.pdb', 'amber14-all.xml', 'implicit/obc2.xml'))
    """

    kind: Literal["difference"]
    temperature: Temperature | None = None
    state_a: MolecularState | AnalyticState | TargetState
    state_b: MolecularState | AnalyticState | TargetState
    md: Dynamics = Dynamics()
    samples: Samples = Samples()
    chains: Chains | None = None
    ladder: Ladder = Ladder()
    run: DifferenceRun = DifferenceRun()

    @property
    def molecular(self) -> bool:
        """Whether OpenMM is needed."""
        return isinstance(self.state_a, MolecularState)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of what may lie beside the file: structures, and force fields that OpenMM does not bring."""
        states = [s for s in (self.state_a, self.state_b) if isinstance(s, MolecularState)]
        named = [name for target in self._targets for name in target.files]
        return tuple(dict.fromkeys([*(name for s in states for name in (s.structure, *s.force_field)), *named]))

    @property
    def code(self) -> tuple[str, ...]:
        """The Python that it names."""
        return tuple(target.code for target in self._targets if target.code is not None)

    @property
    def _targets(self) -> list[TargetTable]:
        return [state.target for state in (self.state_a, self.state_b) if isinstance(state, TargetState)]

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> DifferenceConfig:
        if type(self.state_a) is not type(self.state_b):
            raise ValueError("state_a and state_b must be of one kind: force_field, target, or analytic")
        if self.molecular and self.temperature is None:
            raise ValueError('a molecular system needs a temperature, such as temperature = "300 K"')
        return self
