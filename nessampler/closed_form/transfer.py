"""Fields of one schedule, used under another without fitting anything again."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.errors import InputError
from nessampler.fields import Evaluated, Fields
from nessampler.interpolants import Coefficients, Schedule

__all__ = ["Transferred", "TransferredFields"]

HALVINGS = 60  # of [0, 1]: to the last digit of float64
REMEMBERED = 1024  # times: more than a path has steps


@dataclass(frozen=True)
class Transferred:
    r"""The schedule with the ends' factors of `used`, and the noise that fields of `trained` then have.

    At the time $\tau(t)$ where the ends of `trained` stand in the same ratio, its interpolant is `used`'s up to a
    number c:

    $$\frac{\beta^*(\tau)}{\alpha^*(\tau)} = \frac{\beta(t)}{\alpha(t)}, \qquad
      c(t) = \frac{\alpha(t)}{\alpha^*(\tau)} = \frac{\beta(t)}{\beta^*(\tau)}, \qquad
      I_t = c(t)\,I^*_{\tau(t)}, \qquad \gamma(t) = c(t)\,\gamma^*(\tau(t)) .$$

    With noise, two schedules are a transfer of one another only if $\gamma$ agrees as well; here it is what follows. A
    one-sided schedule, without noise, may become any other.

    Args:
        trained: $\alpha^*, \beta^*, \gamma^*$; $\beta/\alpha$ must increase from 0 to infinity.
        used: $\alpha, \beta$, of the same kind; its own noise is not looked at.

    Raises:
        InputError: schedules whose ratio does not increase, as that of `EncodingDecoding`.

    References:
        Chen, Vanden-Eijnden & Xu, Lipschitz-guided design of interpolation schedules in generative models, 2025,
        arXiv:2509.01629 (the transfer formula, one-sided; the form with two ends and noise is derived in the docs).

    Example:
        >>> from nessampler.interpolants import Linear, Trigonometric
        >>> both = Transferred(Linear(), Trigonometric())(torch.tensor([0.5], dtype=torch.float64))
        >>> both.alpha, both.gamma  # at the middle, sqrt(2) times the trained one
        (tensor([0.7071], dtype=torch.float64), tensor([0.7071], dtype=torch.float64))
    """

    trained: Schedule
    used: Schedule

    def __post_init__(self) -> None:
        inside = torch.linspace(0, 1, 101, dtype=torch.float64)[1:-1]
        for schedule in (self.trained, self.used):
            at = schedule(inside)
            if not bool((at.alpha > 0).all() and (at.beta > 0).all() and (_turning(at) > 0).all()):
                raise InputError(
                    "fields are transferred between schedules whose ratio beta/alpha increases throughout: "
                    f"that of {schedule} does not; train under the schedule you want to use"
                )

    def __call__(self, t: Float[Tensor, " *n"]) -> Coefficients:
        """At times in [0, 1]."""
        place = self.at(t)
        here, there = self.used(t), self.trained(place.time)
        square = place.scale.square() * there.gamma_square
        product = square * place.growth + place.scale.square() * place.pace * there.gamma_product
        return here._replace(gamma_square=square.to(t), gamma_product=product.to(t))

    def at(self, t: Float[Tensor, " *n"]) -> _Place:
        r"""$\tau$, $\dot\tau$, c and $\dot c/c$ at times t, in float64."""
        here = self.used(t.to(torch.float64))
        tau = self._time(torch.atan2(here.beta, here.alpha))
        there = self.trained(tau)
        pace = _turning(here) / _turning(there)
        scale = torch.hypot(here.alpha, here.beta) / torch.hypot(there.alpha, there.beta)
        return _Place(tau, pace, scale, _growth(here) - pace * _growth(there))

    def _time(self, angle: Tensor) -> Tensor:
        """Where the trained schedule has this angle, by bisection."""
        low, high = torch.zeros_like(angle), torch.ones_like(angle)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            at = self.trained(middle)
            before = torch.atan2(at.beta, at.alpha) < angle
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        return 0.5 * (low + high)


@dataclass(frozen=True)
class TransferredFields:
    r"""Fields of $I_t = c(t)\,I^*_{\tau(t)}$ from those of $I^*$:

    $$b(t, x) = \frac{\dot c}{c}\,x + c\,\dot\tau\,b^*\!\big(\tau, x/c\big), \qquad
      s(t, x) = \frac1c\,s^*\!\big(\tau, x/c\big) .$$

    One call of $b^*, s^*$ per call. They may be closed or learned; nothing is trained again.

    Args:
        fields: $b^*, s^*$, of the schedule `transfer.trained`.
        transfer: between the schedules.

    Example:
        >>> from nessampler.closed_form import GaussianFields
        >>> from nessampler.interpolants import Linear, Trigonometric
        >>> linear = GaussianFields(torch.zeros(1), torch.zeros(1), torch.eye(1), torch.eye(1))
        >>> fields = TransferredFields(linear, Transferred(Linear(), Trigonometric()))
        >>> fields(torch.tensor([0.5]), torch.ones(1, 1)).score  # of variance 2 (1/4 + 1/4 + 1/4)
        tensor([[-0.6667]])
    """

    fields: Fields
    transfer: Transferred
    _known: dict[float, _Place] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __call__(self, t: Float[Tensor, " n"], x: Float[Tensor, "n d"]) -> Evaluated:
        """Both fields."""
        times, which = torch.unique(t, return_inverse=True)  # walkers move together: one time to solve for
        place = self._at(times)
        time, pace, scale, growth = (v.to(x)[which] for v in (place.time, place.pace, place.scale, place.growth))
        pace, scale, growth = (v.unsqueeze(-1) for v in (pace, scale, growth))
        there = self.fields(time, x / scale)
        velocity = None if there.velocity is None else growth * x + scale * pace * there.velocity
        return Evaluated(velocity, there.score / scale)

    def _at(self, times: Tensor) -> _Place:
        """Solved once for each time by itself, for the steps of a path come back with every chunk of walkers."""
        if len(times) > 1:
            return self.transfer.at(times)
        key = float(times)
        if key not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = self.transfer.at(times)
        return self._known[key]


@dataclass(frozen=True)
class _Place:
    time: Tensor
    pace: Tensor
    scale: Tensor
    growth: Tensor


def _turning(at: Coefficients) -> Tensor:
    """The rate of the angle of (alpha, beta)."""
    return (at.alpha * at.beta_rate - at.beta * at.alpha_rate) / (at.alpha.square() + at.beta.square())


def _growth(at: Coefficients) -> Tensor:
    """The rate of the logarithm of the length of (alpha, beta)."""
    return (at.alpha * at.alpha_rate + at.beta * at.beta_rate) / (at.alpha.square() + at.beta.square())
