"""Who is told how a run goes."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Listener"]


class Listener(Protocol):
    """What a run tells while it works."""

    def say(self, text: str) -> None:
        """One line about what happens now."""
        ...

    def advance(self, done: int, total: int, what: str) -> None:
        """How far a long stage is."""
        ...

    def report(self, **numbers: float | None) -> None:
        """Numbers as they stand: `loss`, `ess`, `r_squared`, or `delta_f` with `std_error` and `overlap`, in kT."""
        ...
