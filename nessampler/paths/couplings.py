"""Lattice φ⁴ with couplings that change one by one: mass first, or λ first, or any schedule of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.paths.scheduled import ScheduledPath
from nessampler.targets.phi4 import FreeField, Phi4

__all__ = ["coupling_path", "early", "late"]

Ramp = Callable[[Tensor], Tensor]


def early(t: Tensor) -> Tensor:
    """A coupling that arrives at t = 1/2.

    >>> early(torch.tensor([0.0, 0.25, 0.75]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return (2 * t).clamp(max=1.0)


def late(t: Tensor) -> Tensor:
    """A coupling that starts at t = 1/2.

    >>> late(torch.tensor([0.25, 0.75, 1.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return (2 * t - 1).clamp(min=0.0)


def coupling_path(
    target: Phi4, *, start_mass_squared: float = 1.0, mass: Ramp = late, quartic: Ramp = early
) -> ScheduledPath:
    r"""From the free field of mass $m_0^2 > 0$ to the target, each coupling on a ramp of its own.

    $$U_t = \sum_x \Big[\sum_\mu (\varphi_{x+\mu} - \varphi_x)^2 + m^2(t)\, \varphi_x^2 + \lambda(t)\, \varphi_x^4\Big],
      \quad m^2(t) = m_0^2 + f(t) (m^2 - m_0^2), \quad \lambda(t) = g(t)\, \lambda$$

    | symbol | argument | |
    |---|---|---|
    | $m_0^2$ | `start_mass_squared` | of the free field, whose samples one FFT gives |
    | $f$ | `mass` | from 0 to 1, differentiable almost everywhere; `late` turns λ on first |
    | $g$ | `quartic` | from 0 to 1; `early` by default |

    The three terms are evaluated apart, each once per step, whatever the schedule.

    Raises:
        InputError: ramps that do not go from 0 to 1, or an action without a floor on the way.

    Example:
        >>> path = coupling_path(Phi4(4, quartic=0.8))
        >>> path.energy(torch.tensor([0.5]), torch.ones(1, 4, 4))  # λ is there, the mass is still that of the start
        tensor([28.8000], dtype=torch.float64)
    """
    knots = torch.linspace(0, 1, 101, dtype=torch.float64)
    for name, ramp in (("mass", mass), ("quartic", quartic)):
        ends = ramp(knots)[[0, -1]].tolist()
        if ends != [0.0, 1.0]:
            raise InputError(f"a coupling's ramp goes from 0 at t = 0 to 1 at t = 1: `{name}` goes from {ends}")

    def schedule(t: Tensor) -> Tensor:
        square = start_mass_squared + mass(t) * (target.mass_squared - start_mass_squared)
        return torch.stack([torch.ones_like(t), square, target.quartic * quartic(t)], -1)

    _, square, fourth = schedule(knots).unbind(-1)
    floorless = (fourth <= 0) & (square <= 0)
    if bool(floorless.any()):
        t = float(knots[floorless][0])
        raise InputError(
            f"the action must have a floor all the way: at t = {t:g} λ is 0 and m² is {float(square[floorless][0]):g}; "
            "turn λ on before the mass, as the default does"
        )
    start = FreeField.massive(target.size, mass_squared=start_mass_squared, dimensions=target.dimensions)
    terms = (_Kinetic(target), _Power(target.event_shape, 2), _Power(target.event_shape, 4))
    return ScheduledPath(terms, schedule, start, target)


class _Kinetic:
    r"""$\sum_{x\mu} (\varphi_{x+\mu} - \varphi_x)^2$."""

    def __init__(self, target: Phi4) -> None:
        self.event_shape, self._axes = target.event_shape, tuple(range(1, 1 + target.dimensions))

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        return self.energy_and_score(x)[0]

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        half = sum((x.roll(1, axis) + x.roll(-1, axis) - 2 * x for axis in self._axes), torch.zeros_like(x))
        return -(x * half).flatten(1).sum(1, dtype=torch.float64), 2 * half


@dataclass(frozen=True)
class _Power:
    r"""$\sum_x \varphi_x^p$."""

    event_shape: torch.Size
    power: int

    def energy(self, x: Float[Tensor, " n *event"]) -> Float[Tensor, " n"]:
        return self.energy_and_score(x)[0]

    def energy_and_score(self, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n *event"]]:
        below = x ** (self.power - 1)
        return (below * x).flatten(1).sum(1, dtype=torch.float64), -self.power * below
