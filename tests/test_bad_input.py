"""What a user can get wrong is said in one line and costs nothing; every key and every option has a case."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from bad_input import CASES, PAGE, Case, page
from command_line import nessampler
from pydantic import BaseModel

from nessampler.commands.run import run
from nessampler.runs.config import DensityConfig, DifferenceConfig


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def line(err: str) -> str:
    """What is said; of the parser of options, what stands in its frame."""
    framed = re.findall(r"^│ (.*?) *│$", err, flags=re.MULTILINE)
    return f"error: {' '.join(framed)}" if framed else err.removesuffix("\n")


@pytest.mark.parametrize("case", CASES, ids=[case.given for case in CASES])
def test_bad_input_is_told_in_one_line_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = case.build(tmp_path)
    before = contents(tmp_path)
    ended = nessampler("run", *arguments)
    said = line(ended.err)
    assert ended.code == 2
    assert ended.out == ""
    assert said.startswith("error: ")
    assert "\n" not in said
    assert case.said in said
    assert "Traceback" not in ended.err
    assert contents(tmp_path) == before


def keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every key of a table and of the tables in it, dotted."""
    for name, field in model.model_fields.items():
        yield before + name
        for kind in models(field.annotation):
            yield from keys(kind, f"{before}{name}.")


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models(inner)


def given(case: Case) -> list[str]:
    """Keys that a case sets, dotted; those of an inline table too."""
    found = []
    for text in re.findall(r"`([a-z_.]+)=(.*)`", case.given):
        inner = re.findall(r"([a-z_]+) ?=", text[1]) if text[1].startswith("{") else []
        found += [text[0], *(f"{text[0]}.{key}" for key in inner)]
    return [key.replace("state_b.", "state_a.") for key in found]


@pytest.mark.parametrize("model", [DifferenceConfig, DensityConfig])
def test_every_key_has_a_case(model: type[BaseModel]) -> None:
    covered = {key for case in CASES for key in given(case)}
    missing = {key.replace("state_b.", "state_a.") for key in keys(model)} - covered
    assert not missing


def test_every_option_has_a_case() -> None:
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(run).parameters} - {"--system", "--settings"}
    for option in {*options, "--set"}:
        assert any(option in case.given for case in CASES), option


def test_the_page_is_current() -> None:
    assert len(CASES) > 80
    assert PAGE.read_text(encoding="utf-8") == page(), "run python tests/bad_input.py"


def test_list_takes_nothing() -> None:
    ended = nessampler("list", "anharmonic-wells")
    assert (ended.code, ended.out) == (2, "")
    assert "unexpected extra argument" in line(ended.err)
