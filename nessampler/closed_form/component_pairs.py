"""Which component of one mixture goes to which of another, and how much weight goes with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, kron
from torch import Tensor

from nessampler.errors import InputError
from nessampler.targets.covariance_mixture import CovarianceMixture
from nessampler.targets.mixture import GaussianMixture

__all__ = ["ComponentPairs", "Mixture", "independent_plan", "optimal_plan", "pair_components"]

LIGHTEST = 1e-9
"""Pairs of less weight are left out."""

Mixture = GaussianMixture | CovarianceMixture
"""Components of independent or of correlated coordinates."""


@dataclass(frozen=True)
class ComponentPairs:
    r"""Pairs (i, j) of a component of A and one of B, which go together with probability $\pi_{ij}$.

    | symbol | attribute | |
    |---|---|---|
    | $\pi_{ij}$ | `weight` | `(p,)`, of sum one; its marginals are the weights of the mixtures |
    | $\mu_i$ | `mean_a` | `(p, d)` |
    | $\nu_j - \mu_i$ | `travel` | `(p, d)`; circular coordinates take the shorter way round |
    | $\Sigma_i, \Sigma_j$ | `covariance_a`, `covariance_b` | `(p, d)`, or `(p, d, d)` where coordinates correlate |
    | | `circular` | `(d,)`: coordinates of period 2π |
    """

    weight: Float[Tensor, " p"]
    mean_a: Float[Tensor, "p d"]
    travel: Float[Tensor, "p d"]
    covariance_a: Float[Tensor, "p d"] | Float[Tensor, "p d d"]
    covariance_b: Float[Tensor, "p d"] | Float[Tensor, "p d d"]
    circular: Bool[Tensor, " d"]

    @property
    def diagonal(self) -> bool:
        """Whether coordinates are independent within every component."""
        return self.covariance_a.ndim == 2


def pair_components(
    a: Mixture,
    b: Mixture,
    plan: Float[Tensor, "k l"] | None = None,
    *,
    circular: Bool[Tensor, " d"] | None = None,
) -> ComponentPairs:
    r"""Pairs of components by a plan, the optimal one where None is given.

    Args:
        a, b: mixtures of the same variables.
        plan: $\pi$, `(k, l)`, with the weights of both mixtures as its marginals.
        circular: coordinates of period 2π, for mixtures of independent coordinates.

    Raises:
        InputError: mixtures of different variables, a plan with other marginals, or covariances that would correlate
            circular coordinates.

    Example:
        >>> a = GaussianMixture(torch.tensor([[0.0], [9.0]]), torch.ones(2))
        >>> b = GaussianMixture(torch.tensor([[8.0], [1.0]]), torch.ones(2))
        >>> pair_components(a, b).travel[:, 0].tolist()
        [1.0, -1.0]
    """
    if a.means.shape[1:] != b.means.shape[1:]:
        raise InputError(
            f"both mixtures must have the same variables: got {a.means.shape[1]} and {b.means.shape[1]} coordinates"
        )
    circular = torch.zeros(a.means.shape[1], dtype=torch.bool) if circular is None else circular
    circular = circular.to(a.means.device)
    full = isinstance(a, CovarianceMixture) or isinstance(b, CovarianceMixture)
    if full and bool(circular.any()):
        raise InputError(
            "circular coordinates need components of independent coordinates: got full covariances; "
            "fit the mixtures with kinds=('diagonal',)"
        )
    plan = optimal_plan(a, b, circular=circular) if plan is None else plan.double()
    _check_marginals(plan, a, b)
    i, j = (plan > LIGHTEST).nonzero(as_tuple=True)
    weight = plan[i, j] / plan[i, j].sum()
    covariances = (_covariances(mixture, full) for mixture in (a, b))
    start, covariance_a, covariance_b = a.means.double()[i], next(covariances)[i], next(covariances)[j]
    return ComponentPairs(
        weight, start, _along(b.means.double()[j] - start, circular), covariance_a, covariance_b, circular
    )


def independent_plan(a: Mixture, b: Mixture) -> Float[Tensor, "k l"]:
    r"""$\pi_{ij} = w_i w_j$: samples of both ends are paired at random."""
    return a.weights.double()[:, None] * b.weights.double()


def optimal_plan(a: Mixture, b: Mixture, *, circular: Bool[Tensor, " d"] | None = None) -> Float[Tensor, "k l"]:
    r"""The cheapest plan, by linear programming; at most $k + l - 1$ pairs have weight.

    $$\min_\pi \sum_{ij} \pi_{ij} \sum_c \frac{(\nu_{jc} - \mu_{ic})^2 + (\sigma_{jc} - \sigma_{ic})^2}{\bar v_c}$$

    with the marginal standard deviations $\sigma$ and the mean variance $\bar v$ of all components.

    References:
        Delon & Desolneux, A Wasserstein-type distance in the space of Gaussian mixture models, 2020,
        arXiv:1907.05254, proposition 4 (there in one unit for all coordinates).
    """
    scales = [_variances(m).sqrt() for m in (a, b)]
    unit = 0.5 * sum(m.weights.double() @ s.square() for m, s in zip((a, b), scales, strict=True))
    travel = b.means.double() - a.means.double()[:, None]
    if circular is not None:
        travel = _along(travel, circular)
    cost = ((travel.square() + (scales[1] - scales[0][:, None]).square()) / unit).sum(-1)
    k, l = cost.shape  # noqa: E741
    rows, columns = kron(eye_array(k), np.ones((1, l))), kron(np.ones((1, k)), eye_array(l))
    wanted = np.concatenate([m.weights.double().cpu().numpy() for m in (a, b)])
    found = linprog(
        cost.flatten().cpu().numpy(),
        A_eq=csr_array(np.concatenate([rows.toarray(), columns.toarray()])),
        b_eq=wanted,
        method="highs",
    )
    return torch.from_numpy(found.x).to(cost.device).view(k, l).clamp(min=0.0)


def _along(travel: Tensor, circular: Tensor) -> Tensor:
    """Differences of circular coordinates, the shorter way round."""
    return torch.where(circular, torch.remainder(travel + torch.pi, 2 * torch.pi) - torch.pi, travel)


def _variances(mixture: Mixture) -> Tensor:
    if isinstance(mixture, CovarianceMixture):
        return mixture.covariances.diagonal(dim1=1, dim2=2)
    return mixture.scales.double().square()


def _covariances(mixture: Mixture, full: bool) -> Tensor:
    if isinstance(mixture, CovarianceMixture):
        return mixture.covariances
    return torch.diag_embed(_variances(mixture)) if full else _variances(mixture)


def _check_marginals(plan: Tensor, a: Mixture, b: Mixture) -> None:
    shape = (len(a.means), len(b.means))
    if tuple(plan.shape) != shape or bool((plan < 0).any()):
        raise InputError(
            f"a plan must be {shape} and not negative: got {tuple(plan.shape)}, {float(plan.min())} at least"
        )
    for name, mixture, marginal in (("A", a, plan.sum(1)), ("B", b, plan.sum(0))):
        off = float((marginal - mixture.weights.double()).abs().max())
        if off > 1e-6:
            raise InputError(
                f"a plan must have the weights of both mixtures as its marginals: that of {name} is off by {off:.2g}; "
                "independent_plan and optimal_plan make such plans"
            )
