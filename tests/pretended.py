"""A GPU for machines without one: tensors that lie on the CPU, say they do not, and refuse what a GPU refuses.

Scripts of references are tested with it (`tests/test_reference_scripts.py`), and

    NESSAMPLER_TEST_DEVICE=pretended pytest -m gpu tests/test_gpu.py

finds tensors of the package that met on two devices. Torch's meta device lends its name, since autograd runs on it
without a driver; kernels, speed and rounding stay those of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["DEVICE", "Pretended", "pretended"]

DEVICE = torch.device("meta")
_CROSSING = {"_to_copy", "copy_", "copy", "_local_scalar_dense"}
_INDEXING = {"index", "_unsafe_index", "index_put_", "index_put", "_index_put_impl_"}  # by indices on the CPU, too
_STRICT = {  # that take no number on the CPU either
    *("index_select", "gather", "index_add", "index_add_", "scatter", "scatter_", "scatter_add", "scatter_add_"),
    *("cat", "stack", "mm", "bmm", "addmm", "mv", "dot", "searchsorted", "bucketize", "take", "index_copy"),
    *("linalg_solve_triangular", "linalg_lstsq", "lerp"),
}
_CPU_GENERATOR = torch.Generator


class Pretended(Tensor):
    """A tensor that lies on the CPU and does not say so."""

    _inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        found = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        found._inner = inner
        return found

    def __repr__(self, **_: Any) -> str:
        return f"pretended {self._inner!r}"

    def __matmul__(self, other: Tensor) -> Tensor:
        # Torch's own rule for a vector squeezes its result in place, which a wrapper does not hear of.
        return other.T.mv(self) if self.ndim == 1 and other.ndim == 2 else torch.matmul(self, other)

    def tolist(self) -> Any:
        return self._inner.tolist()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE, **options})

    def numpy(self, **_: Any) -> Any:
        raise TypeError("a tensor of another device is no array: call .cpu() first")

    def __array__(self, *_: Any) -> Any:
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


class _Generator(_CPU_GENERATOR):
    """A source of randomness that knows which device it says it is on."""

    pretended: bool

    def __new__(cls, device: Any = "cpu") -> _Generator:
        generator = _CPU_GENERATOR.__new__(cls, "cpu")
        generator.pretended = torch.device(device).type == DEVICE.type
        return generator

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return DEVICE if self.pretended else torch.device("cpu")


class _Generators(TorchFunctionMode):
    """Random numbers come from a generator of their own device; below this, torch knows the generator no more."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        generator = options.get("generator")
        if isinstance(generator, _Generator):
            where = args[0].device if args and isinstance(args[0], Tensor) else options.get("device") or "cpu"
            if (torch.device(where).type == DEVICE.type) != generator.pretended:
                raise RuntimeError(f"{getattr(func, '__name__', func)} on {where} needs a generator there")
        return func(*args, **options)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


@contextmanager
def pretended() -> Iterator[None]:
    """Within, `device="meta"` is a device that computes."""
    convert = torch.__future__
    before = convert.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(mock.patch.object(torch, "tensor", _sent(torch.tensor)))
        stack.enter_context(mock.patch.object(torch, "as_tensor", _sent(torch.as_tensor)))
        convert.set_overwrite_module_params_on_conversion(True)  # `module.double()` would change the name alone
        stack.callback(convert.set_overwrite_module_params_on_conversion, before)
        stack.enter_context(_Generators())
        stack.enter_context(_Mode())
        yield


def _sent(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Torch fills tensors from numbers out of sight of any mode: here they are made on the CPU and sent."""

    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        if isinstance(data, Pretended):
            return data.to(device=device, **options)
        return make(data, **options) if device is None else make(data, **options).to(device)

    return made


def _called(func: Any, args: Any, kwargs: Any) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    name = func._schema.name.split("::")[1]
    if any(isinstance(t, Pretended) for t in tensors) and name not in _CROSSING:
        _check(name, args, kwargs, tensors)
    asked = kwargs.get("device")
    there = any(isinstance(t, Pretended) for t in tensors)
    if asked is not None:
        there = torch.device(asked).type == DEVICE.type
        kwargs = {**kwargs, "device": torch.device("cpu"), **({"pin_memory": None} if "pin_memory" in kwargs else {})}
    elif name == "copy_":
        there = isinstance(args[0], Pretended)
    plain, options = tree_map(lambda t: t._inner if isinstance(t, Pretended) else t, (args, kwargs))
    with _disable_current_modes():
        found = func(*plain, **options)
    same = {id(t._inner): t for t in tensors if isinstance(t, Pretended)}  # in place, or out=
    return tree_map(lambda t: same.get(id(t), Pretended(t) if there else t) if isinstance(t, Tensor) else t, found)


def _check(name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
    """Raise where CUDA would.

    Raises:
        RuntimeError: tensors on two devices.
    """
    here = [t for t in tensors if not isinstance(t, Pretended)]
    if name in _INDEXING:
        first, values = args[0], args[2] if len(args) > 2 else args[0]
        wrong = not isinstance(first, Pretended) or (not isinstance(values, Pretended) and values.ndim > 0)
    elif name in _STRICT:
        wrong = bool(here)
    else:
        written = [kwargs.get("out"), args[0] if name.endswith("_") and args else None]
        wrong = any(t.ndim > 0 for t in here) or any(w is t for w in written for t in here)
    if wrong:
        shapes = [f"{tuple(t.shape)} {'there' if isinstance(t, Pretended) else 'on the CPU'}" for t in tensors]
        raise RuntimeError(f"tensors of {name} are on two devices: {', '.join(shapes)}")
