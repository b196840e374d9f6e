"""The velocity of an interpolant between two sets of fields, by least squares in a dictionary: no energies needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.closed_form.least_squares_drift import LeastSquaresDrift
from nessampler.errors import InputError

__all__ = ["Coupling", "by_magnetisation", "interpolant_velocity"]

Coupling = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Fields of both ends to as many pairs, `(k, *event)` each, whose members have the laws of the ends."""

BLOCK = 128  # pairs at once
RIDGE = 1e-4  # of the standardised normal equations


def by_magnetisation(even: bool) -> Coupling:
    r"""Pairs in the order of the magnetisation: the optimal transport of M, a random one of all the rest.

    Fields of weak and strong magnetisation need not pass one another on the way. Where both densities are `even` the
    order is that of $|M|$, and the second field takes the sign of the first: both have the laws of their ends still.

    Example:
        >>> a, b = torch.tensor([[[1.0]], [[-3.0]]]), torch.tensor([[[5.0]], [[2.0]]])
        >>> [x.flatten().tolist() for x in by_magnetisation(even=True)(a, b, torch.Generator())]
        [[1.0, -3.0], [2.0, -5.0]]
    """

    def pairs(x_a: Tensor, x_b: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = min(len(x_a), len(x_b))
        x_a, x_b = (x[torch.randperm(len(x), generator=generator, device=generator.device)[:n]] for x in (x_a, x_b))
        m_a, m_b = _mean(x_a), _mean(x_b)
        order_a, order_b = (m.abs().argsort() if even else m.argsort() for m in (m_a, m_b))
        x_a, x_b = x_a[order_a], x_b[order_b]
        if not even:
            return x_a, x_b
        sign = torch.where(m_a[order_a] * m_b[order_b] < 0, -1.0, 1.0).to(x_b)
        return x_a, x_b * sign.view(-1, *[1] * (x_b.ndim - 1))

    return pairs


def interpolant_velocity(
    x_a: Float[Tensor, " n *event"],
    x_b: Float[Tensor, " m *event"],
    dictionary: LatticeDictionary,
    times: Sequence[float],
    *,
    coupling: Coupling,
    rounds: int = 4,
    generator: torch.Generator,
) -> LeastSquaresDrift:
    r"""Regress $\dot I_t = x_b - x_a$ on fields of $I_t = (1 - t)\,x_a + t\,x_b$, time by time.

    $$\theta(t) = \arg\min E\,\Big|\sum_i \theta_i\, \varphi_i(I_t) - (x_b - x_a)\Big|^2$$

    summed over sites, over `rounds` of pairs. The minimum over all fields is the velocity that carries the law of one
    end into that of the other; that over a dictionary is the solution of one linear system. Samples are all it takes:
    energies are asked for only by the works of whoever follows the flow. The noise of the interpolant is left out,
    since a flow needs no score.

    Args:
        x_a, x_b: fields of both ends.
        dictionary: of vector fields with exact divergence.
        times: knots in [0, 1], increasing, between which θ is linear.
        coupling: which fields make a pair.
        rounds: pairings of all fields.
        generator: source of randomness.

    Raises:
        InputError: knots that do not increase within [0, 1], or rounds below one.

    References:
        Albergo & Vanden-Eijnden, Building normalizing flows with stochastic interpolants, 2022, arXiv:2209.15571,
        eq. 9; Lipman et al., Flow matching for generative modeling, 2022, arXiv:2210.02747 (the regression, by
        gradient descent on a network); Tong et al., Improving and generalizing flow-based generative models with
        minibatch optimal transport, 2023, arXiv:2302.00482 (couplings).

    Example:
        >>> from nessampler.targets.phi4 import FreeField
        >>> g = torch.Generator().manual_seed(0)
        >>> a, b = (FreeField.massive(4, mass_squared=m).sample(500, generator=g) for m in (1.0, 4.0))
        >>> bare = LatticeDictionary((4, 4), (1.0,), (float("inf"),), torch.zeros(1, 1, dtype=torch.float64))
        >>> drift = interpolant_velocity(a, b, bare, [0.0, 1.0], coupling=by_magnetisation(even=True), generator=g)
        >>> bool(drift.coefficients[0, 0] < 0 < drift.coefficients[1, 0])  # fields shrink, then take the width of b
        True
    """
    knots = torch.tensor(times, dtype=torch.float64)
    if rounds < 1 or len(knots) < 2 or not bool((knots.diff() > 0).all()) or knots[0] < 0 or knots[-1] > 1:
        raise InputError(
            f"a velocity is solved at increasing times in [0, 1], in a round at least: got {times}, {rounds}"
        )
    pairs = [coupling(x_a, x_b, generator) for _ in range(rounds)]
    return LeastSquaresDrift(dictionary, knots, torch.stack([_solved(dictionary, float(t), pairs) for t in knots]))


def _solved(dictionary: LatticeDictionary, t: float, pairs: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, " p"]:
    gram = torch.zeros(dictionary.size, dictionary.size, dtype=torch.float64)
    right = torch.zeros(dictionary.size, dtype=torch.float64)
    for x_a, x_b in pairs:
        for a, b in zip(x_a.split(BLOCK), x_b.split(BLOCK), strict=True):
            rows = dictionary.fields(torch.lerp(a, b, t)).transpose(0, 1).flatten(1)
            gram += (rows @ rows.T).double().cpu()
            right += (rows @ (b - a).flatten()).double().cpu()
    size = gram.diagonal()
    scale = torch.where(size > 0, size, 1.0).rsqrt()  # a field that vanishes takes no part
    standard = gram * scale[:, None] * scale
    standard.diagonal().add_(RIDGE)
    return torch.linalg.solve(standard, right * scale) * scale


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)
