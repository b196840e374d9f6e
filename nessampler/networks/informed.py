"""A residual network that sees where the two ends would push a walker."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.networks.drift import _trunk, time_features
from nessampler.networks.mlp import _zero_linear
from nessampler.targets import Target, energy_and_score

__all__ = ["InformedFields"]


class InformedFields(nn.Module):
    r"""Fields plus a remainder that knows the scores of both ends at x:

    $$b + \sigma\,(r_b + g_b^a \odot \hat s_a + g_b^b \odot \hat s_b), \qquad
      s + (r_s + g_s^a \odot \hat s_a + g_s^b \odot \hat s_b)/\sigma, \qquad
      \hat s = \operatorname{arsinh}(\sigma\, s(x))$$

    $r$ and the gains $g$ are heads of one trunk whose inputs are $(x - \mu)/\sigma$, t, its Fourier features and both
    $\hat s$; all heads start at zero. What is stiff in the ends need not be learned, it is asked for. Each call costs a
    gradient of either end beside the network, so it has to save more than it costs. Scores enter as numbers: no
    gradient flows into the targets.

    | symbol | argument | |
    |---|---|---|
    | $b, s$ | `base` | fields with a velocity |
    | $s_a, s_b$ | `start`, `end` | the two ends, in the coordinates of x |
    | $\mu, \sigma$ | `center`, `scale` | `(d,)` |
    | | `width`, `depth`, `frequencies`, `generator` | as in `ResidualFields` |

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state. Gradients are counted by the targets.
        remember: of how many batches the ends' scores are kept, so that one seen again costs no gradients: training
            on a few batches in turn needs as many gradients as they have rows, whatever its length.

    Raises:
        InputError: shapes that differ, or a scale that is not positive.

    References:
        Zhang & Chen, Path integral sampler, 2021, arXiv:2111.15141 (the gradient as an input and behind a gain);
        arsinh tames what a steep wall would make of it.

    Example:
        >>> from nessampler.targets import Gaussian
        >>> a, b = Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1))
        >>> base, g = lambda t, x: Evaluated(torch.ones_like(x), -x), torch.Generator().manual_seed(0)
        >>> fields = InformedFields(base, a, b, center=torch.zeros(1), scale=torch.ones(1), generator=g)
        >>> fields(torch.zeros(1), torch.tensor([[2.0]])).score
        tensor([[-2.]], grad_fn=<AddBackward0>)
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        base: Fields,
        start: Target,
        end: Target,
        *,
        center: Float[Tensor, " d"],
        scale: Float[Tensor, " d"],
        width: int = 128,
        depth: int = 3,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if center.ndim != 1 or center.shape != scale.shape or not bool((scale > 0).all()):
            raise InputError(
                f"center and scale must have one entry per coordinate, scales positive: got {tuple(center.shape)} and "
                f"{tuple(scale.shape)}, {float(scale.min())} at least"
            )
        self.base, self.start, self.end = base, start, end
        self.frequencies, self.evaluations, d = frequencies, 0, len(center)
        self.remember, self._seen = 0, []
        self.register_buffer("center", center.clone())
        self.register_buffer("scale", scale.clone())
        self.trunk = _trunk([3 * d, 2 * frequencies + 1], width, depth, generator)
        self.velocity_head, self.score_head = _zero_linear(width, 3 * d), _zero_linear(width, 3 * d)

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields."""
        self.evaluations += len(x)
        base, scale = self.base(t, x), self.scale.to(x)
        if base.velocity is None:
            raise InputError("the base of a residual network must have a velocity: got None; use zeros")
        pulls = self._pulls(x.detach())
        hidden = self.trunk(self._features(t, x, pulls).to(self.velocity_head.weight.dtype))
        velocity, score = (_gained(head(hidden).to(x), pulls) for head in (self.velocity_head, self.score_head))
        return Evaluated(base.velocity + velocity * scale, base.score + score / scale)

    def _pulls(self, x: Tensor) -> list[Tensor]:
        """Compressed scores of both ends, from memory where these walkers were seen."""
        for seen, pulls in self._seen:
            if torch.equal(seen, x):
                return pulls
        scale = self.scale.to(x)
        pulls = [_compressed(energy_and_score(end, x)[1], scale) for end in (self.start, self.end)]
        self._seen = [*self._seen, (x, pulls)][-self.remember :] if self.remember else []
        return pulls

    def _features(self, t: Tensor, x: Tensor, pulls: list[Tensor]) -> Tensor:
        standard = (x - self.center.to(x)) / self.scale.to(x)
        return torch.cat([standard, *pulls, time_features(t.to(x), self.frequencies)], -1)


def _compressed(score: Tensor, scale: Tensor) -> Tensor:
    return torch.asinh(scale * score).nan_to_num(nan=0.0)  # beyond a support there is no score to know


def _gained(out: Tensor, pulls: list[Tensor]) -> Tensor:
    remainder, of_a, of_b = out.chunk(3, -1)
    return remainder + of_a * pulls[0] + of_b * pulls[1]
