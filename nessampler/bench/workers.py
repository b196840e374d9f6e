"""Work in a process of its own, for so many minutes at most."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from nessampler._workers import end_with_the_parent
from nessampler.errors import InputError

__all__ = ["Ended", "Say", "Tell", "in_a_process"]

Say = Callable[[str], None]
Tell = Callable[[int, int, str], None]  # done, in all, and what


@dataclass(frozen=True)
class Ended:
    """How work ended.

    Attributes:
        answer: what it returned, or the error that it ended with; None where it was given up or died.
        seconds: that it took.
        given_up: after all of its minutes.
    """

    answer: Any
    seconds: float
    given_up: bool = False

    @property
    def failure(self) -> str:
        """Why there is no answer; empty where there is one."""
        if isinstance(self.answer, InputError):
            return str(self.answer)
        return "its process died" if self.answer is None and not self.given_up else ""


def in_a_process(work: Callable[[Tell], Any], cap: float | None = None, tell: Tell = lambda *_: None) -> Ended:
    """What `work` returns, or why it does not: a process that is killed, or runs out of memory, costs itself only.

    Args:
        work: of a module, so that another process finds it; called with who is told how far it is. Returns no None.
        cap: minutes after which it is given up; None for never.
        tell: told here.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=answered, args=(theirs, work))
    started = time.perf_counter()
    process.start()
    theirs.close()

    def left() -> float:
        return math.inf if cap is None else 60 * cap + started - time.perf_counter()

    try:
        while left() > 0 and ours.poll(None if cap is None else max(0.0, left())):
            told, answer = ours.recv()
            if told is None:
                return Ended(answer, time.perf_counter() - started)
            tell(*told)
        return Ended(None, time.perf_counter() - started, given_up=True)
    except EOFError:
        return Ended(None, time.perf_counter() - started)
    finally:
        process.kill()
        process.join()


def answered(pipe: Connection, work: Callable[[Tell], Any]) -> None:
    """In that process: what is told on the way, then the answer."""
    end_with_the_parent()
    try:
        answer = work(lambda *told: pipe.send((told, None)))
    except InputError as error:
        answer = error
    except Exception as error:
        # On record by name: a table of many cells must not end with one, nor forget why it has no value.
        answer = InputError(f"{type(error).__name__}: {error}")
    pipe.send((None, answer))
    pipe.close()
