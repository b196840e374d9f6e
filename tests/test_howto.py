"""What the how-to pages show runs as it stands there, and what they say is refused is refused in those words."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from nessampler.errors import InputError

PAGES = Path(__file__).parents[1] / "docs" / "howto"
CELL = re.compile(r"^```(?:\{code-cell\} )?python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "own_molecule.md": "a minute of molecular dynamics; test_front_door.py passes simulations and trajectories"
}
OPTIONAL = ("bridgestan", "pymc")  # what a cell may need that is not installed
LONG = ("own_density.md",)  # half a minute
REFUSED = "## What is refused"


def with_cells() -> list[str]:
    return sorted(page.name for page in PAGES.glob("*.md") if CELL.search(page.read_text()))


RUN_HERE = [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in with_cells() if n not in ELSEWHERE]


@pytest.mark.parametrize("name", RUN_HERE)
def test_the_cells_of_a_page_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown, _, refused = (PAGES / name).read_text().partition(REFUSED)
    known: dict[str, object] = {"__name__": "howto"}
    for cell in CELL.findall(shown):
        if all(find_spec(module) for module in OPTIONAL if f"import {module}" in cell):
            exec(compile(cell, name, "exec"), known)
    assert "nan" not in capsys.readouterr().out
    for cell in CELL.findall(refused):
        for line in cell.splitlines():
            with pytest.raises(InputError) as raised:
                exec(compile(line, name, "exec"), known)
            assert str(raised.value) in refused


def test_no_page_is_passed_over() -> None:
    assert {"own_density.md", "own_network.md"} <= set(with_cells()) - set(ELSEWHERE)
    assert set(ELSEWHERE) <= set(with_cells())
