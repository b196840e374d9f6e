"""A path without an interior."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths.protocol import check_same_shape
from nessampler.targets.protocol import Target

__all__ = ["EndpointPath"]


class EndpointPath:
    """A path that knows its ends only: enough for every method whose interior energies cancel (FEP, maps, FEAT).

    Raises:
        InputError: ends of different event shapes; an energy asked for inside (0, 1).

    Example:
        >>> import torch
        >>> from nessampler.targets import Gaussian
        >>> path = EndpointPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> path.energy(torch.ones(1), torch.tensor([[3.0]]))
        tensor([2.])
    """

    def __init__(self, start: Target, end: Target) -> None:
        check_same_shape(start, end)
        self.start, self.end = start, end

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """The energy of the end that `t` names."""
        if bool((t == 0).all()):
            return self.start.energy(x)
        if bool((t == 1).all()):
            return self.end.energy(x)
        raise InputError(f"this path has energies at t = 0 and t = 1 only: got t = {float(t.flatten()[0])}")
