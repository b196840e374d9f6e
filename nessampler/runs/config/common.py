"""What every problem has, whatever it asks for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Problem", "Reference", "Run", "Table"]


class Table(BaseModel):
    """A table of the file: no unknown keys, no numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reference(Table):
    """A value to compare with: a difference in kT, or log Z."""

    value: float
    std_error: Annotated[float, Field(ge=0)]
    source: str


class Run(Table):
    """What the command line was asked for; each kind of problem adds its methods."""

    preset: str = "quick"
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "cpu"


class Problem(Table):
    """A name, words, and what the answer should be."""

    name: str
    title: str
    description: str = ""
    reference: Reference | None = None
