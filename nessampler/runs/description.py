"""A problem in words and tables, read from its file alone: nothing is built and nothing is run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from nessampler._words import plus_minus
from nessampler.runs._console import facts
from nessampler.runs.config import Config, DensityConfig, DifferenceConfig, load, resolve
from nessampler.runs.units import parse

__all__ = ["described", "page"]

PARTS = {"a": "A", "b": "B"}
COSTS = {
    "md_steps_a": "MD steps of A",
    "md_steps_b": "MD steps of B",
    "frames_a": "frames of A",
    "frames_b": "frames of B",
    "chain_gradients": "gradients of chains, each state",
    "samples_a": "samples of A, exact",
    "samples_b": "samples of B, exact",
    "pilot_gradients": "gradients of pilots",
    "walker_gradients": "gradients of walkers",
}


def described(path: Path, preset: str | None = None) -> dict[str, Any]:
    """Everything that a problem's file says, with the settings and the planned costs of one preset or of all.

    Raises:
        InputError: as of `load` and `resolve`.
    """
    table = load(path)
    names = [preset] if preset else [*table.get("presets", {})] or [None]
    configs = {c.run.preset: c for c in (resolve(table, preset=name, source=str(path)) for name in names)}
    first = next(iter(configs.values()))
    return {
        "name": first.name,
        "kind": first.kind,
        "title": first.title,
        "description": first.description,
        **_subject(first),
        "reference": None if first.reference is None else first.reference.model_dump(),
        "folder": str(path.parent),
        "files": sorted(p.name for p in path.parent.iterdir() if p.is_file() and not p.name.startswith(".")),
        "presets": {name: {"settings": _settings(c), "planned": planned(c)} for name, c in configs.items()},
        "every_setting": preset is not None,
    }


def planned(config: Config) -> dict[str, int]:
    """What the end states, or the walkers, will cost; what the ladder adds is decided by pilots."""
    if isinstance(config, DensityConfig):
        spend = config.sampling
        return {
            "pilot_gradients": spend.pilot_walkers * spend.pilot_steps * spend.leapfrog_steps,
            "walker_gradients": spend.walkers * spend.steps * spend.leapfrog_steps,
        }
    if config.molecular:
        return {key: n for state in PARTS for key, n in _dynamics(config, state)}
    if config.chains is not None:
        chains = config.chains
        steps = chains.equilibration + chains.draws * chains.interval
        return {"chain_gradients": chains.chains * steps * chains.leapfrog_steps}
    return {"samples_a": config.samples.a, "samples_b": config.samples.b}


def page(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What `described` found, for a terminal."""
    yield Text(found["title"], style="bold")
    yield Text(f"system {found['name']} · {found['kind']}", style="dim")
    if found["description"]:
        yield Text(found["description"])
    yield Text()
    yield facts(_facts(found))
    yield Text()
    yield _presets(found)


def _subject(config: Config) -> dict[str, Any]:
    if isinstance(config, DifferenceConfig):
        states = {f"state_{s}": getattr(config, f"state_{s}").model_dump(exclude_none=True) for s in PARTS}
        return {"temperature": config.temperature, **states}
    parts = ("target", "base", "path", "numerics")
    return {part: getattr(config, part).model_dump(exclude_none=True) for part in parts} | (
        {"knowledge": config.knowledge} if config.knowledge else {}
    )


def _settings(config: Config) -> dict[str, Any]:
    """What a preset may set, with dotted names."""
    if isinstance(config, DensityConfig):
        tables = ["sampling", "numerics"]
    else:
        tables = ["md"] if config.molecular else ["samples"] if config.chains is None else ["chains"]
        tables.append("ladder")
    whole = config.model_dump(mode="json", exclude_none=True)
    return dict(_flat({name: whole[name] for name in tables}))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _dynamics(config: DifferenceConfig, state: str) -> Iterator[tuple[str, int]]:
    md = config.md.of(state)
    length, equilibration = parse(getattr(md, f"production_{state}"), "ps"), parse(md.equilibration, "ps")
    steps = math.ceil((length + equilibration) / parse(md.timestep, "ps"))
    yield f"md_steps_{state}", md.replicas * (1 + md.exchange) * steps
    yield f"frames_{state}", md.replicas * int(length / parse(md.interval, "ps"))


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for state, letter in PARTS.items():
        if f"state_{state}" in found:
            table = dict(found[f"state_{state}"])
            yield f"state {letter}", f"{table.pop('label')}: {_words(table)}"
    if found.get("temperature"):
        yield "temperature", found["temperature"]
    for part in ("target", "base", "path", "numerics"):
        if part in found:
            yield part, _words(found[part])
    if found.get("knowledge"):
        yield "told of", found["knowledge"]
    yield "reference", _reference(found)
    yield "folder", found["folder"]
    yield "files", ", ".join(found["files"])


def _words(table: Mapping[str, Any]) -> str:
    first = [str(table[key]) for key in ("name", "kind") if key in table]
    rest = [f"{k} = {_value(v)}" for k, v in table.items() if k not in ("name", "kind") and v not in ({}, [])]
    return ", ".join([*first, *rest])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({_words(value)})"
    if isinstance(value, list | tuple):
        few = [_value(v) for v in value[:8]]
        return f"[{', '.join(few + (['…'] if len(value) > 8 else []))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _reference(found: Mapping[str, Any]) -> str:
    reference = found["reference"]
    if reference is None:
        return "none"
    name, unit = ("ΔF", " kT") if found["kind"] == "difference" else ("log Z", "")
    value = plus_minus(reference) if reference["std_error"] else f"{reference['value']:g} (exact)"
    return f"{name} = {value}{unit}: {reference['source']}"


def _presets(found: Mapping[str, Any]) -> Table:
    presets = found["presets"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("setting" if found["every_setting"] else "setting that a preset changes", overflow="fold")
    for name in presets:
        table.add_column(name, justify="right", overflow="fold")
    keys = dict.fromkeys(key for part in presets.values() for key in part["settings"])
    for key in keys:
        values = [_value(part["settings"].get(key, "")) for part in presets.values()]
        if found["every_setting"] or len(set(values)) > 1:
            table.add_row(key, *values)
    table.add_section()
    for key in dict.fromkeys(key for part in presets.values() for key in part["planned"]):
        table.add_row(f"→ {COSTS[key]}", *(f"{part['planned'][key]:,}" for part in presets.values()), style="bold")
    return table
