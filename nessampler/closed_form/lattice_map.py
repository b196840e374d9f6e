"""Affine maps between fields on a periodic lattice: reflection, shift of the mean, scale of every wave."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions.transforms import ComposeTransform, Transform

from nessampler.closed_form.affine import ConditionalAffine
from nessampler.closed_form.hartley import Hartley, shell_spectrum
from nessampler.errors import InputError

__all__ = ["fit_lattice_map"]


def fit_lattice_map(
    x_a: Float[Tensor, " n *event"],
    x_b: Float[Tensor, " m *event"],
    *,
    reflect: bool = False,
    shift: bool = True,
    scale: bool = True,
) -> Transform:
    r"""The map that carries mean and spectrum of A's fields to those of B's, mode by mode.

    $$\varphi' = m_b + \sigma\, R * (\varphi - m_a), \qquad \tilde R(k) = \sqrt{S_b(k) / S_a(k)}, \qquad
      \log\left|\det\frac{\partial\varphi'}{\partial\varphi}\right| = \sum_k \log \tilde R(k)$$

    | symbol | argument | |
    |---|---|---|
    | $\sigma$ | `reflect` | −1 if true |
    | $m_a, m_b$ | `shift` | the mean of a site over the fields; 0 if false |
    | $S_a, S_b$ | `scale` | `shell_spectrum` of either end; R = 1 if false |

    It commutes with translations, rotations by 90° and reflections of the lattice.

    Raises:
        InputError: fields of two shapes, or fewer than two of either end.

    References:
        Jarzynski, Targeted free energy perturbation, 2002, Phys. Rev. E 65, 046122.

    Example:
        >>> from nessampler.targets.phi4 import FreeField
        >>> g = torch.Generator().manual_seed(0)
        >>> a, b = (FreeField.massive(4, mass_squared=m).sample(2000, generator=g) for m in (1.0, 4.0))
        >>> carried = fit_lattice_map(a, b)(a)
        >>> round(float(carried.square().mean() / b.square().mean()), 6)
        1.0
    """
    if x_a.shape[1:] != x_b.shape[1:]:
        raise InputError(f"both ends are fields on one lattice: got {tuple(x_a.shape[1:])} and {tuple(x_b.shape[1:])}")
    sign = -1.0 if reflect else 1.0
    # A reflection has to know about the sign of the mean that it is fitted behind, and nothing else.
    ratio = (shell_spectrum(x_b) / shell_spectrum(x_a)).sqrt() if scale else torch.ones(x_a[0].numel()).double()
    hartley = Hartley(x_a.shape[1:])
    means = [_uniform(hartley, x) if shift else torch.zeros_like(ratio) for x in (x_a, x_b)]
    still = torch.zeros(len(ratio), dtype=torch.bool, device=ratio.device)
    mean_a, mean_b = (mean.to(x_a)[None] for mean in means)
    affine = ConditionalAffine((sign * ratio).to(x_a), mean_a, mean_b, still)
    return ComposeTransform([hartley, affine, hartley.inv])


def _uniform(hartley: Hartley, x: Tensor) -> Tensor:
    """A field with the mean of x on every site, seen in its modes."""
    return hartley._call(torch.full(hartley.shape, float(x.double().mean()), dtype=torch.float64, device=x.device))
