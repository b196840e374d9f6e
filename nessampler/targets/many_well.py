"""Many wells: independent skewed double wells, whose modes double with every pair of coordinates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["ManyWell", "sample_quartic"]


class ManyWell:
    r"""Copies of a double well in the plane: $2^{\text{pairs}}$ modes, the right-hand wells being the deeper.

    $$U(x) = \sum_p \Big[u_p^4 - 6 u_p^2 - \tfrac12 u_p + \tfrac12 v_p^2\Big], \qquad (u_p, v_p) = (x_{2p}, x_{2p+1})$$

    Unnormalised: $\log Z = 10.29348$ per pair, hence 164.6957 in 32 dimensions and 329.3914 in 64.

    Args:
        pairs: number of copies; the dimension is twice as large.

    Raises:
        InputError: no pair at all.

    References:
        Noé et al., Boltzmann generators, 2019, Science 365 (the double well); Midgley et al., Flow Annealed
        Importance Sampling Bootstrap, 2022, arXiv:2208.01893 (the many-well, with these constants).

    Example:
        >>> round(ManyWell(pairs=16).log_z, 4)
        164.6957
    """

    quartic, quadratic, tilt = 1.0, 6.0, 0.5

    def __init__(self, pairs: int = 16) -> None:
        if pairs < 1:
            raise InputError(f"a many-well needs at least one pair of coordinates: got pairs={pairs}")
        self.pairs = pairs
        self.event_shape = torch.Size([2 * pairs])

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        well, harmonic = self._well(x[:, ::2]), 0.5 * x[:, 1::2].square()
        return (well + harmonic).sum(-1, dtype=torch.float64).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        u, v = x[:, ::2], x[:, 1::2]
        slope = self.tilt + u * (2 * self.quadratic - 4 * self.quartic * u.square())
        return self.energy(x), torch.stack([slope, -v], -1).flatten(1)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        bend = 12 * self.quartic * x[:, ::2].square() - 2 * self.quadratic + 1
        return bend.sum(-1, dtype=torch.float64).to(x)

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in float64, by rejection."""
        tilt = torch.full((n, self.pairs), self.tilt, dtype=torch.float64, device=generator.device)
        u = sample_quartic(self.quartic, self.quadratic, tilt, generator=generator)
        v = torch.randn(n, self.pairs, generator=generator, dtype=torch.float64, device=generator.device)
        return torch.stack([u, v], -1).flatten(1)

    @property
    def log_z(self) -> float:
        r"""$\log \int e^{-U}$ by the trapezoidal rule, which converges geometrically here: exact to rounding."""
        grid = torch.linspace(-6, 6, 2401, dtype=torch.float64)  # 1,000 kT at the ends; wells 0.2 wide
        well = float(torch.logsumexp(-self._well(grid), 0) + torch.log(grid[1] - grid[0]))
        return self.pairs * (well + 0.5 * math.log(2 * math.pi))

    def _well(self, u: Tensor) -> Tensor:
        square = u.square()
        return square * (self.quartic * square - self.quadratic) - self.tilt * u


def sample_quartic(
    quartic: float, quadratic: float, tilt: Float[Tensor, "*shape"], *, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    r"""Independent draws of $x \sim \exp(-b x^4 + a x^2 + h x)$, one for every $h$, by exact rejection.

    For every $k > 0$, completing the square in $x^2$ gives

    $$-b x^4 + a x^2 = -k x^2 + b u^2 - b (x^2 - u)^2, \qquad u = \frac{a + k}{2b},$$

    so draws from the Gaussian $\exp(-k x^2 + h x)$ are accepted with probability $\exp(-b (x^2 - u)^2)$. The best
    $k$ solves $2k^2(k + a) = 2bk + bh^2$; any other gives the same law, later.

    | symbol | argument | |
    |---|---|---|
    | $b > 0$ | `quartic` | kT |
    | $a \ge 0$ | `quadratic` | kT |
    | $h$ | `tilt` | any shape, kT; dtype and device of the draws |

    Raises:
        InputError: a quartic coefficient that is not positive, or a negative quadratic one.

    Example:
        >>> draws = sample_quartic(1.0, 6.0, torch.full((1000,), 0.5), generator=torch.Generator().manual_seed(0))
        >>> 0.8 < float((draws > 0).float().mean()) < 0.9
        True
    """
    if not (quartic > 0 and quadratic >= 0):
        raise InputError(f"the quartic must be bounded, with b > 0 and a >= 0: got b={quartic} and a={quadratic}")
    h = tilt.flatten()
    k = torch.full_like(h, math.sqrt(quartic) + quadratic)
    for _ in range(20):
        k = torch.sqrt(quartic * (2 * k + h.square()) / (2 * (k + quadratic)))
    u, draws, todo = (k + quadratic) / (2 * quartic), torch.empty_like(h), torch.arange(len(h), device=h.device)
    while len(todo):
        normal, uniform = (
            draw(len(todo), generator=generator, dtype=h.dtype, device=h.device) for draw in (torch.randn, torch.rand)
        )
        x = (h[todo] / 2 / k[todo].sqrt() + normal / math.sqrt(2)) / k[todo].sqrt()
        accepted = uniform < torch.exp(-quartic * (x.square() - u[todo]).square())
        draws[todo[accepted]] = x[accepted]
        todo = todo[~accepted]
    return draws.view(tilt.shape)
