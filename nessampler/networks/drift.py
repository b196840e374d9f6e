"""A multilayer perceptron for the drift along a path, preconditioned by the path's own force."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.divergence import exact_divergence
from nessampler.errors import InputError
from nessampler.kernels.flow import VelocityField
from nessampler.networks.field import at_each_time
from nessampler.networks.mlp import _linear, _zero_linear

__all__ = ["DriftNetwork", "PotentialNetwork", "path_score", "time_features"]

Function = Callable[[Tensor, Tensor], Tensor]


def path_score(path) -> Function:
    r"""$-\nabla U_t(x)$ by autograd of the path's energy, itself differentiable: for energies written in torch.

    Example:
        >>> from nessampler.paths import LinearPath
        >>> from nessampler.targets import Gaussian
        >>> path = LinearPath(Gaussian(torch.zeros(1), torch.ones(1)), Gaussian(torch.ones(1), torch.ones(1)))
        >>> path_score(path)(torch.ones(1), torch.zeros(1, 1)).detach()
        tensor([[1.]])
    """

    def score(t: Tensor, x: Tensor) -> Tensor:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            position = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(path.energy(t, position).sum(), position, create_graph=keep)
        return -gradient

    return score


def time_features(t: Float[Tensor, " n"], frequencies: int) -> Float[Tensor, "n features"]:
    r"""t, and $\cos\pi k t$, $\sin\pi k t$ for $k = 1 \dots$ `frequencies`.

    Example:
        >>> time_features(torch.zeros(1), 2)
        tensor([[0., 1., 1., 0., 0.]])
    """
    phase = math.pi * t[:, None] * torch.arange(1, frequencies + 1, dtype=t.dtype, device=t.device)
    return torch.cat([t[:, None], phase.cos(), phase.sin()], -1)


class DriftNetwork(nn.Module):
    r"""A drift that starts from zero, or from a closed form, and may read the path's force:

    $$b(t, x) = b_0(t, x) + \sigma\, f\big(t, \tfrac{x - \mu}{\sigma}, \operatorname{arsinh}(\sigma s_t(x))\big)
      + g(t)\, \sigma^2 s_t(x), \qquad s_t = -\nabla U_t$$

    f is a perceptron on $t, \cos\pi kt, \sin\pi kt$ and its arguments, g one on the features of time alone. Both
    end in zeros, so that training starts from annealed importance sampling, or from $b_0$. Parameters are float32
    (call `.double()` for more); the answer is in the dtype of x.

    | symbol | argument | |
    |---|---|---|
    | $\mu, \sigma > 0$ | `center`, `scale` | `event`: what a typical walker looks like along the path |
    | $s_t$ | `score` | `(t: (n,), x)`, differentiable for a divergence, such as `path_score(path)`; None: not read |
    | $b_0$ | `base` | a velocity field with divergence, such as a `LeastSquaresDrift`; None: zero |
    | | `width`, `depth` | of f: `depth` hidden layers |
    | $k$ | `frequencies` | $1 \dots$ `frequencies` |
    | | `generator` | of the initial weights |

    A base is called once per time: walkers come grouped by time.

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: shapes that differ, a scale that is not positive, sizes below one.

    References:
        Vargas, Grathwohl & Doucet, Denoising Diffusion Samplers, 2023, arXiv:2302.13834 (Langevin preconditioning);
        Tancik et al., Fourier Features Let Networks Learn High Frequency Functions, 2020, arXiv:2006.10739.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> network = DriftNetwork(center=torch.zeros(2), scale=torch.ones(2), generator=g)
        >>> network(torch.zeros(3), torch.ones(3, 2)).abs().max().item()
        0.0
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        center: Float[Tensor, " *event"],
        scale: Float[Tensor, " *event"],
        score: Function | None = None,
        base: VelocityField | None = None,
        width: int = 64,
        depth: int = 2,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        _check(center, scale, width, depth, frequencies)
        self.score, self.base, self.frequencies, self.evaluations = score, base, frequencies, 0
        self.register_buffer("center", center.clone())
        self.register_buffer("scale", scale.clone())
        d, times = center.numel(), 2 * frequencies + 1
        self.body = _trunk([d if score is None else 2 * d, times], width, depth, generator)
        self.head = _zero_linear(width, d)
        if score is not None:
            self.gain = nn.Sequential(_trunk([times], width // 2 or 1, 1, generator), _zero_linear(width // 2 or 1, 1))

    @property
    def reads_score(self) -> bool:
        """Whether a score known to the caller spares an evaluation."""
        return self.score is not None

    def forward(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], score: Float[Tensor, " n *event"] | None = None
    ) -> Float[Tensor, " n *event"]:
        """The velocity."""
        learned = self._learned(t, x, score)
        return learned if self.base is None else learned + at_each_time(self.base, t, x)[0].to(x)

    def velocity_and_divergence(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]
    ) -> tuple[Float[Tensor, " n *event"], Float[Tensor, " n"]]:
        """Also the exact divergence, the base's in closed form and the rest by one backward pass per coordinate."""
        velocity, divergence = exact_divergence(self._learned, t, x)
        if self.base is None:
            return velocity, divergence.to(torch.float64)
        with torch.no_grad():
            base, known = at_each_time(self.base, t, x)
        return velocity + base.to(x), divergence.to(torch.float64) + known

    def _learned(self, t: Tensor, x: Tensor, score: Tensor | None = None) -> Tensor:
        self.evaluations += len(x)
        like, scale = self.head.weight, self.scale.to(x)
        inputs, times = (
            [((x - self.center.to(x)) / scale).flatten(1).to(like)],
            time_features(t.to(like), self.frequencies),
        )
        if self.score is None:
            return self.head(self.body(torch.cat([*inputs, times], -1))).view(x.shape).to(x) * scale
        force = scale * (self.score(t, x) if score is None else score)
        inputs.append(force.flatten(1).asinh().to(like))  # forces grow without bound where densities vanish
        gain = self.gain(times).to(x).view(-1, *[1] * (x.ndim - 1))
        return scale * (self.head(self.body(torch.cat([*inputs, times], -1))).view(x.shape).to(x) + gain * force)


