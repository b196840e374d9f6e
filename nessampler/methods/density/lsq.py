"""Rung 2: a drift in closed form, carried by flow steps, with Hamiltonian moves to mend what it misses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nessampler.closed_form.dictionary import Dictionary
from nessampler.closed_form.least_squares_drift import SolvedDrift, solve_drift
from nessampler.errors import InputError
from nessampler.kernels import HMC, Compose
from nessampler.methods.density.again import drift_state, moves_state
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.counted import CountedField, CountedPath
from nessampler.methods.density.flow_error import FLOW_TOLERANCE, NEGLIGIBLE, FlowError, fine_enough
from nessampler.methods.density.tuning import Hamiltonian, Pilot, pilot

__all__ = ["FewPilotsError", "Solved", "least_squares"]

TUNING_WALKERS, FEWEST_TUNING_WALKERS = 256, 64
TUNING_NUMBERS = 2**20  # coordinates of all tuning walkers together: large systems average over themselves


class FewPilotsError(InputError):
    """Too few pilot walkers for the fields of a drift; `needed` says how many would do.

    >>> FewPilotsError(100, 40).needed
    160
    """

    def __init__(self, pilots: int, fields: int) -> None:
        self.needed = 4 * fields
        super().__init__(
            f"a drift needs at least four pilot walkers for each field: got {pilots} for {fields}; "
            f"set pilot_walkers to {self.needed} or more, or choose a smaller dictionary"
        )


@dataclass(frozen=True)
class Solved:
    """A transport ready to run, and what its pilots saw; how many walkers measured its flow, and what is let pass."""

    annealing: Annealing
    field: CountedField
    drift: SolvedDrift
    tuning: Pilot
    flow_error: FlowError
    trial_walkers: int
    tolerance: float


def least_squares(
    path: CountedPath,
    dictionary: Callable[[Tensor, torch.Generator], Dictionary],
    *,
    mover: Hamiltonian,
    pilots: int = 2048,
    pilot_steps: int = 40,
    steps: int = 60,
    tolerance: float = FLOW_TOLERANCE,
    walkers: float | None = None,
    tuned: Pilot | None = None,
    trial_walkers: int = TUNING_WALKERS,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    report: Callable[..., None] = lambda **_: None,
) -> Solved:
    r"""Solve for the drift on pilot walkers, place the times where its residual is, and measure the flow's error.

    1. A short annealing finds step sizes and times of equal difficulty without a drift.
    2. Along these times the drift is solved by `solve_drift`.
    3. The `steps` of production lie half by the residual $r_t$, with density $\propto \sqrt{\mathrm{var}\,r_t}$, and
       half by the first.
    4. The cheapest Runge–Kutta rule is taken whose shift of log Z is measured below `tolerance`; where none is, the
       finest. Either way the measured shift goes into the error of the result. Where `walkers` are known to be few,
       a tenth of the standard error that they will have at least is enough: finer rules are not looked at.

    Args:
        path: its start has `sample`; counted under its current stage.
        dictionary: makes fields from base walkers.
        mover: Hamiltonian moves after every flow step.
        pilots, pilot_steps: walkers and intervals of the solution.
        steps: intervals of production.
        tolerance: of log Z.
        walkers: of production, at most.
        tuned: what a pilot of this path and mover found before, instead of the first annealing.
        trial_walkers: of the first annealing, and of the measurement of the flow's error; fewer on large systems.
        dtype, device: of walkers.
        generator: source of randomness.
        say, progress, report: told what happens, how far it is, and `r_squared` so far.

    Raises:
        FewPilotsError: fewer than four for each field.
    """
    affordable = max(FEWEST_TUNING_WALKERS, TUNING_NUMBERS // path.start.event_shape.numel())
    few = min(trial_walkers, affordable, pilots)
    tuning = tuned or pilot(
        path, _start(path, few, dtype, device, generator), mover, generator=generator, conditional_ess=0.7
    )
    x = _start(path, pilots, dtype, device, generator)
    fields = dictionary(_both_ends(x, tuning.x), generator)
    if pilots < 4 * fields.size:
        raise FewPilotsError(pilots, fields.size)
    relax = HMC(path, tuning.step_sizes, mover.leapfrog_steps, mover.mass, mover.repeats)

    def tell(done: int, total: int, r_squared: float) -> None:
        progress(done, total, "solving the drift")
        report(r_squared=r_squared)

    drift = solve_drift(
        path,
        fields,
        tuning.spaced(pilot_steps),
        x,
        relax=relax,
        order=2,
        generator=generator,
        progress=tell,
    )
    say(f"drift solved in {fields.size} fields: held-out R² {min(drift.r_squared):.3f} at worst")
    times = production_times(drift, steps)
    field = CountedField(drift.field, path)
    if walkers is not None:
        tolerance = max(tolerance, NEGLIGIBLE * math.sqrt(least_variance(drift, times) / walkers))
    flow, error = fine_enough(field, relax, path, times, x[:few], tolerance=tolerance, generator=generator, say=say)
    annealing = Annealing(
        "lsq",
        f"drift in closed form ({fields.size} fields), "
        f"{steps} steps of flow and HMC of {mover.leapfrog_steps} leapfrogs",
        Compose(flow, relax),
        path,
        times,
        systematic=error.bound,
        dtype=dtype,
        state={
            **moves_state(times, tuning.step_sizes, mover.leapfrog_steps),
            **drift_state(drift.field, flow, error.bound, pilots),
        },
    )
    return Solved(annealing, field, drift, tuning, error, few, tolerance)


def _both_ends(x: Tensor, last: Tensor) -> Tensor:
    """As many walkers as x has, half from either end of the path: fields must suit the widths of both."""
    half = len(x) // 2
    return torch.cat([x[: len(x) - half], last[torch.arange(half, device=x.device) % len(last)]])


def production_times(drift: SolvedDrift, steps: int) -> tuple[float, ...]:
    """`steps` intervals, half by the residual's length and half by the pilot's own times."""
    times, residual = np.array(drift.times), _residual(drift)
    length = np.concatenate([[0.0], np.cumsum(0.5 * (residual[1:] + residual[:-1]) * np.diff(times))])
    index = np.linspace(0.0, 1.0, len(times))
    mixed = index if length[-1] == 0 else 0.5 * index + 0.5 * length / length[-1]
    inner = np.interp(np.linspace(0.0, 1.0, steps + 1), mixed, times)[1:-1]
    return (0.0, *inner.tolist(), 1.0)


def least_variance(drift: SolvedDrift, times: Sequence[float]) -> float:
    r"""Of log-weights, $\sum_k h_k^2\, \mathrm{var}\, r_{t_k}$: what remains if walkers forget all between two steps.

    >>> from types import SimpleNamespace
    >>> drift = SimpleNamespace(times=(0.0, 1.0), residual_variance=(8.0, 8.0))
    >>> round(least_variance(drift, (0.0, 0.25, 0.5, 0.75, 1.0)), 6)
    2.0
    """
    steps, middle = np.diff(times), 0.5 * (np.array(times[1:]) + np.array(times[:-1]))
    return float(np.square(steps * np.interp(middle, drift.times, _residual(drift))).sum())


def _residual(drift: SolvedDrift) -> np.ndarray:
    """Standard deviation of what the drift leaves of the time derivative."""
    return np.sqrt(np.maximum(np.nan_to_num(drift.residual_variance, posinf=0.0), 0.0))


def _start(
    path: CountedPath, n: int, dtype: torch.dtype, device: torch.device | str, generator: torch.Generator
) -> Tensor:
    return path.start.sample(n, generator=generator).to(device, dtype)  # pyright: ignore[reportAttributeAccessIssue]
