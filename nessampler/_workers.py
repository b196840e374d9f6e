"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading

__all__ = ["end_with_the_parent"]


def end_with_the_parent() -> None:
    """In a worker: a parent that is killed says nothing, and its workers would go on, or wait, for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return  # nobody's worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
