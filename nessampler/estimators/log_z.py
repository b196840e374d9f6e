"""log Z from the log-weights of independent walkers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from nessampler.estimators.exponential_average import jarzynski
from nessampler.estimators.free_energy import Z95, Flag
from nessampler.estimators.second_law import Bounds, bounds

__all__ = ["LogZ", "ess_error", "log_z", "log_z_bounds"]

BOOTSTRAPS = 200
NO_TAIL = 0.9  # effective fraction above which Pareto k is no reason for doubt


@dataclass(frozen=True)
class LogZ:
    """The logarithm of a partition function or evidence, its error, and the reasons not to trust it.

    Attributes:
        value: log Z; None where no number would be honest, and then a flag says why.
        std_error: standard error, the statistical one and `systematic` together.
        ci95: 95 % confidence interval.
        n: walkers.
        ess: Kish's effective fraction of their weights, and its bootstrap error.
        pareto_k: tail index of the weights.
        systematic: error of integrated log-determinants, part of `std_error`; 0 for exact kernels.
        flags: empty for a result that can be trusted.
    """

    value: float | None
    std_error: float | None
    ci95: tuple[float, float] | None
    n: int
    ess: float
    ess_error: float
    pareto_k: float | None
    systematic: float
    flags: tuple[Flag, ...]

    @property
    def trusted(self) -> bool:
        """True if nothing is flagged."""
        return not self.flags

    def __str__(self) -> str:
        warned = "".join(f"\n  {flag.code}: {flag.message}" for flag in self.flags)
        if self.value is None or self.std_error is None or self.ci95 is None:
            return f"log Z = none{warned}"
        digits = max(2, 1 - math.floor(math.log10(self.std_error))) if self.std_error > 0 else 6
        value, error, low, high = (f"{x:.{digits}f}" for x in (self.value, self.std_error, *self.ci95))
        return f"log Z = {value} ± {error} (95 % interval {low} … {high}; ESS {self.ess:.3f} of {self.n}){warned}"


def log_z(log_weight: Float[np.ndarray, " n"], *, base: float, systematic: float = 0.0, seed: int = 0) -> LogZ:
    r"""$\log Z = \log Z_0 + \log \frac1n \sum_i w_i$ over independent walkers, with the flags of `jarzynski`.

    The error is that of a mean to first order, $\sqrt{(1/\mathrm{ess} - 1)/n}$, and the stated systematic error added
    in quadrature.

    Args:
        log_weight: logarithms of the weights, none NaN or +inf.
        base: $\log Z_0$ of the density that the walkers started from.
        systematic: error of the log-weights' mean that more walkers would not lower.
        seed: of the bootstrap that gives the ESS its error.

    Raises:
        InputError: fewer than two walkers, or a log-weight that is NaN or +inf.

    Example:
        >>> found = log_z(np.random.default_rng(0).normal(-0.5, 1.0, size=4000), base=2.0)  # exact: 2
        >>> abs(found.value - 2) < 4 * found.std_error
        True
    """
    estimate = jarzynski(-np.asarray(log_weight, dtype=np.float64), seed=seed)
    if estimate.ess[0] > NO_TAIL:
        # The tail of weights that are nearly equal is shaped by the few that are not, however little these weigh.
        estimate = replace(estimate, flags=tuple(f for f in estimate.flags if f.code != "heavy_tail"))
    error = ess_error(np.asarray(log_weight, dtype=np.float64), seed)
    shared = (len(log_weight), estimate.ess[0], error, estimate.pareto_k, systematic, estimate.flags)
    if estimate.delta_f is None or estimate.std_error is None:
        return LogZ(None, None, None, *shared)
    value, spread = base - estimate.delta_f, math.hypot(estimate.std_error, systematic)
    return LogZ(value, spread, (value - Z95 * spread, value + Z95 * spread), *shared)


def log_z_bounds(
    log_weight: Float[np.ndarray, " n"],
    reverse_log_weight: Float[np.ndarray, " m"],
    *,
    base: float,
    systematic: float = 0.0,
) -> Bounds:
    r"""The second law as bounds of log Z: from below by walkers of the base, from above by walkers of the target.

    $$\log Z_0 + E_F[\log w] \le \log Z \le \log Z_0 - E_R[\log w]$$

    and the tighter importance-weighted ones, see `bounds`. Forward means are the ELBO, reverse ones the EUBO.

    Args:
        log_weight, reverse_log_weight: of walkers to the target, and back.
        base: log Z of the density that walkers start from.
        systematic: by how much weights may be off, all alike; limits move outwards by it.

    Raises:
        InputError: as `bounds`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = log_z_bounds(rng.normal(-0.5, 1, 999), rng.normal(-0.5, 1, 999), base=2.0)  # exact: 2
        >>> found.lower_limit < 2 < found.upper_limit
        True
    """
    found = bounds(-np.asarray(log_weight), -np.asarray(reverse_log_weight)).widened(systematic)

    def below(value: float | None) -> float | None:
        return None if value is None else base - value

    return Bounds(
        lower=below(found.upper),
        upper=below(found.lower),
        lower_limit=below(found.upper_limit),
        upper_limit=below(found.lower_limit),
        importance_weighted_lower=below(found.importance_weighted_upper),
        importance_weighted_upper=below(found.importance_weighted_lower),
        importance_weighted_lower_limit=below(found.importance_weighted_upper_limit),
        importance_weighted_upper_limit=below(found.importance_weighted_lower_limit),
        group_size=found.group_size,
    )


def ess_error(log_weight: Float[np.ndarray, " n"], seed: int = 0) -> float:
    """Standard error of Kish's fraction by a Poisson bootstrap: sums over walkers with random multiplicities.

    >>> round(ess_error(np.random.default_rng(0).normal(size=1000)), 2)
    0.03
    """
    largest = log_weight.max()
    if largest == -np.inf:
        return 0.0  # every weight vanishes
    weight = np.exp(log_weight - largest)
    square, rng, found = weight**2, np.random.default_rng(seed), []
    for _ in range(BOOTSTRAPS):
        count = rng.poisson(1.0, size=len(weight))
        total = float(count @ square)
        # A resample without any walker of weight has none that is effective.
        found.append(float(count @ weight) ** 2 / total / count.sum() if total > 0 else 0.0)
    return float(np.std(found))
