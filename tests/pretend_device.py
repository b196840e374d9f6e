"""A device that is not there: tensors on it compute on the CPU, and mix with those of the CPU as little as a GPU's do.

Within `pretended()` the device `meta` has contents. Operations between it and the CPU raise, as do random numbers from
a generator of the other device, and `.numpy()`; numbers of no dimension may mix, and indices may lie on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["DEVICE", "pretended"]

DEVICE = "meta"
TRANSFERS = ("aten::_to_copy", "aten::copy_")


class Elsewhere(torch.Tensor):
    """A tensor that claims to be on the device; `inner` lies on the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        options = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        found = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=torch.device(DEVICE), **options)
        found.inner = inner
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})

    def numpy(self, **_: Any) -> Any:
        raise TypeError("a tensor of another device has no numpy array: copy it to the CPU first")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.inner!r})"


class ElsewhereGenerator(torch._C.Generator):
    """A source of random numbers that claims to be on a device."""

    def __new__(cls, device: Any = "cpu") -> ElsewhereGenerator:
        found = super().__new__(cls)
        found.claimed = torch.device(device)  # pyright: ignore[reportAttributeAccessIssue]
        return found

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self.claimed  # pyright: ignore[reportAttributeAccessIssue]

    def manual_seed(self, seed: int) -> ElsewhereGenerator:
        super().manual_seed(seed)
        return self


def dispatched(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation on what the wrappers hold, its result wrapped where it belongs to the device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [isinstance(t, Elsewhere) for t in tensors]
    name, device = func._schema.name, kwargs.get("device")
    onto = any(there) if device is None else torch.device(device).type == DEVICE
    if any(there) and name not in TRANSFERS and not name.startswith("aten::index."):
        strangers = [tuple(t.shape) for t, own in zip(tensors, there, strict=True) if not own and t.dim()]
        if strangers:
            raise RuntimeError(f"{name}: tensors of two devices, those of the CPU have shapes {strangers}")
    given = kwargs | ({} if device is None else {"device": torch.device("cpu")})
    found = func(*tree_map(_unwrapped, args), **tree_map(_unwrapped, given))
    if name == "aten::_local_scalar_dense":
        return found
    if name.endswith("_") and tensors and isinstance(args[0], torch.Tensor):
        return args[0]  # in place
    return tree_map(_wrapped, found) if onto else found


def _unwrapped(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


def _wrapped(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, torch.Tensor) and not isinstance(value, Elsewhere) else value


class _Factories(TorchDispatchMode):
    """Tensors made on the device, which have no tensor among their arguments."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(func, args, kwargs or {})


class _Generators(TorchFunctionMode):
    """Random numbers come from a generator of their own device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        generator = (kwargs or {}).get("generator")
        if isinstance(generator, ElsewhereGenerator):
            asked = (kwargs or {}).get("device") or "cpu"
            if args and isinstance(args[0], torch.Tensor):
                asked = args[0].device
            if torch.device(asked).type != generator.device.type:
                raise RuntimeError(f"{func.__name__} on {asked}: the generator is on {generator.device}")
        return func(*args, **(kwargs or {}))


@contextmanager
def pretended() -> Iterator[None]:
    """The device exists; `torch.Generator` takes its name."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "Generator", ElsewhereGenerator))
        stack.enter_context(_Generators())
        stack.enter_context(_Factories())
        stack.enter_context(torch.no_grad())
        yield
