"""A network that predicts the noise, as the fields that a kernel asks for."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from nessampler.errors import InputError
from nessampler.fields import Evaluated
from nessampler.interpolants import Interpolant

__all__ = ["DenoiserFields"]


class DenoiserFields(nn.Module):
    r"""Velocity and score from a velocity and a denoiser, $\eta(t, x) = E[z | I_t = x]$:

    $$s(t, x) = -\frac{L^{-T}\,\eta(t, x)}{\gamma(t)}$$

    η is of order one at all times, and so is the loss of the `denoising` term of `InterpolantObjective`, in which
    $\gamma s = -L^{-T}\eta$. Where γ vanishes so does η, and their ratio is lost: within `margin` of either end the
    fields are those at `margin`. The weights do not mind. (`ResidualFields` on closed-form fields needs no such margin:
    its remainder of the score is regular, and is to be preferred where there are closed-form fields.)

    Args:
        network: `(t, x)` to velocity and η.
        interpolant: gives γ and L.
        margin: in time, about half a step of the first and the last interval.

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: a margin outside (0, 1/2), or an interpolant without noise at it.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 2.

    Example:
        >>> import torch
        >>> from nessampler.interpolants import LinearInterpolant
        >>> fields = DenoiserFields(lambda t, x: (0 * x, x), LinearInterpolant(torch.ones(1)), margin=0.01)
        >>> fields(torch.tensor([0.5]), torch.ones(1, 1)).score
        tensor([[-2.]])
    """

    def __init__(
        self, network: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], interpolant: Interpolant, *, margin: float
    ) -> None:
        super().__init__()
        if not 0 < margin < 0.5:
            raise InputError(f"a margin lies inside (0, 1/2): got {margin}; half of the first step will do")
        self.network, self.interpolant, self.margin, self.evaluations = network, interpolant, margin, 0

    def forward(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields."""
        self.evaluations += len(x)
        inside = t.clamp(self.margin, 1 - self.margin)
        gamma = self.interpolant.gamma(inside.to(x)).unsqueeze(-1)
        if not bool((gamma > 0).all()):
            raise InputError("a denoiser needs noise inside the path: this interpolant has none; regress a score")
        velocity, noise = self.network(inside, x)
        return Evaluated(velocity, self.interpolant.noise_score(noise) / gamma)
