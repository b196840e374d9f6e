"""Work arrays: what is accepted, how they are shaped, how many of them count, and how correlated they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from nessampler.errors import InputError

__all__ = [
    "Rows",
    "Work",
    "WorkSample",
    "WorkSource",
    "checked_work",
    "effective_draws",
    "effective_fraction",
    "r_hat",
    "scaled_weights",
    "statistical_inefficiency",
    "work_values",
]


@runtime_checkable
class WorkSource(Protocol):
    """What carries log-weights and knows its works, such as an ensemble of walkers.

    >>> class Switching:
    ...     log_weight = np.array([-1.0, -2.0])
    ...     work = -log_weight
    >>> isinstance(Switching(), WorkSource), work_values(Switching())
    (True, array([1., 2.]))
    """

    @property
    def log_weight(self) -> Any: ...

    @property
    def work(self) -> Any: ...


MOST_BATCHES = 64
BATCH = 10  # in units of the statistical inefficiency

Work: TypeAlias = npt.ArrayLike | WorkSource
Rows: TypeAlias = Float[np.ndarray, "_ _"]


@dataclass(frozen=True)
class WorkSample:
    """Works as rows, one a chain; independent works are a single row whose order means nothing."""

    values: Rows
    correlated: bool

    def inefficiency(self, series: Rows) -> float:
        return statistical_inefficiency(series) if self.correlated else 1.0


def work_values(work: Work) -> np.ndarray:
    """The works in float64, wherever they lie and whatever they are."""
    source: Any = work.work if isinstance(work, WorkSource) else work
    if hasattr(source, "detach"):
        source = source.detach().cpu().double()
    return np.asarray(source, dtype=np.float64)


def checked_work(work: Work, direction: str) -> WorkSample:
    """The works in float64; `direction` names them in errors.

    Raises:
        InputError: fewer than two works, a wrong number of dimensions, a NaN, or a −inf.
    """
    values = work_values(work)
    if values.ndim not in (1, 2) or values.size < 2:
        raise InputError(
            f"{direction} works are an array (n,) of independent or (chains, draws) of correlated works, two or more: "
            f"got shape {values.shape}; reshape them, or run more walkers."
        )
    bad = np.isnan(values) | np.isneginf(values)
    if bad.any():
        index = np.argwhere(bad)[0].tolist()
        place = f"chain {index[0]}, draw {index[1]}" if values.ndim == 2 else f"index {index[0]}"
        raise InputError(
            f"A work is finite or +inf (zero density): the {direction} work at {place} is {values[tuple(index)]}; look "
            "at the energies of that path (overlapping atoms, a step size too large); leaving it out biases the result."
        )
    return WorkSample(np.atleast_2d(values), correlated=values.ndim == 2)


def scaled_weights(works: Rows) -> Rows:
    """`exp(-work)` up to a factor; zeros if no work is finite."""
    smallest = works.min()
    if smallest == np.inf:
        return np.zeros_like(works)
    with np.errstate(over="ignore"):  # further apart than numbers reach: no weight
        return np.exp(smallest - works)


def effective_fraction(weight: Rows) -> float:
    """Kish's effective fraction of the weights; 0 if all vanish."""
    total = weight.sum()
    return min(1.0, float(total**2 / (weight.size * (weight**2).sum()))) if total > 0 else 0.0


def statistical_inefficiency(series: Float[np.ndarray, "chains draws"]) -> float:
    """How many draws count as one: `g = 1 + 2 Σ_t (1 - t/T) C(t)`, at least 1.

    C is the normalised autocorrelation about the mean of all chains, so that chains that disagree raise g; the sum ends
    where C first falls to zero after ten lags. Equal to `pymbar.timeseries.statistical_inefficiency_multiple`, but by
    Fourier transform. A constant series has g = 1.

    Raises:
        InputError: a series that is not `(chains, draws)`, or not finite.

    References: Use of the weighted histogram analysis method for the analysis of simulated and parallel tempering
        simulations, 2007, doi:10.1021/ct0502864, section 2.4.

    >>> statistical_inefficiency(np.repeat(np.random.default_rng(0).normal(size=(4, 500)), 5, axis=1))
    5.128...
    """
    series = np.asarray(series, dtype=np.float64)
    if series.ndim != 2 or series.size == 0 or not np.isfinite(series).all():
        raise InputError(
            "A statistical inefficiency is that of finite values of shape (chains, draws): got shape "
            f"{series.shape}; reshape one series to (1, draws) and look for NaN or inf."
        )
    chains, draws = series.shape
    deviation = series - series.mean()
    if (deviation**2).mean() == 0:  # values so small that their squares vanish
        deviation = deviation / np.abs(deviation).max(initial=np.finfo(float).tiny)
    variance = (deviation**2).mean()
    if np.ptp(series) <= 8 * np.finfo(float).eps * np.abs(series).max():
        return 1.0
    spectrum = np.abs(np.fft.rfft(deviation, 2 * draws)) ** 2
    lags = np.arange(1, max(1, draws - 1))
    correlation = np.fft.irfft(spectrum.sum(0))[lags] / (chains * (draws - lags) * variance)
    ends = np.flatnonzero((correlation <= 0) & (lags > 10))
    stop = ends[0] if len(ends) else len(lags)
    return float(np.clip(1 + 2 * (correlation * (1 - lags / draws))[:stop].sum(), 1.0, series.size))


def r_hat(series: Float[np.ndarray, "chains draws"]) -> float:
    """Rank-normalised split R-hat, by ArviZ: 1 of a constant series, inf where each chain keeps a value of its own.

    References: Vehtari et al., Rank-normalization, folding, and localization: an improved R-hat, 2021,
        arXiv:1903.08008.

    >>> x = np.random.default_rng(0).normal(size=(4, 500))
    >>> r_hat(x) < 1.01, r_hat(x + np.arange(4)[:, None]) > 1.5, r_hat(np.zeros((4, 500)))
    (True, True, 1.0)
    """
    import arviz  # takes a second to import

    if np.ptp(series) == 0:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(arviz.rhat(np.ascontiguousarray(series)))
    return value if np.isfinite(value) else float("inf")


def effective_draws(series: Float[np.ndarray, "chains draws"]) -> tuple[float, int]:
    """How many independent draws a correlated series is worth, and the degrees of freedom of that number.

    An inefficiency from a short series is too small at times, and limits far out in the tail would believe it. So
    means over batches of ten times that length have a say: the fewer there are, the wider are Student's limits.

    Raises:
        InputError: as `statistical_inefficiency`.

    >>> effective_draws(np.random.default_rng(0).normal(size=(4, 500)))
    (1844.69..., 59)
    """
    draws = series.shape[1]
    g = statistical_inefficiency(series)
    length = min(draws, max(round(BATCH * g), -(-series.size // MOST_BATCHES)))
    batches = series[:, : draws // length * length].reshape(-1, length).mean(1)
    if len(batches) < 2 or batches.var() == 0:
        return 0.0, 0
    from_batches = len(batches) * float(series.var() / batches.var(ddof=1))
    return min(series.size / g, from_batches), len(batches) - 1
