"""An umbrella: any density with a harmonic bias on its mean coordinate, such as a magnet's magnetisation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.protocol import Target, energy_and_score

__all__ = ["Umbrella"]


class Umbrella:
    r"""A density that is held near one value of its mean coordinate.

    $$U_c(x) = U(x) + \kappa\,(M(x) - c)^2, \qquad M(x) = \frac1N \sum_{i=1}^N x_i$$

    There is no factor ½ before κ and none of N: the bias acts on the *mean*, as in He et al., whose windows of the
    φ⁴ lattice have κ = 5, c = −0.3 and +0.6.

    | symbol | argument |
    |---|---|
    | $U$ | `target` |
    | $\kappa \ge 0$ | `stiffness` |
    | $c$ | `center` |

    Shapes as those of the target; energies in float64, in kT. A target's `mirror` (an exact symmetry of U) is handed
    on as a proposal: the bias breaks the symmetry, and Metropolis mends it.

    Raises:
        InputError: a stiffness that is negative, or numbers that are not finite.

    References:
        Torrie & Valleau, Nonphysical sampling distributions in Monte Carlo free-energy estimation: umbrella sampling,
        1977, J. Comput. Phys. 23, 187; He et al., FEAT: Free energy Estimators with Adaptive Transport, 2025,
        arXiv:2504.11516 (the two windows).

    Example:
        >>> from nessampler.targets.phi4 import Phi4
        >>> magnet = Phi4(4, quartic=0.8)
        >>> window, x = Umbrella(magnet, stiffness=5.0, center=0.6), torch.ones(1, 4, 4)
        >>> window.energy(x) - magnet.energy(x)
        tensor([0.8000], dtype=torch.float64)
    """

    def __init__(self, target: Target, *, stiffness: float, center: float) -> None:
        if not (math.isfinite(stiffness) and math.isfinite(center)) or stiffness < 0:
            raise InputError(
                f"an umbrella has a finite centre and a stiffness of at least 0: got {center} and {stiffness}"
            )
        self.target, self.stiffness, self.center = target, float(stiffness), float(center)
        self.event_shape = target.event_shape

    def bias(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        r"""$\kappa\,(M - c)^2$, float64: what a reweighting to the unbiased density takes off."""
        return self.stiffness * self._stretch(x).square()

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U with the bias."""
        return self.target.energy(x).to(torch.float64) + self.bias(x)

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U_c$ and $-\nabla U_c$; the bias pulls all coordinates alike, by $-2\kappa (M - c)/N$."""
        energy, score = energy_and_score(self.target, x)
        stretch = self._stretch(x)
        pull = (-2 * self.stiffness / self.event_shape.numel() * stretch).to(score)
        bias = self.stiffness * stretch.square()
        return energy.to(torch.float64) + bias, score + pull.view(-1, *[1] * (x.ndim - 1))

    @property
    def mirror(self) -> Callable[[Tensor], Tensor]:
        """The target's own proposal, where it has one."""
        return self.target.mirror  # pyright: ignore[reportAttributeAccessIssue]

    def _stretch(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, dtype=torch.float64) - self.center
