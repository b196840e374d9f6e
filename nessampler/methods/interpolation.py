"""What the learned rung between Gaussian fields is trained along: interpolant, pairs, pace, and the schedule in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from nessampler.closed_form.transfer import Transferred
from nessampler.couplings import Coupling, OptimalTransport
from nessampler.errors import InputError
from nessampler.interpolants import (
    Coefficients,
    EncodingDecoding,
    Linear,
    NoNoise,
    Quadratic,
    Schedule,
    SineSquared,
    SquareRoot,
    Trigonometric,
)
from nessampler.methods.arguments import check_choice

__all__ = ["Interpolation", "Pace"]

Pace = Literal["uniform", "lipschitz"]

NOISES = {"square-root": SquareRoot, "quadratic": Quadratic, "sine-squared": SineSquared}
SEEN = (0.0, 0.2, 0.5, 0.8, 1.0)  # times at which a schedule is looked at


@dataclass(frozen=True)
class Interpolation:
    r"""Which $I_t = \alpha x_a + \beta x_b + \gamma L z$, of which pairs, and at which times it is sampled.

    Attributes:
        schedule: $\alpha, \beta, \gamma$, such as `Linear()`, `Trigonometric(Quadratic(16.0))`, `EncodingDecoding()`,
            `Retimed(...)`, or any function of time; coordinates are those that standardise B.
        coupling: which sample of A goes with which of B within a batch, such as `OptimalTransport()`; None for
            independent pairs. Coupled ones, `Independent()` too, are regressed without the ends' scores, which say
            nothing about them, and so without the quiet targets.
        pace: times of the steps, equidistant, or of equal length $\int (E|\nabla b|^2)^{1/2}\,dt$ along the learned
            velocity: those of the smallest averaged squared Lipschitz constant.
        transfer: a schedule to sample under, with fields trained under `schedule`; None for the same.

    Raises:
        InputError: a schedule that does not lead from one end to the other or cannot be transferred, an unknown pace,
            a coupling that cannot be called, or coupled pairs without noise, which leave no score to regress.

    References:
        Albergo, Boffi & Vanden-Eijnden, Stochastic interpolants: a unifying framework for flows and diffusions, 2023,
        arXiv:2303.08797, section 4; Pooladian et al., Multisample flow matching, 2023, arXiv:2304.14772; Chen,
        Vanden-Eijnden & Xu, Lipschitz-guided design of interpolation schedules in generative models, 2025,
        arXiv:2509.01629.

    Example:
        >>> from nessampler.couplings import OptimalTransport
        >>> from nessampler.interpolants import Trigonometric
        >>> Interpolation(Trigonometric(), OptimalTransport()).said
        'Trigonometric, OptimalTransport'
        >>> Interpolation().said
        ''
    """

    schedule: Schedule = field(default_factory=Linear)
    coupling: Coupling | None = None
    pace: Pace = "uniform"
    transfer: Schedule | None = None

    def __post_init__(self) -> None:
        at = _ends_met("schedule", self.schedule)
        check_choice("pace", self.pace, Pace, "leave it out for uniform")
        if self.coupling is not None and not callable(self.coupling):
            raise InputError(
                f"coupling must be a function of two batches: got {self.coupling!r}; pass OptimalTransport(), or leave "
                "it out for independent pairs"
            )
        if self.coupling is not None and not bool((at.gamma_square[1:-1] > 0).all()):
            raise InputError(
                f"coupled pairs are regressed on their noise, which a schedule must have inside (0, 1): got "
                f"{self.schedule}; use one with `SquareRoot()`, or leave out the coupling"
            )
        if self.transfer is not None:
            _ends_met("transfer", self.transfer)
            Transferred(self.schedule, self.transfer)

    @classmethod
    def named(
        cls,
        interpolant: str = "linear",
        *,
        gamma: str | None = None,
        strength: float = 1.0,
        coupling: str = "independent",
        pace: Pace = "uniform",
        transfer: str | None = None,
    ) -> Interpolation:
        """As configuration files name them; without `gamma` the noise is the interpolant's own.

        Example:
            >>> Interpolation.named("trigonometric", gamma="quadratic", strength=16.0).schedule
            Trigonometric(gamma=Quadratic(strength=16.0))
            >>> Interpolation.named() == Interpolation()
            True
        """
        noise = NoNoise() if gamma == "none" else NOISES[gamma or "square-root"](strength)
        schedules: dict[str, Schedule] = {"linear": Linear(noise), "trigonometric": Trigonometric(noise)}
        return cls(
            EncodingDecoding(strength) if interpolant == "encoding-decoding" else schedules[interpolant],
            OptimalTransport() if coupling == "optimal-transport" else None,
            pace,
            None if transfer is None else schedules[transfer],
        )

    @property
    def said(self) -> str:
        """What differs from independent pairs on straight lines, for a table."""
        parts = [_name(self.schedule)] if self.schedule != Linear() else []
        parts += [_name(self.coupling)] if self.coupling is not None else []
        parts += ["equal stretching"] if self.pace == "lipschitz" else []
        parts += [f"used as {_name(self.transfer)}"] if self.transfer is not None else []
        return ", ".join(parts)


def _ends_met(name: str, schedule: Schedule) -> Coefficients:
    """A schedule's values, if they are those of one end, then the other, and numbers between."""
    if not isinstance(schedule, Callable):
        raise InputError(f"{name} must be a function of time, such as Linear(): got {schedule!r}")
    at = schedule(torch.tensor(SEEN, dtype=torch.float64))
    factors = torch.stack([at.alpha, at.beta, at.gamma_square])
    wanted = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]).to(factors)
    if not bool(torch.isfinite(factors).all()) or not torch.allclose(factors[:, [0, -1]], wanted, atol=1e-6):
        raise InputError(
            f"{name} must lead from one end to the other, (alpha, beta, gamma) from (1, 0, 0) to (0, 1, 0): got "
            f"{schedule} with {factors[:, 0].tolist()} and {factors[:, -1].tolist()}"
        )
    return at


def _name(one: object) -> str:
    """Of a class, with that of its noise where there is a choice, or of a function."""
    gamma = getattr(one, "gamma", None)
    own = getattr(one, "__name__", type(one).__name__)
    return own if gamma is None or gamma == Linear().gamma else f"{own} with {type(gamma).__name__}"
