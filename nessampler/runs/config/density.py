"""A density, where to start from, and the way between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, time
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from nessampler.runs.config.common import Problem, Run, Table
from nessampler.runs.system_files import code_file

__all__ = [
    "Base",
    "DensityConfig",
    "FreeFieldBase",
    "GaussianBase",
    "LaplaceBase",
    "LaplaceMixtureBase",
    "LearnedBase",
    "MixtureBase",
    "PilotBase",
    "PriorBase",
    "Sampling",
    "TargetTable",
    "VariationalBase",
]

Numbers = float | list[float]


def leaves(value: Any) -> Iterator[Any]:
    """What lists and tables hold in the end."""
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


class TargetTable(Table):
    """A density by name; all other keys are parameters of its constructor, see `density_targets`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="after")
    def _no_dates(self) -> TargetTable:
        """TOML has them, and no density takes one: written down they would come back as text."""
        for key, value in self.parameters.items():
            found = next((leaf for leaf in leaves(value) if isinstance(leaf, date | time)), None)
            if found is not None:
                raise ValueError(f"{key} must be a number, a text or a list of these, not a date: got {found}")
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})

    @property
    def code(self) -> str | None:
        """The Python that the table names, if it is of that kind."""
        return str(self.parameters.get("callable")) if self.name == "python" else None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of what lies beside the file: data, and a module with what it reads."""
        given = self.parameters
        listed = given.get("files")
        names = [given.get("data"), *(listed if isinstance(listed, list) else [])]
        if self.code is not None:
            names.append(code_file(self.code))
        return tuple(name for name in names if isinstance(name, str))


class GaussianBase(Table):
    """Independent normal coordinates; a number stands for all of them."""

    kind: Literal["gaussian"]
    mean: Numbers = 0.0
    scale: Numbers = 1.0


class FreeFieldBase(Table):
    """The free field of a lattice target, sampled by FFT; about two magnetisations where one is given or looked for."""

    kind: Literal["free-field"]
    mass_squared: PositiveFloat = 1.0
    magnetisation: Annotated[float, Field(ge=0)] | Literal["pilot"] = 0.0


class MixtureBase(Table):
    """Gaussians of one width, where `means` says; by default where the target has its modes."""

    kind: Literal["mixture"]
    scale: PositiveFloat
    means: list[list[float]] | None = None


class PriorBase(Table):
    """The prior of a posterior."""

    kind: Literal["prior"]


class LaplaceBase(Table):
    """A normal about the mode, with the inverse of the curvature there; `inflation` widens it."""

    kind: Literal["laplace"]
    inflation: PositiveFloat = 1.0


class LaplaceMixtureBase(Table):
    """Normals about all modes that downhill searches find, from starts in a wide normal: see `laplace_mixture`."""

    kind: Literal["laplace-mixture"]
    wide_scale: PositiveFloat
    starts: Annotated[int, Field(ge=1)] = 512
    inflation: PositiveFloat = 1.0


class VariationalBase(Table):
    """The normal of largest evidence lower bound: `rank` of its covariance beside the diagonal, full by default."""

    kind: Literal["variational"]
    rank: Annotated[int, Field(ge=0)] | None = None
    steps: Annotated[int, Field(ge=10)] = 600
    draws: Annotated[int, Field(ge=2)] = 16
    start_scale: PositiveFloat = 1.0
    learning_rate: PositiveFloat = 0.05
    inflation: PositiveFloat = 1.1


class PilotBase(Table):
    """A normal with mean and covariance of short Hamiltonian chains from a wide start; `inflation` widens it."""

    kind: Literal["pilot"]
    walkers: Annotated[int, Field(ge=16)] = 256
    steps: PositiveInt = 100
    start_scale: PositiveFloat = 1.0
    inflation: PositiveFloat = 1.1


class LearnedBase(Table):
    """A family chosen and fitted by pilot particles from a wide normal: see `learned_base`."""

    kind: Literal["learned"]
    wide_scale: PositiveFloat
    pilots: Annotated[int, Field(ge=512)] = 4096
    rounds: Annotated[int, Field(ge=0)] = 2


Base = Annotated[
    GaussianBase
    | FreeFieldBase
    | MixtureBase
    | PriorBase
    | LaplaceBase
    | LaplaceMixtureBase
    | VariationalBase
    | PilotBase
    | LearnedBase,
    Field(discriminator="kind"),
]


class PathTable(Table):
    """Energies mixed linearly, the parameters of a mixture moved, or the couplings of a lattice action: λ, then m²."""

    kind: Literal["linear", "mixture", "couplings"] = "linear"


class Sampling(Table):
    """What to spend: the fields of `DensityEffort`."""

    walkers: Annotated[int, Field(ge=64)] = 4096
    pilot_walkers: Annotated[int, Field(ge=64)] = 2048
    pilot_steps: Annotated[int, Field(ge=2)] = 30
    steps: Annotated[int, Field(ge=2)] = 40
    leapfrog_steps: PositiveInt = 5
    kernel: Literal["hmc", "langevin", "inertial", "walk"] = "hmc"
    precondition: Literal["problem", "diagonal", "dense", "spectral"] = "problem"
    waste_free: Annotated[int, Field(ge=2)] | None = None
    baseline_walkers: Annotated[int, Field(ge=64)] | None = None
    reverse_walkers: Annotated[int, Field(ge=0)] = 1024
    reverse_steps: Annotated[int, Field(ge=0)] = 0
    nets_steps: Annotated[int, Field(ge=0)] = 1000
    nets_objective: Literal["pinn", "pinn-rate", "action-matching", "log-variance"] = "pinn"
    nets_start: Literal["closed-form", "zero"] = "closed-form"
    nets_kernel: Literal["flow", "langevin", "inertial"] = "flow"
    training_walkers: Annotated[int, Field(ge=64)] = 2048
    end_gradients: bool = False
    flow_tolerance: PositiveFloat = 5e-4
    budget: Annotated[int, Field(ge=1000)] | None = None


class Numerics(Table):
    """Arithmetic of the walkers, how many are carried at once, and the leapfrog step that tuning starts from."""

    dtype: Literal["float32", "float64"] = "float64"
    chunk_size: PositiveInt = 1024
    step_size: PositiveFloat = 0.3


class DensityRun(Run):
    """The methods that a density can be asked for."""

    method: Literal["ais", "smc", "pt", "lsq", "nets", "auto"] = "auto"


class DensityConfig(Problem):
    """A resolved density: a system, with the preset and the command line merged into it.

    `knowledge` names what base or path know of the target beforehand, such as "the modes".

    Example:
        >>> from nessampler.runs import catalogue
        >>> from nessampler.runs.config import load, resolve
        >>> config = resolve(load(catalogue.find("funnel-10")), preset="smoke", settings=["sampling.walkers=256"])
        >>> config.target.parameters, config.base.kind, config.sampling.walkers, config.run.method
        ({'dimension': 10, 'scale': 3.0}, 'learned', 256, 'auto')
    """

    kind: Literal["density"]
    knowledge: str = ""
    target: TargetTable
    base: Base = PilotBase(kind="pilot")
    path: PathTable = PathTable()
    sampling: Sampling = Sampling()
    numerics: Numerics = Numerics()
    run: DensityRun = DensityRun()

    @property
    def files(self) -> tuple[str, ...]:
        """Names of what lies beside the file: the target's data."""
        return self.target.files

    @property
    def code(self) -> tuple[str, ...]:
        """The Python that it names."""
        return () if self.target.code is None else (self.target.code,)
