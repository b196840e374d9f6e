"""Are these samples of this density? Stein's identity, averaged over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import t as student_t

from nessampler.errors import InputError
from nessampler.estimators import Flag, statistical_inefficiency
from nessampler.estimators.works import effective_draws

__all__ = ["SteinCheck", "stein_check"]

LEVEL = 0.001
GROSS = 0.5  # of the effect sizes below, each 0 for samples of the density and 1 where it is plainly another one
CENTRED = 1e-6
COLLECTIVE = 4  # directions in which samples spread most: what is missing of a density is missing there first
FEWEST_BATCHES = 4
TINY = np.finfo(float).tiny  # a half without any weight has a mean of its own


@dataclass(frozen=True)
class SteinCheck:
    r"""What the identity says.

    Attributes:
        temperature: $-\langle (x - m) \cdot s \rangle / d$, the temperature of the samples in units of the density's;
            1 if they belong to it. (A virial theorem; in a well that is not harmonic it is no thermometer.)
        temperature_error: its standard error.
        force: the largest $|\langle s_i \rangle| / \sqrt{\langle s_i^2 \rangle}$ over coordinates: 0 if forces balance.
        coordinate: where that is.
        p: probability of so large a deviation of samples of the density, over all that was looked at.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4, 500, 3))
        >>> hot = stein_check(1.5 * x, -1.5 * x)  # standard deviation 1.5 against a standard normal
        >>> round(hot.temperature, 1), hot.grossly_wrong, [flag.code for flag in hot.flags("A")]
        (2.2, True, ['not_samples_of_a'])
    """

    temperature: float
    temperature_error: float
    force: float
    coordinate: int
    p: float

    @property
    def fits(self) -> bool:
        """Within the 99.9 % limits."""
        return self.p >= LEVEL

    @property
    def grossly_wrong(self) -> bool:
        """Beyond doubt, and by far."""
        return self.p < LEVEL**3 and max(abs(self.temperature - 1), self.force) > GROSS

    def flags(self, name: str) -> tuple[Flag, ...]:
        """A flag unless the samples, called `name`, fit."""
        return () if self.fits else (Flag(f"not_samples_of_{name.lower()}", self.describe(name)),)

    def describe(self, name: str) -> str:
        """What was found, and what to look at."""
        return (
            f"samples of {name} do not satisfy Stein's identity of its density (p = {self.p:.1e}): by the virial their "
            f"temperature is {self.temperature:.3f} ± {self.temperature_error:.3f} times that of the density, the mean "
            f"force along coordinate {self.coordinate} is {self.force:.2f} of its root mean square; check that they "
            "were sampled in this state, at its temperature, at equilibrium and with a time step that is short enough"
        )


def stein_check(
    x: Float[np.ndarray, "chains draws d"],
    score: Float[np.ndarray, "chains draws d"],
    *,
    circular: Bool[np.ndarray, " d"] | None = None,
    correlated: bool = True,
    weight: Float[np.ndarray, "chains draws"] | None = None,
    components: int = COLLECTIVE,
) -> SteinCheck:
    r"""Hold samples against the score $s = -\nabla U$ of a density.

    $$E[\nabla\cdot f + f \cdot s] = 0$$

    for samples of the density and every smooth field f that does not carry anything over an edge of the support. Here
    f is, in turn, $e_i$ (forces balance), $(x_i - m_i)\, e_i$ (the virial of each coordinate; $\cos x_i\, e_i$ and
    $\sin x_i\, e_i$ on a circle), the same two along principal components v of the samples, v and
    $(v \cdot (x - m))\, v$, and $x - m$ (the virial as a whole, which measures the temperature). The centre m and the
    components of each half of the chains (or draws) are those of the *other* half, independent of what they are
    multiplied with. Components are for what no single coordinate shows: a lattice whose magnetisation stops short of
    its tails misses nearly nothing at any one site.

    Half of the 0.1 % level goes to the virial as a whole and half is shared by all others. Errors come from the
    statistical inefficiency of each term or from batches, whichever is larger; limits are Student's, with Johnson's
    correction for skewness.

    | symbol | argument | |
    |---|---|---|
    | x | `x` | `(chains, draws, d)`, time-ordered |
    | s | `score` | the same shape, in inverse units of x |
    | | `circular` | which coordinates are angles |
    | | `correlated` | whether draws of a chain are |
    | w | `weight` | of weighted samples, up to a factor: then $E[w\,(\nabla\cdot f + f \cdot s)] = 0$ |
    | | `components` | principal ones that are looked at |

    Particles whose centre of mass never moves are taken as what they are: a density without these directions.

    Not for a density that is cut off where it is not small, such as a box or half of a well: there E is not zero but a
    term of the boundary.

    Raises:
        InputError: shapes that differ, fewer than eight samples, numbers that are not finite.

    References:
        Stein, A bound for the error in the normal approximation, 1972; Gorham & Mackey, Measuring sample quality with
        Stein's method, 2015, arXiv:1506.03039, section 2; Johnson, Modified t tests and confidence intervals for
        asymmetrical populations, 1978, doi:10.1080/01621459.1978.10480051.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4, 500, 3))
        >>> stein_check(x, -x).fits, stein_check(x, -x - 0.3).fits
        (True, False)
    """
    x, score = _checked(x, score)
    share = np.ones(x.shape[:2]) if weight is None else np.asarray(weight, dtype=np.float64) / np.mean(weight)
    wraps = np.zeros(x.shape[-1], dtype=bool) if circular is None else np.asarray(circular, dtype=bool)
    score, free = _free(x, score)
    force = score
    own, total = _virials(x, score, wraps, free, share)
    total = share * total
    # Where the centre of mass never moves, three directions have no spread and no virial.
    components = min(components, round(free * int((~wraps).sum())))
    along = _along_components(x[..., ~wraps], score[..., ~wraps], share, components)
    terms = [share * term for term in (*np.moveaxis(force, -1, 0), *own, *along)]
    p = min(_p_value(total, correlated) / 0.5, min(_p_value(term, correlated) for term in terms) * len(terms) / 0.5)
    pull, square = (np.mean(share[..., None] * moment, axis=(0, 1)) for moment in (force, force**2))
    size = np.abs(pull) / np.sqrt(square + np.finfo(float).tiny)
    straight = max(free * float((~wraps).sum()), np.finfo(float).tiny)
    g = statistical_inefficiency(total) if correlated else 1.0
    return SteinCheck(
        temperature=1 - float(total.mean()) / straight,
        temperature_error=float(total.std()) * float(np.sqrt(g / total.size)) / straight,
        force=float(size.max()),
        coordinate=int(size.argmax()),
        p=min(1.0, p),
    )


def _virials(
    x: np.ndarray, score: np.ndarray, wraps: np.ndarray, free: float, share: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Stein's term of every coordinate's own field, and of x - m, as series `(chains, draws)`."""
    angle, pull = x[..., wraps], score[..., wraps]
    turning = [-np.sin(angle) + np.cos(angle) * pull, np.cos(angle) + np.sin(angle) * pull]
    straight = free + (x - _other_half(x, share))[..., ~wraps] * score[..., ~wraps]
    own = [*np.moveaxis(straight, -1, 0), *(series for term in turning for series in np.moveaxis(term, -1, 0))]
    return own, straight.sum(-1)


