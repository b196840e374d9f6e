"""Energies and gradients of a chunk of walkers as one compiled program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["Program", "compiled_program", "energy_and_gradient", "one_thread", "traced_program", "workers"]

_lock, _inside, _before = Lock(), 0, 1
TOGETHER = 6  # terms in a program: of the thirteen of an alchemical system, one program takes 1.6 times as long

# positions (3, atoms, walkers), global parameters, box -> energies (walkers,), gradients (3, atoms, walkers)
Program: TypeAlias = Callable[[Tensor, Mapping[str, Tensor], Tensor | None], tuple[Tensor, Tensor]]


def energy_and_gradient(terms: Sequence[nn.Module]) -> Program:
    """The sum of some terms and its gradient, detached."""

    def program(x: Tensor, globals: Mapping[str, Tensor], box: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            position = x.detach().requires_grad_()
            energy = position.sum((0, 1)) * 0 if not terms else sum(term(position, globals, box) for term in terms)
            assert isinstance(energy, Tensor)
            (gradient,) = torch.autograd.grad(energy.sum(), position)
        return energy.detach(), gradient

    return program


def traced_program(
    terms: Sequence[nn.Module], x: Tensor, globals: Mapping[str, Tensor], box: Tensor | None
) -> torch.fx.GraphModule:
    """Energy and gradient as one list of operations, for arguments shaped like these; autograd has run by then."""
    with torch.no_grad():
        return make_fx(energy_and_gradient(terms))(x, dict(globals), box)


def compiled_program(
    terms: Sequence[nn.Module], x: Tensor, globals: Mapping[str, Tensor], box: Tensor | None
) -> Program:
    """The same, compiled: what would be hundreds of passes through memory is fused.

    On a CPU all passes are one call of C++ that lets go of Python's lock, so that several threads can be in it at once.
    """
    options: dict[str, str | int | bool | Callable[..., Any]] = {"cpp_wrapper": True} if x.device.type == "cpu" else {}
    runs = [
        torch.compile(traced_program(terms[k : k + TOGETHER], x, globals, box), dynamic=False, options=options)
        for k in range(0, max(1, len(terms)), TOGETHER)
    ]

    def program(x: Tensor, globals: Mapping[str, Tensor], box: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            energy, gradient = runs[0](x, dict(globals), box)
            for run in runs[1:]:
                more = run(x, dict(globals), box)
                energy, gradient = energy + more[0], gradient + more[1]
            return energy, gradient

    program(x, globals, box)  # compiles now, before several threads ask for it
    return program


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on a single CPU thread, for as long as it lasts, in this thread and those that it starts.

    A fused pass over a chunk that fits the cache takes microseconds, less than threads need to meet: on two of them a
    compiled program is four times slower than on one. Threads share the chunks instead.
    """
    global _inside, _before
    with _lock:  # several threads of a user's may be in here: what the first one found is everybody's
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
        torch.set_num_threads(_before)


def workers(threads: int) -> ThreadPoolExecutor:
    """Threads that stay: starting two of them for a call would take longer than a call of 1,024 small molecules."""
    return _workers(threads, os.getpid())  # a forked process has none of its parent's threads


@lru_cache
def _workers(threads: int, _process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "force field")
