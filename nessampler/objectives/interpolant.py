"""Regressions whose minimisers are the velocity and score of a stochastic interpolant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.closed_form.gaussian_interpolant import GaussianFields
from nessampler.closed_form.mixture_interpolant import MixtureFields
from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.interpolants import Interpolant

__all__ = ["InterpolantObjective", "PairBatch", "Weights"]

_VELOCITY, _SCORE = 0, 1


class PairBatch(NamedTuple):
    r"""Pairs of end samples, a time and a latent noise each; scores where known, and only of independent pairs.

    Matching the ends' scores integrates by parts against $\rho_a(x_a)\,\rho_b(x_b)$, which is not the density of
    pairs that were coupled.

    Example:
        >>> x = torch.ones(1, 2)
        >>> both = PairBatch(x, 2 * x, None, None, torch.tensor([0.5]), x).antithetic()
        >>> both.x_b.shape, both.z
        (torch.Size([2, 2]), tensor([[ 1.,  1.],
                [-1., -1.]]))
    """

    x_a: Float[Tensor, "n d"]
    x_b: Float[Tensor, "n d"]
    score_a: Float[Tensor, "n d"] | None
    score_b: Float[Tensor, "n d"] | None
    t: Float[Tensor, " n"]
    z: Float[Tensor, "n d"]

    def antithetic(self) -> PairBatch:
        """Every row with its noise, then every row with the opposite noise."""
        score_a, score_b = (s if s is None else torch.cat([s, s]) for s in (self.score_a, self.score_b))
        x_a, x_b, t = (torch.cat([v, v]) for v in (self.x_a, self.x_b, self.t))
        return PairBatch(x_a, x_b, score_a, score_b, t, torch.cat([self.z, -self.z]))


@dataclass(frozen=True)
class Weights:
    """How much each term of `InterpolantObjective` counts; a term of weight zero is not computed.

    Example:
        >>> plain = Weights(velocity=1.0, denoising=1.0, controlled_velocity=0.0, controlled_score=0.0)
        >>> base = GaussianFields(torch.zeros(1), torch.ones(1), torch.eye(1), torch.eye(1))
        >>> objective = InterpolantObjective(base, base.interpolant, base.variance, weights=plain)
        >>> x, t = torch.zeros(2, 1), torch.tensor([0.2, 0.7])
        >>> objective(PairBatch(x, x + 1, None, None, t, x)).isfinite()  # needs no scores of the ends
        tensor(True)
    """

    velocity: float = 0.0
    denoising: float = 0.0
    target_score: float = 0.0
    controlled_velocity: float = 1.0
    controlled_score: float = 1.0


class InterpolantObjective(nn.Module):
    r"""Weighted sum of regressions on pairs $\pm z$, per coordinate in units of the path's variance $V$.

    | term of `weights` | regression | needs independent pairs and |
    |---|---|---|
    | `velocity` | $E\,\lvert b - \dot I_t\rvert^2_{1/V}$ | |
    | `denoising` | $E\,\lvert\gamma s + L^{-T}z\rvert^2_{V}$ | |
    | `target_score` | $E\,\lvert s - T\rvert^2_V$, $T = s_a/\alpha$ where $\alpha > \beta$, else $s_b/\beta$ | scores |
    | `controlled_velocity` | $E\,\lvert b - T_b\rvert^2_{1/V}$, see `GaussianFields.targets` | scores, `control` |
    | `controlled_score` | $E\,\lvert s - T_s\rvert^2_V$ | scores, `control` |

    Nothing is divided by $\gamma$ but $\dot\gamma$, which cancels between $\pm z$. Of each $\lvert f - T\rvert^2$ only
    $\lvert f\rvert^2 - 2 f\cdot T$ is averaged, less the same for `reference`: the gradient is the same, the constant
    (infinite for the velocity) is gone, and the value is negative where the fields beat the reference.

    Args:
        fields: velocity and score in training.
        interpolant: $I_t$; that of `control` where one is given.
        variance: $V$ as a function of times `(n,)`, `(n, d)`; coordinates of zero variance do not count.
        weights: of the terms.
        control: Gaussians, or mixtures of them, whose fields make the targets less noisy.
        reference: fields to compare with, such as the base of a residual network.

    Raises:
        InputError: a term without what it needs, or weights that are all zero or negative.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants, 2023, arXiv:2303.08797, section 2 (velocity and
        denoiser); De Bortoli et al., Target score matching, 2024, arXiv:2402.08667; He et al., FEAT: Free energy
        Estimators with Adaptive Transport, 2025, arXiv:2504.11516.

    Example:
        >>> base = GaussianFields(torch.zeros(1), torch.ones(1), torch.eye(1), torch.eye(1))
        >>> objective = InterpolantObjective(base, base.interpolant, base.variance, control=base, reference=base)
        >>> x, t = torch.zeros(2, 1), torch.tensor([0.2, 0.7])
        >>> float(objective(PairBatch(x, x + 1, -x, -x, t, x)))
        0.0
    """

    def __init__(
        self,
        fields: Fields,
        interpolant: Interpolant,
        variance: Callable[[Tensor], Tensor],
        *,
        weights: Weights = Weights(),
        control: GaussianFields | MixtureFields | None = None,
        reference: Fields | None = None,
    ) -> None:
        super().__init__()
        values = list(vars(weights).values())
        if min(values) < 0 or max(values) <= 0:
            raise InputError(f"weights must not be negative nor all zero: got {weights}")
        if control is None and max(weights.controlled_velocity, weights.controlled_score) > 0:
            raise InputError("controlled terms need `control`, Gaussian fields fitted to the ends: got None")
        self.fields, self.interpolant, self.variance, self.weights = fields, interpolant, variance, weights
        self.control, self.reference = control, reference

    def forward(self, batch: PairBatch) -> Float[Tensor, ""]:
        """The loss of a batch."""
        double = self._with_first_end(batch.antithetic())
        x = self.interpolant.position(double.t, double.x_a, double.x_b, double.z)
        here, guess = _both(self.fields(double.t, x)), (0.0, 0.0)
        if self.reference is not None:
            with torch.no_grad():
                guess = _both(self.reference(double.t, x))
        total = x.new_zeros(())
        variance = self.variance(double.t).to(x)
        per_variance = torch.where(variance > 0, 1 / torch.where(variance > 0, variance, 1.0), 0.0)
        metric = (per_variance, variance)
        for weight, of, factor, target in self._targets(double, x):
            excess = factor * (here[of] - guess[of]) * (factor * (here[of] + guess[of]) - 2 * target)
            total = total + weight * (excess * metric[of]).sum(-1).mean()
        return total

    def _with_first_end(self, batch: PairBatch) -> PairBatch:
        """One-sided, the noise is the sample of A, and its score is known."""
        if not hasattr(self.interpolant, "first_end"):
            return batch
        x_a, score_a = self.interpolant.first_end(batch.z)  # pyright: ignore[reportAttributeAccessIssue]
        return batch._replace(x_a=x_a, score_a=score_a)

    def _ends(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self.interpolant, "ends"):
            raise InputError(
                f"the ends' scores say nothing about a {type(self.interpolant).__name__}, which has no `ends`; "
                "use velocity and denoising only"
            )
        return self.interpolant.ends(t)  # pyright: ignore[reportAttributeAccessIssue]

    def _targets(self, batch: PairBatch, x: Tensor) -> list[tuple[float, int, Tensor | float, Tensor]]:
        """Weight, which field, factor on the field, and target of every term that counts."""
        weights, t, found = self.weights, batch.t, []
        if weights.velocity > 0:
            target = self.interpolant.velocity(t, batch.x_a, batch.x_b, batch.z)
            found.append((weights.velocity, _VELOCITY, 1.0, target))
        if weights.denoising > 0:
            gamma = self.interpolant.gamma(t).unsqueeze(-1)
            found.append((weights.denoising, _SCORE, gamma, self.interpolant.noise_score(batch.z)))
        if weights.target_score > 0:
            score_a, score_b = _scores(batch)
            alpha, beta = (v.unsqueeze(-1) for v in self._ends(t))
            first = alpha > beta
            target = torch.where(first, score_a, score_b) / torch.where(first, alpha, beta)
            found.append((weights.target_score, _SCORE, 1.0, target))
        if self.control is not None and max(weights.controlled_velocity, weights.controlled_score) > 0:
            velocity, score = _both(self.control.targets(t, x, batch.x_a, batch.x_b, *_scores(batch)))
            found.append((weights.controlled_velocity, _VELOCITY, 1.0, velocity))
            found.append((weights.controlled_score, _SCORE, 1.0, score))
        return found


def _both(fields: Evaluated) -> tuple[Tensor, Tensor]:
    if fields.velocity is None:
        raise InputError("an interpolant's fields have a velocity: got None; return zeros to start from none")
    return fields.velocity, fields.score


def _scores(batch: PairBatch) -> tuple[Tensor, Tensor]:
    if batch.score_a is None or batch.score_b is None:
        raise InputError(
            "target-score and controlled terms need the score of every end sample: got none; "
            "pass them to `pairs`, without a coupling, or use velocity and denoising only"
        )
    return batch.score_a, batch.score_b
