"""A density seen through a bijection: internal coordinates, whitening, or a map towards another state."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import Transform

from nessampler.targets.protocol import Target, energy_and_score

__all__ = ["TransformedTarget", "carry"]


class TransformedTarget:
    r"""The density of $y = f(x)$ for $x \sim e^{-U}$:

    $$U'(y) = U(x) + \log\left|\det \frac{\partial y}{\partial x}\right|, \qquad x = f^{-1}(y)$$

    $Z$ is unchanged. A transform that has a method `in_chart(y)` says which `y` it covers; the density is zero
    ($U' = +\infty$) elsewhere.

    Args:
        target: the density of x.
        transform: a bijection from x to y with exact log-determinant.

    Example:
        >>> from torch.distributions.transforms import AffineTransform
        >>> from nessampler.targets import Gaussian
        >>> base = Gaussian(torch.zeros(1), torch.ones(1))
        >>> wide = TransformedTarget(base, AffineTransform(0.0, 2.0, event_dim=1))
        >>> wide.energy(torch.tensor([[2.0]])) - torch.tensor(2.0).log()
        tensor([0.5000])
    """

    def __init__(self, target: Target, transform: Transform) -> None:
        self.target, self.transform = target, transform
        self.event_shape = torch.Size(transform.forward_shape(target.event_shape))

    def energy(self, y: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        """U' in kT."""
        x: Tensor = self.transform.inv(y)  # pyright: ignore[reportAssignmentType]
        energy = self.target.energy(x) + self.transform.log_abs_det_jacobian(x, y)
        return self._masked(y, energy)

    def energy_and_score(self, y: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        r"""$U'$ and $-\nabla_y U' = (\partial x/\partial y)^T s(x) - \nabla_y \log|\det|$, by one call of the base."""
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            x: Tensor = self.transform.inv(point)  # pyright: ignore[reportAssignmentType]
            log_det = self.transform.log_abs_det_jacobian(x, point)
            energy, score = energy_and_score(self.target, x.detach())
            pulled = (score * x).flatten(1).sum(-1) - log_det
            (gradient,) = torch.autograd.grad(pulled.sum(), point)
        energy = self._masked(point.detach(), (energy + log_det).detach())
        outside = (energy == torch.inf).view(-1, *[1] * (y.ndim - 1))
        return energy, torch.where(outside, 0.0, gradient)

    def _masked(self, y: Tensor, energy: Tensor) -> Tensor:
        in_chart = getattr(self.transform, "in_chart", None)
        return energy if in_chart is None else torch.where(in_chart(y), energy, torch.inf)


def carry(transform: Transform, x: Tensor) -> Tensor:
    """`transform(x)`, which torch's annotations allow to be None."""
    y = transform(x)
    assert y is not None  # no transform returns None
    return y
