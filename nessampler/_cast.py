"""Large constants in the dtype of whoever multiplies them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Cast"]


class Cast:
    """A matrix, and its copies in every dtype and on every device that asked for one.

    A cast of a whole matrix costs as much as its product with a small batch.

    Example:
        >>> matrix = Cast(torch.eye(2, dtype=torch.float64))
        >>> matrix.like(torch.zeros(1)).dtype, matrix.like(torch.zeros(1)) is matrix.like(torch.ones(1))
        (torch.float32, True)
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._copies: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        """In the dtype and on the device of x."""
        key = x.dtype, x.device
        if key not in self._copies:
            self._copies[key] = self.tensor.to(x)
        return self._copies[key]
