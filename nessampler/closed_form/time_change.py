"""The pace of a path: times at which its fields are equally demanding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import Fields

__all__ = ["equal_length_times", "mean_stretching"]


def equal_length_times(
    roughness: Callable[[Tensor], Tensor], steps: int, *, floor: float = 0.05, points: int = 1001
) -> tuple[float, ...]:
    r"""The pace $\tau$ that minimises $\int_0^1 A(\tau)\,\dot\tau^2\,dt$, at $t = 0, 1/K, \dots, 1$.

    If the velocity of a path has mean squared gradient $A(t) = E|\nabla b(t, I_t)|^2$, that of the path run at the pace
    $\tau(t)$, which is $\dot\tau\,b(\tau, x)$, has $\dot\tau^2 A(\tau)$. By Cauchy–Schwarz

    $$\int_0^1 A(\tau)\,\dot\tau^2\,dt \;\ge\; \Big(\int_0^1 \sqrt{A(\tau)}\,d\tau\Big)^2$$

    with equality where $\sqrt{A(\tau)}\,\dot\tau$ is constant: equal steps of t cover equal lengths
    $\int\sqrt A\,d\tau$. The same holds of any cost of a step that grows as the square of its length.

    | symbol | argument | |
    |---|---|---|
    | $A \ge 0$ | `roughness` | times `(m,)` to numbers `(m,)`, such as `GaussianFields.roughness` |
    | $K$ | `steps` | of the path |
    | | `floor` | of $A$, as a fraction of its mean, so that no step jumps over a stretch without gradient |
    | | `points` | of the quadrature over τ |

    Returns:
        $K + 1$ times from 0 to 1, for `simulate` or `Retimed`.

    Raises:
        InputError: no step, a floor that is negative, or a roughness that is negative or not finite.

    References:
        Chen, Vanden-Eijnden & Xu, Lipschitz-guided design of interpolation schedules in generative models, 2025,
        arXiv:2509.01629, section 3 (averaged squared Lipschitzness; of all schedules, the time change only is sought
        here).

    Example:
        >>> times = equal_length_times(lambda t: t**2, 4, floor=0.0)
        >>> [round(v, 3) for v in times]
        [0.0, 0.5, 0.707, 0.866, 1.0]
    """
    if steps < 1 or floor < 0:
        raise InputError(f"a path has one step at least, and a floor is not negative: got {steps} and {floor}")
    tau = torch.linspace(0, 1, points, dtype=torch.float64)
    found = roughness(tau).to(torch.float64)
    if not bool(torch.isfinite(found).all()) or bool((found < 0).any()):
        raise InputError(f"roughness must be finite and not negative: got {float(found.min())} to {float(found.max())}")
    speed = (found + floor * found.mean()).sqrt()
    if not bool(speed.sum() > 0):
        return tuple((torch.arange(steps + 1, dtype=torch.float64) / steps).tolist())
    length = torch.cat([speed.new_zeros(1), (0.5 * (speed[1:] + speed[:-1])).cumsum(0)])
    wanted = length[-1] * torch.arange(1, steps, dtype=torch.float64) / steps
    right = torch.searchsorted(length, wanted).clamp(1, points - 1)
    fraction = (wanted - length[right - 1]) / (length[right] - length[right - 1])
    inner = (tau[right - 1] + fraction * (tau[right] - tau[right - 1])).tolist()
    return (0.0, *inner, 1.0)


def mean_stretching(
    fields: Fields, t: float, x: Float[Tensor, "n d"], *, generator: torch.Generator
) -> Float[Tensor, ""]:
    r"""$E|\nabla b(t, x)|^2_F$ over the rows of x, from one random direction v each: $E|v\cdot\nabla b|^2$.

    References:
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.

    Example:
        >>> from nessampler.fields import Evaluated
        >>> spin = lambda t, x: Evaluated(x.flip(1) * torch.tensor([2.0, -2.0]), -x)
        >>> mean_stretching(spin, 0.5, torch.zeros(3, 2), generator=torch.Generator().manual_seed(0))
        tensor(8.)
    """
    sign = torch.randint(0, 2, x.shape, generator=generator, device=generator.device).to(x.device).to(x) * 2 - 1
    time = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
    slope = torch.func.jvp(lambda y: fields(time, y).velocity, (x,), (sign,))[1]
    return slope.square().sum(-1).mean()
