"""One cell of a bench: what was asked, what came out, and what it cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nessampler.runs.config import Config

__all__ = ["NO_LOG_Z", "Row"]

NO_LOG_Z = "no log Z"  # starts the note of what gives none by its nature

REFERENCE = ("reference", "reference_error")
ROUNDING = 1e-9  # kT: an error below this is that of arithmetic


@dataclass(frozen=True)
class Row:
    """A method on a system from one seed.

    Attributes:
        system, kind, method, seed, budget: the cell; the budget is in evaluations, None for the preset's own size.
        chosen: what `auto` took, else the method.
        value, std_error: log Z or ΔF, in kT; None where there is none.
        reference, reference_error: what it should be; not in the file of a cell, but as the catalogue has it when read.
        evaluations: energies and gradients of the target, base or end states, pilots and training included; of two
            states the sum at their relative costs.
        fields: evaluations of closed-form and learned fields, by walker.
        seconds, cpu_seconds: of this process and of those that worked for it.
        metrics: what else can be measured of this kind of result, by name.
        flags, verdict: as of a run.
        note: why there is no value, or what differs.
        origin: what was asked, by which code, on which machine: see `origin_of`.

    Example:
        >>> from nessampler.runs import catalogue
        >>> from nessampler.runs.config import load, resolve
        >>> config = resolve(load(catalogue.find("funnel-10")))  # log Z = 0
        >>> cost = {"evaluations": 1e5, "fields": 0, "seconds": 2.0, "cpu_seconds": 2.0}
        >>> row = Row.of_cell(config, "ais", 100_000, chosen="ais", value=-0.1, std_error=0.05, **cost)
        >>> row.error, row.z, Row.of(row.to_dict()) == row
        (0.1, -2.0, True)
    """

    system: str
    kind: str
    method: str
    seed: int
    budget: int | None
    chosen: str
    value: float | None
    std_error: float | None
    reference: float | None
    reference_error: float | None
    evaluations: float
    fields: int
    seconds: float
    cpu_seconds: float
    metrics: dict[str, float | None] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    verdict: str = ""
    note: str = ""
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def draws_only(self) -> bool:
        """Whether a method gives draws and no value by its nature, and did."""
        return self.value is None and self.note.startswith(NO_LOG_Z)

    @property
    def error(self) -> float | None:
        """Distance of the value to the reference, not signed."""
        if self.value is None or self.reference is None:
            return None
        return abs(self.value - self.reference)

    @property
    def z(self) -> float | None:
        """Distance to the reference in combined standard errors; None without either, or where both are exact."""
        if self.value is None or self.std_error is None or self.reference is None:
            return None
        spread = math.hypot(self.std_error, self.reference_error or 0.0)
        return (self.value - self.reference) / spread if spread > ROUNDING else None

    @classmethod
    def of_cell(cls, config: Config, method: str, budget: int | None, **found: Any) -> Row:
        """What was found, under the names of its cell."""
        reference = config.reference
        return cls(
            system=config.name,
            kind=config.kind,
            method=method,
            seed=config.run.seed,
            budget=budget,
            reference=None if reference is None else reference.value,
            reference_error=None if reference is None else reference.std_error,
            **found,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"flags": list(self.flags)}

    def to_cell(self) -> dict[str, Any]:
        """The same without the reference."""
        return {name: value for name, value in self.to_dict().items() if name not in REFERENCE}

    @classmethod
    def of(cls, table: dict[str, Any]) -> Row:
        """The row again."""
        known: dict[str, Any] = {f.name: table[f.name] for f in fields(cls) if f.name in table}
        known["flags"] = tuple(known["flags"])
        known |= {name: known.get(name) for name in REFERENCE}
        return cls(**known)
