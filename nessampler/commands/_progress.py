"""How a run that is under way looks: a live line on a terminal, plain lines in a pipe or a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

__all__ = ["Progress", "as_it_is"]

PATIENCE = 5.0  # seconds between lines in a log
WIDEST = 32  # of a stage's name, so that a line has room in 80 columns


class Progress:
    """Stage, rate, time left and current numbers, on standard error; use it as a context, which ends the live line.

    On a terminal what is said scrolls by above one line that is alive, with the current numbers below it. Elsewhere
    there are lines only, one every five seconds at most while a stage goes on.

    Args:
        console: where to.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._started = self._since = self._last = clock()
        self._stage, self._first = "", 0
        self._numbers: dict[str, float] = {}
        self._live = _Live(console, self._number_line) if console.is_terminal and not console.is_dumb_terminal else None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        seconds = self._clock() - self._started
        self._console.print(f"[dim]{seconds:6.0f} s[/dim]  {escape(text)}", highlight=False, soft_wrap=True)
        if self._live is not None:
            self._live.wait(text)

    def advance(self, done: int, total: int, what: str) -> None:
        """How far a stage is; another name begins another stage."""
        now = self._clock()
        if what != self._stage:
            self._stage, self._first = what, done
            self._since = self._last = now
            self._numbers.clear()
        rate = (done - self._first) / (now - self._since) if done > self._first and now > self._since else None
        left = None if rate is None or done >= total else (total - done) / rate
        if self._live is not None:
            self._live.show(what, done, total, rate, left)
        elif now - self._last >= PATIENCE or (done >= total and self._last > self._since):
            self._last = now  # a stage that is over before its first line is not worth one
            remaining = "" if left is None else f", about {left:.0f} s left"
            numbers = self._number_line()
            self.say(f"{what}: {done / total:.0%}{remaining}" + (f"; {numbers}" if numbers else ""))

    def report(self, **numbers: float | None) -> None:
        """Current numbers; they stay until others of their name come, or another stage."""
        self._numbers |= {name: value for name, value in numbers.items() if value is not None}

    def _number_line(self) -> str:
        return in_words(self._numbers)


def as_it_is(console: Console, text: str) -> None:
    """Paths and commands: not coloured, not read as markup, not broken at the edge, so that they can be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def in_words(numbers: dict[str, float]) -> str:
    """Current numbers as people read them.

    >>> in_words({"delta_f": -7.0941, "std_error": 0.05, "overlap": 0.72}), in_words({"loss": 0.01234, "ess": 0.8512})
    ('ΔF -7.094 ± 0.050 kT, overlap 0.72', 'loss 0.0123, ESS 0.851')
    """
    parts = []
    if "delta_f" in numbers:
        error = f" ± {numbers['std_error']:.3f}" if "std_error" in numbers else ""
        parts.append(f"ΔF {numbers['delta_f']:.3f}{error} kT")
    for name, word, form in (
        ("overlap", "overlap", ".2f"),
        ("loss", "loss", ".3g"),
        ("ess", "ESS", ".3f"),
        ("r_squared", "R²", ".3f"),
    ):
        if name in numbers:
            parts.append(f"{word} {numbers[name]:{form}}")
    return ", ".join(parts)


class _Live(Bars):
    """One bar, and a line of numbers below it."""

    def __init__(self, console: Console, numbers: Callable[[], str]) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[rest]}", markup=False),
        )
        self._numbers = numbers
        super().__init__(*columns, console=console, transient=True, refresh_per_second=4)
        self._bar = self.add_task("starting", total=None, rest="")

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if numbers := self._numbers():
            yield Text(f"  {numbers}", style="cyan", no_wrap=True, overflow="ellipsis")

    def wait(self, text: str) -> None:
        """Nobody knows how long this takes."""
        self.reset(self._bar, total=None, description=_short(text), rest="")

    def show(self, what: str, done: int, total: int, rate: float | None, left: float | None) -> None:
        """How far, how fast, how long."""
        speed = "" if rate is None else f" · {_quantity(rate)}/s"
        remaining = "" if left is None else f" · {_duration(left)} left"
        self.update(
            self._bar,
            description=_short(what),
            total=total,
            completed=done,
            rest=f"{done / total:.0%}{speed}{remaining}",
        )


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _quantity(number: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
