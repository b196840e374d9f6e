"""Along the couplings of a lattice: trajectories that know the spectrum, and a drift in closed form to carry them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nessampler.closed_form.hartley import shell_spectrum
from nessampler.closed_form.lattice_dictionary import LatticeDictionary
from nessampler.closed_form.least_squares_drift import SolvedDrift, solve_drift
from nessampler.kernels import HMC, Compose, Kernel, RandomWalk, SpectralMass, VelocityField
from nessampler.methods.density.dictionaries import lattice_sines
from nessampler.methods.density.flow_error import fine_enough
from nessampler.methods.density.tuning import StepSizes
from nessampler.methods.flow_doubts import FLOW_TOLERANCE
from nessampler.methods.lattice_ends import AlignedEnds
from nessampler.methods.transport import Transport
from nessampler.paths import LinearPath

__all__ = ["BilledField", "carried", "drifted", "sines_for", "solved_drift", "trajectories", "tuned_moves"]

LEAPFROGS = 3
ACCEPTANCE = 0.8
TUNING_ROUNDS = 5
FEATURES = 32
OUTER = 3  # smearings after the sines, of `lattice_sines`
FIELDS_PER_PILOT = 0.25

Say = Callable[[str], None]


class BilledField:
    """A velocity field that knows how many walkers it has been asked for."""

    def __init__(self, field: VelocityField) -> None:
        self.field, self.evaluations = field, 0

    def __call__(self, t: float, x: Float[Tensor, " n *event"]) -> tuple[Float[Tensor, " n *event"], Tensor]:
        """Velocity and divergence."""
        self.evaluations += len(x)
        return self.field(t, x)


def tuned_moves(ends: AlignedEnds, pilots: int, *, generator: torch.Generator) -> HMC:
    r"""Hamiltonian moves whose mass is the path's spectrum, $1/[(1 - t) S_a + t S_b]$, their step tuned at both ends.

    `pilots` walkers of each end are moved a few times; between the ends the step is log-linear.
    """
    mass = _SpectrumBetween(_modes(ends.a), _modes(ends.b))
    sizes = tuple(
        _step_size(ends.path, t, x[torch.linspace(0, len(x) - 1, min(pilots, len(x))).long()], mass, generator)
        for t, x in ((0.0, ends.a), (1.0, ends.b))
    )
    return HMC(ends.path, StepSizes((0.0, 1.0), sizes), LEAPFROGS, mass)


def trajectories(ends: AlignedEnds, moves: HMC, steps: int) -> Transport:
    """Annealing between the ends: the action changes, one trajectory relaxes."""
    what = f"{steps} trajectories of {LEAPFROGS} leapfrogs along the couplings"
    return Transport("switching", what, moves, ends.path, _even_times(steps), ends.encode_a)


def sines_for(ends: AlignedEnds, most: int, *, generator: torch.Generator) -> LatticeDictionary:
    """Sines as wide as both ends, odd where both are even; fewer of them for fewer samples to solve on."""
    features = max(1, min(most, int(FIELDS_PER_PILOT * len(ends.a) / OUTER) - 1))
    return lattice_sines(features, even=ends.even)(torch.cat([ends.a, ends.b]), generator)


def solved_drift(ends: AlignedEnds, moves: HMC, steps: int, *, generator: torch.Generator) -> SolvedDrift:
    """The drift by least squares, on A's fit block as it travels."""
    dictionary = sines_for(ends, FEATURES, generator=generator)
    return solve_drift(ends.path, dictionary, _even_times(steps), ends.a, relax=moves, generator=generator)


def drifted(
    ends: AlignedEnds, field: BilledField, moves: HMC, steps: int, pilots: int, *, generator: torch.Generator, say: Say
) -> Transport:
    """The drift's flow, and one trajectory after every step to mend what it misses."""
    x = ends.a[:pilots]
    flow, error = fine_enough(
        field, moves, ends.path, _even_times(steps), x, tolerance=FLOW_TOLERANCE, generator=generator, say=say
    )
    what = f"drift in closed form, {steps} steps of its flow and of {LEAPFROGS} leapfrogs"
    kernel = Compose(flow, moves)
    return Transport(
        "switching", what, kernel, ends.path, _even_times(steps), ends.encode_a, None, {}, systematic=error.bound
    )


def carried(
    name: str,
    what: str,
    ends: AlignedEnds,
    field: VelocityField,
    steps: int,
    pilots: int,
    *,
    generator: torch.Generator,
    say: Say,
) -> Transport:
    """The flow of a drift alone: energies at both ends only, however many steps it takes."""
    x, still = ends.a[:pilots], _standing_still(ends.path)
    flow, error = fine_enough(
        field, still, ends.path, _even_times(steps), x, tolerance=FLOW_TOLERANCE, generator=generator, say=say
    )
    what = f"{what}, {steps * flow.substeps} steps of order {flow.order}"
    return Transport(name, what, flow, ends.path, _even_times(steps), ends.encode_a, systematic=error.bound)


def _standing_still(path: LinearPath) -> Kernel:
    """No move, but the energy is known."""
    return RandomWalk(path, 1.0, repeats=0)


def _even_times(steps: int) -> tuple[float, ...]:
    return tuple(k / steps for k in range(steps + 1))


@dataclass(frozen=True)
class _SpectrumBetween:
    start: Float[Tensor, " *modes"]
    end: Float[Tensor, " *modes"]

    def __call__(self, t: float) -> SpectralMass:
        return SpectralMass(1 / torch.lerp(self.start, self.end, t))


def _modes(x: Float[Tensor, " n *event"]) -> Float[Tensor, " *modes"]:
    """The spectrum over the modes of `torch.fft.rfftn`."""
    return shell_spectrum(x).view(x.shape[1:])[..., : x.shape[-1] // 2 + 1]


def _step_size(path: LinearPath, t: float, x: Tensor, mass: _SpectrumBetween, generator: torch.Generator) -> float:
    size, walkers = math.pi / 2 / LEAPFROGS, None
    for _ in range(TUNING_ROUNDS):
        moves = HMC(path, size, LEAPFROGS, mass)
        walkers, _ = moves.step(t, t, walkers or moves.start(t, x), generator=generator)
        assert walkers.acceptance is not None  # Metropolis
        size *= math.exp(float(walkers.acceptance.mean()) - ACCEPTANCE)
    return size
