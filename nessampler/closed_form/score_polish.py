"""Moments of mixture components with the noise of the samples taken out by the scores."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.covariance_mixture import CovarianceMixture
from nessampler.targets.mixture import GaussianMixture

__all__ = ["PolishKind", "merged", "polished"]

PolishKind = Literal["isotropic", "diagonal", "full"]

FEWEST = {"isotropic": 1.5, "diagonal": 3.0, "full": 3.0}  # samples of a component that is touched
SEEN = 1e-8  # responsibility below which a sample has nothing to say about a component
WITHIN = 4.0  # factor within which a variance stays of what the samples alone say
SETTLED = 1e-12  # relative change of the moments at which sweeps end
ROUNDINGS = 1e-24  # of a mean square
RIDGE = 0.1  # of the mean square of the scores, when a full matrix is regressed


def polished(
    mixture: GaussianMixture | CovarianceMixture,
    x: Float[Tensor, "n d"],
    score: Float[Tensor, "n d"],
    energy: Float[Tensor, " n"],
    *,
    kind: PolishKind,
    sweeps: int = 10,
) -> GaussianMixture | CovarianceMixture:
    r"""Sweeps of expectation–maximisation whose moments are control-variate estimates.

    With the responsibilities $r_k$, the scores $s_k$ of the components and $\hat s = \sum_k r_k s_k$, integration by
    parts gives for *any* density with score $s$, and $c_k = s - \hat s + s_k$,

    $$E[r_k c_k] = 0, \qquad E\big[r_k\{(x - \mu_k)\,c_k^T + 1\}\big] = 0.$$

    These are regressed out of the first and the second moment of every component. Where the density is a mixture of
    Gaussians, $c_k = -\Sigma_k^{-1}(x - \mu_k)$ at the solution: both regressions are exact, and so are means and
    covariances, from any samples. Elsewhere the moments are those of EM with less noise.

    Weights are averages of $r_k$, of variance $1/n_k$ in the logarithm, combined by inverse variances with what the
    energies say, $\log w_k + \langle -U - \log\hat p\,\rangle_k$, of the variance of the bracket over $n_k$. For a
    mixture of Gaussians the bracket is the same everywhere.

    Args:
        mixture: where to start, such as `fit_gaussian_mixture(x)`.
        x: samples.
        score, energy: of the density there.
        kind: what the components share: one variance for all coordinates, one each, or a covariance.
        sweeps: how many at most.

    Raises:
        InputError: shapes that do not belong together, values that are not finite, or `full` with fewer than 2 d
            samples in a component.

    References:
        Assaraf & Caffarel, Zero-variance principle for Monte Carlo algorithms, 1999, Phys. Rev. Lett. 83, 4682;
        Mira, Solgi & Imparato, Zero variance Markov chain Monte Carlo for Bayesian estimators, 2013, Stat. Comput. 23,
        653 (scores as control variates).

    Example:
        >>> from nessampler.closed_form.fit_mixture import fit_gaussian_mixture
        >>> truth = GaussianMixture(torch.tensor([[0.0, 0], [9, 9]]).double(), torch.tensor([1.0, 2.0]))
        >>> g = torch.Generator().manual_seed(0)
        >>> x = truth.sample(60, generator=g)
        >>> energy, score = truth.energy_and_score(x)
        >>> rough = fit_gaussian_mixture(x, components=2, kinds=("isotropic",), generator=g)
        >>> scales = polished(rough, x, score, energy, kind="isotropic").scales[:, 0]
        >>> [round(float(scale), 6) for scale in scales.sort().values]
        [1.0, 2.0]
    """
    _check(x, score, energy)
    x, score, energy = x.double(), score.double(), energy.double()
    means, covariances, weights = mixture.means.double(), _covariances(mixture, kind), mixture.weights.double()
    for _ in range(sweeps):
        before = means, covariances
        means, covariances, weights = _sweep(_mixture(means, covariances, weights), x, score, energy, kind)
        if _settled(before[0], means, covariances) and _settled(before[1], covariances, covariances):
            break
    return _mixture(means, covariances, weights)


def merged(mixture: GaussianMixture | CovarianceMixture, largest: float = 2.0) -> GaussianMixture | None:
    r"""The mixture with its two most alike components made one of independent coordinates; None where none are alike.

    Alike is a small symmetric Kullback–Leibler divergence, $\tfrac12\sum_c\{v_1/v_2 + v_2/v_1 - 2 +
    (\mu_1 - \mu_2)^2 (1/v_1 + 1/v_2)\}$, of the marginal variances: below `largest`. EM splits a mode when it sees too
    many components, and polishing brings the halves together slowly.

    Example:
        >>> twice = GaussianMixture(torch.tensor([[0.0], [0.1], [9.0]]).double(), torch.ones(3))
        >>> merged(twice).means[:, 0], merged(merged(twice))
        (tensor([9.0000, 0.0500], dtype=torch.float64), None)
    """
    if len(mixture.means) < 2:
        return None
    means, v, weights = mixture.means.double(), _variances(mixture), mixture.weights.double()
    spread = (v[:, None] / v + v / v[:, None] - 2).sum(-1)
    apart = (means[:, None] - means).square() * (1 / v[:, None] + 1 / v)
    divergence = 0.5 * (spread + apart.sum(-1)) + torch.diag(torch.full_like(weights, torch.inf))
    i, j = divmod(int(divergence.argmin()), len(means))
    if not float(divergence[i, j]) < largest:
        return None
    share = weights[[i, j]] / weights[[i, j]].sum()
    mean = share @ means[[i, j]]
    variance = share @ (v[[i, j]] + (means[[i, j]] - mean).square())
    kept = [k for k in range(len(means)) if k not in (i, j)]
    return GaussianMixture(
        torch.cat([means[kept], mean[None]]),
        torch.cat([v[kept], variance[None]]).sqrt(),
        torch.cat([weights[kept], weights[[i, j]].sum()[None]]),
    )


def _settled(before: Tensor, after: Tensor, covariances: Tensor) -> bool:
    """Whether a sweep changed nothing but roundings, in units of the components' sizes."""
    size = covariances.abs().amax().clamp(min=1e-300)
    return bool((after - before).abs().amax() < SETTLED * size)


