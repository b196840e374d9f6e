"""A potential on a periodic lattice with the symmetries of the action, for action matching."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.errors import InputError
from nessampler.targets.phi4 import lattice_momenta

__all__ = ["LatticePotential"]


class LatticePotential(nn.Module):
    r"""Cosines of smeared fields, summed over sites, with heights that are piecewise linear in time:

    $$\phi(t, \varphi) = \sum_x \Big[\tfrac12 a_0(t)\, \varphi^2 - \sum_j a_j(t) \cos(S_j * \varphi + p_j)\Big],
      \qquad S_j = \sum_b W_{bj} S_b$$
    $$\nabla\phi = a_0(t)\, \varphi + \sum_j a_j(t)\, S_j * \sin(S_j * \varphi + p_j)$$

    The smearings $S_b$ are those of a `LatticeDictionary`, and stay; W, the phases and the heights are trained, the
    latter from zero. It is invariant under translations, rotations by 90°, reflections and, without phases,
    $\varphi \to -\varphi$.

    | symbol | argument | |
    |---|---|---|
    | $S_b, W, p$ | `known` | the dictionary whose sines these cosines integrate |
    | $a$ | `knots` | equidistant ones in [0, 1] |

    Parameters are float64; arithmetic is in the dtype of x.

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: fewer than two knots.

    References:
        Neklyudov et al., Action Matching: Learning Stochastic Dynamics from Samples, 2022, arXiv:2210.06662.

    Example:
        >>> fields = LatticeDictionary((4, 4), (1.0,), (1.0,), torch.ones(1, 2, dtype=torch.float64))
        >>> network = LatticePotential(fields)
        >>> network.potential(torch.zeros(3), torch.ones(3, 4, 4)).shape
        torch.Size([3])
        >>> network(torch.zeros(3), torch.ones(3, 4, 4)).abs().max().item()
        0.0
    """

    smear: Tensor

    def __init__(self, known: LatticeDictionary, knots: int = 9) -> None:
        super().__init__()
        if knots < 2:
            raise InputError(f"heights that are piecewise linear in time need two knots at least: got {knots}")
        self.shape, self.evaluations = tuple(known.shape), 0
        momenta = lattice_momenta(self.shape[0], len(self.shape))
        responses = [torch.ones_like(momenta) if m == float("inf") else m / (momenta + m) for m in known.inner]
        self.register_buffer("smear", torch.stack(responses))
        self.weights = nn.Parameter(known.weights.to(torch.float64).clone())
        self.heights = nn.Parameter(torch.zeros(knots, 1 + known.weights.shape[1], dtype=torch.float64))
        self.phases = None if known.phases is None else nn.Parameter(known.phases.to(torch.float64).clone())

    def potential(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        r"""$\phi(t, x)$, float64."""
        inside, heights = self._parts(t, x)
        square = x.flatten(1).square().sum(1, dtype=torch.float64)
        return 0.5 * heights[:, 0] * square - (heights[:, 1:] * inside.cos().sum(2, dtype=torch.float64)).sum(1)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n *event"]:
        r"""$\nabla\phi(t, x)$, in closed form."""
        inside, heights = self._parts(t, x)
        heights = heights.to(x)
        felt = (self.weights.to(x) @ (heights[:, 1:, None] * inside.sin())).unflatten(2, self.shape)
        modes = (torch.fft.rfftn(felt, dim=self._axes) * self.smear.to(x)).sum(1)
        return heights[:, 0].view(-1, *[1] * len(self.shape)) * x + torch.fft.irfftn(
            modes, s=self.shape, dim=self._axes
        )

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))

    def _parts(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The arguments of the cosines, `(n, features, sites)`, and the heights of every walker, float64."""
        self.evaluations += len(x)
        modes = torch.fft.rfftn(x, dim=self._axes).unsqueeze(1) * self.smear.to(x)
        inside = self.weights.T.to(x) @ torch.fft.irfftn(modes, s=self.shape, dim=self._axes).flatten(2)
        if self.phases is not None:
            inside = inside + self.phases.to(x)[:, None]
        place = t.to(self.heights).clamp(0, 1) * (len(self.heights) - 1)
        left = place.long().clamp(max=len(self.heights) - 2)
        return inside, torch.lerp(self.heights[left], self.heights[left + 1], (place - left)[:, None])
