"""Velocity and score of an interpolant between two mixtures on a torus, in closed form."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.closed_form.wrapped_mixture import WrappedMixture, image_moments
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.interpolants import LinearInterpolant

__all__ = ["TorusFields"]

TURN = 2 * math.pi


class TorusFields(nn.Module):
    r"""Fields of angles that go from a component of one mixture to one of the other along the shorter arc.

    Components are paired by the optimal transport plan $\pi_{ij}$ between the mixtures' weights, with the squared arcs
    $d_{ij} = \mathrm{wrap}(\nu_j - \mu_i)$ as cost. At time t the angles are a mixture over pairs, of wrapped Gaussians

    $$m_t = \mu_i + t\,d_{ij}, \quad V_t = (1-t)^2\sigma_i^2 + t^2\tau_j^2 + \gamma^2, \quad
      C_t = -(1-t)\sigma_i^2 + t\tau_j^2 + \gamma\dot\gamma, \quad \gamma^2 = 2t(1-t)\,\sigma_i\tau_j$$
    $$b = E[d + C_t V_t^{-1}\delta\,|\,\theta], \qquad s = -E[V_t^{-1}\delta\,|\,\theta]$$

    with $\delta$ the deviation from $m_t$ of the image that the angle is, and averages over pairs and images. V is then
    $((1-t)\sigma_i + t\tau_j)^2$, the law of the optimal transport between two components. Both fields have the period
    2π in every angle. Other coordinates do not move: velocity, score and variance are zero.

    | symbol | argument | |
    |---|---|---|
    | $\mu, \sigma$ and $\nu, \tau$ | `start`, `end` | mixtures of k angles |
    | | `index` | of the angles among the coordinates, `(k,)` |
    | | `size` | coordinates in all |

    Raises:
        InputError: mixtures of another number of angles than `index` has.

    References:
        Delon & Desolneux, A Wasserstein-type distance in the space of Gaussian mixture models, 2020,
        SIAM J. Imaging Sci. 13, 936 (transport between components); Albergo, Boffi & Vanden-Eijnden, Stochastic
        interpolants, 2023, arXiv:2303.08797.

    Example:
        >>> one, other = (WrappedMixture(torch.ones(1), m * torch.ones(1, 1), torch.ones(1, 1) / 25) for m in (3, -3))
        >>> fields = TorusFields(one, other, torch.tensor([0]), 2)
        >>> fields(torch.tensor([0.5]), torch.tensor([[torch.pi, 7.0]])).velocity  # the short way, across ±π
        tensor([[0.2832, 0.0000]])
    """

    weights: Tensor
    means: Tensor
    arcs: Tensor
    widths: Tensor
    index: Tensor

    def __init__(self, start: WrappedMixture, end: WrappedMixture, index: Tensor, size: int) -> None:
        super().__init__()
        if not start.means.shape[1] == end.means.shape[1] == len(index):
            raise InputError(
                f"mixtures and `index` must be of as many angles: got {start.means.shape[1]}, {end.means.shape[1]} and "
                f"{len(index)}"
            )
        arcs = torch.remainder(end.means - start.means[:, None] + math.pi, TURN) - math.pi
        plan = _plan(start.weights, end.weights, arcs.square().sum(-1))
        i, j = plan.nonzero(as_tuple=True)
        self.size = size
        self.register_buffer("weights", plan[i, j])
        self.register_buffer("means", start.means[i])
        self.register_buffer("arcs", arcs[i, j])
        self.register_buffer("widths", torch.stack([start.variances[i], end.variances[j]]).sqrt())
        self.register_buffer("index", index)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields."""
        time = t.to(x)[:, None, None]
        width, rate = self._width(time)
        deviation = x[:, None, self.index] - self.means.to(x) - time * self.arcs.to(x)
        log_p, mean, _ = image_moments(deviation, width.square())
        share = torch.softmax(self.weights.to(x).log() + log_p.sum(-1), 1)[..., None]
        velocity, score = torch.zeros_like(x), torch.zeros_like(x)
        velocity[:, self.index] = (share * (self.arcs.to(x) + rate / width * mean)).sum(1)
        score[:, self.index] = -(share * mean / width.square()).sum(1)
        return Evaluated(velocity, score)

    def variance(self, t: float | Float[Tensor, " n"]) -> Float[Tensor, "*n d"]:
        """Of a pair, on the average over pairs; zero where nothing moves: the scale of a good diffusion."""
        width, _ = self._width(torch.as_tensor(t).to(self.widths)[..., None, None])
        full = self.widths.new_zeros(*width.shape[:-2], self.size)
        full[..., self.index] = (self.weights[:, None] * width.square()).sum(-2)
        return full

    @property
    def interpolant(self) -> LinearInterpolant:
        """Between lifted pairs, with the noise that pairs have on the average."""
        noise = self.widths.new_zeros(self.size)
        noise[self.index] = (self.weights @ (2 * self.widths.prod(0))).sqrt()
        return LinearInterpolant(noise, strength=1.0)

    def lifted_pairs(
        self, x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "m d"], size: int, *, generator: torch.Generator
    ) -> tuple[Float[Tensor, "size d"], Float[Tensor, "size d"]]:
        """Samples of both ends that the plan pairs, angles lifted so that the straight line goes along its arc."""
        pair = torch.multinomial(self.weights.to(generator.device), size, replacement=True, generator=generator)
        ends = []
        for x, centres, widths in zip((x_a, x_b), (self.means, self.means + self.arcs), self.widths, strict=True):
            deviation = torch.remainder(x[:, None, self.index] - centres + math.pi, TURN) - math.pi
            log_p = image_moments(deviation, widths.square().expand_as(deviation))[0].sum(-1)
            share = torch.softmax(self.weights.log() + log_p, 1).clamp_min(1e-12)
            chosen = torch.multinomial(share.T[pair].to(generator.device), 1, generator=generator)[:, 0]
            lifted = x[chosen].clone()
            lifted[:, self.index] = centres[pair] + deviation[chosen, pair]
            ends.append(lifted)
        still = torch.ones(self.size, dtype=torch.bool)
        still[self.index] = False
        ends[1][:, still] = ends[0][:, still]
        return ends[0], ends[1]

    def _width(self, t: Tensor) -> tuple[Tensor, Tensor]:
        before, after = self.widths.to(t)
        return (1 - t) * before + t * after, after - before


def _plan(a: Tensor, b: Tensor, cost: Tensor) -> Tensor:
    """The optimal transport plan between two sets of weights, by linear programming."""
    import numpy as np
    from scipy.optimize import linprog

    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    sums = torch.cat([a / a.sum(), b / b.sum()]).double().cpu().numpy()
    found = linprog(
        cost.double().cpu().numpy().ravel(), A_eq=np.concatenate([rows, columns])[:-1], b_eq=sums[:-1], method="highs"
    )
    plan = torch.as_tensor(found.x).to(cost).view(n, m)
    return torch.where(plan > 1e-9, plan, 0.0)
