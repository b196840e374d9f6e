"""One denoiser for both fields of a one-sided interpolant."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.interpolants import Schedule
from nessampler.networks.drift import _trunk, time_features
from nessampler.networks.mlp import _zero_linear

__all__ = ["OneSidedFields"]


class OneSidedFields(nn.Module):
    r"""Fields from a Gaussian base plus *one* remainder r, that of the denoiser, in both.

    Of $I_t = \alpha\,(m + Lz) + \beta\,x_b$ with $L = \mathrm{diag}\,\sigma$, velocity and score are one unknown,

    $$b = \dot\alpha\,m + \frac{\dot\beta}{\beta}\,(x - \alpha m)
      + \alpha\,\frac{\alpha\dot\beta - \dot\alpha\beta}{\beta}\,\sigma^2 s ,$$

    so what a network adds to the score of a base that obeys this, it adds to its velocity. The score's remainder
    vanishes with $\beta$, since the base is exact at t = 0; as $\beta\,r/\sigma$ it leaves nothing to divide by:

    $$s + \frac{\beta\,r(t, x)}{\sigma}, \qquad b + \alpha\,(\alpha\dot\beta - \dot\alpha\beta)\,\sigma\,r(t, x) .$$

    | symbol | argument | |
    |---|---|---|
    | $b, s$ | `base` | such as `GaussianFields` of the same schedule, whose start is the base |
    | $\alpha, \beta$ | `schedule` | one-sided, such as `Linear(NoNoise())` |
    | $m, \sigma$ | `mean`, `scale` | `(d,)`: of the base; they normalise the network's inputs too |
    | | `width`, `depth`, `frequencies`, `generator` | as in `ResidualFields` |

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: shapes that differ, or a scale that is not positive.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 3.2; He et al., FEAT, 2025, arXiv:2504.11516 (one denoiser for absolute energies).

    Example:
        >>> from nessampler.interpolants import Linear, NoNoise
        >>> base, g = lambda t, x: Evaluated(0 * x, -x), torch.Generator().manual_seed(0)
        >>> fields = OneSidedFields(base, Linear(NoNoise()), torch.zeros(1), torch.ones(1), generator=g)
        >>> fields(torch.zeros(1), torch.ones(1, 1)).score
        tensor([[-1.]], grad_fn=<AddBackward0>)
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        base: Fields,
        schedule: Schedule,
        mean: Float[Tensor, " d"],
        scale: Float[Tensor, " d"],
        *,
        width: int = 128,
        depth: int = 3,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if mean.ndim != 1 or mean.shape != scale.shape or not bool((scale > 0).all()):
            raise InputError(
                f"mean and scale of a base must have one entry per coordinate, scales positive: got "
                f"{tuple(mean.shape)} and {tuple(scale.shape)}, {float(scale.min())} at least"
            )
        self.base, self.schedule, self.frequencies, self.evaluations = base, schedule, frequencies, 0
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.trunk = _trunk([len(mean), 2 * frequencies + 1], width, depth, generator)
        self.head = _zero_linear(width, len(mean))

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields."""
        self.evaluations += len(x)
        base, scale, at = self.base(t, x), self.scale.to(x), self.schedule(t.to(x).unsqueeze(-1))
        if base.velocity is None:
            raise InputError("the base of a residual network must have a velocity: got None; use zeros")
        features = [(x - self.mean.to(x)) / scale, time_features(t.to(x), self.frequencies)]
        found = self.head(self.trunk(torch.cat(features, -1).to(self.head.weight.dtype))).to(x)
        turning = at.alpha * (at.alpha * at.beta_rate - at.alpha_rate * at.beta)
        return Evaluated(base.velocity + turning * scale * found, base.score + at.beta * found / scale)
