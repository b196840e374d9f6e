"""Annealed switching whose walkers are carried by a drift in closed form, so that moves have less to mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.least_squares_drift import SolvedDrift, solve_drift
from nessampler.kernels import HMC, Compose, Flow, VelocityField
from nessampler.methods.density.flow_error import FlowError, flow_error
from nessampler.methods.density.lsq import production_times
from nessampler.methods.density.tuning import Pilot
from nessampler.methods.transport import Transport
from nessampler.paths import AnnealingPath

__all__ = ["BilledField", "Escort", "escorted_switching"]


class BilledField:
    """A velocity field that counts the walkers it is asked for."""

    def __init__(self, field: VelocityField) -> None:
        self.field, self.evaluations = field, 0

    def __call__(self, t: float, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n *event"], Tensor]:
        """Velocity and divergence."""
        self.evaluations += len(x)
        return self.field(t, x)


@dataclass(frozen=True)
class Escort:
    """An escorted transport, and what its pilots saw."""

    transport: Transport
    field: BilledField
    drift: SolvedDrift
    flow_error: FlowError


def escorted_switching(
    annealed: Transport,
    found: Pilot,
    dictionary: Dictionary,
    x: Float[Tensor, " n *event"],
    *,
    steps: int,
    pilot_steps: int = 32,
    substeps: int = 1,
    generator: torch.Generator,
    progress: Callable[[int, int, float], None] | None = None,
) -> Escort:
    r"""The annealed transport with a flow step before every move, of a drift solved on pilot walkers.

    $$W = \sum_k \big[U_{t_{k+1}}(\phi_k(x_k)) - U_{t_k}(x_k) - \log|\det \nabla \phi_k|\big]$$

    A drift that solves the transport equation makes each term a constant. The log-determinants are integrated; how far
    that shifts ΔF is measured on the pilots by halving the steps, and kept as the transport's systematic error.

    Args:
        annealed: by `annealed_switching`.
        found: times and step sizes of its pilots.
        dictionary: of fields, with exact divergence.
        x: pilot walkers at the path's start.
        steps: of production; half placed by the pilot's times, half by the residual.
        pilot_steps: of the solution.
        substeps: of each flow step.
        generator: source of randomness.
        progress: told times done, all, and the last R².

    References:
        Vaikuntanathan & Jarzynski, Escorted free energy simulations, 2008, Phys. Rev. Lett. 100, 190601.
    """
    relax, path = annealed.kernel, annealed.path
    assert isinstance(relax, HMC)
    assert isinstance(path, AnnealingPath)
    drift = solve_drift(
        path,
        dictionary,
        found.spaced(pilot_steps),
        x,
        relax=replace(relax, repeats=2),
        order=2,
        generator=generator,
        progress=progress,
    )
    times, field = production_times(drift, steps), BilledField(drift.field)
    flow = Flow(field, 2, substeps)
    error = flow_error(flow, relax, path, times, x, generator=generator)
    what = f"{annealed.description}, escorted by a drift of {dictionary.size} fields"
    transport = replace(annealed, description=what, kernel=Compose(flow, relax), times=times, systematic=error.bound)
    return Escort(transport, field, drift, error)
