"""Velocity and score of the linear interpolant between two Gaussian mixtures, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.closed_form.component_pairs import ComponentPairs
from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.interpolants import LinearInterpolant

__all__ = ["MixtureFields"]

CHUNK = 2**18
"""Numbers per intermediate array: walkers are taken so many at a time that memory is bounded and caches are used."""
IMAGES = (-1.0, 0.0, 1.0)
"""Turns by which a component on a circle is repeated; it must be narrow beside the circle."""


class MixtureFields(nn.Module):
    r"""Fields of $I_t$ between two mixtures whose components go together in pairs.

    Given its pair $p = (i, j)$, drawn with probability $\pi_p$, $I_t$ is Gaussian:

    $$m_p = \mu_i + t\,(\nu_j - \mu_i), \qquad V_p = (1-t)^2\Sigma_i + t^2\Sigma_j + \gamma^2\Sigma_z, \qquad
      C_p = -(1-t)\Sigma_i + t\Sigma_j + \gamma\dot\gamma\Sigma_z$$

    so that $I_t$ is a mixture over the pairs at every t, and its fields are averages over the posterior $r_p(t, x)
    \propto \pi_p\,\mathcal N(x; m_p, V_p)$:

    $$b = \sum_p r_p\,[\nu_j - \mu_i + C_p V_p^{-1}(x - m_p)], \qquad s = -\sum_p r_p V_p^{-1}(x - m_p)$$

    | symbol | argument | |
    |---|---|---|
    | $\pi, \mu, \nu - \mu, \Sigma_i, \Sigma_j$ | `pairs` | see `ComponentPairs` |
    | $\Sigma_z$ | `noise` | `(d,)` or `(d, d)`: the mean covariance of the components of both ends where None |
    | $c$ | `strength` | $\gamma^2 = c\,t(1-t)$ |

    Circular coordinates see the images of every component one turn away, so that the fields have period 2π. Computed in
    float64 whatever the walkers' dtype, with $p\,d$ operations a walker, or $p\,d^2$ where components are correlated.
    The module has buffers only.

    Raises:
        InputError: noise of another shape, or a strength that is not positive.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 2 and appendix A (mixtures).

    Example:
        >>> from nessampler.closed_form.component_pairs import pair_components
        >>> from nessampler.targets.mixture import GaussianMixture
        >>> a = GaussianMixture(torch.tensor([[-9.0], [9.0]]), torch.ones(2))
        >>> b = GaussianMixture(torch.tensor([[-7.0], [11.0]]), torch.ones(2))
        >>> MixtureFields(pair_components(a, b))(torch.tensor([0.0]), torch.tensor([[8.0]]))
        Evaluated(velocity=tensor([[2.5000]]), score=tensor([[1.]]), energy=None)
    """

    weight: Tensor
    mean_a: Tensor
    travel: Tensor
    covariance_a: Tensor
    covariance_b: Tensor
    noise: Tensor
    circular: Tensor

    def __init__(
        self,
        pairs: ComponentPairs,
        *,
        noise: Float[Tensor, " d"] | Float[Tensor, "d d"] | None = None,
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        ends = pairs.covariance_a, pairs.covariance_b
        if noise is None:
            noise = sum(
                (torch.einsum("p,p...->...", pairs.weight, 0.5 * end) for end in ends), torch.zeros(()).to(ends[0])
            )
        if noise.shape != ends[0].shape[1:]:
            raise InputError(
                f"noise must be shaped like the covariance of a component, {tuple(ends[0].shape[1:])}: "
                f"got {tuple(noise.shape)}"
            )
        if not 0 < strength < float("inf"):
            raise InputError(f"strength must be positive: got {strength}; 1.0 suits most ends")
        self.strength = strength
        for name, value in vars(pairs).items():
            self.register_buffer(name, value.clone())
        self.register_buffer("noise", noise.to(ends[0]))

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields."""
        _, velocity, score = zip(*self._parts(t, x), strict=True)
        return Evaluated(torch.cat(velocity).to(x), torch.cat(score).to(x))

    def energy(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Minus the logarithm of the density of $I_t$, which is normalised."""
        return -torch.cat([torch.logsumexp(log_p, -1) for log_p, _, _ in self._parts(t, x)]).to(x)

    def log_posterior(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Float[Tensor, "n pairs"]:
        r"""$\log r_p(t, x)$, float64: which pair a walker belongs to."""
        return torch.cat([torch.log_softmax(log_p, -1) for log_p, _, _ in self._parts(t, x)])

    def sample(self, t: float, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws of $I_t$, in float64."""
        at = self._at(torch.tensor([t], dtype=torch.float64, device=self.travel.device))
        pair = torch.multinomial(self.weight.to(generator.device), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.travel.shape[1], generator=generator, dtype=torch.float64, device=generator.device)
        pair, noise = pair.to(self.travel.device), noise.to(self.travel.device)
        if self.noise.ndim == 1:
            return at.mean[0, pair] + at.variance[0, pair].sqrt() * noise
        factor = torch.linalg.cholesky(at.variance[0])
        return at.mean[0, pair] + torch.einsum("nij,nj->ni", factor[pair], noise)

    def variance(self, t: float | Float[Tensor, " n"]) -> Float[Tensor, "*n d"]:
        r"""Geometric mean over the pairs of the diagonal of $V_p$, `(d,)` for a number and `(n, d)` for times.

        The scale of a good diffusion: the spread within components, not that between them.
        """
        time = torch.as_tensor(t, dtype=self.travel.dtype, device=self.travel.device)
        v = self._variances(time.reshape(-1))
        v = v if self.noise.ndim == 1 else v.diagonal(dim1=-2, dim2=-1)
        return torch.einsum("p,tpd->td", self.weight, v.log()).exp().view(*time.shape, -1)

    @property
    def interpolant(self) -> LinearInterpolant:
        """The interpolant whose noise this is, for samples of both ends that are paired as the components are."""
        factor = self.noise.sqrt() if self.noise.ndim == 1 else torch.linalg.cholesky(self.noise)
        return LinearInterpolant(factor, self.strength)

    def targets(
        self,
        t: Float[Tensor, " n"],
        x: Float[Tensor, "n d"],
        x_a: Float[Tensor, "n d"],
        x_b: Float[Tensor, "n d"],
        score_a: Float[Tensor, "n d"],
        score_b: Float[Tensor, "n d"],
    ) -> Evaluated:
        r"""Regression targets for velocity and score at $x = I_t$, bounded at both ends.

        `GaussianFields.targets` for every pair, averaged over the pairs that $x_a$ and $x_b$ may belong to:

        $$T_b = \sum_p q_p\,\{b_p(x) - \Sigma_i[1 + k_p(1-t)]\,r_a + \Sigma_j[1 - k_p t]\,r_b\}, \qquad
          T_s = \sum_p q_p\,\Big\{s_p(x) + \frac{(1-t)\,\Sigma_i r_a + t\,\Sigma_j r_b}{V_p}\Big\}$$

        with $q_p \propto \pi_p\,\mathcal N(x_a; \mu_i, \Sigma_i)\,\mathcal N(x_b; \nu_j, \Sigma_j)$,
        $k_p = C_p/V_p$, and
        $r$ what the score of an end has beyond that of its *mixture*. Their conditional means are the exact fields
        between the true ends, paired with density $\rho_A \rho_B\, g$, $g = \sum_p \pi_p \mathcal N_i \mathcal N_j /
        \hat\rho_A \hat\rho_B$ (`pairing`). An independent plan has $g = 1$: then pairs may be drawn at random. For
        ends that are the mixtures what noise is left is the choice between pairs: nothing where these are apart.

        Raises:
            InputError: circular or correlated coordinates.
        """
        if self.noise.ndim == 2 or bool(self.circular.any()):
            raise InputError(
                "regression targets are for mixtures of independent coordinates that are not circular: got others; "
                "fit with kinds=('diagonal',)"
            )
        at, (q, (hat_a, hat_b)) = self._at(t.double()), self._belonging(x_a.double(), x_b.double())
        k, time = at.rate / at.variance, t.double().view(-1, 1, 1)
        r_a, r_b = (score_a.double() - hat_a)[:, None], (score_b.double() - hat_b)[:, None]
        deviation = x.double()[:, None] - at.mean
        pushed_a, pushed_b = self.covariance_a * r_a, self.covariance_b * r_b
        velocity = self.travel + k * deviation - (1 + k * (1 - time)) * pushed_a + (1 - k * time) * pushed_b
        score = ((1 - time) * pushed_a + time * pushed_b - deviation) / at.variance
        mean = [(q[..., None] * value).sum(1).to(x) for value in (velocity, score)]
        return Evaluated(*mean)

    def pairing(self, x_a: Float[Tensor, "n d"], x_b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        r"""$g(x_a, x_b)$: how much likelier the plan is than chance to pair these samples, float64."""
        (log_a, log_b), zero = self._components(x_a.double(), x_b.double()), self.weight.log()
        both = torch.logsumexp(log_a + log_b + zero, 1)
        return torch.exp(both - torch.logsumexp(log_a + zero, 1) - torch.logsumexp(log_b + zero, 1))

    def _belonging(self, x_a: Tensor, x_b: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The posterior of the pairs given both ends, and the scores of both mixtures."""
        log_a, log_b = self._components(x_a, x_b)
        q = torch.softmax(log_a + log_b + self.weight.log(), 1)
        zeros, ones = torch.zeros(len(x_a)).to(x_a), torch.ones(len(x_b)).to(x_b)
        return q, (self(zeros, x_a).score, self(ones, x_b).score)

    def _components(self, x_a: Tensor, x_b: Tensor) -> tuple[Tensor, Tensor]:
        """log N of the pairs' components at both ends, (n, p) each."""
        found = []
        for x, mean, v in ((x_a, self.mean_a, self.covariance_a), (x_b, self.mean_a + self.travel, self.covariance_b)):
            square = (x[:, None] - mean).square() / v
            found.append(-0.5 * (square + (2 * math.pi * v).log()).sum(-1))
        return found[0], found[1]

    def _parts(self, t: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Log-densities of the pairs, velocities and scores, some walkers at a time."""
        t, x, method = t.double(), x.double(), self._method()
        together = len(t) > 0 and bool((t == t[0]).all())
        size = max(1, CHUNK // self.travel.numel())
        for time, rows in zip(t.split(size), x.split(size), strict=True):
            # Walkers of one time are columns of one product; those of many times have products of their own.
            at = self._at(time[:1] if together else time)
            found = method(at, rows[None] if together else rows[:, None])
            yield tuple(value.flatten(0, 1) for value in found)  # pyright: ignore[reportReturnType]

    def _method(self) -> Callable[[_At, Tensor], tuple[Tensor, Tensor, Tensor]]:
        if self.noise.ndim == 2:
            return _correlated
        return _independent if not bool(self.circular.any()) else self._around

    def _at(self, t: Tensor) -> _At:
        time = t.view(-1, 1, 1)
        shaped = time if self.noise.ndim == 1 else time[..., None]
        bend = 0.5 * self.strength * (1 - 2 * shaped) * self.noise
        return _At(
            self.weight.log(),
            self.mean_a + time * self.travel,
            self.travel,
            self._variances(t),
            shaped * self.covariance_b - (1 - shaped) * self.covariance_a + bend,
        )

    def _variances(self, t: Tensor) -> Tensor:
        time = t.view(-1, *[1] * self.covariance_a.ndim)
        noise = self.strength * time * (1 - time) * self.noise
        return (1 - time) ** 2 * self.covariance_a + time**2 * self.covariance_b + noise

    def _around(self, at: _At, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Independent coordinates, the circular ones with images."""
        deviation = x[:, :, None] - at.mean[:, None]
        turned = torch.remainder(deviation + torch.pi, 2 * torch.pi) - torch.pi
        images = torch.where(self.circular, turned, deviation)[..., None] + 2 * torch.pi * torch.tensor(IMAGES).to(x)
        log_image = -0.5 * images.square() / at.variance[:, None, ..., None]
        # The straight coordinates have their middle image alone.
        log_image = torch.where(self.circular[:, None] | (torch.tensor(IMAGES).to(x) == 0), log_image, -torch.inf)
        mean_image = (torch.softmax(log_image, -1) * images).sum(-1)
        log_p = (torch.logsumexp(log_image, -1) - 0.5 * (2 * torch.pi * at.variance[:, None]).log()).sum(-1)
        log_p = at.log_weight + log_p
        r = torch.softmax(log_p, -1)[..., None]
        pull = mean_image / at.variance[:, None]
        velocity = (r * (at.travel + at.rate[:, None] * pull)).sum(-2)
        return log_p, velocity, -(r * pull).sum(-2)


class _At(NamedTuple):
    """The pairs at one time or more: one more axis than in `ComponentPairs`, that of the times."""

    log_weight: Tensor
    mean: Tensor
    travel: Tensor
    variance: Tensor
    rate: Tensor


def _independent(at: _At, x: Float[Tensor, "t m d"]) -> tuple[Tensor, Tensor, Tensor]:
    """Squares are expanded, so that an evaluation is a few matrix products."""
    center = at.mean.mean((0, 1))
    y, mean = x - center, at.mean - center
    precision = 1 / at.variance
    pull, gain = mean * precision, at.rate * precision
    offset = at.log_weight - 0.5 * (mean * pull + (2 * torch.pi * at.variance).log()).sum(-1)
    log_p = offset[:, None] + y @ pull.mT - 0.5 * y.square() @ precision.mT
    r = torch.softmax(log_p, -1)
    velocity = r @ (at.travel - gain * mean) + y * (r @ gain)
    return log_p, velocity, r @ pull - y * (r @ precision)


def _correlated(at: _At, x: Float[Tensor, "t m d"]) -> tuple[Tensor, Tensor, Tensor]:
    """One Cholesky factor per pair and time, two triangular solves per pair and walker."""
    factor = torch.linalg.cholesky(at.variance)
    deviation = (x[:, None] - at.mean[:, :, None]).mT  # (t, p, d, m)
    white = torch.linalg.solve_triangular(factor, deviation, upper=False)
    pull = torch.linalg.solve_triangular(factor.mT, white, upper=True)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + 0.5 * x.shape[-1] * math.log(2 * math.pi)
    log_p = (at.log_weight - log_det)[..., None] - 0.5 * white.square().sum(-2)  # (t, p, m)
    r = torch.softmax(log_p, 1)[:, :, None]
    velocity = (r * (at.travel[:, :, None] + at.rate @ pull)).sum(1).mT
    return log_p.mT, velocity, -(r * pull).sum(1).mT
