"""Do both directions see the same conformations where they overlap? Crooks' relation, asked of positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit
from scipy.stats import t as student_t

from nessampler.errors import InputError
from nessampler.estimators import Flag
from nessampler.estimators.acceptance_ratio import bennett_root
from nessampler.estimators.works import Rows, Work, WorkSample, checked_work
from nessampler.stein import effective_draws

__all__ = ["OverlapCheck", "overlap_check"]

LEVEL = 1e-4
FEWEST_SHARED = 50  # effective paths of either direction in the overlap, below which nothing is asked
MOST_COORDINATES = 256


@dataclass(frozen=True)
class OverlapCheck:
    """What was found.

    Attributes:
        p: probability of so large a difference where both directions belong together, over all that was looked at.
        coordinate: where the difference is clearest.
        forward, reverse: median of that coordinate in the overlap, by either direction.
        shared: effective paths of either direction.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(2, 500, 1))  # no transport between equal states: no work
        >>> found = overlap_check(np.zeros(500), np.zeros(500), x[0], x[1])
        >>> found.fits, round(found.shared[0])
        (True, 500)
    """

    p: float
    coordinate: int
    forward: float
    reverse: float
    shared: tuple[float, float]

    @property
    def fits(self) -> bool:
        """Within the 99.99 % limits."""
        return self.p >= LEVEL

    def flags(self, end: str) -> tuple[Flag, ...]:
        """A flag unless both directions agree at `end`."""
        if self.fits:
            return ()
        message = (
            f"where forward and reverse paths overlap, they do not see the same {end} (p = {self.p:.1e}): the median "
            f"of coordinate {self.coordinate} is {self.forward:.3g} by forward paths and {self.reverse:.3g} by reverse "
            "ones; one end lacks a mode that the other reaches, or its samples are not in equilibrium: sample longer, "
            "and from different starts"
        )
        return (Flag("overlap_disagrees", message),)


def overlap_check(
    work_forward: Work,
    work_reverse: Work,
    forward: Float[np.ndarray, "n d"],
    reverse: Float[np.ndarray, "m d"],
    *,
    circular: Bool[np.ndarray, " d"] | None = None,
) -> OverlapCheck | None:
    r"""Compare positions of forward and of reverse paths, at one end, over the ensemble that both directions share.

    $$\frac{E_F[f_F\, \varphi(x)]}{E_F[f_F]} = \frac{E_R[f_R\, \varphi(x)]}{E_R[f_R]}, \qquad
      f_F = \frac{1}{1 + e^{M + W_F - \Delta F}}, \quad f_R = \frac{1}{1 + e^{-M + W_R + \Delta F}}, \quad
      M = \log\frac{n_F}{n_R}$$

    for every function $\varphi$ of a path, by Crooks' relation; $f$ are the terms of Bennett's equation, and $\Delta F$
    is its root. As weights they are at most 1, so that both averages have errors that can be trusted wherever there is
    overlap, unlike Jarzynski's. With $\varphi = 1$ this is Bennett's equation; works know nothing of the others. Here
    $\varphi$ is $\tanh z$ and $\tanh^2 z$ of every coordinate in units of its spread, and the sine and cosine of every
    angle: bounded too, and blind to full turns, by which transported angles may be off.

    Works and their averages are the same whatever the positions, so a mode that one end lacks shows here and hardly
    there. Modes that neither direction has seen do not show.

    | symbol | argument | |
    |---|---|---|
    | $W_F, W_R$ | `work_forward`, `work_reverse` | kT, `(n,)` or `(chains, draws)` |
    | x | `forward`, `reverse` | of the same paths, in the same order and the same coordinates, `(n, d)` |
    | | `circular` | which coordinates are angles; None for none |

    None where fewer than 50 effective paths of either direction lie in the overlap, or there are more than 256
    coordinates. Differences are Student's, for errors that know of autocorrelation; the level is shared by all.

    Raises:
        InputError: as `bar`; positions of another number; angles marked among other coordinates than these.

    References:
        Crooks, Path-ensemble averages in systems driven far from equilibrium, 2000, arXiv:cond-mat/9908420;
        Bennett, Efficient estimation of free energy differences from Monte Carlo data, 1976,
        doi:10.1016/0021-9991(76)90078-4.

    Example:
        >>> rng = np.random.default_rng(0)  # from N(0, 1) to N(1, 1), no transport: work is 1/2 - x
        >>> a, b = rng.normal(size=(900, 1)), 1 + rng.normal(size=(900, 1))
        >>> overlap_check(0.5 - a[:, 0], b[:, 0] - 0.5, a, b).fits
        True
        >>> b = b[b[:, 0] < 1.2]  # a part of B was never sampled
        >>> overlap_check(0.5 - a[:, 0], b[:, 0] - 0.5, a, b).fits
        False
    """
    works = checked_work(work_forward, "forward"), checked_work(work_reverse, "reverse")
    x = [_positions(one, positions) for one, positions in zip(works, (forward, reverse), strict=True)]
    if x[0].shape[-1] != x[1].shape[-1]:
        raise InputError(
            f"positions of both directions have the same coordinates: got {x[0].shape[-1]} and {x[1].shape[-1]}"
        )
    wraps = _marked(circular, x[0].shape[-1])
    weights = _shared(*works)
    if weights is None or x[0].shape[-1] > MOST_COORDINATES:
        return None
    shared = tuple(
        float(w.sum() ** 2 / (w**2).sum()) / one.inefficiency(w) for w, one in zip(weights, works, strict=True)
    )
    if min(shared) < FEWEST_SHARED:
        return None
    x = _unwound(x, weights, wraps)
    features = _features(x, weights, wraps)
    p = np.array([_p_of(weights, both, works) for both in zip(*features, strict=True)])
    worst = int(p.argmin())
    coordinate = worst % x[0].shape[-1]
    ahead, behind = (_median(positions[..., coordinate], w) for positions, w in zip(x, weights, strict=True))
    return OverlapCheck(min(1.0, float(p[worst]) * len(p)), coordinate, ahead, behind, (shared[0], shared[1]))


def _shared(forward: WorkSample, reverse: WorkSample) -> tuple[Rows, Rows] | None:
    """Terms of Bennett's equation at its root; None where it has none, or some vanish all."""
    shift = math.log(forward.values.size / reverse.values.size)
    root = bennett_root(forward.values.reshape(1, -1), reverse.values.reshape(1, -1), shift)[0]
    if not math.isfinite(root):
        return None
    weights = expit(root - shift - forward.values), expit(shift - root - reverse.values)
    return weights if min(float(w.sum()) for w in weights) > 0 else None


