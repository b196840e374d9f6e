"""A network carried by Langevin steps, overdamped or with inertia: no divergence while sampling, exact weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nessampler.kernels import DiagonalMass, Inertial, Kernel, Langevin, Mass
from nessampler.methods.density.again import moves_state
from nessampler.methods.density.ais import IntervalDiffusion, factors_for
from nessampler.methods.density.annealing import Annealing
from nessampler.methods.density.context import Context
from nessampler.methods.density.counted import CountedDrift, CountedPath
from nessampler.methods.density.nets import NetsTraining, most_effective, tune_diffusion
from nessampler.methods.density.nets_training import ROLLOUT_STEPS, trained
from nessampler.methods.density.scaled_steps import ScaledSteps
from nessampler.methods.density.tuning import Pilot, StepSizes
from nessampler.methods.density.zero_drifts import Untrained, saved_network
from nessampler.networks.field import DriftFields

__all__ = ["RateOfMoves", "langevin_nets", "variance_for"]

TRAINING_FACTOR = 0.2  # so that the steps of a rollout leave walkers weights that a drift can still be judged by
PERSISTENCES, KEPT = (0.0, 0.6, 0.8, 0.9), 0.8  # of momenta; and what training keeps
TUNING_WALKERS = 256


@dataclass(frozen=True)
class RateOfMoves:
    r"""$\varepsilon(t) = c\,\sigma^2 h(t)^2 K / 2$: over K steps of equal length, noise as of MALA's step h.

    Args:
        step_sizes: $h$.
        factor: $c$.
        variance: $\sigma^2$.
        steps: K.

    Example:
        >>> RateOfMoves(StepSizes((0.0, 1.0), (0.5, 0.5)), 1.0, torch.ones(1), steps=32)(0.3)
        tensor([4.])
    """

    step_sizes: StepSizes
    factor: float
    variance: Tensor
    steps: int

    def __call__(self, middle: float) -> Tensor:
        return 0.5 * self.factor * self.steps * self.step_sizes(middle) ** 2 * self.variance


def langevin_nets(
    start: Untrained,
    found: Pilot,
    path: CountedPath,
    x: Tensor,
    context: Context,
    *,
    steps: int,
    state: Mapping[str, Tensor],
    metrics: list[Mapping[str, Any]],
    generator: torch.Generator,
) -> tuple[Annealing, CountedDrift]:
    r"""Train the network on Langevin walkers; then tune their diffusion, or step and persistence, and freeze it all.

    Args:
        start: the network, and its learning rate.
        found: by a pilot of MALA in the mass of `variance_for`: its step is the natural unit of noise.
        x: draws of the base, the last of which no gradient step sees: on these the diffusion is tuned.
        steps: of production, spaced as `found` has it; pilot runs of the training take them too.
        state: of the drift that the network starts from, to be saved with it.
    """
    network, inertial = start.network, context.effort.nets_kernel == "inertial"
    variance, times = variance_for(context.problem.mass, x), found.spaced(steps)
    rate = RateOfMoves(found.step_sizes, TRAINING_FACTOR, variance, ROLLOUT_STEPS)

    def kernel(module: nn.Module) -> Kernel:
        fields = DriftFields(path, module)
        if inertial:
            return Inertial(fields, ScaledSteps(found.step_sizes, TRAINING_FACTOR**0.5, variance), KEPT)
        return Langevin(fields, rate)

    done = trained(
        path,
        x,
        network,
        context,
        kernel=kernel,
        diffusion=rate,
        learning_rate=start.learning_rate,
        pilot_times=times,
        metrics=metrics,
        generator=generator,
    )
    drift = CountedDrift(network, path)
    drift.evaluations[path.current] = done.evaluations or 0
    pilots = x[len(x) - min(TUNING_WALKERS, len(x) // 4) :]
    frozen = (_inertial if inertial else _overdamped)(path, drift, pilots, times, found, variance, generator)
    words = _words(context, done, frozen, len(times) - 1)
    moves = moves_state(times, found.step_sizes, 1)
    annealing = Annealing(
        "nets",
        words,
        frozen.kernel,
        path,
        times,
        dtype=context.problem.dtype,
        state={**state, **moves, **saved_network(network), **frozen.state, "variance": variance},
    )
    return annealing, drift


def variance_for(mass: Mass, x: Float[Tensor, " n *event"]) -> Float[Tensor, " *event"]:
    """Of every coordinate, that noise is scaled by: a diagonal mass knows it, any other leaves it at one.

    Example:
        >>> variance_for(DiagonalMass(torch.tensor([1.0, 4.0])), torch.zeros(3, 2))
        tensor([1., 4.])
    """
    return mass.variance.to(x) if isinstance(mass, DiagonalMass) else torch.ones_like(x[0])


@dataclass(frozen=True)
class _Frozen:
    kernel: Kernel
    state: dict[str, Tensor]
    words: str


def _overdamped(
    path: CountedPath,
    drift: CountedDrift,
    x: Tensor,
    times: tuple[float, ...],
    found: Pilot,
    variance: Tensor,
    generator: torch.Generator,
) -> _Frozen:
    unit = IntervalDiffusion(times, found.step_sizes, 1.0, variance)
    best = tune_diffusion(
        path, x, drift, times, diffusion=unit, factors=factors_for(len(times) - 1), generator=generator
    )
    kernel = Langevin(DriftFields(path, drift), replace(unit, factor=best.factor))
    return _Frozen(kernel, {"diffusion": torch.tensor(best.factor, dtype=torch.float64)}, "Langevin")


def _inertial(
    path: CountedPath,
    drift: CountedDrift,
    x: Tensor,
    times: tuple[float, ...],
    found: Pilot,
    variance: Tensor,
    generator: torch.Generator,
) -> _Frozen:
    def with_(factor: float, kept: float) -> Inertial:
        fields = DriftFields(path, drift)
        return Inertial(fields, ScaledSteps(found.step_sizes, factor**0.5, variance), kept)

    factor, _ = most_effective(
        path, x, times, {f: with_(f, KEPT) for f in factors_for(len(times) - 1)}, generator=generator
    )
    kept, _ = most_effective(path, x, times, {p: with_(factor, p) for p in PERSISTENCES}, generator=generator)
    numbers = {"step_factor": factor**0.5, "persistence": kept}
    state = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    return _Frozen(with_(factor, kept), state, f"inertial Langevin (momenta keep {kept:g})")


def _words(context: Context, done: NetsTraining, frozen: _Frozen, steps: int) -> str:
    start = "zero" if context.effort.nets_start == "zero" else "the closed-form drift"
    return f"network from {start}, {done.steps[-1]} training steps, {steps} steps of {frozen.words}"