def _along_components(x: np.ndarray, score: np.ndarray, share: np.ndarray, count: int) -> list[np.ndarray]:
    """Stein's terms of v and of (v · (x - m)) v for the leading principal components v of the other half."""
    if x.shape[-1] < 2 or count < 1 or x.shape[0] * x.shape[1] < 8 * count:
        return []  # one coordinate is its own component; and so few samples have none
    if len(x) == 1:
        turned = _along_components(np.swapaxes(x, 0, 1), np.swapaxes(score, 0, 1), share.T, count)
        return [term.T for term in turned]
    found = np.empty((2, count, *x.shape[:2]))
    for here, there in (_halves(len(x)), _halves(len(x))[::-1]):
        centre = _mean(x[there], share[there])
        spread = np.sqrt(share[there])[..., None] * (x[there] - centre)
        v = np.linalg.svd(spread.reshape(-1, x.shape[2]), full_matrices=False)[2][:count].T
        v = v * np.sign(np.take_along_axis(v, np.abs(v).argmax(0)[None], 0))  # one sense for both halves
        force, place = score[here] @ v, (x[here] - centre) @ v
        found[0, :, here], found[1, :, here] = np.moveaxis(force, -1, 0), np.moveaxis(1 + place * force, -1, 0)
    return [*found[0], *found[1]]


def _other_half(x: np.ndarray, share: np.ndarray) -> np.ndarray:
    """For each draw, the mean of the half of the chains, or of the draws of a single one, that it is not in."""
    if len(x) == 1:
        return np.swapaxes(_other_half(np.swapaxes(x, 0, 1), share.T), 0, 1)
    first, second = _halves(len(x))
    centre = np.empty_like(x)
    centre[first], centre[second] = _mean(x[second], share[second]), _mean(x[first], share[first])
    return centre


def _halves(n: int) -> tuple[slice, slice]:
    return slice(None, n // 2), slice(n // 2, None)


def _mean(x: np.ndarray, share: np.ndarray) -> np.ndarray:
    return np.average(x.reshape(-1, x.shape[2]), 0, share.ravel() + TINY)


def _free(x: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, float]:
    """The score along directions in which samples move, and the share of each coordinate in them."""
    d = x.shape[-1]
    if d % 3 == 0 and d > 3:
        atoms = x.reshape(*x.shape[:2], -1, 3)
        if atoms.mean(2).std((0, 1)).max() < CENTRED * x.std():
            forces = score.reshape(atoms.shape)
            return (forces - forces.mean(2, keepdims=True)).reshape(score.shape), 1 - 3 / d
    return score, 1.0


def _p_value(series: np.ndarray, correlated: bool) -> float:
    """Two-sided, of mean zero; 1 for a series that is zero throughout, or too short to tell."""
    mean, deviation = float(series.mean()), float(series.std())
    if deviation <= 1e-12 * max(1.0, abs(mean)):
        return 1.0 if abs(mean) <= 1e-9 else 0.0
    effective, freedom = effective_draws(series) if correlated else (float(series.size), series.size - 1)
    if freedom < FEWEST_BATCHES:
        return 1.0
    skew = float(((series - mean) ** 3).mean()) / deviation**3
    z = mean / deviation
    # Johnson's expansion holds for moderate deviations; a large one needs no correction.
    corrected = z + skew / (6 * effective) + skew * z * z / 3 if abs(skew * z) < 1 else z
    return 2 * float(student_t.sf(abs(corrected) * np.sqrt(effective - 1), freedom))


def _checked(x: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, score = np.asarray(x, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if x.ndim != 3 or x.shape != score.shape or x.shape[1] < 2 or x.shape[0] * x.shape[1] < 8:
        raise InputError(
            "samples and scores are (chains, draws, d), eight samples or more: got "
            f"{x.shape} and {score.shape}; reshape one series to (1, draws, d)"
        )
    for name, values in (("samples", x), ("scores", score)):
        if not np.isfinite(values).all():
            raise InputError(
                f"{name} must be finite: those at {np.argwhere(~np.isfinite(values))[0].tolist()} are not; look at "
                "the energy there"
            )
    return x, score
