"""`system.toml`: what a problem is and how much to spend on it, validated; unknown keys are refused."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from nessampler.errors import InputError
from nessampler.runs.units import parse

__all__ = ["AnalyticState", "Config", "MolecularState", "load", "resolve", "write"]


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


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reference(_Table):
    """A value to compare with, in kT."""

    value: float
    std_error: Annotated[float, Field(ge=0)]
    source: str


class MolecularState(_Table):
    """A force field for the molecule. `relative_cost` prices one evaluation when rungs are compared."""

    label: str
    force_field: Annotated[list[str], Field(min_length=1)]
    structure: str
    options: dict[str, str | int | float | bool] = {}
    relative_cost: PositiveFloat = 1.0


class AnalyticState(_Table):
    """An `AnharmonicWell`, sampled exactly."""

    label: str
    center: list[float]
    stiffness: list[float]
    quartic: list[float]
    skew: list[float]
    coupling: float
    relative_cost: PositiveFloat = 1.0


class Dynamics(_Table):
    """End-state MD, per replica; `_a` and `_b` lengths differ because the states' prices do."""

    timestep: Time = "2 fs"
    friction: Rate = "1 / ps"
    hydrogen_mass: Mass = "4 Da"
    replicas: PositiveInt = 4
    equilibration: Time = "20 ps"
    production_a: Time = "500 ps"
    production_b: Time = "500 ps"
    interval: Time = "0.5 ps"
    platform: Literal["Reference", "CPU", "CUDA", "OpenCL"] = "Reference"


class Samples(_Table):
    """How many independent samples an analytic end state gives."""

    a: Annotated[int, Field(ge=50)] = 2500
    b: Annotated[int, Field(ge=50)] = 2500


class Feat(_Table):
    """The learned rung."""

    training_steps: Annotated[int, Field(ge=0)] = 1000
    learning_rate: PositiveFloat = 5e-3
    sampling_steps: PositiveInt = 64
    width: PositiveInt = 128
    depth: PositiveInt = 3


class Ladder(_Table):
    """Blocks and transports."""

    blocks: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.4, 0.2, 0.4)
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


class Run(_Table):
    """What the command line was asked for."""

    method: Literal["plain", "map", "switching", "feat", "auto"] = "auto"
    preset: str = "quick"
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"


class Config(_Table):
    """A resolved problem: a system, with the preset and the command line merged into it."""

    name: str
    title: str
    description: str = ""
    kind: Literal["difference"]
    temperature: Temperature | None = None
    reference: Reference | None = None
    state_a: MolecularState | AnalyticState
    state_b: MolecularState | AnalyticState
    md: Dynamics = Dynamics()
    samples: Samples = Samples()
    ladder: Ladder = Ladder()
    run: Run = Run()

    @property
    def molecular(self) -> bool:
        """Whether OpenMM is needed."""
        return isinstance(self.state_a, MolecularState)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Config:
        if type(self.state_a) is not type(self.state_b):
            raise ValueError("state_a and state_b must be of one kind: both with force_field, or both analytic")
        if self.molecular and self.temperature is None:
            raise ValueError('a molecular system needs a temperature, such as temperature = "300 K"')
        return self


def load(path: Path) -> dict[str, Any]:
    """The table in a `system.toml`, not yet validated.

    Raises:
        InputError: the file is missing, not text or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"a system is a folder with a system.toml, or such a file: {path} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} must be a TOML file: {error}") from error


def resolve(
    table: Mapping[str, Any],
    *,
    run: Mapping[str, Any] | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
    source: str = "system.toml",
) -> Config:
    """Merge the preset, the command line's options and `KEY=VALUE` settings into the table, and validate it.

    Raises:
        InputError: an unknown preset, an unknown key (with the nearest known one), or a bad value.
    """
    table = dict(table)
    presets, stored = table.pop("presets", {}), table.get("run", {})
    for name, value in {"presets": presets, "run": stored, **(presets if isinstance(presets, dict) else {})}.items():
        if not isinstance(value, dict):
            raise InputError(f"{source}: `{name}` must be a table: got {value!r}")
    wanted = preset or stored.get("preset", "quick")
    if wanted not in ([*presets] or [wanted if preset is None else stored.get("preset")]):
        known = ", ".join(presets) or stored.get("preset") or "left out, as the file has none"
        raise InputError(f"{source}: preset must be {'one of ' if presets else ''}{known}: got {wanted!r}")
    merged = _merged(table, presets.get(wanted, {}))
    merged = _merged(merged, {"run": {"preset": wanted, **(run or {})}})
    for setting in settings:
        merged = _merged(merged, _setting(setting))
    try:
        return Config.model_validate(merged)
    except pydantic.ValidationError as error:
        raise InputError(_in_words(error, source)) from error


def write(config: Config, path: Path) -> None:
    """Everything resolved, so that running the file repeats the run."""
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")


def _merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(table)
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _setting(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not all(part.strip() for part in key.split(".")):
        raise InputError(f"--set takes KEY=VALUE, such as md.replicas=8: got {text!r}")
    if key.strip() == "run.preset":
        raise InputError(f"a preset is chosen with --preset: got --set {text}")
    parsed: Any
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # an unquoted string
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def _in_words(error: pydantic.ValidationError, source: str) -> str:
    details = error.errors()
    # A state is one of two kinds: report the problems of the kind it looks like.
    kinds = ("MolecularState", "AnalyticState")
    fewest = {k: sum(k in d["loc"] for d in details) for k in kinds}
    other = max(kinds, key=lambda k: fewest[k]) if all(fewest.values()) else None
    lines = []
    for detail in details:
        if other in detail["loc"]:
            continue
        where = ".".join(str(p) for p in detail["loc"] if p not in kinds)
        if detail["type"] == "extra_forbidden":
            name = where.split(".")[-1]
            near = difflib.get_close_matches(name, _known_keys(), n=1)
            hint = f"; did you mean `{near[0]}`?" if near and near[0] != name else ""
            lines.append(f"unknown key `{where}`" + hint)
        elif detail["type"] == "missing":
            lines.append(f"`{where}` is required")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            lines.append((f"`{where}`: " if where else "") + message + (f" (got {detail['input']!r})" if where else ""))
    return f"{source}: " + "; ".join(dict.fromkeys(lines))


def _known_keys() -> list[str]:
    tables = (Config, Reference, MolecularState, AnalyticState, Dynamics, Samples, Feat, Ladder, Run)
    return [name for table in tables for name in table.model_fields]
