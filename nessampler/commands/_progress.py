"""How a run that is under way looks on a terminal."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape

__all__ = ["Progress"]


class Progress:
    """Lines on standard error: what is being done, how far, and how long it will take."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._last = 0.0
        self._stage: tuple[float, int] | None = None

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        seconds = time.monotonic() - self._started
        self._console.print(f"[dim]{seconds:6.0f} s[/dim]  {escape(text)}", highlight=False, soft_wrap=True)

    def advance(self, done: int, total: int, what: str) -> None:
        """At most one line every five seconds."""
        now = time.monotonic()
        self._stage = self._stage or (now, done)
        if now - self._last < 5 and done < total:
            return
        self._last = now
        since, first = self._stage
        left = (total - done) * (now - since) / (done - first) if done > first else None
        remaining = "" if left is None or done == total else f", about {left:.0f} s left"
        self.say(f"{what}: {done / total:.0%}{remaining}")
