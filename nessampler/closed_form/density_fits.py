"""Densities fitted to weighted samples, the family chosen by the likelihood of samples that no fit has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nessampler.closed_form._weighted import checked, effective
from nessampler.closed_form.fit_mixture import CovarianceKind, fit_gaussian_mixture, fit_student_mixture
from nessampler.closed_form.fit_product import fit_product_mixture
from nessampler.closed_form.fit_triangular import fit_triangular_normal
from nessampler.errors import InputError
from nessampler.targets import Target
from nessampler.targets.covariance_mixture import CovarianceMixture
from nessampler.targets.mixture import GaussianMixture
from nessampler.targets.product_mixture import ProductMixture
from nessampler.targets.student_products import StudentProducts
from nessampler.targets.triangular_normal import TriangularNormal

__all__ = [
    "FAMILIES",
    "CovarianceKind",
    "Family",
    "FittedDensity",
    "fit_density",
    "fit_gaussian_mixture",
    "fit_product_mixture",
    "fit_student_mixture",
    "fit_triangular_normal",
    "widened",
]

Family = Callable[[Tensor, Tensor, torch.Generator], Target]
"""Samples `(n, d)`, weights `(n,)` and a generator to a density with `sample` and `log_z = 0`."""

LARGEST_TRIANGLE = 128
"""Coordinates beyond which a triangular normal, of d² slopes, is not tried."""

FAMILIES: Mapping[str, Family] = {
    "normal": lambda x, w, g: fit_gaussian_mixture(x, w, components=1, kinds=("shrunk",), generator=g),
    "product mixture": lambda x, w, g: fit_product_mixture(x, w),
    "triangular normal": lambda x, w, g: fit_triangular_normal(x, w),
    "Gaussian mixture": lambda x, w, g: fit_gaussian_mixture(x, w, generator=g),
    "Student mixture": lambda x, w, g: fit_student_mixture(x, w, generator=g),
}


@dataclass(frozen=True)
class FittedDensity:
    """A density, and why it is of this family.

    Attributes:
        target: fitted to all samples; normalised, with `sample`.
        family: the winner's name.
        held_out: mean log-likelihood, in nats, that each family fitted to one part gives to the other.
        effective: samples, by their weights.
    """

    target: Target
    family: str
    held_out: Mapping[str, float]
    effective: float


def fit_density(
    x: Float[Tensor, "n d"],
    weights: Float[Tensor, " n"] | None = None,
    *,
    held_out: Bool[Tensor, " n"] | None = None,
    families: Mapping[str, Family] = FAMILIES,
    generator: torch.Generator,
) -> FittedDensity:
    r"""Fit every family to one part of the samples, judge it on the other, and fit the best to all.

    The judge is $\sum_n \bar w_n \log q(x_n)$ over the samples held out: minus the Kullback–Leibler divergence
    $\mathrm{KL}(p\,\|\,q)$ up to what all families share. Of those within one standard error of the best, the one
    with the fewest parameters is taken.

    Args:
        x: samples.
        weights: not negative, of any sum; equal where None.
        held_out: which samples judge. Correlated samples belong on one side together. A random half where None.
        families: candidates by name.
        generator: of starts and splits.

    Raises:
        InputError: no family at all, no weight on one of the two sides, or what a fit refuses.

    Example:
        >>> from nessampler.targets.funnel import Funnel
        >>> g = torch.Generator().manual_seed(0)
        >>> fit_density(Funnel(3).sample(2000, generator=g), generator=g).family
        'triangular normal'
    """
    checked(x, weights, 16)
    w = torch.ones(len(x), dtype=torch.float64, device=x.device) if weights is None else weights.double()
    if held_out is None:
        held_out = (torch.rand(len(x), generator=generator, device=generator.device) < 0.5).to(x.device)
    if not families:
        raise InputError("a density is fitted from at least one family: got none; leave `families` out for all")
    tried = {k: f for k, f in families.items() if k != "triangular normal" or x.shape[1] <= LARGEST_TRIANGLE}
    train, test = checked(x[~held_out], w[~held_out], 8), checked(x[held_out], w[held_out], 8)
    fits = {name: family(*train, generator) for name, family in tried.items()}
    values = {name: -fit.energy(test[0]).nan_to_num(nan=torch.inf) for name, fit in fits.items()}
    judged = {name: float(test[1] @ value) for name, value in values.items()}
    top = max(judged, key=lambda name: judged[name])
    as_good = [name for name in tried if judged[name] >= judged[top] - _error(values[name] - values[top], test[1])]
    best = min(as_good, key=lambda name: _parameters(fits[name]))
    everything = checked(x, w)
    return FittedDensity(tried[best](*everything, generator), best, judged, effective(everything[1]))


def widened(target: Target, factor: float) -> Target:
    """The same density with all scales multiplied by `factor`, locations and weights left alone.

    Raises:
        InputError: a density that no fit of this module gives.

    Example:
        >>> one = torch.ones(1, 1)
        >>> widened(GaussianMixture(one, one), 2.0).scales
        tensor([[2.]])
    """
    if isinstance(target, GaussianMixture):
        return GaussianMixture(target.means, factor * target.scales, target.weights)
    if isinstance(target, ProductMixture):
        return ProductMixture(target.means, factor * target.scales, target.weights)
    if isinstance(target, CovarianceMixture):
        return CovarianceMixture(target.means, factor**2 * target.covariances, target.weights)
    if isinstance(target, StudentProducts):
        return StudentProducts(target.means, factor * target.scales, target.degrees_of_freedom, target.weights)
    if isinstance(target, TriangularNormal):
        t = target
        return TriangularNormal(t.shift, t.shift_slope, t.log_scale + math.log(factor), t.log_scale_slope, t.order)
    raise InputError(f"only fitted densities can be widened: got {type(target).__name__}")


def _error(difference: Tensor, w: Tensor) -> float:
    """Standard error of a weighted mean; 0 where it is no number, so that nothing is excused."""
    error = float((w * (difference - w @ difference)).square().sum().sqrt())
    return error if math.isfinite(error) else 0.0


def _parameters(target: Target) -> int:
    """How many numbers a fit has made up; another family's density counts as its coordinates alone."""
    if isinstance(target, TriangularNormal):
        return 2 * len(target.shift) + int(target.shift_slope.count_nonzero() + target.log_scale_slope.count_nonzero())
    if isinstance(target, ProductMixture):
        return 3 * int(target.weights.count_nonzero()) - len(target.means)
    if isinstance(target, CovarianceMixture):
        m, d = target.means.shape
        return m * (d + d * (d + 1) // 2 + 1) - 1
    if isinstance(target, GaussianMixture | StudentProducts):
        return len(target.means) * (2 * target.means.shape[1] + 1)
    return target.event_shape.numel()
