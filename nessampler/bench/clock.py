"""Processor time of a cell and of the processes that worked for it."""

from __future__ import annotations

import os
import time

__all__ = ["cpu_seconds"]


def cpu_seconds() -> float:
    """Of this process, all threads, and of its children that have ended: a pool must be closed before it counts.

    >>> before = cpu_seconds()
    >>> _ = sum(range(100_000))
    >>> cpu_seconds() > before
    True
    """
    of_children = os.times()
    return time.process_time() + of_children.children_user + of_children.children_system
