"""A drift in closed form: the transport equation solved by ridge regression over pilot walkers, time by time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.errors import InputError
from nessampler.kernels import Compose, Flow, Kernel, Walkers
from nessampler.paths import AnnealingPath, PathPoint
from nessampler.weights import LogWeights, systematic

__all__ = ["LeastSquaresDrift", "NoDriftError", "Regression", "SolvedDrift", "solve_drift", "stein_regression"]

RIDGE = 1e-4
HELD_OUT = 0.25
FEWEST_WALKERS = 8
CONSTANT = 1e-6  # spread over root mean square below which a feature is noise of rounding
FEWEST_EFFECTIVE = 0.5  # effective fraction of pilot walkers below which they are resampled


class NoDriftError(InputError):
    """A drift that was solved carries every walker out of the support, from time `t` on.

    >>> str(NoDriftError(0.25, 100)).split(";")[0]
    'a drift must leave walkers where the target has density: from t = 0.25 on this one carries all of 100 away'
    """

    def __init__(self, t: float, walkers: int) -> None:
        super().__init__(
            f"a drift must leave walkers where the target has density: from t = {t:.2g} on this one carries all "
            f"of {walkers} away; take a base closer to the target, more pilot walkers or steps, or method ais"
        )


@dataclass(frozen=True)
class LeastSquaresDrift:
    r"""$b(t, x) = \sum_i \theta_i(t)\, \varphi_i(t, x)$ with θ linear in t between the times of the pilot."""

    dictionary: Dictionary
    times: Float[Tensor, " k"]
    coefficients: Float[Tensor, "k p"]

    def __call__(
        self, t: float, x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        r"""$b(t, x)$ and $\nabla\cdot b(t, x)$."""
        return self.dictionary.velocity(t, x, interpolated(t, self.times, self.coefficients))

    def affine(self, t: float) -> Float[Tensor, "*slope"] | None:
        r"""$\partial b / \partial x$ where all fields of the dictionary are affine, else None: see `affine_part`."""
        known = getattr(self.dictionary, "affine", None)
        return None if known is None else known(interpolated(t, self.times, self.coefficients))


@dataclass(frozen=True)
class Regression:
    r"""The solution at one time, and how well it does on walkers that it has not seen.

    Attributes:
        coefficients: $\theta$, from all walkers.
        r_squared: explained share of the variance of $\partial_t U$ on the held-out quarter, by a solution from the
            others; below 0 where it explains less than nothing.
        residual_variance: what is left there, in kT².
    """

    coefficients: Float[Tensor, " p"]
    r_squared: float
    residual_variance: float


@dataclass(frozen=True)
class SolvedDrift:
    """A drift, and how well it solves the transport equation at the times of the pilot.

    Attributes:
        field: the velocity, frozen.
        times: at which it was solved.
        r_squared: explained share of the variance of the path's time derivative, on held-out walkers.
        residual_variance: what is left, in kT².
        acceptance: of the moves between.
    """

    field: LeastSquaresDrift
    times: tuple[float, ...]
    r_squared: tuple[float, ...]
    residual_variance: tuple[float, ...]
    acceptance: tuple[float, ...]


def stein_regression(
    features: Float[Tensor, "n p"], rate: Float[Tensor, " n"], weights: Float[Tensor, " n"]
) -> Regression:
    r"""Ridge regression of $\partial_t U - \langle\partial_t U\rangle$ on Stein features, over weighted walkers.

    $$\theta = \arg\min \sum_n w_n \Big(\sum_i \theta_i a_i(x_n) - \partial_t U(x_n) + \langle\partial_t U\rangle\Big)^2
      + \lambda \sum_i \theta_i^2\, \mathrm{var}(a_i), \qquad a_i = \nabla\cdot\varphi_i - \varphi_i\cdot\nabla U_t$$

    That is the PINN loss of NETS with the free energy's derivative profiled out, linear in θ. The quality is judged on
    the last quarter of the walkers, by a solution that has not seen them. Walkers of weight zero, or where
    $\partial_t U$ is infinite as at the edge of a support that comes nearer, are left out.

    Args:
        features: $a_i(x_n)$, float64.
        rate: $\partial_t U(x_n)$, float64.
        weights: of the walkers, not negative, of any sum.

    Raises:
        InputError: fewer than eight walkers that count.

    References:
        Albergo & Vanden-Eijnden, NETS: A Non-Equilibrium Transport Sampler, 2024, arXiv:2410.02711 (the PINN loss).

    Example:
        >>> x = torch.randn(400, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> found = stein_regression(-x, 2 * x[:, 0], torch.ones(400))
        >>> round(found.coefficients.item(), 3), round(found.r_squared, 3)
        (-2.0, 1.0)
    """
    counted = (weights > 0) & torch.isfinite(rate)
    if int(counted.sum()) < FEWEST_WALKERS:
        raise InputError(
            f"a drift is solved on at least {FEWEST_WALKERS} walkers: only {int(counted.sum())} of {len(rate)} have "
            "weight and a finite time derivative; take more pilots, more steps, or a base within the support"
        )
    features, rate, weights = features[counted], rate[counted], weights[counted].to(torch.float64)
    cut = max(1, round(len(rate) * (1 - HELD_OUT)))
    trial = _ridge(features[:cut], rate[:cut], weights[:cut])
    residual = rate[cut:] - features[cut:] @ trial
    left, whole = _variance(residual, weights[cut:]), _variance(rate[cut:], weights[cut:])
    explained = 1 - left / whole if whole > 0 else 1.0
    return Regression(_ridge(features, rate, weights), explained, left)


def solve_drift(
    path: AnnealingPath,
    dictionary: Dictionary,
    times: Sequence[float],
    x: Float[Tensor, " n *event"],
    *,
    relax: Kernel,
    order: int = 4,
    generator: torch.Generator,
    progress: Callable[[int, int, float], None] | None = None,
) -> SolvedDrift:
    """Carry pilot walkers along the path with the drift found so far, and solve for the drift wherever they stop.

    Args:
        path: with an interior.
        dictionary: of vector fields.
        times: increasing, from 0 to 1.
        x: pilot walkers in equilibrium at `times[0]`.
        relax: leaves U_t invariant and caches what the path knows, such as `HMC`; it follows every flow step.
        order: of the flow's Runge–Kutta rule.
        generator: source of randomness.
        progress: told the times done, all times, and the last R².

    Raises:
        InputError: times that do not increase; moves that do not cache what the path knows; pilot walkers that a flow
            step carried to where U_t is not a number; too few walkers left inside the support.
        NoDriftError: none of them is left inside the support.

    Example:
        >>> from nessampler.closed_form.ridge_dictionary import RidgeDictionary
        >>> from nessampler.kernels import HMC
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> fields = RidgeDictionary(torch.zeros(1), torch.ones(1), torch.zeros(0, 1), torch.zeros(0))
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = path.start.sample(400, generator=generator).double()
        >>> solved = solve_drift(path, fields, [0.0, 0.5, 1.0], x, relax=HMC(path, 0.5), generator=generator)
        >>> solved.field.coefficients[:, 0].round(decimals=2)  # the mean moves by 1 in unit time
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    if len(times) < 2 or any(t1 <= t0 for t0, t1 in pairwise(times)):
        raise InputError(f"the times of a pilot must increase from the first to the last: got {list(times)}")
    found: list[Regression] = []
    acceptance = [float("nan")]
    walkers, log_weight = relax.start(times[0], x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for k, t in enumerate(times):
        weights = LogWeights(log_weight).normalized
        found.append(_solved(dictionary, t, walkers, weights))
        if progress:
            progress(k + 1, len(times), found[-1].r_squared)
        if k + 1 == len(times):
            break
        drift = _ahead(dictionary, found, times[: k + 2])
        moved, log_ratio = Compose(Flow(drift, order), relax).step(t, times[k + 1], walkers, generator=generator)
        # A walker that left the support has weight zero from there on, wherever it goes.
        gain = torch.where(log_weight == -torch.inf, 0.0, _energy(walkers) + log_ratio - _energy(moved))
        log_weight = LogWeights(log_weight).add(gain).log_weight
        if not bool((log_weight > -torch.inf).any()):
            raise NoDriftError(t, len(x))
        walkers = moved
        acceptance.append(float("nan") if moved.acceptance is None else float(moved.acceptance.mean()))
        if LogWeights(log_weight).ess < FEWEST_EFFECTIVE:
            walkers = walkers[systematic(LogWeights(log_weight).normalized, generator=generator)]
            log_weight = torch.zeros_like(log_weight)
    field = LeastSquaresDrift(
        dictionary, torch.tensor(times, dtype=torch.float64), torch.stack([r.coefficients for r in found])
    )
    quality = zip(*((r.r_squared, r.residual_variance) for r in found), strict=True)
    r_squared, residual_variance = quality
    return SolvedDrift(field, tuple(times), r_squared, residual_variance, tuple(acceptance))


def _solved(dictionary: Dictionary, t: float, walkers: Walkers, weights: Tensor) -> Regression:
    point = walkers.cached
    if not isinstance(point, PathPoint):
        raise InputError(
            f"the moves of a pilot must cache what the path knows, as HMC does: got {type(point).__name__}"
        )
    rate = point.time_derivative.to(torch.float64)
    return stein_regression(dictionary.stein(t, walkers.x, point), rate, weights)


def _ahead(dictionary: Dictionary, found: Sequence[Regression], times: Sequence[float]) -> LeastSquaresDrift:
    """The last solution, and from it the slope of the interval before."""
    now = found[-1].coefficients
    ahead = now
    if len(found) > 1:
        ahead = torch.lerp(found[-2].coefficients, now, 1 + (times[-1] - times[-2]) / (times[-2] - times[-3]))
    return LeastSquaresDrift(dictionary, torch.tensor(times[-2:], dtype=torch.float64), torch.stack([now, ahead]))


def _energy(walkers: Walkers) -> Tensor:
    assert walkers.energy is not None  # a kernel that caches the path's point knows it
    return walkers.energy.to(torch.float64)


def interpolated(t: float, times: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear in t, constant beyond the ends."""
    if t <= float(times[0]):
        return values[0]
    if t >= float(times[-1]):
        return values[-1]
    k = int(torch.searchsorted(times, t, right=True)) - 1
    fraction = (t - float(times[k])) / float(times[k + 1] - times[k])
    return torch.lerp(values[k], values[k + 1], fraction)


def _ridge(features: Tensor, rate: Tensor, weights: Tensor) -> Tensor:
    weights = (weights / weights.sum())[:, None]
    mean = (weights * features).sum(0)
    spread = (weights * (features - mean).square()).sum(0).sqrt()
    size = (weights * features.square()).sum(0).sqrt()
    scale = torch.where(spread > CONSTANT * size, 1 / spread, 0.0)
    standard = (features - mean) * scale
    gram = standard.T @ (weights * standard)
    gram.diagonal().add_(RIDGE)
    centred = rate[:, None] - (weights * rate[:, None]).sum()
    return torch.linalg.solve(gram, standard.T @ (weights * centred))[:, 0] * scale


def _variance(value: Tensor, weights: Tensor) -> float:
    weights = weights / weights.sum()
    return float((weights * (value - (weights * value).sum()).square()).sum())
