"""Thermodynamic integration: averages of the slope along a path, summed by a Gauss rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nessampler.errors import InputError
from nessampler.estimators.free_energy import Flag, FreeEnergy, estimate
from nessampler.estimators.works import Work, checked_work

__all__ = ["GaussRule", "thermodynamic_integration"]


@dataclass(frozen=True)
class GaussRule:
    r"""Gauss–Legendre nodes on every interval between `breaks`, where the integrand is smooth.

    $$\int_0^1 f(t)\, dt \approx \sum_k w_k\, f(t_k),$$

    exact for polynomials of degree $2m - 1$ on each of the intervals, with m points there.

    Args:
        points: m, on every interval.
        breaks: rising, from the first to the last end.

    Raises:
        InputError: fewer than two points, or breaks that do not rise.

    References: Golub & Welsch, Calculation of Gauss quadrature rules, 1969, Math. Comput. 23, 221.

    Example:
        >>> rule = GaussRule(2, (0.0, 0.5, 1.0))
        >>> round(rule.integral([t**3 for t in rule.nodes]), 12)
        0.25
    """

    points: int
    breaks: tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        rising = all(s < t for s, t in pairwise(self.breaks))
        if self.points < 2 or len(self.breaks) < 2 or not rising:
            raise InputError(
                f"a Gauss rule needs two points or more between breaks that rise: got {self.points} and {self.breaks}"
            )

    @property
    def nodes(self) -> tuple[float, ...]:
        """$t_k$, rising; never at a break."""
        return tuple(float(a + (b - a) * u) for a, b in pairwise(self.breaks) for u in self._unit()[0])

    @property
    def weights(self) -> tuple[float, ...]:
        """$w_k$."""
        return tuple(float((b - a) * w) for a, b in pairwise(self.breaks) for w in self._unit()[1])

    def integral(self, values: Sequence[float]) -> float:
        """Of values at the nodes."""
        return float(np.dot(self.weights, values))

    def contradiction(self, values: Sequence[float], errors: Sequence[float]) -> float:
        r"""By how much values at the nodes gainsay one another as values of a polynomial, beyond their own errors.

        $$\delta = \sum_\mathrm{intervals} \max_j w_j\, \Big| f_j - p_{-j}(t_j) \Big| - 2\,\mathrm{se}$$

        where positive, with the polynomial $p_{-j}$ through all the other nodes of the interval: what leaving the most
        telling node out would do to the integral, without what noise would do.
        """
        total, m = 0.0, self.points
        for k in range(len(self.breaks) - 1):
            own = slice(k * m, (k + 1) * m)
            t, w = np.array(self.nodes[own]), np.array(self.weights[own])
            gaps = np.prod(t[:, None] - t + np.eye(m), axis=1)
            # All nodes tell the same, the top divided difference, each on a scale of its own.
            change = np.abs(w * gaps).max() / gaps
            noise = math.sqrt(float(np.square(change * np.array(errors[own])).sum()))
            total += max(0.0, abs(float(change @ np.array(values[own]))) - 2 * noise)
        return total

    def _unit(self) -> tuple[np.ndarray, np.ndarray]:
        u, w = np.polynomial.legendre.leggauss(self.points)
        return (u + 1) / 2, w / 2


def thermodynamic_integration(slopes: Sequence[Work], rule: GaussRule) -> FreeEnergy:
    r"""ΔF by averages of the slope of the energy in equilibrium at the nodes of a rule.

    $$\Delta F = \int_0^1 \langle \partial_t U_t \rangle_t\, dt \approx \sum_k w_k \langle \partial_t U \rangle_{t_k},
      \qquad \mathrm{se}^2 = \sum_k w_k^2 g_k \frac{\mathrm{var}_k}{n_k} + \delta^2$$

    with the statistical inefficiency $g_k$ of correlated slopes, and $\delta$ the rule's `contradiction`. It tells how
    good a rule of one node less would be, so it tends to be on the large side.

    Args:
        slopes: by node, in kT: `(n,)` of independent or `(chains, draws)` of correlated samples.
        rule: the nodes that they belong to.

    Returns:
        `ess` holds $1/g_k$. A result whose δ is more than its statistical error has the flag `coarse_integration`.

    Raises:
        InputError: another number of slopes than of nodes; slopes that are not finite.

    References: Kirkwood, Statistical mechanics of fluid mixtures, 1935, J. Chem. Phys. 3, 300; Jorge et al., Effect of
        the integration method on the accuracy and computational efficiency of free energy calculations using
        thermodynamic integration, 2010, J. Chem. Theory Comput. 6, 1018.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> rule = GaussRule(4)
        >>> print(thermodynamic_integration([2 * t + rng.normal(size=4000) for t in rule.nodes], rule))  # exact: 1
        ΔF = 1.0081 ± 0.0083 kT (95 % interval 0.9919 … 1.0243; thermodynamic integration)
    """
    samples = [checked_work(s, f"node {k}") for k, s in enumerate(slopes)]
    if len(samples) != len(rule.nodes):
        raise InputError(f"a rule of {len(rule.nodes)} nodes needs slopes at each of them: got {len(samples)}")
    if not all(np.isfinite(s.values).all() for s in samples):
        raise InputError("slopes must be finite: one is +inf; a path with hard walls has no slope to integrate")
    g = [s.inefficiency(s.values) for s in samples]
    errors = [math.sqrt(g_k * float(s.values.var(ddof=1)) / s.values.size) for g_k, s in zip(g, samples, strict=True)]
    means = [float(s.values.mean()) for s in samples]
    value = rule.integral(means)
    variance = float(np.square(np.multiply(rule.weights, errors)).sum())
    coarse = rule.contradiction(means, errors)
    return estimate(
        value,
        variance + coarse**2,
        n=tuple(s.values.size for s in samples),
        ess=tuple(1 / g_k for g_k in g),
        flags=(_coarse(coarse, math.sqrt(variance)),) if coarse**2 > variance else (),
        estimator="thermodynamic integration",
    )


def _coarse(distance: float, statistical: float) -> Flag:
    return Flag(
        "coarse_integration",
        f"a node less would change the integral by {distance:.2g} kT, more than the statistical error of "
        f"{statistical:.2g}: the slope is steep between the nodes; take more of them, or a gentler protocol.",
    )