def _sweep(
    mixture: GaussianMixture | CovarianceMixture, x: Tensor, score: Tensor, energy: Tensor, kind: PolishKind
) -> tuple[Tensor, Tensor, Tensor]:
    logits = _logits(mixture, x)
    r, excess = torch.softmax(logits, 1), -energy - torch.logsumexp(logits, 1)
    means, covariances = mixture.means.double(), _covariances(mixture, kind)
    pulls = [_pull(covariances[k], x - means[k]) for k in range(len(means))]  # -s_k
    beyond = score + sum(r[:, k, None] * pull for k, pull in enumerate(pulls))  # s - ŝ
    size = r.sum(0)
    new_means, new_covariances = means.clone(), covariances.clone()
    level, spread = torch.zeros_like(size), torch.full_like(size, torch.inf)
    for k in range(len(means)):
        mine = r[:, k] > SEEN
        w = r[mine, k] / r[mine, k].sum()
        if 1 / float(w.square().sum()) < FEWEST[kind]:
            continue
        new_means[k], new_covariances[k] = _MOMENTS[kind](x[mine], beyond[mine] - pulls[k][mine], w, covariances[k])
        level[k] = w @ excess[mine]
        spread[k] = w @ (excess[mine] - level[k]).square()
    return new_means, new_covariances, _weights(size / len(x), mixture.weights.double().log() + level, spread)


def _weights(share: Tensor, by_energy: Tensor, spread: Tensor) -> Tensor:
    """Logarithms by counts, of variance 1/n, and by energies, of variance spread/n, up to a constant."""
    by_count, trust = share.clamp(min=1e-300).log(), 1 / (1 + spread)
    known = share * trust
    shift = (known @ (by_count - by_energy)) / known.sum() if float(known.sum()) > 0 else 0.0
    return torch.softmax((1 - trust) * by_count + trust * (by_energy + shift), 0)