def _unwound(x: list[np.ndarray], weights: tuple[Rows, Rows], wraps: np.ndarray) -> list[np.ndarray]:
    """Angles within half a turn of the mean that both sides share."""
    every, share = _pooled(x, weights)
    mean = np.where(wraps, np.angle(share @ np.exp(1j * every)), 0.0)
    return [np.where(wraps, mean + np.remainder(one - mean + np.pi, 2 * np.pi) - np.pi, one) for one in x]


def _features(x: list[np.ndarray], weights: tuple[Rows, Rows], wraps: np.ndarray) -> list[np.ndarray]:
    """Bounded functions of either side's positions, `(2 d, chains, draws)`."""
    every, share = _pooled(x, weights)
    centre = share @ every
    spread = np.sqrt(share @ (every - centre) ** 2) + np.finfo(float).tiny
    odd = [np.where(wraps, np.sin(one - centre), np.tanh((one - centre) / spread)) for one in x]
    even = [np.where(wraps, np.cos(one - centre), bounded**2) for one, bounded in zip(x, odd, strict=True)]
    return [np.moveaxis(np.concatenate(both, -1), -1, 0) for both in zip(odd, even, strict=True)]


def _pooled(x: list[np.ndarray], weights: tuple[Rows, Rows]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of both sides one after the other, and weights that give either side half."""
    every = np.concatenate([one.reshape(-1, one.shape[-1]) for one in x])
    return every, np.concatenate([w.ravel() / w.sum() for w in weights]) / 2


def _p_of(weights: tuple[Rows, Rows], feature: tuple[Rows, Rows], works: tuple[WorkSample, WorkSample]) -> float:
    """Of one function, of forward and of reverse paths."""
    return _p_value(
        _average(weights[0], feature[0], works[0]),
        _average(weights[1], feature[1], works[1]),
    )


def _average(weight: Rows, feature: Rows, works: WorkSample) -> tuple[float, float, float]:
    """Weighted mean, the square of its error, and the degrees of freedom of that."""
    mean = float((weight * feature).sum() / weight.sum())
    series = weight * (feature - mean) / weight.mean()
    if not series.any():
        return mean, 0.0, math.inf
    if works.correlated:
        effective, freedom = effective_draws(series)
    else:
        effective, freedom = float(series.size), float(weight.sum() ** 2 / (weight**2).sum()) - 1
    if effective < 1 or freedom < 1:
        return mean, math.inf, 1.0
    return mean, float(series.var()) / effective, freedom


def _p_value(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Two-sided, by Welch's t-test."""
    variance = one[1] + other[1]
    if variance == 0 or not math.isfinite(variance):
        return 1.0
    freedom = variance**2 / (one[1] ** 2 / one[2] + other[1] ** 2 / other[2])
    return 2 * float(student_t.sf(abs(one[0] - other[0]) / math.sqrt(variance), freedom))


def _median(values: Rows, weight: Rows) -> float:
    order = np.argsort(values, axis=None)
    below = np.cumsum(weight.ravel()[order])
    return float(values.ravel()[order[np.searchsorted(below, below[-1] / 2)]])


def _positions(works: WorkSample, positions: np.ndarray) -> np.ndarray:
    """`(chains, draws, d)`."""
    x = np.asarray(positions, dtype=np.float64)
    if x.ndim < 2 or math.prod(x.shape[:-1]) != works.values.size:
        raise InputError(
            f"every work has the position of its path: got {works.values.size} works and positions of shape "
            f"{x.shape}; give (n, d)"
        )
    return x.reshape(*works.values.shape, x.shape[-1])


def _marked(circular: np.ndarray | None, d: int) -> np.ndarray:
    wraps = np.zeros(d, dtype=bool) if circular is None else np.asarray(circular, dtype=bool)
    if wraps.shape != (d,):
        raise InputError(
            f"`circular` says of every coordinate whether it is an angle: got {d} coordinates and a mask of shape "
            f"{wraps.shape}; give ({d},), or None where there are no angles"
        )
    return wraps
