"""From a file, a preset and a command line to one validated problem, and back."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pydantic
import tomli_w
from pydantic import BaseModel

from nessampler.errors import InputError
from nessampler.runs.config.density import DensityConfig
from nessampler.runs.config.difference import AnalyticState, DifferenceConfig, MolecularState, TargetState
from nessampler.runs.config.wording import broken

__all__ = ["Config", "load", "resolve", "write"]

Config = DifferenceConfig | DensityConfig
KINDS: dict[str, type[DifferenceConfig] | type[DensityConfig]] = {
    "difference": DifferenceConfig,
    "density": DensityConfig,
}
STATES = (MolecularState.__name__, AnalyticState.__name__, TargetState.__name__)
PLAIN = ("bool", "float", "int", "list[float]", "list[str]", "str")  # what a value may be one of
ALTERNATIVES = ("constrained-", "literal[")


def load(path: Path) -> dict[str, Any]:
    """The table in a `system.toml`, not yet validated.

    Raises:
        InputError: the file is missing, not text or not TOML.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "system.toml")
        ...     _ = file.write_text('name = "mine"\\nsamples = { a = 100 }')
        ...     load(file)
        {'name': 'mine', 'samples': {'a': 100}}
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"a system is a folder with a system.toml, or such a file: {path} does not exist") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise InputError(f"{path} must be a TOML file: {error}") from error


def resolve(
    table: Mapping[str, Any],
    *,
    run: Mapping[str, Any] | None = None,
    preset: str | None = None,
    settings: Sequence[str] = (),
    source: str = "system.toml",
    allow_code: bool = False,
) -> Config:
    """Merge the preset, the command line's options and `KEY=VALUE` settings into the table, and validate it.

    A file that names Python to be run becomes a problem only where the user said so, by `allow_code`: whoever holds a
    configuration has that consent.

    Raises:
        InputError: an unknown kind or preset, an unknown key (with the nearest known one), a bad value, or code without
            consent.

    Example:
        >>> from nessampler.runs import catalogue
        >>> table = load(catalogue.find("anharmonic-wells"))
        >>> config = resolve(table, run={"seed": 3}, preset="smoke", settings=["samples.a=500"])
        >>> config.run.seed, config.samples.a, config.samples.b
        (3, 500, 1000)
        >>> resolve(table, settings=["sample.a=500"])
        Traceback (most recent call last):
            ...
        nessampler.errors.InputError: system.toml: unknown key `sample`; did you mean `samples`?
    """
    table = dict(table)
    presets, stored = table.pop("presets", {}), table.get("run", {})
    for name, value in {"presets": presets, "run": stored, **(presets if isinstance(presets, dict) else {})}.items():
        if not isinstance(value, dict):
            raise InputError(f"{source}: `{name}` must be a table: got {value!r}")
    wanted = stored.get("preset", "quick") if preset is None else preset
    if not isinstance(wanted, str) or wanted not in (
        [*presets] or [wanted if preset is None else stored.get("preset")]
    ):
        known = ", ".join(presets) or stored.get("preset") or "left out, as the file has none"
        raise InputError(f"{source}: preset must be {'one of ' if presets else ''}{known}: got {wanted!r}")
    merged = _merged(table, presets.get(wanted, {}))
    merged = _merged(merged, {"run": {"preset": wanted, **(run or {})}})
    for setting in settings:
        merged = _merged(merged, _setting(setting))
    model = _model(merged, source)
    try:
        config = model.model_validate(merged)
    except pydantic.ValidationError as error:
        raise InputError(_in_words(error, model, source)) from error
    if config.code and not allow_code:
        raise InputError(
            f"{source}: Python that a system names is run only with --allow-code: got {', '.join(config.code)}; read "
            "it first, then add --allow-code"
        )
    return config


def write(config: Config, path: Path) -> None:
    """Everything resolved, so that running the file repeats the run.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from nessampler.runs import catalogue
        >>> config = resolve(load(catalogue.find("anharmonic-wells")), preset="smoke")
        >>> with TemporaryDirectory() as folder:
        ...     write(config, Path(folder, "config.toml"))
        ...     again = resolve(load(Path(folder, "config.toml")))
        >>> again == config
        True
    """
    path.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)), encoding="utf-8")


def _model(table: Mapping[str, Any], source: str) -> type[DifferenceConfig] | type[DensityConfig]:
    if "kind" not in table:
        raise InputError(f"{source}: `kind` is required")
    kind = table["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"{source}: `kind` must be one of {', '.join(KINDS)}: got {kind!r}")
    return KINDS[kind]


def _merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(table)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not _replaces(value, old):
            value = _merged(old, value)
        result[key] = value
    return result


def _replaces(table: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Another kind of base, or another target, has no use for the parameters of the old one."""
    return any(key in table and key in old and table[key] != old[key] for key in ("kind", "name"))


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


def _in_words(error: pydantic.ValidationError, model: type[BaseModel], source: str) -> str:
    details = error.errors()
    # A state is one of several kinds: report the problems of the kind it looks like, the one with the fewest.
    tried = [(d["loc"][0], d["loc"][1]) for d in details if len(d["loc"]) > 1 and d["loc"][1] in STATES]
    looks = {state: min(STATES, key=lambda kind: tried.count((state, kind))) for state, _ in tried}
    found: dict[str, list[Any]] = {}  # by key: a value that may be one thing or another is neither
    for detail in details:
        if looks.get(next(iter(detail["loc"]), "")) in (None, *detail["loc"]):
            found.setdefault(".".join(_keys(detail["loc"])), []).append(detail)
    return f"{source}: " + "; ".join(_line(where, several, model) for where, several in found.items())


def _line(where: str, details: Sequence[Any], model: type[BaseModel]) -> str:
    detail = details[0]
    if detail["type"] == "extra_forbidden":
        return f"unknown key `{where}`" + _hint(where.split(".")[-1], where, model)
    if detail["type"] == "missing":
        return f"`{where}` is required"
    if detail["type"] == "union_tag_not_found":
        return f"`{where}.kind` is required"
    if detail["type"] == "union_tag_invalid":
        return f"`{where}.kind` must be one of {detail['ctx']['expected_tags']}: got {detail['ctx']['tag']!r}"
    return broken(where, [d["msg"] for d in details], detail["input"])


def _keys(location: Sequence[str | int]) -> Iterator[str]:
    """The keys of the file on the way to a problem, without the names of the alternatives that were tried."""
    for index, part in enumerate(location):
        alternative = part in STATES or (index == 1 and location[0] == "base" and part in _tags())
        alternative |= index == len(location) - 1 and (part in PLAIN or str(part).startswith(ALTERNATIVES))
        if not alternative:
            yield str(part)


def _hint(name: str, where: str, model: type[BaseModel]) -> str:
    theirs = [kind for kind, other in KINDS.items() if other is not model and where in other.model_fields]
    if theirs:
        return f', which belongs to kind = "{theirs[0]}"'
    near = difflib.get_close_matches(name, list(_known_keys(model)), n=1)
    return f"; did you mean `{near[0]}`?" if near and near[0] != name else ""


def _known_keys(model: type[BaseModel]) -> Iterator[str]:
    """Names of all fields of a model and of the models within it."""
    for name, field in model.model_fields.items():
        yield name
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _known_keys(inner)


def _tags() -> tuple[str, ...]:
    bases = get_args(DensityConfig.model_fields["base"].annotation)
    return tuple(get_args(base.model_fields["kind"].annotation)[0] for base in bases)
