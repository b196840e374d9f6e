"""How far torsions of transported conformations are from those of the state that they should be samples of."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from nessampler.plots import Carried, Series
from nessampler.runs.observed import Observed

__all__ = ["torsion_kl", "torsion_metrics"]

BINS = 36  # of ten degrees
PSEUDO_COUNT = 0.5  # in each bin of either histogram


def torsion_kl(
    samples: Float[np.ndarray, " m"], carried: Float[np.ndarray, " n"], log_weight: Float[np.ndarray, " n"]
) -> float:
    r"""$\mathrm{KL}(p \| q) = \sum_k p_k \log(p_k / q_k)$ of one torsion, over 36 bins of 10°, in nats.

    $$p_k = \frac{m_k + 1/2}{m + 18}, \qquad q_k = \frac{n_\mathrm{eff} \bar w_k + 1/2}{n_\mathrm{eff} + 18}$$

    | symbol | |
    |---|---|
    | $m_k$ | `samples` of the state in bin k, out of m |
    | $\bar w_k$ | sum of the normalised weights of `carried` in bin k |
    | $n_\mathrm{eff}$ | $1 / \sum_i \bar w_i^2$, so that few heavy walkers count as few |

    Angles are in degrees, of any period. Two sets of independent samples of one state lie about
    $\tfrac{35}{2} (1/m + 1/n_\mathrm{eff})$ apart where all bins are filled.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> here, there, far = rng.normal(60, 20, 5000), rng.normal(60, 20, 5000), rng.normal(-60, 20, 5000)
        >>> equal = np.zeros(5000)
        >>> round(torsion_kl(here, there + 360, equal), 3), torsion_kl(here, far, equal) > 2
        (0.004, True)
    """
    weight = np.exp(log_weight - log_weight.max())
    weight = weight / weight.sum()
    effective = 1 / (weight**2).sum()
    p = _histogram(samples, np.ones(np.size(samples))) + PSEUDO_COUNT
    q = effective * _histogram(carried, weight) + PSEUDO_COUNT
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def torsion_metrics(observed: Observed | None, carried: tuple[Carried, Carried] | None) -> dict[str, float | None]:
    """Of every soft torsion at either end: `torsion_kl_a` and `torsion_kl_b`, means, and the worst of all.

    `a` compares walkers carried from B to A with the samples of A, those that the transport was fitted to among them.
    Empty where nothing was carried, or there are no torsions.
    """
    if observed is None or carried is None or not observed.torsions or not observed.a:
        return {}
    at_a, at_b = (_each(s, c) for s, c in zip((observed.a, observed.b), carried, strict=True))
    if not (at_a and at_b):
        return {}
    return {
        "torsion_kl_a": float(np.mean(at_a)),
        "torsion_kl_b": float(np.mean(at_b)),
        "torsion_kl_worst": max(*at_a, *at_b),
    }


def _each(samples: Series, carried: Carried) -> list[float]:
    if not np.isfinite(carried.log_weight).any():
        return []
    return [
        torsion_kl(np.ravel(values), np.ravel(carried.series[name]), carried.log_weight)
        for name, values in samples.items()
    ]


def _histogram(degrees: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.histogram((degrees + 180) % 360, BINS, (0, 360), weights=weight)[0]
