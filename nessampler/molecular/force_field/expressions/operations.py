"""The operations of the language on tensors, plain and into a given place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["INTO", "TORCH", "PlusProduct"]


def _step(x: Tensor) -> Tensor:
    return (x >= 0).to(x.dtype)


def _delta(x: Tensor) -> Tensor:
    return (x == 0).to(x.dtype)


class _OfTensors:
    """For the few functions of torch that take no numbers."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Tensor:
        like = next(a for a in args if isinstance(a, Tensor))
        return self.function(*(a if isinstance(a, Tensor) else like.new_tensor(a) for a in args))


def _step_into(x: Tensor, *, out: Tensor) -> Tensor:
    return torch.ge(x, 0, out=out)  # several times as fast as a comparison and a cast


def _or_one(x: Tensor, mask: Tensor, inverse: Tensor, *, out: Tensor | None = None) -> Tensor:
    return torch.addcmul(inverse, x, mask, out=out) if out is not None else torch.addcmul(inverse, x, mask)


@dataclass(frozen=True)
class PlusProduct:
    r"""$a + s\,b$ or $a + s\,b\,c$ in one go."""

    scale: float

    def __call__(self, a: Any, *factors: Any) -> Tensor:
        if not isinstance(a, Tensor):
            return a + self.scale * (factors[0] * factors[1] if len(factors) == 2 else factors[0])
        if len(factors) == 2:
            return torch.addcmul(a, *factors, value=self.scale)
        return torch.add(a, factors[0], alpha=self.scale)

    def into(self, a: Tensor, *factors: Tensor, out: Tensor) -> Tensor:
        if len(factors) == 2:
            return torch.addcmul(a, *factors, value=self.scale, out=out)
        return torch.add(a, factors[0], alpha=self.scale, out=out)


TORCH: dict[str, Callable[..., Tensor]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "pow": operator.pow,
    "min": _OfTensors(torch.minimum),
    "max": _OfTensors(torch.maximum),
    "atan2": _OfTensors(torch.atan2),
    "xlogy": _OfTensors(torch.xlogy),
    "step": _step,
    "delta": _delta,
    "or zero": operator.mul,
    "or one": _or_one,
}
INTO: dict[str, Callable[..., Tensor]] = {  # the same, with a place for the result
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "min": torch.minimum,
    "max": torch.maximum,
    "step": _step_into,
    "or zero": torch.mul,
    "or one": _or_one,
}
_UNARY_KINDS = (
    "neg recip square sqrt rsqrt exp log sin cos tan asin acos atan sinh cosh tanh erf erfc abs sign floor ceil"
)
for _kind in _UNARY_KINDS.split():
    TORCH[_kind] = INTO[_kind] = getattr(torch, {"recip": "reciprocal"}.get(_kind, _kind))
