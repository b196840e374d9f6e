"""A triangular normal fitted to weighted samples: every mean and log-scale reads only what it needs."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nessampler.closed_form._weighted import checked, moments
from nessampler.targets.triangular_normal import LARGEST_LOG_SCALE, TriangularNormal

__all__ = ["fit_triangular_normal"]

RIDGE = 1e-4
ROUNDS = 3  # of pruning
STRICTNESS = 2.0  # on standard errors
LARGEST_LEVERAGE = 0.99
SIBLINGS = 32  # neighbouring samples that may descend from one particle: their gradients are not independent


def fit_triangular_normal(
    x: Float[Tensor, "n d"],
    weights: Float[Tensor, " n"] | None = None,
    *,
    orders: tuple[Int[Tensor, " d"], ...] | None = None,
    ridge: float = RIDGE,
) -> TriangularNormal:
    r"""Penalised maximum likelihood by L-BFGS, the best order kept, its slopes pruned.

    In standardised coordinates the mean of
    $\tfrac12 u_i^2 + \log\sigma_i$, $u_i = (x_i - a_i - A_i\cdot x)/\sigma_i$, plus $\tfrac\lambda2(|A|^2 + |B|^2)$, is
    minimised over all coordinates at once. Slopes below $2\sqrt{2\log p}$ robust standard errors (p of them; the
    sandwich of each row's predictors, every residual that of a fit without the sample, neighbouring samples clustered)
    are set to zero, as are those on which the first and the last half of the samples do not agree: halves may come from
    different islands. The rest is fitted again. Orders, which have as many slopes before that, are compared by
    likelihood.

    Args:
        x: samples.
        weights: not negative, of any sum; equal where None.
        orders: to try; where None the natural one, the reversed one, and the one that puts first whatever the others'
            scatter depends on most.
        ridge: $\lambda$.

    References:
        MacKinnon & White, Some heteroskedasticity-consistent covariance matrix estimators, 1985, J. Econometrics 29,
        305 (the jackknife form).

    Raises:
        InputError: shapes that do not belong together, or samples or weights that are not numbers.

    Example:
        >>> from nessampler.targets.funnel import Funnel
        >>> x = Funnel(3).sample(4000, generator=torch.Generator().manual_seed(0))
        >>> fit = fit_triangular_normal(x)
        >>> fit.order.tolist()[0], fit.log_scale_slope[1, 0].round(decimals=1).item()
        (0, 0.5)
    """
    x, w = checked(x, weights)
    mean, scale = moments(x, w)
    z, d = (x - mean) / scale, x.shape[1]
    natural = torch.arange(d)
    tried = orders or (natural, natural.flip(0), _by_influence(z, w).cpu())
    distinct = list({tuple(order.tolist()): order for order in tried}.values())
    everything = [_all(z, order) for order in distinct]
    fits = [_minimised(z, w, _begun(z, w, earlier), [earlier, earlier], ridge) for earlier in everything]
    losses = [float(_loss(z, w, *fit)) for fit in fits]
    best = losses.index(min(losses))
    order = distinct[best]
    a, slope, b, log_slope = _pruned(z, w, fits[best], everything[best], ridge)
    # Back from standardised coordinates: z = (x - mean)/scale on both sides.
    slope, log_slope = scale[:, None] * slope / scale, log_slope / scale
    return TriangularNormal(
        mean + scale * a - slope @ mean, slope, b + scale.log() - log_slope @ mean, log_slope, order
    )


def _by_influence(z: Tensor, w: Tensor) -> Tensor:
    """Coordinates by how much of the others' log-scatter they explain, most first."""
    scatter = z.square().clamp(min=1e-12).log()
    scatter = (scatter - w @ scatter) / moments(scatter, w)[1]
    correlation = (w[:, None] * scatter).T @ z  # row: scatter of; column: explained by
    return correlation.fill_diagonal_(0.0).square().sum(0).argsort(descending=True, stable=True)


def _all(z: Tensor, order: Tensor) -> Tensor:
    """1 where a row may read a column: what comes earlier in the order."""
    rank = order.to(z.device).argsort()
    return (rank[:, None] > rank).to(z)


def _begun(z: Tensor, w: Tensor, earlier: Tensor) -> list[Tensor]:
    """Log-scales by regression of log |z|, whose mean under a standard normal is -0.635: near, whatever the funnel."""
    d = z.shape[1]
    values = [z.new_zeros(d), z.new_zeros(d, d), z.new_zeros(d), z.new_zeros(d, d)]
    scatter = 0.5 * z.square().clamp(min=1e-12).log() + 0.635
    for i in range(d):
        read = earlier[i].nonzero()[:, 0]
        one = torch.cat([torch.ones_like(z[:, :1]), z[:, read]], 1)
        normal = (w[:, None] * one).T @ one + 1e-3 * torch.eye(one.shape[1]).to(z)
        solution = torch.linalg.solve(normal, one.T @ (w * scatter[:, i]))
        values[2][i], values[3][i, read] = solution[0], solution[1:]
    return values


def _pruned(z: Tensor, w: Tensor, values: list[Tensor], earlier: Tensor, ridge: float) -> list[Tensor]:
    """Only slopes that both halves of the samples ask for, with one sign: a few far out can ask for anything."""
    free = [earlier, earlier]
    least = STRICTNESS * math.sqrt(2 * math.log(max(2 * float(earlier.sum()), 2.0)))
    cut = len(z) // 2
    halves = [(z[part], w[part] / w[part].sum()) for part in (slice(0, cut), slice(cut, None))]
    for _ in range(ROUNDS):
        kept = [f.clone() for f in free]
        fits = [_minimised(*half, values, free, ridge) for half in halves]
        for half, fit in zip(halves, fits, strict=True):
            for mask, found in zip(kept, _significant(*half, fit, free, least / math.sqrt(2)), strict=True):
                mask *= found
        for mask, one, other in zip(kept, fits[0][1::2], fits[1][1::2], strict=True):
            mask *= one * other > 0
        if all(bool((new == old).all()) for new, old in zip(kept, free, strict=True)):
            break
        free = kept
        values = _minimised(z, w, values, free, ridge)
    return values


def _loss(z: Tensor, w: Tensor, a: Tensor, slope: Tensor, b: Tensor, log_slope: Tensor) -> Tensor:
    width = (b + z @ log_slope.T).clamp(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE)
    return w @ (0.5 * ((z - a - z @ slope.T) * torch.exp(-width)).square() + width).sum(1)


def _minimised(z: Tensor, w: Tensor, start: list[Tensor], free: list[Tensor], ridge: float) -> list[Tensor]:
    with torch.enable_grad():
        values = [v.clone().requires_grad_() for v in start]
        a, slope, b, log_slope = values
        optimiser = torch.optim.LBFGS(
            values, max_iter=500, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-9
        )

        def closure() -> Tensor:
            optimiser.zero_grad()
            held = [slope * free[0], log_slope * free[1]]
            loss = _loss(z, w, a, held[0], b, held[1])
            loss = loss + 0.5 * ridge * (held[0].square().sum() + held[1].square().sum())
            loss.backward()
            return loss

        optimiser.step(closure)
    return [a.detach(), slope.detach() * free[0], b.detach(), log_slope.detach() * free[1]]


def _significant(z: Tensor, w: Tensor, values: list[Tensor], free: list[Tensor], least: float) -> list[Tensor]:
    """Which slopes are more than `least` standard errors from zero."""
    a, slope, b, log_slope = values
    rate = torch.exp(-(b + z @ log_slope.T).clamp(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE))
    noise = (z - a - z @ slope.T) * rate
    kept = [f.clone() for f in free]
    for i in range(z.shape[1]):
        pull, stretch = noise[:, i] * rate[:, i], noise[:, i].square() - 1
        rows = ((kept[0], slope, w * rate[:, i].square(), pull), (kept[1], log_slope, 2 * w, stretch))
        for mask, coefficients, weight, slack in rows:
            read = mask[i].nonzero()[:, 0]
            if not len(read):
                continue
            one = torch.cat([torch.ones_like(z[:, :1]), z[:, read]], 1)
            # The sandwich: a few samples in a narrow neck know a lot each, but they are few. Those far out pull the fit
            # towards themselves, so their slack is what it would be without them; and siblings count as one.
            inverse = torch.linalg.pinv((weight[:, None] * one).T @ one)
            leverage = (weight * ((one @ inverse) * one).sum(1)).clamp(max=LARGEST_LEVERAGE)
            gradient = (w * slack / (1 - leverage))[:, None] * one
            gradient = torch.stack([block.sum(0) for block in gradient.split(SIBLINGS)])
            error = (inverse @ (gradient.T @ gradient) @ inverse).diagonal()[1:].clamp(min=0.0).sqrt()
            mask[i, read] = (coefficients[i, read].abs() > least * error).double()
    return kept