class PotentialNetwork(nn.Module):
    r"""The gradient of a learned potential, for action matching:

    $$\phi(t, x) = f\big(t, \tfrac{x - \mu}{\sigma}\big) - g(t)\, U_t(x), \qquad b = \nabla\phi$$

    f and g as in `DriftNetwork`, both zero at the start. With one $\sigma$ for all coordinates f's gradient is on the
    scale of $1/\sigma$, so f is multiplied by the mean of $\sigma^2$, and so is g.

    | symbol | argument | |
    |---|---|---|
    | $\mu, \sigma > 0$ | `center`, `scale` | `event` |
    | $U_t$ | `energy` | `(t: (n,), x)` to `(n,)`, twice differentiable, such as `path.energy`; None: not read |
    | | `width`, `depth`, `frequencies`, `generator` | as in `DriftNetwork` |

    Attributes:
        evaluations: walkers evaluated since construction; not part of the state.

    Raises:
        InputError: shapes that differ, a scale that is not positive, sizes below one.

    References:
        Neklyudov et al., Action Matching: Learning Stochastic Dynamics from Samples, 2022, arXiv:2210.06662.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> network = PotentialNetwork(center=torch.zeros(2), scale=torch.ones(2), generator=g)
        >>> network.potential(torch.zeros(3), torch.ones(3, 2)).shape, network(torch.zeros(3), torch.ones(3, 2)).shape
        (torch.Size([3]), torch.Size([3, 2]))
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        center: Float[Tensor, " *event"],
        scale: Float[Tensor, " *event"],
        energy: Function | None = None,
        width: int = 64,
        depth: int = 2,
        frequencies: int = 3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        _check(center, scale, width, depth, frequencies)
        self.energy, self.frequencies, self.evaluations = energy, frequencies, 0
        self.register_buffer("center", center.clone())
        self.register_buffer("scale", scale.clone())
        times = 2 * frequencies + 1
        self.body = _trunk([center.numel(), times], width, depth, generator)
        self.head = _zero_linear(width, 1)
        if energy is not None:
            self.gain = nn.Sequential(_trunk([times], width // 2 or 1, 1, generator), _zero_linear(width // 2 or 1, 1))

    @property
    def reads_score(self) -> bool:
        """Whether a score known to the caller spares an evaluation."""
        return self.energy is not None

    def potential(self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        r"""$\phi(t, x)$."""
        learned = self._learned(t, x)
        if self.energy is not None:
            learned = learned - self._gain(t, x) * self.energy(t, x).to(x)
        return self.scale.to(x).square().mean() * learned

    def forward(
        self, t: Float[Tensor, " n"], x: Float[Tensor, " n *event"], score: Float[Tensor, " n *event"] | None = None
    ) -> Float[Tensor, " n *event"]:
        r"""$\nabla\phi(t, x)$; where gradients are enabled it can be differentiated again, but not through `score`."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            position = x if x.requires_grad else x.detach().requires_grad_()
            value = self.potential(t, position) if score is None else self._learned(t, position)
            (gradient,) = torch.autograd.grad(value.sum(), position, create_graph=keep)
        if score is None:
            return gradient
        gain = self._gain(t, x).view(-1, *[1] * (x.ndim - 1))
        return self.scale.to(x).square().mean() * (gradient + gain * score)

    def _learned(self, t: Tensor, x: Tensor) -> Tensor:
        """f."""
        self.evaluations += len(x)
        like = self.head.weight
        standard = ((x - self.center.to(x)) / self.scale.to(x)).flatten(1).to(like)
        return self.head(self.body(torch.cat([standard, time_features(t.to(like), self.frequencies)], -1)))[:, 0].to(x)

    def _gain(self, t: Tensor, x: Tensor) -> Tensor:
        return self.gain(time_features(t.to(self.head.weight), self.frequencies))[:, 0].to(x)


def _trunk(inputs: list[int], width: int, depth: int, generator: torch.Generator) -> nn.Sequential:
    layers = [_linear(i, o, generator) for i, o in pairwise([sum(inputs), *[width] * depth])]
    return nn.Sequential(*(module for layer in layers for module in (layer, nn.SiLU())))


def _check(center: Tensor, scale: Tensor, width: int, depth: int, frequencies: int) -> None:
    if center.shape != scale.shape or not bool((scale > 0).all()):
        raise InputError(
            "center and scale must have the shape of one walker, scale positive: got "
            f"{tuple(center.shape)}, {tuple(scale.shape)} and at least {float(scale.min())}"
        )
    if min(width, depth, frequencies) < 1:
        raise InputError(f"width, depth and frequencies must be 1 at least: got {width}, {depth}, {frequencies}")
