"""What every problem has, whatever it asks for."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Problem", "Reference", "Run", "Table"]


class Table(BaseModel):
    """A table of the file: no unknown keys, no numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _file_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError("must be letters, digits and . + - _, as runs are named after it")
    return name


class Reference(Table):
    """A value to compare with: a difference in kT, or log Z."""

    value: float
    std_error: Annotated[float, Field(ge=0)]
    source: str


class Run(Table):
    """What the command line was asked for; each kind of problem adds its methods."""

    preset: str = "quick"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "cpu"


class Problem(Table):
    """A name, words, and what the answer should be."""

    name: Annotated[str, AfterValidator(_file_name)]
    title: str
    description: str = ""
    reference: Reference | None = None
