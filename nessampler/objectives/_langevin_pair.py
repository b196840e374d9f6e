"""The log ratio that the Langevin pair gives to a stored path, as a function of the fields along it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError

__all__ = ["Diffusion", "path_log_ratio"]

Diffusion = float | Tensor | Callable[[float], Tensor]


def path_log_ratio(
    times: Float[Tensor, " k"],
    x: Float[Tensor, "k n *event"],
    velocity: Float[Tensor, "k n *event"],
    score: Float[Tensor, "k n *event"],
    diffusion: Diffusion,
) -> Float[Tensor, " n"]:
    r"""$\sum_k \log B_k(x_k|x_{k+1}) - \log F_k(x_{k+1}|x_k)$ of n paths, float64, from the fields at every point:

    $$\log\frac{B_k}{F_k} = \frac{|\delta_k - h b_k - h\varepsilon s_k|^2
        - |\delta_k - h b_{k+1} + h\varepsilon s_{k+1}|^2}{4\varepsilon h}, \qquad \delta_k = x_{k+1} - x_k$$

    Coordinates without diffusion stand still and do not count.
    """
    velocity, score, moved = velocity.to(torch.float64), score.to(torch.float64), x.to(torch.float64).diff(dim=0)
    h = times.to(torch.float64).diff().view(-1, *[1] * (x.ndim - 1))
    epsilon = _per_step(times, diffusion, x)
    forward = moved - h * (velocity[:-1] + epsilon * score[:-1])
    backward = moved - h * (velocity[1:] - epsilon * score[1:])
    moving = epsilon > 0
    ratio = (forward.square() - backward.square()) / torch.where(moving, 4 * epsilon * h, 1.0)
    return torch.where(moving, ratio, 0.0).flatten(2).sum((0, 2))


def _per_step(times: Tensor, diffusion: Diffusion, x: Tensor) -> Tensor:
    middles = (0.5 * (times[1:] + times[:-1])).tolist()
    values = [diffusion(t) if callable(diffusion) else diffusion for t in middles]
    per_step = [torch.as_tensor(v, dtype=torch.float64, device=x.device).expand(x.shape[2:]) for v in values]
    epsilon = torch.stack(per_step).unsqueeze(1)
    if not bool((epsilon >= 0).all() and (epsilon > 0).any(-1).all()):
        raise InputError(f"path weights need a positive diffusion: got {float(epsilon.min())} at least")
    return epsilon