def _isotropic(x: Tensor, c: Tensor, w: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    mean = _regressed_out(x, c, w, pooled=True)
    y = x - mean
    square, stein = y.square().mean(1, keepdim=True), (y * c).mean(1, keepdim=True) + 1
    return mean, _kept(_regressed_out(square, stein, w), w @ square).expand_as(covariance)


def _diagonal(x: Tensor, c: Tensor, w: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    mean = _regressed_out(x, c, w)
    y = x - mean
    return mean, _kept(_regressed_out(y.square(), y * c + 1, w), w @ y.square())


def _full(x: Tensor, c: Tensor, w: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    d = x.shape[1]
    if 1 / float(w.square().sum()) < 2 * d:
        raise InputError(
            f"a full covariance of {d} coordinates needs at least {2 * d} samples of every component: got "
            f"{1 / float(w.square().sum()):.0f}; use kind='diagonal'"
        )
    mean_x, mean_c = w @ x, w @ c
    y, e = x - mean_x, c - mean_c
    square = (w[:, None] * e).T @ e
    silent = ~_varies(square.diagonal(), c, w)
    ridge = torch.diag(torch.where(silent, 1.0, RIDGE * square.diagonal()))
    left = (w[:, None] * (y + e @ covariance)).T @ e  # what the covariance so far leaves of cov(x, c)
    matrix = (covariance - torch.linalg.solve(square + ridge, left.T).T) * ~silent
    mean = mean_x + matrix @ mean_c
    y = x - mean
    moment, stein = (w[:, None] * y).T @ y, (w[:, None] * y).T @ c + torch.eye(d).to(x)
    improved = moment + stein @ matrix.T
    return mean, _kept_matrix(0.5 * (improved + improved.T), moment)


_MOMENTS = {"isotropic": _isotropic, "diagonal": _diagonal, "full": _full}


def _regressed_out(y: Tensor, c: Tensor, w: Tensor, *, pooled: bool = False) -> Tensor:
    """Mean of y, less what c, whose expectation is zero, explains of it; one slope for all columns if pooled."""
    mean_y, mean_c = w @ y, w @ c
    e = c - mean_c
    covariance, square = w @ ((y - mean_y) * e), w @ e.square()
    varies = _varies(square, c, w)
    if pooled:
        covariance, square, varies = covariance.sum(), square.sum(), varies.any()
    slope = torch.where(varies, covariance / torch.where(varies, square, 1.0), 0.0)
    return mean_y - slope * mean_c


def _varies(square: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """Whether c is more than a constant and roundings: where no force acts, or always the same, it explains nothing."""
    return square > ROUNDINGS * (w @ c.square())


def _kept(variance: Tensor, plain: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(variance, WITHIN * plain), plain / WITHIN)


def _kept_matrix(covariance: Tensor, plain: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(plain + 1e-12 * torch.diag(plain.diagonal()))
    white = torch.linalg.solve_triangular(factor, covariance, upper=False)
    values, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(factor, white.T, upper=False))
    basis = factor @ vectors
    return (basis * values.clamp(1 / WITHIN, WITHIN)) @ basis.T


def _logits(mixture: GaussianMixture | CovarianceMixture, x: Tensor) -> Tensor:
    """log w_k N_k(x), (n, k)."""
    return torch.cat([logits for _, logits in mixture._chunks(x)])


def _pull(covariance: Tensor, deviation: Tensor) -> Tensor:
    if covariance.ndim == 1:
        return deviation / covariance
    return torch.linalg.solve(covariance, deviation.T).T


def _covariances(mixture: GaussianMixture | CovarianceMixture, kind: PolishKind) -> Tensor:
    """(k, d), or (k, d, d) where full; one variance for all coordinates comes from the first moments."""
    if kind == "full":
        return mixture.covariances if isinstance(mixture, CovarianceMixture) else torch.diag_embed(_variances(mixture))
    return _variances(mixture)


def _variances(mixture: GaussianMixture | CovarianceMixture) -> Tensor:
    if isinstance(mixture, CovarianceMixture):
        return mixture.covariances.diagonal(dim1=1, dim2=2)
    return mixture.scales.double().square()


def _mixture(means: Tensor, covariances: Tensor, weights: Tensor) -> GaussianMixture | CovarianceMixture:
    if covariances.ndim == 2:
        return GaussianMixture(means, covariances.sqrt(), weights)
    return CovarianceMixture(means, covariances, weights)


def _check(x: Tensor, score: Tensor, energy: Tensor) -> None:
    if score.shape != x.shape or energy.shape != x.shape[:1]:
        raise InputError(
            f"every sample needs a score and an energy: got {tuple(score.shape)} and {tuple(energy.shape)} for samples "
            f"{tuple(x.shape)}"
        )
    for name, value in (("samples", x), ("scores", score), ("energies", energy)):
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{name} of a fit must be finite: got some that are not; leave these samples out")
