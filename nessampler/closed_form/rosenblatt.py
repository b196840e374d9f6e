"""Knothe–Rosenblatt maps of one or two circular coordinates, and hard coordinates that follow them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.affine import ConditionalAffine
from nessampler.closed_form.periodic_density import PeriodicDensity, fit_periodic_density, quiet_angle
from nessampler.errors import InputError

__all__ = ["CircularRosenblatt", "fit_rosenblatt", "halves", "slaved"]


class CircularRosenblatt(Transform):
    r"""Moves one or two angles so that a density of them becomes another; all other coordinates stay.

    $$\theta' = F_B^{-1}(F_A(\theta)), \qquad
      \log\left|\det\frac{\partial\theta'}{\partial\theta}\right| = \log p_A(\theta) - \log p_B(\theta')$$

    with F the first angle's distribution function and the second's given the first. Circles are cut where the densities
    say, which an arc's empty rest hides; across a cut the map is continuous too.

    | symbol | argument | |
    |---|---|---|
    | $p_A, p_B$ | `source`, `goal` | |
    | | `index` | of the angles among the coordinates, `(k,)` |

    Raises:
        InputError: densities of another number of angles than `index` has.

    References:
        Knothe, Contributions to the theory of convex bodies, 1957, Michigan Math. J. 4, 39; Rosenblatt, Remarks on a
        multivariate transformation, 1952, Ann. Math. Stat. 23, 470.

    Example:
        >>> cut = torch.tensor([-torch.pi], dtype=torch.float64)
        >>> grid = cut + 2 * torch.pi / 64 * torch.arange(64)
        >>> one, other = (PeriodicDensity((1 + a * grid.cos()), cut) for a in (0.5, -0.5))
        >>> move = CircularRosenblatt(one, other, torch.tensor([1]))
        >>> x = torch.tensor([[7.0, 1.0]], dtype=torch.float64)
        >>> y = move(x)
        >>> float(y[0, 0]), bool(y[0, 1] > 1.5), torch.allclose(move.inv(y), x)
        (7.0, True, True)
    """

    bijective = True
    domain = constraints.real_vector
    codomain = constraints.real_vector

    def __init__(self, source: PeriodicDensity, goal: PeriodicDensity, index: Tensor) -> None:
        super().__init__()
        if not source.values.ndim == goal.values.ndim == len(index):
            raise InputError(
                f"densities and `index` must be of as many angles: got {source.values.ndim}, {goal.values.ndim} and "
                f"{len(index)}"
            )
        self.source, self.goal, self.index = source, goal, index

    def _call(self, x: Tensor) -> Tensor:
        return self._moved(x, self.source, self.goal)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._moved(y, self.goal, self.source)

    def _moved(self, x: Tensor, source: PeriodicDensity, goal: PeriodicDensity) -> Tensor:
        y = x.clone()
        y[..., self.index] = goal.from_unit(source.to_unit(x[..., self.index]))
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the angles alone."""
        return self.source.log_density(x[..., self.index]) - self.goal.log_density(y[..., self.index])


def fit_rosenblatt(x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "m d"], index: Tensor) -> CircularRosenblatt:
    """The map between kernel densities of the angles `index`, both cut where A and B together have fewest samples.

    Raises:
        InputError: fewer than 20 samples of a state, or not one or two angles.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a, b = 0.3 * torch.randn(1000, 1, generator=g), 1 + 0.3 * torch.randn(1000, 1, generator=g)
        >>> move = fit_rosenblatt(a.double(), b.double(), torch.tensor([0]))
        >>> abs(float(move(a.double()).mean()) - 1) < 0.05
        True
    """
    cut = quiet_angle(x_a[:, index], x_b[:, index])
    source, goal = (fit_periodic_density(x[:, index], cut=cut) for x in (x_a, x_b))
    return CircularRosenblatt(source, goal, index)


def slaved(soft: Transform, hard: ConditionalAffine) -> ComposeTransform:
    r"""A map of the soft coordinates, with the hard ones carried from their mean before to their mean after.

    $$\theta' = R(\theta), \qquad h' = \mu'(\theta') + M\,(h - \mu(\theta))$$

    Args:
        soft: R, which leaves hard coordinates as they are.
        hard: the same with $\theta' = \theta$, as `fit_map(..., conditional=True)` gives it.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(500, 2, generator=g)
        >>> circular = torch.tensor([True, False])
        >>> from nessampler.closed_form.affine import fit_map
        >>> hard = fit_map(x, x + 1, circular, conditional=True)
        >>> slaved(fit_rosenblatt(x, x + 1, torch.tensor([0])), hard)(x).shape
        torch.Size([500, 2])
    """
    before, after = _split(hard)
    return ComposeTransform([before, soft, after])


def halves(transform: Transform) -> tuple[ConditionalAffine, ConditionalAffine] | None:
    """What `slaved` does before and after the angles move, also of a map that leaves them; None of any other map."""
    if isinstance(transform, ConditionalAffine):
        return _split(transform)
    ends = [transform.parts[0], transform.parts[-1]] if isinstance(transform, ComposeTransform) else []
    if len(ends) == 2 and isinstance(ends[0], ConditionalAffine) and isinstance(ends[1], ConditionalAffine):
        return ends[0], ends[1]
    return None


def _split(hard: ConditionalAffine) -> tuple[ConditionalAffine, ConditionalAffine]:
    nowhere, one = torch.zeros_like(hard.mean_in), torch.ones_like(hard.mean_in[0])
    before = ConditionalAffine(hard.matrix, hard.mean_in, nowhere, hard.circular)
    return before, ConditionalAffine(one, nowhere, hard.mean_out, hard.circular)
