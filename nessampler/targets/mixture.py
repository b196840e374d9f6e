"""Gaussian mixtures: normalised, exactly sampled, with score and Laplacian in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["GaussianMixture", "gmm_40", "random_mixture"]

NEGLIGIBLE = -200.0  # log of a share
CHUNK = 2**16
"""Numbers per intermediate array: walkers are taken so many at a time that memory is bounded and caches are used."""


class GaussianMixture:
    r"""A normalised mixture of Gaussians with independent coordinates; $\log Z = 0$.

    $$U(x) = -\log \sum_k w_k \prod_i \mathcal N(x_i; \mu_{ki}, \sigma_{ki}^2)$$

    With the responsibilities $r_k(x)$ and the scores $s_k = (\mu_k - x)/\sigma_k^2$ of the components,

    $$-\nabla U = \sum_k r_k s_k, \qquad
      \nabla^2 U = \Big|\sum_k r_k s_k\Big|^2 - \sum_k r_k \Big(|s_k|^2 - \sum_i \sigma_{ki}^{-2}\Big).$$

    | symbol | argument | |
    |---|---|---|
    | $\mu$ | `means` | `(m, d)`; draws have its dtype |
    | $\sigma > 0$ | `scales` | `(m,)` or `(m, d)` |
    | $w > 0$ | `weights` | `(m,)`, normalised here; uniform where None |

    Squares are expanded, so that an evaluation is a few matrix products, in float64 whatever the walkers' dtype; the
    rounding of U is about $10^{-16} |x - \bar\mu|^2/\sigma^2$. Every method can be differentiated any number of times.

    Raises:
        InputError: shapes that do not belong together, a scale or weight that is not positive, a mean that is not
            finite.

    Example:
        >>> mixture = GaussianMixture(torch.tensor([[-3.0], [3.0]]), torch.ones(2), torch.tensor([1.0, 3.0]))
        >>> mixture.modes(torch.tensor([[-2.0], [2.5]])).tolist()
        [0, 1]
        >>> mixture.energy(torch.zeros(1, 1)) - 0.5 * math.log(2 * math.pi)
        tensor([4.5000])
    """

    def __init__(
        self,
        means: Float[Tensor, "m d"],
        scales: Float[Tensor, " m"] | Float[Tensor, "m d"],
        weights: Float[Tensor, " m"] | None = None,
    ) -> None:
        weights = torch.ones(len(means), dtype=torch.float64, device=means.device) if weights is None else weights
        if means.ndim != 2 or scales.shape not in (means.shape, means.shape[:1]) or weights.shape != means.shape[:1]:
            raise InputError(
                "a mixture needs means (m, d), scales (m,) or (m, d) and weights (m,): got "
                f"{tuple(means.shape)}, {tuple(scales.shape)} and {tuple(weights.shape)}"
            )
        if not bool((scales > 0).all() & (weights > 0).all() & torch.isfinite(means).all()):
            raise InputError(
                "a mixture needs finite means, positive scales and positive weights: "
                f"got a scale of {float(scales.min())} and a weight of {float(weights.min())} at least; "
                "leave out a component without weight"
            )
        self.means = means
        self.scales = (scales if scales.ndim == 2 else scales[:, None]).expand_as(means)
        self.weights = weights / weights.sum()
        self.event_shape = means.shape[1:]
        self.log_z = 0.0
        # About the centre, so that the expanded squares cancel as few digits as they can.
        self._center = means.double().mean(0)
        mu, self._precision = means.double() - self._center, self.scales.double().pow(-2)
        self._pull = mu * self._precision
        self._offset = (
            torch.log(weights.double() / weights.double().sum())
            + 0.5 * torch.log(self._precision / (2 * math.pi)).sum(-1)
            - 0.5 * (mu * self._pull).sum(-1)
        )

    def energy(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """U in kT."""
        return torch.cat([-_shares(logits)[0] for _, logits in self._chunks(x)]).to(x)

    def energy_and_score(self, x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n d"]]:
        """U and -∇U."""
        _, precision, pull, _ = self._parameters(x)
        energies, scores = [], []
        for y, logits in self._chunks(x):
            log_p, r = _shares(logits)
            energies.append(-log_p.to(x))
            scores.append((r @ pull - y * (r @ precision)).to(x))
        return torch.cat(energies), torch.cat(scores)

    def laplacian(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The sum of the second derivatives of U."""
        _, precision, pull, _ = self._parameters(x)
        constant = pull.square().sum(-1) - precision.sum(-1)
        values = []
        for y, logits in self._chunks(x):
            _, r = _shares(logits)
            score = r @ pull - y * (r @ precision)
            squares = constant - 2 * y @ (pull * precision).mT + y.square() @ precision.square().mT
            values.append((score.square().sum(-1) - (r * squares).sum(-1)).to(x))
        return torch.cat(values)

    def modes(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """Index of the component with the largest responsibility: which mode a walker sits in."""
        return torch.cat([logits.argmax(-1) for _, logits in self._chunks(x)])

    def sample(self, n: int, *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """Independent draws, in the dtype of the means."""
        device, dtype = generator.device, self.means.dtype
        chosen = torch.multinomial(self.weights.to(device), max(n, 1), replacement=True, generator=generator)[:n]
        noise = torch.randn(n, *self.event_shape, generator=generator, dtype=dtype, device=device)
        return torch.addcmul(self.means.to(device)[chosen], self.scales.to(noise)[chosen], noise)

    def _parameters(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(v.to(x.device) for v in (self._center, self._precision, self._pull, self._offset))

    def _chunks(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Centred walkers (c, d) and their log w_k N(x; μ_k, σ_k) (c, m), a chunk at a time."""
        center, precision, pull, offset = self._parameters(x)
        for part in x.split(max(1, CHUNK // max(self.means.shape))):
            y = part.double() - center
            yield y, offset + y @ pull.mT - 0.5 * y.square() @ precision.mT


def _shares(logits: Tensor) -> tuple[Tensor, Tensor]:
    """log Σ exp and softmax, over the last dimension.

    Terms below e^-200 of the largest are taken as that, which no sum notices: exponentials that underflow take many
    times as long as others, and far from all but one mode most of them would.
    """
    largest = logits.detach().amax(-1, keepdim=True)
    below = logits - largest
    parts = below.clamp(min=NEGLIGIBLE).exp() if below.requires_grad else below.clamp_(min=NEGLIGIBLE).exp_()
    total = parts.sum(-1, keepdim=True)
    log_sum = torch.where(largest == -torch.inf, largest, largest + total.log())  # where no component has density
    return log_sum[..., 0], parts / total


def gmm_40() -> GaussianMixture:
    r"""The 40-mode mixture in the plane on which learned samplers are compared.

    Means uniform in $(-40, 40)^2$, drawn by torch's generator from seed 0 in float32; scale
    $\log(1 + e) = 1.3133$; equal weights.

    References:
        Midgley et al., Flow Annealed Importance Sampling Bootstrap, 2022, arXiv:2208.01893; the means are those of
        its public code.

    Example:
        >>> gmm_40().means[0]
        tensor([-0.2995, 21.4577], dtype=torch.float64)
    """
    uniform = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    means = ((uniform - 0.5) * 2 * 40).double()  # the published draw, rounded as it was
    return GaussianMixture(means, torch.full((40,), math.log1p(math.e), dtype=torch.float64))


def random_mixture(modes: int, dimension: int, *, scale: float, spread: float, seed: int) -> GaussianMixture:
    r"""Equal components of one scale, with means uniform in $(-\text{spread}, \text{spread})^d$; float64.

    Args:
        modes: number of components.
        dimension: d.
        scale: standard deviation of every component along every coordinate.
        spread: half the side of the cube of means.
        seed: of the means.

    Raises:
        InputError: a count below one, a scale that is not positive.

    Example:
        >>> random_mixture(8, 50, scale=1.0, spread=10.0, seed=1).means.shape
        torch.Size([8, 50])
    """
    if modes < 1 or dimension < 1:
        raise InputError(f"a mixture needs at least one mode and one dimension: got {modes} and {dimension}")
    uniform = torch.rand(modes, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return GaussianMixture(spread * (2 * uniform - 1), torch.full((modes,), float(scale), dtype=torch.float64))
