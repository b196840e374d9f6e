"""Any table and any bytes for a system.toml: a valid problem or an InputError, never another exception."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nessampler.errors import InputError
from nessampler.runs import catalogue
from nessampler.runs.config import Config, load, resolve, write
from nessampler.runs.density_problem import check_density
from nessampler.runs.target_problem import check_targets

SYSTEMS = {name: (catalogue.root() / name / "system.toml") for name in catalogue.names()}
QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

scalars = st.one_of(
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["300 K", "2 fs", "0 K", "1 / ps", "nan K", "1e999 ps", "../x", "/etc/passwd", "a:b", "gaussian"]),
    st.dates(),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def places(table: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a table and of the tables in it."""
    for key, value in table.items():
        yield (*before, key)
        if isinstance(value, dict):
            yield from places(value, (*before, key))


def changed(table: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = place
    inner = changed(table[head], tuple(rest), value) if rest else value
    return {**table, head: inner}


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """A system of the catalogue with a few keys replaced, added or left out."""
    table = load(SYSTEMS[draw(st.sampled_from(list(SYSTEMS)))])
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places(table))))
        table = changed(table, place, draw(values))
    if draw(st.booleans()):
        table = {**table, draw(st.text(max_size=8)): draw(values)}
    if draw(st.booleans()):
        table.pop(draw(st.sampled_from(list(table))))
    return table


def outcome(table: Any, **options: Any) -> Config | None:
    """The problem, or None where it was refused in one line."""
    try:
        return resolve(table, **options)
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    return None


@QUIET
@given(tables(), st.none() | st.sampled_from(["smoke", "quick", "full", "x"]))
def test_any_table_is_a_problem_or_refused_and_a_problem_read_back_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], preset: str | None
) -> None:
    config = outcome(table, preset=preset)
    if config is not None:
        path = tmp_path_factory.getbasetemp() / "config.toml"
        write(config, path)
        assert resolve(load(path)) == config


@QUIET
@given(st.dictionaries(st.sampled_from(["name", "title", "kind", "target", "base", "run", "presets", "md"]), values))
@example({"kind": "density", "presets": {"quick": {"kind": "difference"}}})
@example({"kind": "density", "run": {"preset": []}})
def test_a_table_made_up_is_refused_or_a_problem(table: dict[str, Any]) -> None:
    outcome(table)


@QUIET
@given(
    st.lists(
        st.text(max_size=30)
        | st.builds(
            "{}={}".format,
            st.sampled_from(["md.replicas", "name", "base.kind", "run.seed", "a.b"]),
            st.text(max_size=20),
        ),
        max_size=3,
    )
)
def test_any_setting_is_taken_or_refused(texts: list[str]) -> None:
    for name in ("alanine-solvation", "phi4-8"):
        outcome(load(SYSTEMS[name]), settings=texts)


# --- bytes ---------------------------------------------------------------------------------------------------------

PIECES = [
    b"",
    b"\x00",
    b"\xff",
    b"=",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"'",
    b"\n",
    b"-",
    b"e999",
    b"nan",
    b"inf",
    b"[[a]]",
    b"9" * 30,
]


def mutated(content: bytes, pick: random.Random) -> bytes:
    for _ in range(pick.randint(1, 4)):
        at = pick.randrange(len(content) + 1)
        end = min(len(content), at + pick.choice([0, 1, 1, 3, 20]))
        piece = (
            pick.choice(PIECES)
            if pick.random() < 0.7
            else content[(start := pick.randrange(len(content) + 1)) : start + 15]
        )
        content = content[:at] + piece + content[end:]
    return content


@pytest.mark.parametrize("seed", range(8))
def test_any_bytes_are_a_problem_or_refused(tmp_path: Path, seed: int) -> None:
    pick, path, refused = random.Random(seed), tmp_path / "system.toml", 0
    for _ in range(60):
        source = pick.choice(list(SYSTEMS.values()))
        path.write_bytes(mutated(source.read_bytes(), pick))
        try:
            config = resolve(load(path), source=str(path))
        except InputError:
            refused += 1
        else:
            write(config, path)
            assert resolve(load(path)) == config
    assert 15 < refused < 60


NUMBERS = ["0", "-1", "1", "2", "-0.5", "1e-300", "1e300", "3.7", "100000", '"x"', "[]", "[1.0]", "true"]


@pytest.mark.parametrize("seed", range(4))
def test_any_number_of_a_density_is_taken_or_refused_when_it_is_built(seed: int) -> None:
    pick, refused = random.Random(seed), 0
    cheap = [
        n
        for n in SYSTEMS
        if n.startswith(("anharmonic", "funnel", "gmm-40", "lj-13", "phi4-8", "phi4-couplings", "many"))
    ]
    for _ in range(40):
        name = pick.choice(cheap)
        table = load(SYSTEMS[name])
        inside = [
            p for p in places(table) if p[0] in ("target", "base", "state_a", "state_b", "numerics") and len(p) > 1
        ]
        text = f"{'.'.join(pick.choice(inside))}={pick.choice(NUMBERS)}"
        try:
            config = resolve(table, settings=[text], preset="smoke")
            check = check_density if config.kind == "density" else check_targets
            check(config, SYSTEMS[name].parent)  # pyright: ignore[reportArgumentType]
        except InputError:
            refused += 1
    assert refused > 5


def test_what_is_fuzzed_is_valid_before() -> None:
    for path in SYSTEMS.values():
        assert outcome(tomllib.loads(tomli_w.dumps(load(path)))) is not None
