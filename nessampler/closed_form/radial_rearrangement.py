"""Atoms of a harmonic trap moved outward or inward until they are those of another gas."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from nessampler.errors import InputError
from nessampler.targets.power_gas import PowerGas

__all__ = ["RadialRearrangement"]


class RadialRearrangement(Transform):
    r"""Each atom along its own radius, from $x \sim e^{-\kappa |x|^2/2}$ to $y \sim e^{-V(y)}$, V of a `PowerGas`:

    $$P(\tfrac3p, (|y|/R)^p) = P(\tfrac32, \tfrac\kappa2 |x|^2), \qquad
      \log\Big|\det\frac{\partial y}{\partial x}\Big| = V(y) - \tfrac\kappa2 |x|^2 + \log\frac{Z_V}{Z_\kappa}$$

    with P the regularised incomplete gamma function: the optimal transport of one spherical density to another.

    | symbol | argument |
    |---|---|
    | $\kappa$ | `trap` |
    | V, p, R | `gas` |

    Shapes: `(n, atoms, 3)`, float64 best. Not differentiable by autograd.

    Raises:
        InputError: a trap that is not positive.

    Example:
        >>> half = RadialRearrangement(1.0, PowerGas(1, radius=0.5 * 2**0.5, power=2.0))
        >>> half(torch.ones(1, 1, 3, dtype=torch.float64))
        tensor([[[0.5000, 0.5000, 0.5000]]], dtype=torch.float64)
    """

    bijective = True
    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.independent(constraints.real, 2)

    def __init__(self, trap: float, gas: PowerGas) -> None:
        super().__init__()
        if not 0 < trap < float("inf"):
            raise InputError(f"a trap must be positive: got {trap}")
        self.trap, self.gas = float(trap), gas
        self._log_z = gas.log_z - 1.5 * gas.event_shape[0] * float(np.log(2 * np.pi / trap))

    @property
    def log_z_ratio(self) -> float:
        r"""$\log(Z_V/Z_\kappa)$: the offset that gives V the normalisation of the trap."""
        return self._log_z

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RadialRearrangement) and vars(self.gas) == vars(other.gas) and self.trap == other.trap

    def __hash__(self) -> int:
        return hash((self.trap, self.gas.radius, self.gas.power))

    def _call(self, x: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        p = self.gas.power
        half = 0.5 * self.trap * _square(x)
        moved = _same_tail(1.5, 3 / p, half)
        return _scaled(x, self.gas.radius * moved ** (1 / p))

    def _inverse(self, y: Float[Tensor, "n atoms 3"]) -> Float[Tensor, "n atoms 3"]:
        p = self.gas.power
        moved = (_square(y) / self.gas.radius**2) ** (p / 2)
        half = _same_tail(3 / p, 1.5, moved)
        return _scaled(y, np.sqrt(2 * half / self.trap))

    def log_abs_det_jacobian(self, x: Float[Tensor, "n atoms 3"], y: Float[Tensor, "n atoms 3"]) -> Float[Tensor, " n"]:
        """One number for all atoms of a walker."""
        return self.gas.energy(y) - 0.5 * self.trap * x.square().sum((-1, -2)) + self._log_z


def _square(x: Tensor) -> np.ndarray:
    return x.detach().double().square().sum(-1).cpu().numpy()


def _same_tail(shape: float, other: float, value: np.ndarray) -> np.ndarray:
    """Where a Gamma of the other shape has the probability that Gamma(shape) has below `value`; both tails exact."""
    low = gammaincinv(other, gammainc(shape, value))
    return np.where(gammainc(shape, value) < 0.5, low, gammainccinv(other, gammaincc(shape, value)))


def _scaled(x: Tensor, size: np.ndarray) -> Tensor:
    length = x.norm(dim=-1, keepdim=True)
    ratio = torch.from_numpy(size).to(x).unsqueeze(-1) / torch.where(length > 0, length, 1.0)
    return ratio * x
